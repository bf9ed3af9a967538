//! The writer's own cleaning: tombstones whose stay is over go, with all versions behind them and their rows in the other
//! tables, in one write. What they go by is a horizon that is stored and only rises; nothing that `decide` sees
//! depends on whether they are gone.

use std::ops::ControlFlow;

use roam_schemas::Timestamp;
use rocksdb::WriteBatch;

use super::{
    Position, Reader, Snapshot, StoreError, Writer, erased,
    expiry::{self, Ending},
    feed, keys,
    keys::{ProfileKey, RecordKey},
    large,
    meta::{self, Horizon},
    version::{self, RowState},
    write,
};

/// How much longer than its term everything stays, in seconds: so clocks and queues need not agree to the second.
const GRACE_SECONDS: u64 = 24 * 3600;
/// The horizon is stored when it has risen by so much.
const STEP_SECONDS: u64 = 60;

impl Horizon {
    /// The horizon by a clock, under the terms of what was applied last, no lower than it was. What is applied may be older than the
    /// clock says, and goes by its own time then.
    pub(crate) fn at(self, clock: Timestamp, position: &Position) -> Self {
        let (terms, applied) = (&position.terms, Timestamp::from_nanos(position.published));
        let now = clock.min(applied);
        let before = |seconds: u64| now.minus_seconds(seconds.saturating_add(GRACE_SECONDS));
        Self {
            tombstones: self.tombstones.max(before(terms.tombstone_seconds)),
            seen: self.seen.max(before(terms.seen_seconds)),
            versions: self.versions.max(before(terms.history_seconds)),
            depth: terms.history_versions,
            deepened: match self.depth {
                1.. if self.depth < terms.history_versions => clock.max(applied),
                _ => self.deepened,
            },
        }
    }

    /// Whether it is worth storing another.
    fn is_passed_by(self, other: Self) -> bool {
        let pairs = [(self.tombstones, other.tombstones), (self.seen, other.seen), (self.versions, other.versions)];
        self.depth != other.depth || pairs.iter().any(|(here, there)| here.plus_seconds(STEP_SECONDS) <= *there)
    }
}

impl Writer {
    /// Raises the horizon to that of a clock and of what was applied last, and removes up to `most` tombstones before it. Says which.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn clean(&mut self, clock: Timestamp, position: &Position, most: usize) -> Result<Vec<RecordKey>, StoreError> {
        let reader = Reader::new(std::sync::Arc::clone(&self.store));
        let stored = self.store.horizon.get();
        let mut horizon = stored.at(clock, position);
        if !stored.is_passed_by(horizon) {
            horizon = stored;
        }
        let mut batch = WriteBatch::default();
        let mut gone = Vec::new();
        let newest = reader.newest();
        newest.tombstones(horizon.tombstones, |time, profile, key| {
            let record = ProfileKey::new(&profile).record(&key);
            self.remove(&mut batch, &reader, &record, time)?;
            gone.push(record);
            Ok(if gone.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        self.remove_markers(&mut batch, &newest, clock.min(Timestamp::from_nanos(position.published)))?;
        if batch.is_empty() && horizon == stored {
            return Ok(gone);
        }
        batch.put_cf(self.store.table(meta::TABLE)?, meta::HORIZON, horizon.write()?);
        self.store.db.write_opt(batch, &write::synced())?;
        self.store.horizon.set(horizon);
        Ok(gone)
    }

    /// Removes the markers of users who were erased, once they count for nobody.
    fn remove_markers(&self, batch: &mut WriteBatch, newest: &Snapshot<'_>, now: Timestamp) -> Result<(), StoreError> {
        let table = self.store.table(erased::TABLE)?;
        let before = now.minus_seconds(erased::ERASED_SECONDS + GRACE_SECONDS);
        newest.all_erased(|user, marker| {
            if marker.time < before {
                batch.delete_cf(table, user);
            }
        })
    }

    /// Removes all that is kept of a key whose record is the tombstone of that time.
    fn remove(
        &self,
        batch: &mut WriteBatch,
        reader: &Reader,
        record: &RecordKey,
        time: Timestamp,
    ) -> Result<(), StoreError> {
        let newest = reader.newest();
        let mut lookup = newest.lookup()?;
        match lookup.record(record)? {
            Some((place, row)) if row.state == RowState::Deleted && row.time == time => {
                batch.single_delete_cf(self.store.table(feed::TABLE)?, feed::key(record, place.revision));
            }
            _ => {
                let what = "a row of a tombstone that is no record".to_owned();
                return Err(StoreError::Damaged { table: expiry::TABLE, what });
            }
        }
        batch.single_delete_cf(self.store.table(expiry::TABLE)?, expiry::key(time, Ending::Tombstone, record));
        let large = self.store.table(large::TABLE)?;
        if self.store.db.get_pinned_cf(large, record.as_bytes())?.is_some() {
            batch.delete_cf(large, record.as_bytes());
        }
        let (first, end) = (record.as_bytes(), keys::beyond(record.as_bytes()));
        let versions = self.store.table(version::TABLE)?;
        newest.row_keys(version::TABLE, first, end, |row_key| batch.delete_cf(versions, row_key))
    }
}

#[cfg(test)]
mod tests;
