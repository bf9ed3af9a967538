//! Reading. Every read of a [`Snapshot`] sees one and the same state. After every scan the iterator's own status is
//! asked: without that, damage looks like the end (10,008 of 20,000 keys and no error, measured).

mod records;

use std::{
    cell::{Cell, OnceCell},
    ops::ControlFlow,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use roam_schemas::{ChangeId, Key, Profile, Revision, Shard, Timestamp};
use rocksdb::{DBRawIterator, ReadOptions};
use tokio_util::sync::CancellationToken;

use super::{
    ChangeTables, Store, StoreError,
    erased::{self, Erased},
    expiry::{self, Ending},
    feed,
    head::{self, Head},
    keys::{self, ProfileKey, UserKey},
    meta::{self, Horizon, Passed, Position},
    row,
    seen::{self, Seen},
};

pub(crate) use records::Lookup;
pub use records::RecordRow;

/// The right to read. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) store: Arc<Store>,
}

/// One state of the store.
pub struct Snapshot<'a> {
    store: &'a Store,
    /// None for the writer, beside whom nobody changes anything.
    pinned: Option<rocksdb::Snapshot<'a>>,
    /// The last lookup, kept for the next one: making one costs as much as using it once.
    lookup: Cell<Option<Lookup<'a>>>,
    /// For reading single rows, made once as well.
    single: OnceCell<ReadOptions>,
}

impl Reader {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Before which instants rows may be gone. At least as late as that of any snapshot that was taken before.
    pub fn horizon(&self) -> Horizon {
        self.store.horizon.get()
    }

    /// The directory of the store.
    pub fn directory(&self) -> &Path {
        self.store.db.path()
    }

    /// The tables that changes are written to.
    pub(crate) fn change_tables(&self) -> Result<ChangeTables<'_>, StoreError> {
        ChangeTables::of(&self.store)
    }

    /// Is cancelled once the directory is closed.
    pub(crate) fn closed(&self) -> CancellationToken {
        self.store.closed.token().clone()
    }

    /// The number of the epoch.
    pub fn epoch(&self) -> u16 {
        self.store.epoch.load(Ordering::Acquire)
    }

    /// Takes the state of now.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::new(&self.store, Some(self.store.db.snapshot()))
    }

    /// Whatever is newest at each single read: for the writer, beside whom nobody changes anything.
    pub(crate) fn newest(&self) -> Snapshot<'_> {
        Snapshot::new(&self.store, None)
    }
}

impl<'a> Snapshot<'a> {
    fn new(store: &'a Store, pinned: Option<rocksdb::Snapshot<'a>>) -> Self {
        Self { store, pinned, lookup: Cell::default(), single: OnceCell::new() }
    }

    /// Which batch of the journal was applied last; none in a new store.
    ///
    /// # Errors
    /// See [`StoreError`], as for all reads.
    pub fn position(&self) -> Result<Option<Position>, StoreError> {
        self.get(meta::TABLE, meta::POSITION, Position::read)
    }

    /// Up to where nothing behind the position had to be applied, as far as that was written down.
    pub(crate) fn passed(&self) -> Result<Option<Passed>, StoreError> {
        self.get(meta::TABLE, meta::PASSED, Passed::read)
    }

    /// The stored horizon.
    pub(super) fn horizon(&self) -> Result<Horizon, StoreError> {
        Ok(self.get(meta::TABLE, meta::HORIZON, Horizon::read)?.unwrap_or_default())
    }

    /// Hands each record whose time to live ended before `until` to `visit`, with the instant, earliest first.
    ///
    /// # Errors
    /// As all reads.
    pub fn expired(
        &self,
        until: Timestamp,
        visit: impl FnMut(Timestamp, Profile, Key) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        self.endings(Ending::Record, until, visit)
    }

    /// The same for tombstones that were written before `until`.
    pub(super) fn tombstones(
        &self,
        until: Timestamp,
        visit: impl FnMut(Timestamp, Profile, Key) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        self.endings(Ending::Tombstone, until, visit)
    }

