//! What a device does with what it holds once it learns that the servers hold something else: after a reset, and with a
//! change that is too old to be sent again. Pure: no table, no clock.

use roam_schemas::{Action, Device, Expect, Operation, Put, Record, Revision, State, Timestamp};

/// Revisions of one epoch lie below the next multiple of this.
const EPOCH: u64 = 1 << 40;

/// The epoch of a revision. A new one begins when a backup was restored that the journal cannot carry forward.
pub(super) fn epoch(revision: Revision) -> u64 {
    revision.get() / EPOCH
}

/// Whether a record that this device holds from an earlier epoch is worth offering, given what the servers have of it.
pub(super) fn is_newer(held: &Record, server: Option<&Record>) -> bool {
    match (server, &held.state) {
        (Some(server), State::Value(_) | State::Deleted) => held.time > server.time,
        (None, State::Value(_)) => true,
        // Nothing is there to delete. What merely expired goes by itself wherever it still is.
        (None, State::Deleted) | (_, State::Expired) => false,
    }
}

/// The operation that offers a held record, made so that it never beats anything newer than `server`. None if it is not
/// worth it, or its time to live is over.
pub(super) fn offer(held: &Record, server: Option<&Record>, now: Timestamp) -> Option<Operation> {
    if !is_newer(held, server) || server.is_some_and(|server| alike(&held.state, &server.state)) {
        return None;
    }
    let action = match &held.state {
        State::Value(stored) => {
            let ttl = match stored.expires {
                Some(expires) => Some(remaining(expires, now)?),
                None => None,
            };
            let (value, content_type) = (stored.value.clone(), stored.content_type.clone());
            Action::Put(Put { value, content_type, ttl })
        }
        State::Deleted => Action::Delete,
        State::Expired => return None,
    };
    Some(Operation { key: held.key.clone(), action, expect: as_found(server) })
}

/// What becomes of one operation of a change that is too old to be sent again, and may have been applied long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reissue {
    /// The servers have it.
    Done,
    /// No other device has written the record since: as a new operation.
    Again(Operation),
    /// Another device wrote the record since: its user decides.
    Overtaken,
}

/// Compares an operation with what the servers have. `base` is the revision that its device had when it wrote it.
pub(super) fn reissue(op: &Operation, base: Revision, own: &Device, server: Option<&Record>) -> Reissue {
    let as_written = match (&op.action, server.map(|record| &record.state)) {
        (Action::Put(put), Some(State::Value(stored))) => {
            put.value == stored.value && put.content_type == stored.content_type
        }
        (Action::Delete, None | Some(State::Deleted | State::Expired)) => true,
        _ => false,
    };
    match server {
        _ if as_written => Reissue::Done,
        // What this device wrote since its base, it wrote before this operation: nothing later left it.
        Some(record) if record.revision > base && record.device != *own => Reissue::Overtaken,
        _ => Reissue::Again(op.clone().expecting(as_found(server))),
    }
}

/// That a record is as it was found.
fn as_found(server: Option<&Record>) -> Expect {
    match server {
        Some(Record { state: State::Value(_), revision, .. }) => Expect::At(*revision),
        _ => Expect::Absent,
    }
}

fn alike(one: &State, other: &State) -> bool {
    match (one, other) {
        (State::Value(one), State::Value(other)) => {
            (&one.value, &one.content_type, one.expires) == (&other.value, &other.content_type, other.expires)
        }
        (State::Deleted, State::Deleted | State::Expired) => true,
        _ => false,
    }
}

/// The whole seconds until an instant, at least one; none if it has passed.
fn remaining(expires: Timestamp, now: Timestamp) -> Option<u32> {
    let nanos = expires.as_nanos().checked_sub(now.as_nanos()).filter(|nanos| *nanos > 0)?;
    u32::try_from(nanos.div_ceil(1_000_000_000)).ok()
}
