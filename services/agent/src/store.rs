//! What the agent knows between two runs, in one database: what each profile held when it was last heard of, where to go
//! on from, and what file and profile last agreed on. Edits that are not published are not in here: they stand in the
//! files, which is where a crash cannot take them away.

use std::{collections::BTreeMap, path::Path};

use redb::{Database, ReadableDatabase, TableDefinition};
use roam_schemas::{Cursor, Key, Record, Revision, State};
use serde::{Deserialize, Serialize};

use crate::reconcile::{Digest, Held};

type ByKey<'a> = TableDefinition<'a, (&'static str, &'static str), &'static [u8]>;

/// (app, key) -> what the profile holds: [`RemoteRow`] in postcard. Rows of deleted keys stay, for their revision.
const REMOTE: ByKey<'_> = TableDefinition::new("remote-1");
/// (app, key) -> the value that file and profile last agreed on.
const BASE: ByKey<'_> = TableDefinition::new("base-1");
/// (app, key) -> what could not be published and why: [`Parked`] in postcard.
const PARKED: ByKey<'_> = TableDefinition::new("parked-1");
/// app -> the cursor from which to go on, as text.
const CURSOR: TableDefinition<'_, &'static str, &'static str> = TableDefinition::new("cursor-1");

/// The row of a key in the profile. Persisted: never reorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RemoteRow {
    revision: Revision,
    value: Option<Vec<u8>>,
}

/// A value that the system refused for good. It is not sent again until it changes, or somebody asks for it. Persisted:
/// never reorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parked {
    /// The contents that were refused; none for a deletion.
    pub(crate) digest: Option<[u8; 32]>,
    /// The code and the text of the refusal.
    pub(crate) reason: String,
}

/// What is known of a profile, values left out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) base: BTreeMap<Key, Digest>,
    pub(crate) remote: BTreeMap<Key, Held>,
    pub(crate) parked: BTreeMap<Key, Parked>,
    /// None before the profile was heard of for the first time.
    pub(crate) cursor: Option<Cursor>,
}

/// What file and profile agree on from now on.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) key: Key,
    /// None: that there is nothing.
    pub(crate) value: Option<Vec<u8>>,
    /// The revision that made the profile agree, if this device made it.
    pub(crate) revision: Option<Revision>,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened: another agent may have it open.
    #[error("{path} cannot be opened (does another agent run?)")]
    Open {
        /// Where it is.
        path: String,
        /// What the engine said.
        source: Box<redb::Error>,
    },
    /// It cannot be read or written.
    #[error("the agent's database cannot be used")]
    Engine(#[source] Box<redb::Error>),
    /// A row is not what was written.
    #[error("the agent's database holds a row that cannot be read")]
    Damaged,
}

