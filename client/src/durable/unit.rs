//! What waits in the outbox, and how it is merged into changes. Pure: no table, no clock, no dice.
//!
//! A *unit* is what one call wrote, or the union of several: it takes effect whole or not at all, so it is never split.
//!
//! **Invariant:** what is published of one key is a subsequence of what was written to it, in that order, and ends with
//! the last one. What expects something travels alone, and nothing moves past it.

use std::collections::HashMap;

use roam_schemas::{Action, Change, ChangeId, Encoding, Expect, Key, Operation, Problem, Revision, encode, limits};
use serde::{Deserialize, Serialize};

use super::limits::{MERGED_BYTES, OPERATION_BYTES};

/// Operations that take effect together. Persisted: fields are only added, under a new tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) ops: Vec<Operation>,
    /// The revision of the profile that this device had when it wrote them.
    pub(super) base: Revision,
    /// No less than what the unit takes in a change, in either measure that a change is held to.
    pub(super) bytes: usize,
    /// When it was written, by this device's clock, in nanoseconds since the Unix epoch. For times to live alone.
    pub(super) written: u64,
}

impl Unit {
    /// # Errors
    /// Those of [`Change::new`], and `too_large` for a change that is too large as it will be encoded.
    pub(super) fn new(ops: Vec<Operation>, base: Revision, encoding: Encoding, written: u64) -> Result<Self, Problem> {
        // Any id will do: all are of one size.
        let change = Change::new(ChangeId::from_bytes([0xff; 16]), Some(base), ops)?;
        let encoded = encode(&change, encoding).map_err(|error| Problem::invalid(error.to_string()))?.len();
        if encoded > limits::CHANGE_BYTES {
            let message = "a change is too large as it is encoded, in bytes";
            return Err(Problem::too_large(message, limits::CHANGE_BYTES, encoded));
        }
        let plain: usize = change.ops().iter().map(plain_len).sum();
        Ok(Self { bytes: encoded.max(plain), ops: change.into_ops(), base, written })
    }

    /// Whether it expects anything, so that others must not be mixed into its fate.
    pub(super) fn is_conditional(&self) -> bool {
        self.ops.iter().any(|op| op.expect != Expect::Any)
    }

    /// What it counts for in the bound on all that is held.
    pub(super) fn held(&self) -> u64 {
        (self.bytes + OPERATION_BYTES * self.ops.len()) as u64
    }

    pub(super) fn op(&self, key: &Key) -> Option<&Operation> {
        self.ops.iter().find(|op| op.key == *key)
    }

    /// The union of units that wait, in their order, and a new one; what is newer wins. None if that is more than one
    /// change may hold.
    pub(super) fn union(older: &[Self], newer: &Self, encoding: Encoding) -> Option<Self> {
        if older.is_empty() {
            return Some(newer.clone());
        }
        let units = older.iter().chain([newer]);
        let ops = newest_ops(units.clone());
        let base = units.map(|unit| unit.base).min().unwrap_or_default();
        let union = Self::new(ops, base, encoding, newer.written).ok()?;
        (union.bytes <= MERGED_BYTES).then_some(union)
    }
}

/// As [`Change::new`] counts it.
fn plain_len(op: &Operation) -> usize {
    let value = if let Action::Put(put) = &op.action { put.value.len() } else { 0 };
    op.key.json_len() + value
}

/// The newest operation of each key, in the order of those.
fn newest_ops<'a>(units: impl Iterator<Item = &'a Unit>) -> Vec<Operation> {
    let all: Vec<&Operation> = units.flat_map(|unit| &unit.ops).collect();
    let last: HashMap<&Key, usize> = all.iter().enumerate().map(|(index, op)| (&op.key, index)).collect();
    all.iter().enumerate().filter(|(index, op)| last[&op.key] == *index).map(|(_, op)| (*op).clone()).collect()
}

/// What is taken from the front of the queue into one change.
#[derive(Debug, Default)]
pub(super) struct Batch {
    units: Vec<Unit>,
    ops: usize,
    bytes: usize,
}

impl Batch {
    /// Takes a unit, if it may travel with those before.
    pub(super) fn take(&mut self, unit: Unit) -> bool {
        if let Some(first) = self.units.first() {
            let conditional = unit.is_conditional() || first.is_conditional();
            let ops = self.ops + unit.ops.len();
            if conditional || ops > limits::CHANGE_OPERATIONS || self.bytes + unit.bytes > MERGED_BYTES {
                return false;
            }
        }
        self.ops += unit.ops.len();
        self.bytes += unit.bytes;
        self.units.push(unit);
        true
    }

    /// The change. None if nothing was taken. Its base is the oldest one, so that no conflict is overlooked.
    pub(super) fn into_change(self, id: ChangeId) -> Option<Result<Change, Problem>> {
        let base = self.units.iter().map(|unit| unit.base).min()?;
        let ops = match <[Unit; 1]>::try_from(self.units) {
            Ok([unit]) => unit.ops,
            Err(units) => newest_ops(units.iter()),
        };
        Some(Change::new(id, Some(base), ops))
    }
}
