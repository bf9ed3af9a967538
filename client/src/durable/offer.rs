//! What a device does with what it holds once it learns that the servers hold something else: after a reset, and with a
//! change that is too old to be sent again. Pure: no table, no clock.

use roam_schemas::{Action, Device, Expect, Operation, Put, Record, Revision, State, Timestamp, Version};

/// Revisions of one epoch lie below the next multiple of this.
const EPOCH: u64 = 1 << 40;

/// The epoch of a revision. A new one begins when a backup was restored that the journal cannot carry forward.
pub(super) fn epoch(revision: Revision) -> u64 {
    revision.get() / EPOCH
}

/// What becomes of a record that this device holds from an earlier epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The servers have it, or something that is newer for sure.
    Done,
    /// They lack it, or have something older: this offers it, and never beats anything else than what they have.
    Offer(Operation),
    /// Another device wrote the record in the new epoch. Whether it had seen what is held, only the history tells.
    Unclear,
}

/// Compares a record that is held from an earlier epoch with what the servers have of it. Times of one epoch compare; what
/// was offered again has a new time, which says nothing of its age.
pub(super) fn judge(held: &Record, server: Option<&Record>, own: &Device, now: Timestamp) -> Verdict {
    let newer = match (server, &held.state) {
        (Some(server), _) if alike(&held.state, &server.state) => false,
        // What merely expired goes by itself wherever it still is.
        (_, State::Expired) => false,
        (Some(server), _) if epoch(server.revision) > epoch(held.revision) => {
            return if server.device == *own { Verdict::Done } else { Verdict::Unclear };
        }
        (Some(server), _) => held.time > server.time,
        (None, State::Value(_)) => true,
        // Nothing is there to delete.
        (None, State::Deleted) => false,
    };
    let op = if newer { operation(held, now) } else { None };
    op.map_or(Verdict::Done, |op| Verdict::Offer(op.expecting(as_found(server))))
}

/// Whether the versions that the servers keep show that they have had what is held.
pub(super) fn was_known(held: &Record, versions: &[Version]) -> bool {
    versions.iter().any(|version| alike(&held.state, &version.state))
}

/// The operation that writes a held record. None if its time to live is over.
pub(super) fn operation(held: &Record, now: Timestamp) -> Option<Operation> {
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
    Some(Operation { key: held.key.clone(), action, expect: Expect::Any })
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
            // When it expires is left out: what was offered again expires by whole seconds.
            (&one.value, &one.content_type) == (&other.value, &other.content_type)
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
