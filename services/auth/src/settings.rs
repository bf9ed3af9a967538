//! What an operator tunes: plain data.

use std::path::{Path, PathBuf};

use roam_nats::{BusSettings, Role};
use roam_process::{Problem, ProcessSettings};
use roam_schemas::Shards;
use serde::{Deserialize, Serialize};

use crate::{ProviderSettings, VerifyingKey};

/// The settings of an auth service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What every process has.
    pub process: ProcessSettings,
    /// How to reach the bus, in the account AUTH.
    pub bus: BusSettings,
    /// How many shards the deployment was provisioned with: permissions name the shard of each user.
    pub shards: u16,
    /// The file of the account nkey seed that answers to the servers are signed with.
    pub issuer_seed: PathBuf,
    /// The file of the nkey seed for the system account. All else about that connection is as in `bus`.
    pub system_seed: PathBuf,
    /// The file of the nkey seed for the account of the journal, where orders of operators are read.
    pub auditor_seed: PathBuf,
    /// The public account nkeys of whoever may sign tokens.
    pub signers: Vec<String>,
    /// OpenID Connect providers whose tokens are good as well, each once.
    pub providers: Vec<ProviderSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            process: ProcessSettings::on_port(9604),
            bus: BusSettings::default(),
            shards: 1,
            issuer_seed: "/etc/roam/issuer.nk".into(),
            system_seed: "/etc/roam/auth-system.nk".into(),
            auditor_seed: "/etc/roam/auditor.nk".into(),
            signers: Vec::new(),
            providers: Vec::new(),
        }
    }
}

impl Settings {
    fn problems_of_providers(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, provider) in self.providers.iter().enumerate() {
            let found = provider.problems();
            problems.extend(found.into_iter().map(|text| Problem::new(format!("providers[{index}]"), text)));
            if self.providers[..index].iter().any(|before| before.issuer == provider.issuer) {
                problems.push(Problem::new("providers", format!("names issuer {:?} twice", provider.issuer)));
            }
        }
        problems
    }

    /// How many shards there are, of valid settings.
    pub(crate) fn shards(&self) -> Shards {
        Shards::new(self.shards).unwrap_or_default()
    }

    /// How to reach the bus, in the system account.
    pub(crate) fn system_bus(&self) -> BusSettings {
        self.bus_as(Role::AuthSystem, &self.system_seed)
    }

    /// How to reach the bus, in the account of the journal.
    pub(crate) fn journal_bus(&self) -> BusSettings {
        self.bus_as(Role::Auditor, &self.auditor_seed)
    }

    fn bus_as(&self, role: Role, seed: &Path) -> BusSettings {
        let bus = BusSettings { nkey_seed: Some(seed.to_owned()), inbox_prefix: None, ..self.bus.clone() };
        bus.signed_in_as(role)
    }
}

impl roam_process::Settings for Settings {
    const ABOUT: &'static str = "Tells the NATS servers who may come in, and what they may do";
    const EXAMPLE: &'static str = include_str!("../auth.example.toml");

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        let wrong = |problem| Problem::new("bus", format!("is wrong: {problem}"));
        let mut problems: Vec<_> = self.bus.problems().into_iter().map(wrong).collect();
        let bad = self.signers.iter().filter(|key| VerifyingKey::parse(key).is_err());
        problems
            .extend(bad.map(|key| Problem::new("signers", format!("holds {key:?}, which is no public account nkey"))));
        let shards = Shards::new(self.shards);
        problems.extend(shards.err().map(|error| Problem::new(error.setting(), error.requirement())));
        problems.extend(self.problems_of_providers());
        problems
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_process::Settings as _;

    use super::*;

    #[test]
    fn the_example_is_the_defaults() {
        roam_process::settings::check_example::<Settings>().unwrap();
    }

    #[test]
    fn a_signer_that_is_no_account_key_is_refused_and_a_seed_is_not_shown() {
        let user = nkeys::KeyPair::new_user().public_key();
        let settings = Settings { signers: vec![user], ..Settings::default() };
        assert_eq!(settings.validate().len(), 1);
        let settings = Settings { signers: vec![nkeys::KeyPair::new_account().public_key()], ..Settings::default() };
        assert_eq!(settings.validate(), []);
    }
}
