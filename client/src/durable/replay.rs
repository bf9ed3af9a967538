//! The local copy, as steps of a write transaction: what the servers have is copied, each revision with the cursor that
//! leads on from it; after a reset the whole profile is, and what this device alone still has is offered again. No clock.
//!
//! **Invariant:** per key the copy never goes back to a lower revision, except to what a reset brought.

use std::collections::HashMap;

use redb::ReadableTable;
use roam_schemas::{Change, ChangeId, Key, Record, Revision, State, Timestamp};

use super::error::{Damage, Fault};
use super::layout::{InFlight, ProfileRow, Purpose, write};
use super::limits::{MERGED_BYTES, OPERATION_BYTES, TOMBSTONES};
use super::offer::{epoch, is_newer, offer};
use super::tables::Tables;

impl Tables<'_> {
    /// Copies what changed up to a revision. Gives the keys that look different now to whoever reads them here.
    pub(super) fn apply(
        &mut self,
        row: &mut ProfileRow,
        records: &[Record],
        (revision, time): (Revision, Timestamp),
    ) -> Result<Vec<Key>, Fault> {
        let mut changed = Vec::new();
        for record in records {
            if self.copy_newer(row.number, record)? && !self.is_overlaid(row.number, &record.key)? {
                changed.push(record.key.clone());
            }
        }
        if revision >= row.revision {
            (row.revision, row.time) = (revision, time);
        }
        row.seen = row.seen.max(revision);
        Ok(changed)
    }

    /// The whole profile, because the cursor was too old or of another epoch. What it does not name is gone. In a new epoch
    /// what this device holds that is newer is set aside to be offered again, and goes on being seen here meanwhile.
    pub(super) fn reset(
        &mut self,
        row: &mut ProfileRow,
        records: &[Record],
        (revision, time): (Revision, Timestamp),
    ) -> Result<Vec<Key>, Fault> {
        let server: HashMap<&Key, &Record> = records.iter().map(|record| (&record.key, record)).collect();
        let new_epoch = epoch(row.revision.max(row.seen)) < epoch(revision);
        let mut changed = Vec::new();
        for held in self.all_copied(row.number)? {
            let found = server.get(&held.key).copied();
            if new_epoch && is_newer(&held, found) {
                self.set_offer(row.number, &held)?;
            }
            if found.is_none() {
                self.copy.remove((row.number, held.key.as_str()))?;
            }
            let differs = found.is_none_or(|found| found.state != held.state);
            if differs && !self.is_overlaid(row.number, &held.key)? {
                changed.push(held.key);
            }
        }
        for record in records {
            let known = self.copied(row.number, &record.key)?.is_some();
            self.set_copied(row.number, record)?;
            if !known && !self.is_overlaid(row.number, &record.key)? {
                changed.push(record.key.clone());
            }
        }
        (row.revision, row.time) = (revision, time);
        row.seen = row.seen.max(revision);
        Ok(changed)
    }

    /// Sets a record aside to be offered, unless a newer one of its key is.
    fn set_offer(&mut self, number: u32, held: &Record) -> Result<(), Fault> {
        let key = (number, held.key.as_str());
        let before = match self.offer.get(key)? {
            Some(bytes) => Some(super::layout::read::<Record>(bytes.value())?.time),
            None => None,
        };
        if before < Some(held.time) {
            self.offer.insert(key, write(held)?.as_slice())?;
        }
        Ok(())
    }

    /// Puts in flight what is still worth offering of these, which the servers have as `server` says. Gives the keys whose
    /// offers are not worth it any more.
    pub(super) fn freeze_offers(
        &mut self,
        row: &ProfileRow,
        held: &[Record],
        server: &[Record],
        id: ChangeId,
        now: Timestamp,
    ) -> Result<Vec<Key>, Fault> {
        if self.in_flight.get(row.number)?.is_some() {
            return Ok(Vec::new());
        }
        let server: HashMap<&Key, &Record> = server.iter().map(|record| (&record.key, record)).collect();
        let (mut ops, mut bytes, mut gone) = (Vec::new(), 0, Vec::new());
        for held in held {
            let key = (row.number, held.key.as_str());
            // An edit of this device is newer than anything that it held.
            let edited = self.waiting_key.get(key)?.is_some();
            match offer(held, server.get(&held.key).copied(), now).filter(|_| !edited) {
                Some(op) => {
                    bytes += size(held);
                    if bytes > MERGED_BYTES && !ops.is_empty() {
                        break;
                    }
                    ops.push(op);
                }
                None => {
                    self.offer.remove(key)?;
                    gone.push(held.key.clone());
                }
            }
        }
        if !ops.is_empty() {
            let change = Change::new(id, Some(row.revision), ops);
            let change = change.map_err(|_| Damage("what is offered makes no valid change"))?;
            let in_flight = InFlight { change, purpose: Purpose::Offer, frozen: now.as_nanos(), bytes: 0 };
            self.set_in_flight(row.number, &in_flight)?;
        }
        Ok(gone)
    }

    /// Forgets tombstones that the servers have forgotten.
    pub(super) fn clean(&mut self, row: &ProfileRow, now: Timestamp) -> Result<(), Fault> {
        let horizon = now.min(row.time).minus_seconds(TOMBSTONES.as_secs());
        let of_no_use = |record: &Record| !matches!(record.state, State::Value(_)) && record.time < horizon;
        for record in self.all_copied(row.number)? {
            if of_no_use(&record) {
                self.copy.remove((row.number, record.key.as_str()))?;
            }
        }
        Ok(())
    }
}

/// No less than what offering a record takes in a change, in either encoding of text.
fn size(record: &Record) -> usize {
    let value = if let State::Value(stored) = &record.state { stored.value.len() * 2 } else { 0 };
    record.key.json_len() + value + OPERATION_BYTES
}
