//! The position check: where to read from, given what is stored and what the stream says.

use roam_nats::{STORAGE_REPLICAS_KEY, StreamState};
use roam_schemas::{BatchId, ReplicaName, Resume};

use super::{Halt, nanos};
use crate::store::Position;

/// Where to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) sequence: u64,
    /// The batch that the first delivery must be.
    pub(super) stored: Option<BatchId>,
    pub(super) incarnation: u64,
    pub(super) line: u64,
    pub(super) replicas: usize,
}

/// What is known beside the stored position and the state of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// The batch at the stored position was looked at and is another one.
    pub(super) forked: bool,
    /// The name of this replica.
    pub(super) name: &'a ReplicaName,
    /// The order of an operator to begin a line above that of the position.
    pub(super) resume: Option<&'a Resume>,
}

/// Where to read from.
///
/// # Errors
/// The journal does not go on where this replica stands, and nobody said that it counts all the same.
pub(super) fn start(position: Option<&Position>, state: &StreamState, known: Known<'_>) -> Result<Start, Halt> {
    let incarnation = nanos(state.created);
    let replicas = state.metadata.get(STORAGE_REPLICAS_KEY).and_then(|text| text.parse().ok()).unwrap_or(1);
    let begin = |sequence, stored, line| Start { sequence, stored, incarnation, line, replicas };
    let checked = check(position, state, known.forked, begin);
    match (checked, known.resume) {
        (Err(Halt::Gap { .. } | Halt::Forked { .. }), Some(resume)) if resume.from == *known.name => {
            tracing::warn!(
                line = resume.line,
                first = state.first_sequence,
                "an operator says that this replica counts"
            );
            Ok(begin(state.first_sequence.max(1), None, resume.line))
        }
        (Err(Halt::Gap { .. } | Halt::Forked { .. }), Some(resume)) => Err(Halt::outdated(resume)),
        (checked, _) => checked,
    }
}

fn check(
    position: Option<&Position>,
    state: &StreamState,
    forked: bool,
    begin: impl Fn(u64, Option<BatchId>, u64) -> Start,
) -> Result<Start, Halt> {
    let Some(position) = position else {
        return match state.first_sequence {
            0 | 1 => Ok(begin(1, None, 1)),
            first => Err(Halt::Gap { first, needed: 1 }),
        };
    };
    let next = position.sequence + 1;
    if forked || position.incarnation != nanos(state.created) || state.last_sequence < position.sequence {
        return new_line(position, state, begin(state.first_sequence.max(1), None, position.line + 1));
    }
    match state.first_sequence {
        first if first <= position.sequence => Ok(begin(position.sequence, Some(position.batch), position.line)),
        // The batch aged out, and nothing is missing behind it.
        first if first == next => Ok(begin(next, None, position.line)),
        first => Err(Halt::Gap { first, needed: next }),
    }
}

/// The journal is another one than the replica knew. A single replica is the whole truth: it goes on with all that the
/// journal holds, which is safe because applying is idempotent. Several have to agree first.
fn new_line(position: &Position, state: &StreamState, start: Start) -> Result<Start, Halt> {
    if start.replicas > 1 {
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
