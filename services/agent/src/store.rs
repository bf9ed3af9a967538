//! What the agent knows between two runs, in one database: what each profile held when it was last heard of, where to go
//! on from, and what file and profile last agreed on. Edits that are not published are not in here: they stand in the
//! files, which is where a crash cannot take them away.

mod deletions;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use redb::{
    Database, DatabaseError, Durability, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, TableDefinition,
    TableError,
};
use roam_schemas::{Cursor, Key, Manifest, Record, Revision, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    content::Content,
    reconcile::{Digest, Held},
};

type ByKey<'a> = TableDefinition<'a, (&'static str, &'static str), &'static [u8]>;
/// A table of that kind in a transaction.
type Rows<'t> = redb::Table<'t, (&'static str, &'static str), &'static [u8]>;

/// Of so many records at once it is synced that they were heard.
const HEARD_SYNCED: usize = 100;

/// How long somebody may read the database of an agent that does not run yet, and how often it is looked whether they are done.
const READ_FOR: Duration = Duration::from_secs(2);
const READ_AGAIN: Duration = Duration::from_millis(10);

/// (app, key) -> what the profile holds: [`RemoteRow`] in postcard. Rows of deleted keys stay, for their revision. The row of
/// a large value has no value: its manifest is in [`REMOTE_LARGE`].
const REMOTE: ByKey<'_> = TableDefinition::new("remote-1");
/// (app, key) -> the manifest of the large value that the profile holds, as its record has it.
const REMOTE_LARGE: ByKey<'_> = TableDefinition::new("remote-large-1");
/// (app, key) -> the value that file and profile last agreed on, unless it is a large one.
const BASE: ByKey<'_> = TableDefinition::new("base-1");
/// (app, key) -> the hash of the large value that file and profile last agreed on.
const BASE_LARGE: ByKey<'_> = TableDefinition::new("base-large-1");
/// (app, key) -> what could not be published and why: [`Parked`] in postcard.
const PARKED: ByKey<'_> = TableDefinition::new("parked-1");
/// (app, key) -> the contents that were parked and let go: [`Dropped`] in postcard. They are published no more, until they
/// change.
const DROPPED: ByKey<'_> = TableDefinition::new("dropped-1");
/// (app, key) -> when it was deleted, if that was lately: nanoseconds since 1970, little-endian.
const DELETED: ByKey<'_> = TableDefinition::new("deleted-1");
/// The apps of which deletions are held back.
const HELD_BACK: TableDefinition<'_, &'static str, ()> = TableDefinition::new("held-back-1");
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

/// Of what was let go, the contents; none for a deletion. Persisted.
type Dropped = Option<[u8; 32]>;

/// What is known of a profile, values left out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) base: BTreeMap<Key, Digest>,
    pub(crate) remote: BTreeMap<Key, Held>,
    pub(crate) parked: BTreeMap<Key, Parked>,
    pub(crate) dropped: BTreeMap<Key, Dropped>,
    /// What was deleted lately on either side, and when, unless somebody confirmed it.
    pub(crate) deleted: BTreeMap<Key, Timestamp>,
    /// When something was deleted last. This process alone knows it, and the next.
    pub(crate) deleting: Option<Timestamp>,
    /// What was made since the first of those deletions, and when the last one was then.
    pub(crate) made: BTreeMap<Key, Timestamp>,
    /// Whether deletions are held back.
    pub(crate) holds_back: bool,
    /// None before the profile was heard of for the first time.
    pub(crate) cursor: Option<Cursor>,
}

impl Known {
    /// The highest revision that was heard of.
    pub(crate) fn revision(&self) -> Revision {
        self.remote.values().map(|held| held.revision).max().unwrap_or_default()
    }
}

