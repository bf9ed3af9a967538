//! What this service counts, as verbs: whoever does something says so in one call. Every metric is described here and
//! nowhere else. Labels are drawn from closed lists.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use roam_schemas::Code;

/// What all names begin with.
const PREFIX: &str = "roam_access_server";

/// The metrics of one access server. Clones are the same metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    validated: Counter,
    rejected: Family<CodeLabel, Counter>,
    foreign: Counter,
    throttled: Counter,
    appended: Counter,
    returned: Counter,
    batch_changes: Histogram,
    batch_bytes: Histogram,
    append_seconds: Histogram,
    failed_appends: Family<KindLabel, Counter>,
    backlog: Gauge,
    paused: Gauge,
    pauses: Counter,
    ahead: Family<ConsumerLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabel {
    consumer: &'static str,
}

impl Metrics {
    /// Describes everything in a registry, once a registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        let registry = registry.sub_registry_with_prefix(PREFIX);
        metrics.describe_changes(registry);
        metrics.describe_appends(registry);
        metrics.describe_gate(registry);
        metrics
    }

    fn new() -> Self {
        Self {
            validated: Counter::default(),
            rejected: Family::default(),
            foreign: Counter::default(),
            throttled: Counter::default(),
            appended: Counter::default(),
            returned: Counter::default(),
            // 1 to 1,000 changes.
            batch_changes: Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]),
            // 256 bytes to 4 MiB.
            batch_bytes: Histogram::new(exponential_buckets(256.0, 4.0, 8)),
            // 0.25 ms to 8 s.
            append_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            failed_appends: Family::default(),
            backlog: Gauge::default(),
            paused: Gauge::default(),
            pauses: Counter::default(),
            ahead: Family::default(),
        }
    }

    fn describe_changes(&self, registry: &mut Registry) {
        registry.register("changes_validated", "Changes that were found valid", self.validated.clone());
        registry.register("changes_rejected", "Changes that were refused for good, by code", self.rejected.clone());
        registry.register(
            "changes_throttled",
            "Changes over the rate of their user, undecided",
            self.throttled.clone(),
        );
        registry.register("messages_foreign", "Messages dropped because they are not ours", self.foreign.clone());
        registry.register("changes_appended", "Changes that are in the journal", self.appended.clone());
        let help = "Deliveries given back to be delivered again";
        registry.register("deliveries_returned", help, self.returned.clone());
    }

    fn describe_appends(&self, registry: &mut Registry) {
        registry.register("batch_changes", "Changes in a batch", self.batch_changes.clone());
        let help = "Size of an encoded batch";
        registry.register_with_unit("batch", help, Unit::Bytes, self.batch_bytes.clone());
        let help = "Time from an append to its PubAck";
        registry.register_with_unit("append", help, Unit::Seconds, self.append_seconds.clone());
        registry.register("appends_failed", "Appends without a PubAck, by kind", self.failed_appends.clone());
    }

    fn describe_gate(&self, registry: &mut Registry) {
        let help = "Journal batches that are not announced yet";
        registry.register("announce_backlog", help, self.backlog.clone());
        registry.register("pulls_paused", "1 while nothing is pulled", self.paused.clone());
        registry.register("pulls_pauses", "How often pulling was paused", self.pauses.clone());
        let help = "1 while a consumer stands ahead of its stream and receives nothing";
        registry.register("consumer_ahead", help, self.ahead.clone());
    }

    /// Changes were found valid.
    pub(crate) fn validated(&self, changes: usize) {
        self.validated.inc_by(changes as u64);
    }

    /// A change was refused, and its refusal filed.
    pub(crate) fn rejected(&self, code: Code) {
        self.rejected.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    /// Changes were turned away because their user is over the rate.
    pub(crate) fn throttled(&self, changes: usize) {
        self.throttled.inc_by(changes as u64);
    }

    /// A message was dropped because it is not ours.
    pub(crate) fn dropped_foreign(&self) {
        self.foreign.inc();
    }

    /// Deliveries were given back.
    pub(crate) fn returned(&self, deliveries: usize) {
        self.returned.inc_by(deliveries as u64);
    }

    /// A batch is on its way to the journal.
    pub(crate) fn batched(&self, changes: usize, bytes: usize) {
        self.batch_changes.observe(changes as f64);
        self.batch_bytes.observe(bytes as f64);
    }

    /// A batch is in the journal.
    pub(crate) fn appended(&self, changes: usize, took: Duration) {
        self.appended.inc_by(changes as u64);
        self.append_seconds.observe(took.as_secs_f64());
    }

    /// An append got no PubAck.
    pub(crate) fn failed_to_append(&self, kind: &'static str) {
        self.failed_appends.get_or_create(&KindLabel { kind }).inc();
    }

    /// The backlog of `announce` was seen, in batches.
    pub(crate) fn saw_backlog(&self, batches: u64) {
        self.backlog.set(i64::try_from(batches).unwrap_or(i64::MAX));
    }

    /// Pulling was paused.
    pub(crate) fn paused(&self) {
        self.paused.set(1);
        self.pauses.inc();
    }

    /// Pulling was resumed.
    pub(crate) fn resumed(&self) {
        self.paused.set(0);
    }

    /// A consumer was compared with its stream.
    pub(crate) fn compared(&self, consumer: &'static str, ahead: bool) {
        self.ahead.get_or_create(&ConsumerLabel { consumer }).set(i64::from(ahead));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_metric_is_printed_under_its_name() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.validated(3);
        metrics.rejected(Code::TooLarge);
        metrics.batched(3, 700);
        metrics.appended(3, Duration::from_millis(2));
        metrics.failed_to_append("busy");
        metrics.saw_backlog(7);
        metrics.paused();
        metrics.compared("access", true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let expected = [
            "changes_validated_total 3",
            "changes_rejected_total{code=\"too_large\"} 1",
            "changes_appended_total 3",
            "batch_changes_count 1",
            "batch_bytes_sum 700.0",
            "append_seconds_count 1",
            "appends_failed_total{kind=\"busy\"} 1",
            "announce_backlog 7",
            "pulls_paused 1",
            "pulls_pauses_total 1",
            "consumer_ahead{consumer=\"access\"} 1",
            "deliveries_returned_total 0",
        ];
        for line in expected {
            assert!(text.contains(&format!("\n{PREFIX}_{line}\n")), "{line} is not in\n{text}");
        }
    }
}
