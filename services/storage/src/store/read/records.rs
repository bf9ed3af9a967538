//! Reading records and their versions.

use std::ops::ControlFlow;

use roam_schemas::{Key, Revision};
use rocksdb::DBRawIterator;

use super::{
    super::{
        StoreError, keys,
        keys::{ProfileKey, RecordKey, UserKey},
        version,
        version::{Place, VersionRow},
    },
    Snapshot,
};

/// How many versions of a key a scan steps over before it seeks past the rest.
const STEPS_BEFORE_SEEK: usize = 4;

/// Looks records up, one after the other, at the price of one iterator. Sees the state at its making.
pub(crate) struct Lookup<'a> {
    rows: DBRawIterator<'a>,
}

/// A row of `version` as a scan hands it out. Its key is read only by whoever asks: a scan steps over many rows of which
/// nobody wants to know more than that they are dead.
pub struct RecordRow<'a> {
    key: &'a [u8],
    /// Its place.
    pub place: Place,
    /// The row.
    pub row: VersionRow<'a>,
}

impl<'a> Snapshot<'a> {
    /// Hands the record of each key of each profile of a user to `visit`.
    pub(in crate::store) fn records_of_user(
        &self,
        user: &UserKey,
        mut visit: impl FnMut(&RecordKey, VersionRow<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let (first, end) = user.range();
        let mut rows = self.scan(version::TABLE, Some(end))?;
        rows.seek(first);
        while let Some((row_key, value)) = rows.item() {
            let (record, _) = version::split_place(row_key)?;
            let record = RecordKey::of_row(record).ok_or_else(version::damaged_key)?;
            if visit(&record, VersionRow::read(value)?)?.is_break() {
                return Ok(());
            }
            skip_versions(&mut rows, record.as_bytes());
        }
        Ok(rows.status()?)
    }

    /// Hands the record of each key that is known to `visit`, with the index of the key.
    ///
    /// # Errors
    /// As all reads.
    pub fn records_of<'k>(
        &self,
        profile: &ProfileKey,
        keys: impl IntoIterator<Item = &'k Key>,
        mut visit: impl FnMut(usize, Option<(Place, VersionRow<'_>)>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut lookup = self.lookup.take().map_or_else(|| self.lookup(), Ok)?;
        for (index, key) in keys.into_iter().enumerate() {
            if visit(index, lookup.record(&profile.record(key))?)?.is_break() {
                break;
            }
        }
        // What is newest at each read would be hidden from a lookup that was made before.
        self.lookup.set(self.pinned.is_some().then_some(lookup));
        Ok(())
    }

    /// For looking up records one after the other.
    pub(crate) fn lookup(&self) -> Result<Lookup<'a>, StoreError> {
        let mut options = self.options();
        options.set_prefix_same_as_start(true);
        Ok(Lookup { rows: self.iterate(version::TABLE, options)? })
    }

    /// Hands the records whose key begins with `prefix` and comes after `after` to `visit`, in order of their keys.
    ///
    /// # Errors
    /// As all reads.
    pub fn records(
        &self,
        profile: &ProfileKey,
        prefix: &str,
        after: Option<&Key>,
        mut visit: impl FnMut(RecordRow<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut beginning = profile.as_bytes().to_vec();
        keys::push_escaped(&mut beginning, prefix);
        let mut rows = self.scan(version::TABLE, keys::beyond(&beginning))?;
        match after.and_then(|key| keys::beyond(profile.record(key).as_bytes())) {
            Some(next) if next > beginning => rows.seek(next),
            _ => rows.seek(&beginning),
        }
        let profile_len = profile.as_bytes().len();
        let mut this = Vec::with_capacity(128);
        while let Some((row_key, value)) = rows.item() {
            let (record, place) = version::split_place(row_key)?;
            this.clear();
            this.extend_from_slice(record);
            let key = record.get(profile_len..).unwrap_or_default();
            if visit(RecordRow { key, place, row: VersionRow::read(value)? })?.is_break() {
                return Ok(());
            }
            skip_versions(&mut rows, &this);
        }
        Ok(rows.status()?)
    }

    /// Hands the kept versions of a key to `visit`, newest first.
    ///
    /// # Errors
    /// As all reads.
    pub fn versions(
        &self,
        profile: &ProfileKey,
        key: &Key,
        visit: impl FnMut(Place, VersionRow<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        self.versions_of(&profile.record(key), visit)
    }

    fn versions_of(
        &self,
        record: &RecordKey,
        mut visit: impl FnMut(Place, VersionRow<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let prefix = record.as_bytes();
        let mut rows = self.scan(version::TABLE, keys::beyond(prefix))?;
        rows.seek(prefix);
        while let Some((row_key, value)) = rows.item() {
            let place = version::place(&row_key[prefix.len()..])?;
            if visit(place, VersionRow::read(value)?)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// How many operations came too late for that version of a key.
    pub(crate) fn ranks(&self, key: &RecordKey, beaten_by: Revision) -> Result<u32, StoreError> {
        let mut ranks = 0;
        self.versions_of(key, |place, _| {
            if place.revision == beaten_by {
                ranks = ranks.max(place.rank);
            }
            Ok(if place.revision < beaten_by { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(ranks)
    }
}

impl RecordRow<'_> {
    /// Whose row it is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is no key.
    pub fn key(&self) -> Result<Key, StoreError> {
        version::read_key(self.key)
    }
}

impl Lookup<'_> {
    /// The record of a key; none if it is unknown.
    pub(crate) fn record(&mut self, key: &RecordKey) -> Result<Option<(Place, VersionRow<'_>)>, StoreError> {
        self.rows.seek(key.as_bytes());
        let found = self.rows.item().and_then(|(row, value)| Some((row.strip_prefix(key.as_bytes())?, value)));
        let Some((rest, value)) = found else {
            self.rows.status()?;
            return Ok(None);
        };
        Ok(Some((version::place(rest)?, VersionRow::read(value)?)))
    }
}

/// Moves to the first row of the next key.
fn skip_versions(rows: &mut DBRawIterator<'_>, this: &[u8]) {
    for _ in 0..STEPS_BEFORE_SEEK {
        rows.next();
        if !rows.key().is_some_and(|key| key.starts_with(this)) {
            return;
        }
    }
    if let Some(next) = keys::beyond(this) {
        rows.seek(next);
    }
}