/// What file and profile agree on from now on.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// The key as the files have it.
    pub(crate) key: Key,
    /// None: that there is nothing.
    pub(crate) value: Option<Content>,
    /// What this device wrote to make the profile agree, if it did: the key of the record, and the revision.
    pub(crate) written: Option<(Key, Revision)>,
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
from_engine!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError, redb::SetDurabilityError);

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
        let until = Instant::now() + READ_FOR;
        let made = roam_client::make_whole(
            path,
            |new| Database::create(new).map(drop),
            |error| redb::StorageError::Io(error).into(),
        );
        made.map_err(|error| failed(error.into()))?;
        let database = loop {
            match Database::create(path) {
                // Somebody may ask how an agent stood that does not run, which takes a moment.
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => thread::park_timeout(READ_AGAIN),
                database => break database.map_err(|error| failed(error.into()))?,
            }
        };
        let store = Self { database };
        let write = store.database.begin_write()?;
        for table in [REMOTE, REMOTE_LARGE, BASE, BASE_LARGE, PARKED, DROPPED, DELETED] {
            write.open_table(table)?;
        }
        write.open_table(CURSOR)?;
        write.open_table(HELD_BACK)?;
        write.commit()?;
        Ok(store)
    }

    /// Everything that is known of a profile, values left out.
    pub(crate) fn known(&self, app: &str) -> Result<Known, StoreError> {
        known(&self.database.begin_read()?, app)
    }

    /// The values that file and profile last agreed on, those of large files left out.
    pub(crate) fn base(&self, app: &str) -> Result<BTreeMap<Key, Vec<u8>>, StoreError> {
        let mut base = BTreeMap::new();
        each(&self.database.begin_read()?, BASE, app, |key, value| {
            base.insert(key, value.to_vec());
            Ok(())
        })?;
        Ok(base)
    }

    /// What the profile holds under the key of a record.
    pub(crate) fn remote(&self, app: &str, key: &Key) -> Result<Option<Content>, StoreError> {
        let read = self.database.begin_read()?;
        if let Some(row) = read.open_table(REMOTE_LARGE)?.get((app, key.as_str()))? {
            return Ok(Some(Content::Large(manifest(row.value())?)));
        }
        let table = read.open_table(REMOTE)?;
        let row = table.get((app, key.as_str()))?.map(|row| decode::<RemoteRow>(row.value())).transpose()?;
        Ok(row.and_then(|row| row.value).map(Content::Whole))
    }

    /// Takes in what the profile holds now, newer than what is known, and from where to go on; `whole` if that is all it
    /// holds, so that whatever else was known of it is gone.
    ///
    /// It need not survive a power cut by itself: what is lost is heard again. So only much of it is synced at once; the
    /// rest is with the next commit that is.
    pub(crate) fn hear(
        &self,
        app: &str,
        known: &mut Known,
        records: &[Record],
        cursor: Cursor,
        whole: bool,
    ) -> Result<(), StoreError> {
        let mut write = self.database.begin_write()?;
        if !whole && records.len() < HEARD_SYNCED {
            write.set_durability(Durability::None)?;
        }
        {
            let (mut remote, mut large) = (write.open_table(REMOTE)?, write.open_table(REMOTE_LARGE)?);
            if whole {
                for (key, _) in std::mem::take(&mut known.remote) {
                    remote.remove((app, key.as_str()))?;
                    large.remove((app, key.as_str()))?;
                }
            }
            for record in records {
                if known.remote.get(&record.key).is_some_and(|held| held.revision > record.revision) {
                    continue;
                }
                let value = Content::of(record);
                let held = Held { revision: record.revision, value: value.as_ref().map(Content::digest) };
                put_remote(&mut remote, &mut large, (app, record.key.as_str()), record.revision, value.as_ref())?;
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
            let (mut base, mut base_large) = (write.open_table(BASE)?, write.open_table(BASE_LARGE)?);
            let (mut remote, mut remote_large) = (write.open_table(REMOTE)?, write.open_table(REMOTE_LARGE)?);
            let (mut parked, mut dropped) = (write.open_table(PARKED)?, write.open_table(DROPPED)?);
            for Agreed { key, value, written } in agreed {
                let digest = value.as_ref().map(Content::digest);
                let at = (app, key.as_str());
                match &value {
                    Some(Content::Whole(value)) => {
                        base.insert(at, value.as_slice())?;
                        base_large.remove(at)?;
                    }
                    Some(Content::Large(manifest)) => {
                        base_large.insert(at, manifest.hash.as_bytes().as_slice())?;
                        base.remove(at)?;
                    }
                    None => {
                        base.remove(at)?;
                        base_large.remove(at)?;
                    }
                }
                if known.parked.remove(&key).is_some() {
                    parked.remove(at)?;
                }
                if known.dropped.remove(&key).is_some() {
                    dropped.remove(at)?;
                }
                if let Some((record, revision)) = written {
                    put_remote(&mut remote, &mut remote_large, (app, record.as_str()), revision, value.as_ref())?;
                    known.remote.insert(record, Held { revision, value: digest });
                }
                match digest {
                    Some(digest) => {
                        let is_new = !known.base.contains_key(&key) && !known.deleted.contains_key(&key);
                        known.made.extend(known.deleting.filter(|_| is_new).map(|at| (key.clone(), at)));
                        known.base.insert(key, digest);
                    }
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

    /// Lets go of what was put aside under a key: it is published no more until it changes. Whether there was anything.
    pub(crate) fn let_go(&self, app: &str, known: &mut Known, key: &Key) -> Result<bool, StoreError> {
        let Some(parked) = known.parked.get(key) else { return Ok(false) };
        let write = self.database.begin_write()?;
        write.open_table(PARKED)?.remove((app, key.as_str()))?;
        write.open_table(DROPPED)?.insert((app, key.as_str()), encode(&parked.digest)?.as_slice())?;
        write.commit()?;
        known.dropped.insert(key.clone(), parked.digest);
        known.parked.remove(key);
        Ok(true)
    }
}

/// Everything that is known of profiles in a database that no agent has open. It is changed in one case alone: if the agent
/// was killed, it is brought back to its last commit, as the agent would do.
///
/// # Errors
/// See [`StoreError`].
pub(crate) fn known_at_rest(path: &Path, apps: &[String]) -> Result<Vec<Known>, StoreError> {
    let failed =
        |error: DatabaseError| StoreError::Open { path: path.display().to_string(), source: Box::new(error.into()) };
    let database = match ReadOnlyDatabase::open(path) {
        Err(DatabaseError::RepairAborted) => {
            drop(Database::open(path).map_err(failed)?);
            ReadOnlyDatabase::open(path)
        }
        database => database,
    };
    let database = database.map_err(failed)?;
    let read = database.begin_read()?;
    apps.iter().map(|app| known(&read, app)).collect()
}

fn known(read: &ReadTransaction, app: &str) -> Result<Known, StoreError> {
    let cursor = match read.open_table(CURSOR) {
        Err(TableError::TableDoesNotExist(_)) => None,
        table => table?.get(app)?.map(|text| Cursor::from_text(text.value())),
    };
    let mut known = Known { cursor: cursor.transpose().map_err(|_| StoreError::Damaged)?, ..Known::default() };
    each(read, BASE, app, |key, value| {
        known.base.insert(key, blake3::hash(value));
        Ok(())
    })?;
    each(read, BASE_LARGE, app, |key, value| {
        known.base.insert(key, Digest::from_bytes(value.try_into().map_err(|_| StoreError::Damaged)?));
        Ok(())
    })?;
    each(read, REMOTE, app, |key, value| {
        let row: RemoteRow = decode(value)?;
        let value = row.value.map(|value| blake3::hash(&value));
        known.remote.insert(key, Held { revision: row.revision, value });
        Ok(())
    })?;
    each(read, REMOTE_LARGE, app, |key, value| {
        let held = known.remote.get_mut(&key).ok_or(StoreError::Damaged)?;
        held.value = Some(Content::Large(manifest(value)?).digest());
        Ok(())
    })?;
    each(read, PARKED, app, |key, value| {
        known.parked.insert(key, decode(value)?);
        Ok(())
    })?;
    each(read, DROPPED, app, |key, value| {
        known.dropped.insert(key, decode(value)?);
        Ok(())
    })?;
    deletions::read(read, app, &mut known)?;
    Ok(known)
}

fn each(
    read: &ReadTransaction,
    table: ByKey<'_>,
    app: &str,
    mut row: impl FnMut(Key, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let table = match read.open_table(table) {
        // An older agent wrote this, and nobody has opened it for writing since.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        table => table?,
    };
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

fn put_remote(
    remote: &mut Rows<'_>,
    large: &mut Rows<'_>,
    at: (&str, &str),
    revision: Revision,
    value: Option<&Content>,
) -> Result<(), StoreError> {
    let whole = match value {
        Some(Content::Large(manifest)) => {
            let (bytes, _) = manifest.to_value().map_err(|_| StoreError::Damaged)?;
            large.insert(at, bytes.as_bytes())?;
            None
        }
        Some(Content::Whole(value)) => Some(value.clone()),
        None => None,
    };
    if !matches!(value, Some(Content::Large(_))) {
        large.remove(at)?;
    }
    remote.insert(at, encode(&RemoteRow { revision, value: whole })?.as_slice())?;
    Ok(())
}

fn manifest(row: &[u8]) -> Result<Manifest, StoreError> {
    Manifest::parse(row).map_err(|_| StoreError::Damaged)
}

fn encode(row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(row).map_err(|_| StoreError::Damaged)
}

fn decode<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, StoreError> {
    postcard::from_bytes(row).map_err(|_| StoreError::Damaged)
}
