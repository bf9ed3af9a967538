//! The local copy, as steps of a write transaction: what the servers have is copied, each revision with the cursor that
//! leads on from it; after a reset the whole profile is, and what this device alone still has is offered again. No clock.
//!
//! **Invariant:** per key the copy never goes back to a lower revision, except to what a reset brought.

use std::collections::{HashMap, HashSet};

use redb::ReadableTable;
use roam_schemas::{Change, ChangeId, Code, Device, Key, Problem, Record, Revision, State, Timestamp};

use super::error::{Damage, Fault};
use super::layout::{InFlight, ParkedRow, ProfileRow, Purpose, read, write};
use super::limits::{MERGED_BYTES, OPERATION_BYTES, TOMBSTONES};
use super::offer::{Verdict, epoch, judge, operation};
use super::tables::Tables;

/// What the servers have of records that are held from an earlier epoch.
#[derive(Debug)]
pub(super) struct Found {
    /// Their records, by key.
    pub(super) server: HashMap<Key, Record>,
    /// The keys whose history shows that the servers have had what is held.
    pub(super) known: HashSet<Key>,
    /// This device.
    pub(super) own: Device,
}

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
        own: &Device,
    ) -> Result<Vec<Key>, Fault> {
        let server: HashMap<&Key, &Record> = records.iter().map(|record| (&record.key, record)).collect();
        // By the cursor: a receipt may have told of the new epoch before, and records that a backup kept are of an old one.
        let new_epoch = epoch(row.revision) < epoch(revision);
        let mut changed = Vec::new();
        let mut kept = HashSet::new();
        for held in self.all_copied(row.number)? {
            // A receipt told of it after the profile was read.
            if held.revision > revision {
                kept.insert(held.key);
                continue;
            }
            let found = server.get(&held.key).copied();
            let earlier = new_epoch && epoch(held.revision) < epoch(revision);
            if earlier && judge(&held, found, own, Timestamp::default()) != Verdict::Done {
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
        for record in records.iter().filter(|record| !kept.contains(&record.key)) {
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
            Some(bytes) => Some(read::<Record>(bytes.value())?.time),
            None => None,
        };
        if before < Some(held.time) {
            self.offer.insert(key, write(held)?.as_slice())?;
        }
        Ok(())
    }

    /// Puts in flight what is still worth offering of these, which the servers have as `found` says; parks what another
    /// device wrote without having seen it. Gives the keys whose offers ended, and what was parked.
    pub(super) fn freeze_offers(
        &mut self,
        row: &mut ProfileRow,
        held: &[Record],
        found: &Found,
        ids: [ChangeId; 2],
        now: Timestamp,
    ) -> Result<(Vec<Key>, Option<ParkedRow>), Fault> {
        if self.in_flight.get(row.number)?.is_some() {
            return Ok((Vec::new(), None));
        }
        let (mut offered, mut parked, mut bytes, mut ended) = (Vec::new(), Vec::new(), 0, Vec::new());
        for held in held {
            bytes += size(held);
            if bytes > MERGED_BYTES && bytes > size(held) {
                break;
            }
            let key = (row.number, held.key.as_str());
            let edited = self.is_edited(key)?;
            match judge(held, found.server.get(&held.key), &found.own, now) {
                Verdict::Offer(op) if !edited => {
                    offered.push(op);
                    continue;
                }
                Verdict::Unclear if !edited && !found.known.contains(&held.key) => parked.extend(operation(held, now)),
                Verdict::Offer(_) | Verdict::Unclear | Verdict::Done => {}
            }
            self.offer.remove(key)?;
            ended.push(held.key.clone());
        }
        let change = |id, ops| {
            let change = Change::new(id, Some(row.revision), ops);
            change.map_err(|_| Damage("what is offered makes no valid change"))
        };
        if !offered.is_empty() {
            let change = change(ids[0], offered)?;
            let in_flight = InFlight { change, purpose: Purpose::Offer, frozen: now.as_nanos(), bytes: 0 };
            self.set_in_flight(row.number, &in_flight)?;
        }
        let Some(first) = parked.first() else { return Ok((ended, None)) };
        let revision = found.server.get(&first.key).map(|record| record.revision);
        let problem =
            Problem::new(Code::Conflict, "since a backup was restored, another device wrote the record unaware of it");
        let problem = problem.with_failed(first.key.clone(), revision);
        let parked = ParkedRow { change: change(ids[1], parked)?, problem, parked: now.as_nanos(), bytes: 0 };
        self.set_parked(row.number, &parked)?;
        Ok((ended, Some(parked)))
    }

    /// Whether something waits that will be written over what is held, so that offering that is of no use. What expects
    /// something may be rejected.
    fn is_edited(&self, key: (u32, &str)) -> Result<bool, Fault> {
        match self.waiting_key.get(key)?.map(|position| position.value()) {
            Some(position) => Ok(!self.unit(key.0, position)?.is_conditional()),
            None => Ok(false),
        }
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
