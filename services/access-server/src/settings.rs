//! What an operator tunes: plain data. What the protocol fixes is in `roam_schemas::limits`.

use roam_nats::BusSettings;
use roam_process::{Problem, ProcessSettings};
use roam_schemas::{RULES, Shard, TenantQuota, Terms};
use serde::{Deserialize, Serialize};

use crate::{Rate, TenantRate};

/// Most appends in flight that can be set.
const MOST_APPENDS: usize = 64;
/// Most changes that can be asked for ahead.
const MOST_PREFETCH: usize = 10_000;

/// The settings of an access server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What every process has.
    pub process: ProcessSettings,
    /// How to reach the bus.
    pub bus: BusSettings,
    /// Which shard this server takes changes of, from 0.
    pub shard: u16,
    /// How many shards the deployment was provisioned with.
    pub shards: u16,
    /// How many batches may be on their way to the journal at once, 1 to 64.
    pub appends: usize,
    /// How many changes are asked for ahead, 1 to 10,000. When this server is killed, as many come late.
    pub prefetch: usize,
    /// The rules that batches are decided under. Raise it once all replicas know them.
    pub rules: u16,
    /// The terms that batches are decided under.
    pub terms: Terms,
    /// Tenants with a quota of their own, each once.
    pub quotas: Vec<TenantQuota>,
    /// How many changes each user may publish, to each access server.
    pub rate: Rate,
    /// Tenants whose users have a rate of their own, each once.
    pub rates: Vec<TenantRate>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            process: ProcessSettings::on_port(9601),
            bus: BusSettings::default(),
            shard: 0,
            shards: 1,
            appends: 4,
            prefetch: 2_000,
            rules: RULES,
            terms: Terms::default(),
            quotas: Vec::new(),
            rate: Rate::default(),
            rates: Vec::new(),
        }
    }
}

impl roam_process::Settings for Settings {
    const ABOUT: &'static str =
        "Validates and stamps the changes that devices publish, and appends them to the journal";
    const EXAMPLE: &'static str = include_str!("../access-server.example.toml");

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = self
            .bus
            .problems()
            .into_iter()
            .map(|problem| Problem::new("bus", format!("is wrong: {problem}")))
            .collect();
        let mut within = |path: &str, value: usize, most: usize| {
            if !(1..=most).contains(&value) {
                problems.push(Problem::new(path, format!("must be from 1 to {most}, not {value}")));
            }
        };
        within("appends", self.appends, MOST_APPENDS);
        within("prefetch", self.prefetch, MOST_PREFETCH);
        within("rules", self.rules.into(), RULES.into());
        let shard = Shard::new(self.shard, self.shards);
        problems.extend(shard.err().map(|error| Problem::new(error.setting(), error.requirement())));
        problems.extend(self.problems_of_terms());
        problems.extend(self.problems_of_quotas());
        problems.extend(self.problems_of_rates());
        problems
    }
}

impl Settings {
    /// The shard, of valid settings.
    pub(crate) fn shard(&self) -> Shard {
        Shard::new(self.shard, self.shards).unwrap_or_default()
    }

    /// A term of zero would make every replica forget at once what it was told.
    fn problems_of_terms(&self) -> Vec<Problem> {
        let Terms { seen_seconds, tombstone_seconds, history_seconds, .. } = self.terms;
        let Terms { history_versions, profile_records, profile_bytes, user_profiles, .. } = self.terms;
        let terms = [
            ("terms.seen_seconds", seen_seconds),
            ("terms.tombstone_seconds", tombstone_seconds),
            ("terms.history_seconds", history_seconds),
            ("terms.history_versions", history_versions.into()),
            ("terms.profile_records", profile_records),
            ("terms.profile_bytes", profile_bytes),
            ("terms.user_profiles", user_profiles.into()),
        ];
        let zero = terms.into_iter().filter(|(_, value)| *value == 0);
        zero.map(|(path, _)| Problem::new(path, "must be at least 1, not 0")).collect()
    }

    fn problems_of_rates(&self) -> Vec<Problem> {
        let twice = self
            .rates
            .iter()
            .enumerate()
            .filter(|(index, own)| self.rates[..*index].iter().any(|before| before.tenant == own.tenant));
        let named = |tenant: &str| Problem::new("rates", format!("names tenant {tenant} twice"));
        twice.map(|(_, own)| named(own.tenant.as_str())).collect()
    }

    fn problems_of_quotas(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, own) in self.quotas.iter().enumerate() {
            let tenant = own.tenant.as_str();
            if self.quotas[..index].iter().any(|before| before.tenant == own.tenant) {
                problems.push(Problem::new("quotas", format!("names tenant {tenant} twice")));
            }
            if own.profile_records == 0 || own.profile_bytes == 0 || own.user_profiles == 0 {
                problems.push(Problem::new("quotas", format!("must be at least 1, not 0, for tenant {tenant}")));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_process::Settings as _;

    use super::*;

    fn problems(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_is_the_defaults() {
        roam_process::settings::check_example::<Settings>().unwrap();
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn rules_that_this_build_does_not_know_are_refused() {
        assert_eq!(problems(|settings| settings.rules = RULES + 1).len(), 1);
        assert_eq!(problems(|settings| settings.rules = 0).len(), 1);
    }

    #[test]
    fn a_shard_is_one_of_those_that_there_are() {
        for (shard, shards, wrong) in [(3, 4, 0), (4, 4, 1), (0, 0, 1), (0, 65, 1)] {
            let found = problems(|settings| (settings.shard, settings.shards) = (shard, shards));
            assert_eq!(found.len(), wrong, "{found:?}");
        }
    }

    #[test]
    fn a_tenant_has_one_quota_and_it_is_not_zero() {
        let quota = |tenant: &str, profile_records| TenantQuota {
            tenant: roam_schemas::Tenant::parse(tenant).unwrap(),
            profile_records,
            profile_bytes: 1,
            user_profiles: 1,
        };
        assert_eq!(problems(|settings| settings.quotas = vec![quota("a", 1), quota("b", 2)]), Vec::<String>::new());
        assert_eq!(problems(|settings| settings.quotas = vec![quota("a", 1), quota("a", 0)]).len(), 2);
    }

    #[test]
    fn a_tenant_has_one_rate() {
        let own = |tenant: &str| {
            let tenant = roam_schemas::Tenant::parse(tenant).unwrap();
            TenantRate { tenant, changes_per_second: 1, burst: 1 }
        };
        assert_eq!(problems(|settings| settings.rates = vec![own("a"), own("b")]), Vec::<String>::new());
        assert_eq!(problems(|settings| settings.rates = vec![own("a"), own("a")]).len(), 1);
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let found = problems(|settings| {
            settings.appends = 0;
            settings.prefetch = MOST_PREFETCH + 1;
            settings.terms.seen_seconds = 0;
            settings.bus.servers.clear();
        });
        for path in ["appends", "prefetch", "terms.seen_seconds", "bus"] {
            assert!(found.iter().any(|problem| problem.starts_with(path)), "{path} is not in {found:?}");
        }
        assert_eq!(found.len(), 4);
    }
}
