//! What an operator tunes: plain data. What all replicas must agree on is no setting: it travels in the journal.

use std::path::{Path, PathBuf, absolute};

use roam_nats::{BusSettings, Role};
use roam_process::{Problem, ProcessSettings};
use roam_schemas::{ReplicaName, Shard};
use serde::{Deserialize, Serialize};

use crate::store::StoreSettings;

/// The least that block cache and write buffers need.
const LEAST_MEMORY_MIB: usize = 32;
/// The fewest files that RocksDB can work with.
const FEWEST_FILES: i32 = 64;

/// How much of the digest of its directory is in the name of a replica that was given none.
const DIGEST_DIGITS: usize = 8;

/// The settings of a storage replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What every process has.
    pub process: ProcessSettings,
    /// How to reach the bus.
    pub bus: BusSettings,
    /// The name of this replica, by which operators call it. No two replicas have the same. None: one made of the name of
    /// the machine and the directory.
    pub name: Option<ReplicaName>,
    /// The shard that this replica is of, from 0. Its directory is of that one for ever.
    pub shard: u16,
    /// How many shards the deployment was provisioned with.
    pub shards: u16,
    /// The file of the nkey seed that the responder signs in with, whose permissions let it do nothing but answer. All else
    /// about its connection is as in `bus`; without it so is this.
    pub responder_seed: Option<PathBuf>,
    /// The directory of this replica. No two replicas share one.
    pub directory: PathBuf,
    /// How the store uses the machine.
    pub store: StoreSettings,
    /// How much the responder may keep of what it answered, in MiB; 0: nothing.
    pub answers_mib: usize,
    /// What becomes of backups.
    pub backup: BackupSettings,
}

/// Where backups of this replica go, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSettings {
    /// The directory that they are kept in; none: the bucket on the bus.
    pub directory: Option<PathBuf>,
    /// How many hours old the newest may be before the replica that announces makes another; 0: none is made by itself.
    pub every: u32,
    /// How many stay when one was made by itself.
    pub keep: usize,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self { directory: None, every: 0, keep: 7 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            process: ProcessSettings::on_port(9602),
            bus: BusSettings::default(),
            name: None,
            shard: 0,
            shards: 1,
            responder_seed: None,
            directory: PathBuf::from("roam-storage-data"),
            store: StoreSettings::default(),
            answers_mib: 32,
            backup: BackupSettings::default(),
        }
    }
}

impl Settings {
    /// What operators call this replica.
    pub fn replica_name(&self) -> ReplicaName {
        self.name.clone().unwrap_or_else(|| {
            let host = rustix::system::uname();
            named_after(host.nodename().to_str().unwrap_or_default(), &self.directory)
        })
    }

    /// The shard, of valid settings.
    pub(crate) fn shard(&self) -> Shard {
        Shard::new(self.shard, self.shards).unwrap_or_default()
    }

    /// How the responder reaches the bus.
    pub(crate) fn responding(&self) -> BusSettings {
        match &self.responder_seed {
            None => self.bus.clone().signed_in_as(Role::Storage),
            Some(seed) => {
                let bus = BusSettings { nkey_seed: Some(seed.clone()), inbox_prefix: None, ..self.bus.clone() };
                bus.signed_in_as(Role::Responder)
            }
        }
    }
}

/// A name for the replica in this directory of this machine.
fn named_after(host: &str, directory: &Path) -> ReplicaName {
    let place = absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let digest = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
    ReplicaName::parse(format!("{host}-{}", &digest[..DIGEST_DIGITS])).unwrap_or_default()
}

impl roam_process::Settings for Settings {
    const ABOUT: &'static str = "Applies the journal to RocksDB, tells devices what was saved, and answers latest";
    const EXAMPLE: &'static str = include_str!("../storage.example.toml");

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        let bus = self.bus.problems().into_iter();
        let mut problems: Vec<_> = bus.map(|problem| Problem::new("bus", format!("is wrong: {problem}"))).collect();
        let shard = Shard::new(self.shard, self.shards);
        problems.extend(shard.err().map(|error| Problem::new(error.setting(), error.requirement())));
        if self.directory.as_os_str().is_empty() {
            problems.push(Problem::new("directory", "must not be empty"));
        }
        let StoreSettings { memory_mib, open_files } = self.store;
        if memory_mib < LEAST_MEMORY_MIB {
            let message = format!("must be at least {LEAST_MEMORY_MIB}, not {memory_mib}");
            problems.push(Problem::new("store.memory_mib", message));
        }
        if open_files < FEWEST_FILES {
            let message = format!("must be at least {FEWEST_FILES}, not {open_files}");
            problems.push(Problem::new("store.open_files", message));
        }
        if self.backup.keep == 0 {
            problems.push(Problem::new("backup.keep", "must be at least 1, not 0"));
        }
        if self.backup.directory.as_ref().is_some_and(|directory| directory.starts_with(&self.directory)) {
            problems.push(Problem::new("backup.directory", "must not lie in the directory of the replica"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use roam_process::{Settings as _, settings::check_example};

    use std::path::Path;

    use super::{Settings, named_after};

    #[test]
    fn the_example_is_the_defaults() {
        check_example::<Settings>().unwrap();
    }

    #[test]
    fn a_shard_is_one_of_those_that_there_are() {
        let problems = |shard, shards| Settings { shard, shards, ..Settings::default() }.validate().len();
        assert_eq!([problems(3, 4), problems(4, 4), problems(0, 0)], [0, 1, 1]);
    }

    #[test]
    fn replicas_that_were_given_no_name_have_different_ones() {
        let [one, same, elsewhere, there] = [("a", "/x"), ("a", "/x"), ("a", "/y"), ("b", "/x")]
            .map(|(host, directory)| named_after(host, Path::new(directory)));
        assert_eq!(one, same);
        assert!(one != elsewhere && one != there && elsewhere != there, "{one} {elsewhere} {there}");
        assert!(one.as_str().starts_with("a-"), "{one}");
    }
}