macro_rules! from_engine {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Engine(Box::new(error.into()))
            }
        }
    )*};
}
from_engine!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// The database of an agent.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens it, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed =
            |error: redb::Error| StoreError::Open { path: path.display().to_string(), source: Box::new(error) };
        let database = Database::create(path).map_err(|error| failed(error.into()))?;
        let store = Self { database };
        let write = store.database.begin_write()?;
        for table in [REMOTE, BASE, PARKED] {
            write.open_table(table)?;
        }
        write.open_table(CURSOR)?;
        write.commit()?;
        Ok(store)
    }

    /// Everything that is known of a profile, values left out.
    pub(crate) fn known(&self, app: &str) -> Result<Known, StoreError> {
        let cursor =
            self.database.begin_read()?.open_table(CURSOR)?.get(app)?.map(|text| Cursor::from_text(text.value()));
        let mut known = Known { cursor: cursor.transpose().map_err(|_| StoreError::Damaged)?, ..Known::default() };
        self.each(BASE, app, |key, value| {
            known.base.insert(key, blake3::hash(value));
            Ok(())
        })?;
        self.each(REMOTE, app, |key, value| {
            let row: RemoteRow = decode(value)?;
            known
                .remote
                .insert(key, Held { revision: row.revision, value: row.value.map(|value| blake3::hash(&value)) });
            Ok(())
        })?;
        self.each(PARKED, app, |key, value| {
            known.parked.insert(key, decode(value)?);
            Ok(())
        })?;
        Ok(known)
    }

    /// The values that file and profile last agreed on.
    pub(crate) fn base(&self, app: &str) -> Result<BTreeMap<Key, Vec<u8>>, StoreError> {
        let mut base = BTreeMap::new();
        self.each(BASE, app, |key, value| {
            base.insert(key, value.to_vec());
            Ok(())
        })?;
        Ok(base)
    }

    /// The value that the profile holds under a key.
    pub(crate) fn remote_value(&self, app: &str, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.database.begin_read()?.open_table(REMOTE)?;
        let row = table.get((app, key.as_str()))?.map(|row| decode::<RemoteRow>(row.value())).transpose()?;
        Ok(row.and_then(|row| row.value))
    }

    /// Takes in what the profile holds now, newer than what is known, and from where to go on; `whole` if that is all it
    /// holds, so that whatever else was known of it is gone.
    pub(crate) fn hear(
        &self,
        app: &str,
        known: &mut Known,
        records: &[Record],
        cursor: Cursor,
        whole: bool,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut remote = write.open_table(REMOTE)?;
            if whole {
                for (key, _) in std::mem::take(&mut known.remote) {
                    remote.remove((app, key.as_str()))?;
                }
            }
            for record in records {
                if known.remote.get(&record.key).is_some_and(|held| held.revision > record.revision) {
                    continue;
                }
                let value = match &record.state {
                    State::Value(stored) => Some(stored.value.as_bytes().to_vec()),
                    State::Deleted | State::Expired => None,
                };
                let held = Held { revision: record.revision, value: value.as_deref().map(blake3::hash) };
                let row = encode(&RemoteRow { revision: record.revision, value })?;
                remote.insert((app, record.key.as_str()), row.as_slice())?;
                known.remote.insert(record.key.clone(), held);
            }
            write.open_table(CURSOR)?.insert(app, cursor.to_text().as_str())?;
        }
        write.commit()?;
        known.cursor = Some(cursor);
        Ok(())
    }

    /// Remembers what file and profile agree on.
    pub(crate) fn agree(&self, app: &str, known: &mut Known, agreed: Vec<Agreed>) -> Result<(), StoreError> {
        if agreed.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let (mut base, mut remote) = (write.open_table(BASE)?, write.open_table(REMOTE)?);
            let mut parked = write.open_table(PARKED)?;
            for Agreed { key, value, revision } in agreed {
                let digest = value.as_deref().map(blake3::hash);
                let at = (app, key.as_str());
                match &value {
                    Some(value) => drop(base.insert(at, value.as_slice())?),
                    None => drop(base.remove(at)?),
                }
                if known.parked.remove(&key).is_some() {
                    parked.remove(at)?;
                }
                if let Some(revision) = revision {
                    remote.insert(at, encode(&RemoteRow { revision, value })?.as_slice())?;
                    known.remote.insert(key.clone(), Held { revision, value: digest });
                }
                match digest {
                    Some(digest) => drop(known.base.insert(key, digest)),
                    None => drop(known.base.remove(&key)),
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Puts a refused value aside.
    pub(crate) fn park(&self, app: &str, known: &mut Known, key: Key, parked: Parked) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write.open_table(PARKED)?.insert((app, key.as_str()), encode(&parked)?.as_slice())?;
        write.commit()?;
        known.parked.insert(key, parked);
        Ok(())
    }

    /// Forgets what was put aside.
    pub(crate) fn unpark(&self, app: &str, known: &mut Known) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        for key in known.parked.keys() {
            write.open_table(PARKED)?.remove((app, key.as_str()))?;
        }
        write.commit()?;
        known.parked.clear();
        Ok(())
    }

    fn each(
        &self,
        table: ByKey<'_>,
        app: &str,
        mut row: impl FnMut(Key, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let table = self.database.begin_read()?.open_table(table)?;
        for entry in table.range((app, "")..)? {
            let (at, value) = entry?;
            let (owner, key) = at.value();
            if owner != app {
                break;
            }
            row(Key::parse(key).map_err(|_| StoreError::Damaged)?, value.value())?;
        }
        Ok(())
    }
}

fn encode(row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(row).map_err(|_| StoreError::Damaged)
}

fn decode<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, StoreError> {
    postcard::from_bytes(row).map_err(|_| StoreError::Damaged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{App, ContentType, Device, Profile, Stored, Tenant, Timestamp, User, Value};

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn record(name: &str, revision: u64, value: Option<&str>) -> Record {
        let stored = |text: &str| Stored { value: Value::new(text), content_type: ContentType::text(), expires: None };
        Record {
            key: key(name),
            revision: Revision::new(revision),
            time: Timestamp::default(),
            device: Device::parse("phone").unwrap(),
            conflict: false,
            state: value.map_or(State::Deleted, |text| State::Value(stored(text))),
        }
    }

    fn cursor(revision: u64) -> Cursor {
        let profile = Profile {
            tenant: Tenant::parse("acme").unwrap(),
            user: User::parse("alice").unwrap(),
            app: App::parse("a").unwrap(),
        };
        Cursor::new(&profile, Revision::new(revision), Timestamp::default())
    }

    #[test]
    fn what_was_heard_and_agreed_on_is_known_after_a_restart_and_apps_are_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.redb");
        let mut known = Known::default();
        {
            let store = Store::open(&path).unwrap();
            let records = [record("k", 3, Some("new")), record("gone", 2, None)];
            store.hear("a", &mut known, &records, cursor(3), false).unwrap();
            store.hear("a", &mut known, &[record("k", 1, Some("old"))], cursor(3), false).unwrap();
            let agreed = |name: &str, value: Option<&str>, revision| Agreed {
                key: key(name),
                value: value.map(|text| text.as_bytes().to_vec()),
                revision,
            };
            let of = vec![agreed("k", Some("new"), None), agreed("mine", Some("x"), Some(Revision::new(4)))];
            store.agree("a", &mut known, of).unwrap();
            let parked = Parked { digest: None, reason: "too_large".to_owned() };
            store.park("a", &mut known, key("big"), parked).unwrap();
        }
        let store = Store::open(&path).unwrap();
        let again = store.known("a").unwrap();
        assert_eq!((&again.base, &again.remote, &again.parked), (&known.base, &known.remote, &known.parked));
        assert_eq!(again.cursor, Some(cursor(3)));
        assert_eq!(again.remote[&key("mine")].revision, Revision::new(4));
        assert_eq!(store.remote_value("a", &key("k")).unwrap().unwrap(), b"new");
        for other in ["", "A", "b", "a\0"] {
            let known = store.known(other).unwrap();
            assert!(known.base.is_empty() && known.remote.is_empty() && known.cursor.is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_whole_state_of_a_profile_replaces_what_was_known() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("agent.redb")).unwrap();
        let mut known = Known::default();
        store
            .hear("a", &mut known, &[record("old", 9, Some("x")), record("k", 9, Some("x"))], cursor(9), false)
            .unwrap();
        store.hear("a", &mut known, &[record("k", 2, Some("y"))], cursor(2), true).unwrap();
        assert_eq!(known.remote.keys().map(Key::as_str).collect::<Vec<_>>(), ["k"]);
        assert_eq!(store.known("a").unwrap().remote, known.remote);
    }

    #[test]
    fn a_second_agent_on_the_same_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.redb");
        let _first = Store::open(&path).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    }
}
