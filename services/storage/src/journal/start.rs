//! The position check: where to read from, given what is stored and what the stream says.

use roam_nats::{STORAGE_REPLICAS_KEY, StreamState};
use roam_schemas::{BatchId, Resume};

use super::{Halt, nanos};
use crate::store::{Passed, Position};

/// Where to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) sequence: u64,
    /// The batch that the first delivery must be.
    pub(super) stored: Option<BatchId>,
    pub(super) incarnation: u64,
    pub(super) line: u64,
    pub(super) replicas: usize,
    /// What is held counts from here on, because an order says so.
    pub(super) ordered: bool,
    /// Revisions go on in a new epoch first: some that were given are missing here.
    pub(super) new_epoch: bool,
}

/// What is known beside the stored position and the state of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// The batch at the stored position was looked at and is another one.
    pub(super) forked: bool,
    /// The order to begin a line above that of the position.
    pub(super) resume: Option<&'a Resume>,
    /// That order means this replica.
    pub(super) named: bool,
    /// The last entry that had nothing to apply.
    pub(super) passed: Option<Passed>,
    /// What is held was restored from a backup, and it is not known yet whether the journal carries that forward.
    pub(super) restored: bool,
}

/// Where to read from.
///
/// # Errors
/// The journal does not go on where this replica stands, and nobody said that it counts all the same.
pub(super) fn start(position: Option<&Position>, state: &StreamState, known: Known<'_>) -> Result<Start, Halt> {
    let incarnation = nanos(state.created);
    let replicas = replicas_of(state);
    let begin = |sequence, stored, line| Start {
        sequence,
        stored,
        incarnation,
        line,
        replicas,
        ordered: false,
        new_epoch: false,
    };
    let checked = check(position, state, known, begin);
    let Some(resume) = known.resume else { return checked };
    let first = begin(state.first_sequence.max(1), None, resume.line);
    match checked {
        Ok(start) if known.named => Ok(Start { line: resume.line, ordered: true, new_epoch: known.restored, ..start }),
        // What is missing may have been given revisions.
        Err(Halt::Gap { .. }) if known.named => Ok(Start { ordered: true, new_epoch: true, ..first }),
        Err(Halt::Forked { .. }) if known.named => Ok(Start { ordered: true, new_epoch: known.restored, ..first }),
        Err(Halt::Gap { .. } | Halt::Forked { .. }) => Err(Halt::outdated(resume)),
        checked => checked,
    }
}

/// How many replicas the deployment has. One, unless the stream says otherwise.
pub(super) fn replicas_of(state: &StreamState) -> usize {
    state.metadata.get(STORAGE_REPLICAS_KEY).and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn check(
    position: Option<&Position>,
    state: &StreamState,
    known: Known<'_>,
    begin: impl Fn(u64, Option<BatchId>, u64) -> Start,
) -> Result<Start, Halt> {
    let next = done_to(position, state, known) + 1;
    let Some(position) = position else {
        return match state.first_sequence {
            first if first <= next => Ok(begin(first.max(1), None, 1)),
            first => Err(Halt::Gap { first, needed: next }),
        };
    };
    if known.forked || position.incarnation != nanos(state.created) || state.last_sequence < position.sequence {
        return new_line(position, state, known, begin(state.first_sequence.max(1), None, position.line + 1));
    }
    match state.first_sequence {
        first if first <= position.sequence => Ok(begin(position.sequence, Some(position.batch), position.line)),
        // The batch aged out, perhaps with entries behind it that had nothing to apply, and nothing else is missing.
        first if first <= next => Ok(begin(first, None, position.line)),
        first => Err(Halt::Gap { first, needed: next }),
    }
}

/// Up to where nothing of the journal is missing here: to the position, or to what was passed over behind it on its line.
fn done_to(position: Option<&Position>, state: &StreamState, known: Known<'_>) -> u64 {
    let stored = position.map_or(0, |position| position.sequence);
    let of_it = |passed: &Passed| {
        passed.incarnation == nanos(state.created) && position.is_none_or(|position| position.line == passed.line)
    };
    known.passed.filter(of_it).map_or(stored, |passed| passed.sequence.max(stored))
}

/// The journal is another one than the replica knew. A single replica is the whole truth, unless it was restored: it goes on
/// with all that the journal holds, which is safe because applying is idempotent. Several have to agree first.
fn new_line(position: &Position, state: &StreamState, known: Known<'_>, start: Start) -> Result<Start, Halt> {
    if start.replicas > 1 || known.restored {
        let (position, batch) = (position.sequence, position.batch);
        return Err(Halt::Forked { position, batch, replicas: start.replicas });
    }
    if position.incarnation != start.incarnation && start.sequence > 1 {
        // Nobody applied what the new stream held at its beginning.
        return Err(Halt::Gap { first: start.sequence, needed: 1 });
    }
    tracing::warn!(
        position = position.sequence,
        first = state.first_sequence,
        last = state.last_sequence,
        line = start.line,
        "the journal was rolled back or created anew: a new line begins"
    );
    Ok(start)
}