    fn endings(
        &self,
        ending: Ending,
        until: Timestamp,
        mut visit: impl FnMut(Timestamp, Profile, Key) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(expiry::TABLE, Some(expiry::from(ending, until)))?;
        rows.seek(expiry::from(ending, Timestamp::default()));
        while let Some(row_key) = rows.key() {
            let (time, profile, key) = expiry::read(row_key)?;
            if visit(time, profile, key)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// The number of the stored epoch.
    pub(super) fn stored_epoch(&self) -> Result<u16, StoreError> {
        let read = |bytes: &[u8]| row::read(meta::TABLE, bytes);
        Ok(self.get(meta::TABLE, meta::EPOCH, read)?.unwrap_or_default())
    }

    /// Since when this directory is what it is: made empty, or restored. None where an older build made it.
    pub(crate) fn since(&self) -> Result<Option<Timestamp>, StoreError> {
        self.get(meta::TABLE, meta::SINCE, |bytes| row::read(meta::TABLE, bytes))
    }

    /// The shard that the directory is of.
    pub(crate) fn shard(&self) -> Result<Shard, StoreError> {
        let stored = self.get(meta::TABLE, meta::SHARD, |bytes| row::read::<String>(meta::TABLE, bytes))?;
        let Some(text) = stored else { return Ok(Shard::ONLY) };
        Shard::parse(&text).ok_or_else(|| StoreError::Damaged { table: meta::TABLE, what: format!("shard {text}") })
    }

    /// The lowest revision of the epoch: whatever stands below it stands there.
    pub fn epoch(&self) -> Revision {
        self.store.epoch()
    }

    /// Where a profile that was written stands; none if it never was, or not since its user was erased.
    ///
    /// # Errors
    /// As all reads.
    pub fn head(&self, profile: &ProfileKey) -> Result<Option<Head>, StoreError> {
        let head = self.get(head::TABLE, profile.as_bytes(), Head::read)?;
        Ok(head.map(|head| head.not_below(self.epoch())))
    }

    /// Where a profile stands, written or not.
    ///
    /// # Errors
    /// As all reads.
    pub fn standing(&self, profile: &ProfileKey) -> Result<Head, StoreError> {
        if let Some(head) = self.head(profile)? {
            return Ok(head);
        }
        let erased = self.erasure(profile)?;
        Ok(erased.map(Erased::head).unwrap_or_default().not_below(self.epoch()))
    }

    /// What a profile had below that revision is none of its past: it was in another epoch, or was erased.
    ///
    /// # Errors
    /// As all reads.
    pub fn floor(&self, profile: &ProfileKey) -> Result<Revision, StoreError> {
        let erased = self.erasure(profile)?;
        Ok(self.epoch().max(erased.map(|erased| erased.revision).unwrap_or_default()))
    }

    /// When the user of a profile was erased, if they were.
    ///
    /// # Errors
    /// As all reads.
    pub(crate) fn erasure(&self, profile: &ProfileKey) -> Result<Option<Erased>, StoreError> {
        self.get(erased::TABLE, profile.user(), Erased::read)
    }

    /// Since when a user is erased, if they are.
    ///
    /// # Errors
    /// As all reads.
    pub fn erased(&self, user: &UserKey) -> Result<Option<Erased>, StoreError> {
        self.get(erased::TABLE, user.as_bytes(), Erased::read)
    }

    /// Hands the marker of each user who was erased to `visit`.
    pub(crate) fn all_erased(&self, mut visit: impl FnMut(&[u8], Erased)) -> Result<(), StoreError> {
        self.rows(erased::TABLE, |user, value| {
            visit(user, Erased::read(value)?);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Hands the head of each profile of a user to `visit`.
    pub(super) fn heads_of_user(&self, user: &UserKey, mut visit: impl FnMut(Head)) -> Result<(), StoreError> {
        let (first, end) = user.range();
        let mut rows = self.scan(head::TABLE, Some(end))?;
        rows.seek(first);
        while let Some((_, value)) = rows.item() {
            visit(Head::read(value)?.not_below(self.epoch()));
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// How many profiles the user of this profile has.
    pub(crate) fn profiles_of_user(&self, profile: &ProfileKey) -> Result<u32, StoreError> {
        let mut rows = self.scan(head::TABLE, keys::beyond(profile.user()))?;
        rows.seek(profile.user());
        let mut count = 0;
        while rows.valid() {
            count += 1;
            rows.next();
        }
        rows.status()?;
        Ok(count)
    }

    /// What was decided on a change; none if it was never seen.
    ///
    /// # Errors
    /// As all reads.
    pub fn seen(&self, profile: &ProfileKey, id: ChangeId) -> Result<Option<Seen>, StoreError> {
        self.get(seen::TABLE, &seen::key(profile, id), Seen::read)
    }

    /// The newest change of a profile, by its id, that was decided; none if none is known.
    pub(crate) fn newest_seen(&self, profile: &ProfileKey) -> Result<Option<ChangeId>, StoreError> {
        let mut options = self.options();
        options.set_total_order_seek(true);
        options.set_iterate_lower_bound(profile.as_bytes());
        if let Some(end) = keys::beyond(profile.as_bytes()) {
            options.set_iterate_upper_bound(end);
        }
        let mut rows = self.iterate(seen::TABLE, options)?;
        rows.seek_to_last();
        match rows.key() {
            Some(row_key) => seen::id(profile, row_key).map(Some),
            None => Ok(rows.status().map(|()| None)?),
        }
    }

    /// Hands revision and key of every record that was last written after `after` to `visit`, in order of revisions.
    ///
    /// # Errors
    /// As all reads.
    pub fn feed(
        &self,
        profile: &ProfileKey,
        after: Revision,
        mut visit: impl FnMut(Revision, Key) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(feed::TABLE, keys::beyond(profile.as_bytes()))?;
        rows.seek(feed::from(profile, Revision::new(after.get().saturating_add(1))));
        let profile_len = profile.as_bytes().len();
        while let Some(row_key) = rows.key() {
            let (revision, key) = feed::revision_and_key(&row_key[profile_len..])?;
            if visit(revision, key)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Hands each profile whose names begin with these, and that comes after `after`, to `visit`, in order.
    ///
    /// # Errors
    /// As all reads.
    pub fn profiles(
        &self,
        prefix: &[u8],
        after: Option<&ProfileKey>,
        mut visit: impl FnMut(Profile, Head) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(head::TABLE, keys::beyond(prefix))?;
        match after.and_then(|profile| keys::beyond(profile.as_bytes())) {
            Some(next) if next.as_slice() > prefix => rows.seek(next),
            _ => rows.seek(prefix),
        }
        while let Some((row_key, value)) = rows.item() {
            let damaged = || StoreError::Damaged { table: head::TABLE, what: "a key".to_owned() };
            let (profile, _) = ProfileKey::split(row_key).ok_or_else(damaged)?;
            if visit(profile, Head::read(value)?.not_below(self.epoch()))?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Hands key and value of every row of a table to `visit`, in order, as they lie on disk.
    ///
    /// # Errors
    /// As all reads.
    pub fn rows(
        &self,
        table: &'static str,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(table, None)?;
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Hands key and value of the rows that begin with `prefix` to `visit`, in order.
    pub(super) fn rows_of(
        &self,
        table: &'static str,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(table, keys::beyond(prefix))?;
        rows.seek(prefix);
        while let Some((key, value)) = rows.item() {
            visit(key, value)?;
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Hands the keys of the rows of a range to `visit`.
    pub(super) fn row_keys(
        &self,
        table: &'static str,
        first: &[u8],
        end: Option<Vec<u8>>,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let mut rows = self.scan(table, end)?;
        rows.seek(first);
        while let Some(row_key) = rows.key() {
            visit(row_key);
            rows.next();
        }
        Ok(rows.status()?)
    }

    fn get<T>(
        &self,
        table: &'static str,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let options = self.single.get_or_init(|| self.options());
        let found = self.store.db.get_pinned_cf_opt(self.store.table(table)?, key, options)?;
        found.map(|bytes| read(&bytes)).transpose()
    }

    /// Rows in their whole order, up to an end.
    fn scan(&self, table: &'static str, end: Option<Vec<u8>>) -> Result<DBRawIterator<'a>, StoreError> {
        let mut options = self.options();
        options.set_total_order_seek(true);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        self.iterate(table, options)
    }

    fn iterate(&self, table: &'static str, options: ReadOptions) -> Result<DBRawIterator<'a>, StoreError> {
        Ok(self.store.db.raw_iterator_cf_opt(self.store.table(table)?, options))
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(pinned) = &self.pinned {
            options.set_snapshot(pinned);
        }
        options
    }
}
