//! What this service counts, as verbs: whoever does something says so in one call. Every metric is described here and
//! nowhere else. Labels are drawn from closed lists.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The metrics of one auth service. Clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    answered: Family<OutcomeLabel, Counter>,
    answer_seconds: Histogram,
    ignored: Counter,
    ended: Counter,
    audit_lost: Counter,
    fetches: Family<OutcomeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    /// Describes everything in a registry, once a registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            answered: Family::default(),
            // 50 us to 0.8 s.
            answer_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 15)),
            ignored: Counter::default(),
            ended: Counter::default(),
            audit_lost: Counter::default(),
            fetches: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("roam_auth");
        registry.register("answers", "Questions of servers that were answered, by outcome", metrics.answered.clone());
        let help = "How long an answer takes, from the question on";
        registry.register_with_unit("answer", help, Unit::Seconds, metrics.answer_seconds.clone());
        registry.register("questions_ignored", "Questions that no server asked", metrics.ignored.clone());
        registry.register("connections_ended", "Connections of revoked tokens that were ended", metrics.ended.clone());
        registry.register("audit_lost", "Events that are not in the audit", metrics.audit_lost.clone());
        let help = "How often OpenID Connect providers were asked for their keys, by outcome";
        registry.register("provider_fetches", help, metrics.fetches.clone());
        metrics
    }

    /// A question was answered.
    pub(crate) fn answered(&self, outcome: &'static str, took: Duration) {
        self.answered.get_or_create(&OutcomeLabel { outcome }).inc();
        self.answer_seconds.observe(took.as_secs_f64());
    }

    /// A question was not answered, because no server asked it.
    pub(crate) fn ignored(&self) {
        self.ignored.inc();
    }

    /// A connection was ended.
    pub(crate) fn ended(&self) {
        self.ended.inc();
    }

    /// A provider was asked for its keys.
    pub(crate) fn fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Events did not get into the audit.
    pub(crate) fn audit_lost(&self, events: u64) {
        self.audit_lost.inc_by(events);
    }
}
