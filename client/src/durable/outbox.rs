//! The outbox, as steps of a write transaction: what is written waits, is merged, is frozen into the one change in flight,
//! and leaves at its receipt. No clock and no dice: the time and new ids are parameters.
//!
//! **Invariant:** what is in flight is not touched until it is settled: the same id, the same bytes.

use std::collections::HashMap;

use redb::ReadableTable;
use roam_schemas::{
    Action, Change, ChangeId, Code, Device, Encoding, Key, Operation, Problem, Record, State, Stored, Timestamp,
};

use super::error::{Damage, Fault, LocalError};
use super::layout::{InFlight, POSITION_IN_FLIGHT, ParkedRow, ProfileRow, Purpose, read, write};
use super::limits::HELD_BYTES;
use super::offer::{Reissue, reissue};
use super::tables::{Tables, is_past};
use super::unit::{Batch, Unit};
use crate::Saved;

/// What became of the change in flight.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decided {
    Applied(Saved),
    Rejected(Problem),
}

impl Tables<'_> {
    /// Lets changes wait, each of which takes effect whole. All of them wait, or none if one is not right.
    pub(super) fn append(
        &mut self,
        row: &mut ProfileRow,
        changes: Vec<Vec<Operation>>,
        encoding: Encoding,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let unit = |ops| Unit::new(ops, row.revision, encoding, now.as_nanos()).map_err(LocalError::Invalid);
        let units = changes.into_iter().map(unit).collect::<Result<Vec<Unit>, _>>()?;
        let more: u64 = units.iter().map(Unit::held).sum();
        if row.held_bytes.saturating_add(more) > HELD_BYTES {
            return Err(LocalError::OutboxFull { limit: HELD_BYTES, held: row.held_bytes }.into());
        }
        units.into_iter().try_for_each(|unit| self.append_unit(row, unit, encoding))
    }

    fn append_unit(&mut self, row: &mut ProfileRow, unit: Unit, encoding: Encoding) -> Result<(), Fault> {
        let position = row.next_position;
        let merged = if unit.is_conditional() {
            row.mergeable_from = position + 1;
            unit
        } else {
            self.merge(row, unit, encoding)?
        };
        for op in &merged.ops {
            self.waiting_key.insert((row.number, op.key.as_str()), position)?;
        }
        self.waiting.insert((row.number, position), write(&merged)?.as_slice())?;
        row.next_position += 1;
        row.held_bytes = row.held_bytes.saturating_add(merged.held());
        Ok(())
    }

    /// Takes out the units that share a key with a new one, and makes one of them all. If that is too much for one change,
    /// all that waits so far stays as it is.
    fn merge(&mut self, row: &mut ProfileRow, unit: Unit, encoding: Encoding) -> Result<Unit, Fault> {
        let mut positions = Vec::new();
        for op in &unit.ops {
            let position = self.waiting_key.get((row.number, op.key.as_str()))?.map(|position| position.value());
            positions.extend(position.filter(|at| *at != POSITION_IN_FLIGHT && *at >= row.mergeable_from));
        }
        positions.sort_unstable();
        positions.dedup();
        let mut older = Vec::with_capacity(positions.len());
        for position in &positions {
            older.push(self.unit(row.number, *position)?);
        }
        let Some(union) = Unit::union(&older, &unit, encoding) else {
            row.mergeable_from = row.next_position;
            return Ok(unit);
        };
        for (position, unit) in positions.into_iter().zip(&older) {
            self.waiting.remove((row.number, position))?;
            row.held_bytes = row.held_bytes.saturating_sub(unit.held());
        }
        Ok(union)
    }

    /// The change in flight, frozen now if there is none and something waits.
    pub(super) fn freeze(
        &mut self,
        row: &mut ProfileRow,
        id: ChangeId,
        now: Timestamp,
    ) -> Result<Option<InFlight>, Fault> {
        if let Some(in_flight) = self.in_flight(row.number)? {
            return Ok(Some(in_flight));
        }
        let (mut batch, mut taken, mut bytes) = (Batch::default(), Vec::new(), 0);
        for entry in self.waiting.range((row.number, 0)..=(row.number, u64::MAX))? {
            let (key, value) = entry?;
            let unit: Unit = read(value.value())?;
            let held = unit.held();
            if !batch.take(unit) {
                break;
            }
            taken.push(key.value().1);
            bytes += held;
        }
        let Some(change) = batch.into_change(id) else { return Ok(None) };
        let change = change.map_err(|_| Damage("what waits makes no valid change"))?;
        for position in &taken {
            self.waiting.remove((row.number, *position))?;
        }
        for op in change.ops() {
            let key = (row.number, op.key.as_str());
            let position = self.waiting_key.get(key)?.map(|position| position.value());
            if position.is_some_and(|position| taken.contains(&position)) {
                self.waiting_key.insert(key, POSITION_IN_FLIGHT)?;
            }
        }
        let in_flight = InFlight { change, purpose: Purpose::Edit, frozen: now.as_nanos(), bytes };
        self.set_in_flight(row.number, &in_flight)?;
        Ok(Some(in_flight))
    }

    /// The change in flight is decided. Gives it back if it was this one.
    pub(super) fn settle(
        &mut self,
        row: &mut ProfileRow,
        id: ChangeId,
        decided: &Decided,
        own: &Device,
        now: Timestamp,
    ) -> Result<Option<InFlight>, Fault> {
        let Some(in_flight) = self.in_flight(row.number)?.filter(|in_flight| in_flight.change.id() == id) else {
            return Ok(None);
        };
        match decided {
            Decided::Applied(saved) => {
                self.keep(row, &in_flight.change, saved, own)?;
                row.held_bytes = row.held_bytes.saturating_sub(in_flight.bytes);
                if in_flight.purpose == Purpose::Offer {
                    self.forget_offers(row.number, &in_flight.change)?;
                }
            }
            // Something newer stands there: the offer is looked at anew.
            Decided::Rejected(Problem { code: Code::Conflict | Code::Exists, .. })
                if in_flight.purpose == Purpose::Offer => {}
            Decided::Rejected(problem) => {
                if in_flight.purpose == Purpose::Offer {
                    self.forget_offers(row.number, &in_flight.change)?;
                }
                let (change, problem) = (in_flight.change.clone(), problem.clone());
                let parked = ParkedRow { change, problem, parked: now.as_nanos(), bytes: in_flight.bytes };
                self.set_parked(row.number, &parked)?;
            }
        }
        self.land(row.number, &in_flight)?;
        Ok(Some(in_flight))
    }

    /// Copies what this device wrote, now that it is saved: its notice may be long in coming, and no reader goes back.
    fn keep(&mut self, row: &mut ProfileRow, change: &Change, saved: &Saved, own: &Device) -> Result<(), Fault> {
        row.seen = row.seen.max(saved.revision);
        // What the copy reached includes it, and what came after it.
        if !is_past(row, saved.revision) {
            return Ok(());
        }
        for op in change.ops() {
            if saved.superseded.iter().any(|superseded| superseded.key == op.key) {
                continue;
            }
            let record = Record {
                key: op.key.clone(),
                revision: saved.revision,
                time: saved.time,
                device: own.clone(),
                conflict: saved.conflicts.iter().any(|conflict| conflict.key == op.key),
                state: state_after(op, saved.time),
            };
            self.copy_newer(row.number, &record)?;
        }
        Ok(())
    }

    fn forget_offers(&mut self, number: u32, change: &Change) -> Result<(), Fault> {
        for op in change.ops() {
            self.offer.remove((number, op.key.as_str()))?;
        }
        Ok(())
    }

    /// The change in flight is too old to be sent again. `server` is what the servers have of its keys. What still differs
    /// becomes a new change, which expects that; what another device wrote since is parked. Gives what was parked.
    pub(super) fn reissue(
        &mut self,
        row: &mut ProfileRow,
        server: &HashMap<Key, Record>,
        own: &Device,
        ids: [ChangeId; 2],
        now: Timestamp,
    ) -> Result<Option<ParkedRow>, Fault> {
        let Some(old) = self.in_flight(row.number)? else { return Ok(None) };
        self.land(row.number, &old)?;
        if old.purpose == Purpose::Offer {
            return Ok(None);
        }
        let base = old.change.base().unwrap_or_default();
        let (mut again, mut overtaken) = (Vec::new(), Vec::new());
        for op in old.change.ops() {
            let found = server.get(&op.key);
            match reissue(op, base, own, found) {
                Reissue::Done => {}
                Reissue::Again(op) => again.push(op),
                Reissue::Overtaken => overtaken.push((op.clone(), found)),
            }
        }
        row.held_bytes = row.held_bytes.saturating_sub(old.bytes);
        let valid = |_| Fault::from(Damage("a part of a change is no valid change"));
        if !again.is_empty() {
            let change = Change::new(ids[0], old.change.base(), again).map_err(valid)?;
            self.hold_in_flight(row.number, &change)?;
            row.held_bytes += old.bytes;
            let in_flight = InFlight { change, purpose: Purpose::Edit, frozen: now.as_nanos(), bytes: old.bytes };
            self.set_in_flight(row.number, &in_flight)?;
        }
        let Some((first, found)) = overtaken.first() else { return Ok(None) };
        let problem =
            Problem::new(Code::Conflict, "it was unsent for so long that another device wrote the record since")
                .with_failed(first.key.clone(), found.map(|record| record.revision));
        let ops = overtaken.into_iter().map(|(op, _)| op).collect();
        let change = Change::new(ids[1], old.change.base(), ops).map_err(valid)?;
        row.held_bytes += old.bytes;
        let parked = ParkedRow { change, problem, parked: now.as_nanos(), bytes: old.bytes };
        self.set_parked(row.number, &parked)?;
        Ok(Some(parked))
    }

    /// Readers find a change in flight by its keys, unless something newer waits.
    pub(super) fn hold_in_flight(&mut self, number: u32, change: &Change) -> Result<(), Fault> {
        for op in change.ops() {
            let key = (number, op.key.as_str());
            if self.waiting_key.get(key)?.is_none() {
                self.waiting_key.insert(key, POSITION_IN_FLIGHT)?;
            }
        }
        Ok(())
    }

    /// Lets the operations of a parked change wait again.
    pub(super) fn retry(
        &mut self,
        row: &mut ProfileRow,
        id: ChangeId,
        encoding: Encoding,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let parked: ParkedRow = match self.parked.get((row.number, *id.as_bytes()))? {
            Some(bytes) => read(bytes.value())?,
            None => return Err(LocalError::NotParked { id }.into()),
        };
        // It may refuse, so it comes before anything is written.
        self.append(row, vec![parked.change.into_ops()], encoding, now)?;
        self.unpark(row, id).map(drop)
    }

    /// Takes a parked change out.
    pub(super) fn unpark(&mut self, row: &mut ProfileRow, id: ChangeId) -> Result<ParkedRow, Fault> {
        let removed = self.parked.remove((row.number, *id.as_bytes()))?;
        let parked: ParkedRow = match removed {
            Some(bytes) => read(bytes.value())?,
            None => return Err(LocalError::NotParked { id }.into()),
        };
        row.held_bytes = row.held_bytes.saturating_sub(parked.bytes);
        Ok(parked)
    }
}

/// What a key holds once an operation was done at this time.
pub(super) fn state_after(op: &Operation, time: Timestamp) -> State {
    match &op.action {
        Action::Put(put) => State::Value(Stored {
            value: put.value.clone(),
            content_type: put.content_type.clone(),
            expires: put.ttl.map(|ttl| time.plus_seconds(ttl.into())),
        }),
        Action::Delete => State::Deleted,
    }
}
