//! Follows the journal: from the replica's own stored position on, batch after batch, to the applying thread. The
//! first delivery must be the batch that the replica stored; if it is not, nothing of that journal is applied before it
//! is known why.

use std::{ops::ControlFlow, time::Duration};

use roam_nats::{Bus, Entry, JOURNAL_STREAM, JournalReader, STORAGE_REPLICAS_KEY, StreamState, stream_state};
use roam_process::{Condition, Context};
use roam_schemas::{BatchId, Encoding, JournalBatch, decode};
use tokio::{sync::mpsc, time::sleep};

use crate::{metrics::Metrics, store::Position};

/// How long to wait before the journal is opened again after it was lost.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// What the applying thread is given.
#[expect(clippy::large_enum_variant, reason = "nearly all of it is batches, and few wait")]
pub(crate) enum Work {
    /// A batch, and the position after it.
    Batch(Position, JournalBatch),
    /// All up to that sequence is applied once all that came before this is: the stored batch is the one that it was, or
    /// an entry is none of ours.
    Passed(u64),
    /// Nothing of the journal: it is time to remove what may go.
    Clean,
}

/// Why a replica must not go on. A person, or a newer build, has to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The journal does not hold what comes after the replica's position.
    #[error(
        "the journal goes on at {first}, but this replica needs {needed}: give it a checkpoint of a peer or a backup"
    )]
    Gap {
        /// The first sequence that the journal holds behind the gap.
        first: u64,
        /// The first that the replica needs.
        needed: u64,
    },
    /// The journal was rolled back or created anew, and other replicas have to agree on what is true.
    #[error(
        "the journal was rolled back or created anew at or before {position} (batch {batch}); {replicas} replicas have to agree"
    )]
    Forked {
        /// The replica's position.
        position: u64,
        /// The batch that it stored there.
        batch: BatchId,
        /// How many replicas the deployment has.
        replicas: usize,
    },
    /// A batch does not decode.
    #[error("batch {batch} at {sequence} of the journal does not decode: {reason}")]
    Undecodable {
        /// Its sequence.
        sequence: u64,
        /// The id in its header.
        batch: String,
        /// Why not.
        reason: String,
    },
    /// An entry is of a kind that this build does not know.
    #[error("entry {sequence} of the journal on `{subject}` is of a kind that this build does not know")]
    UnknownKind {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
    },
}

/// Follows the journal until shutdown.
pub(crate) struct Follower {
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) metrics: Metrics,
    /// What was handed over last.
    pub(crate) position: Option<Position>,
    pub(crate) work: mpsc::Sender<Work>,
    pub(crate) condition: Condition,
}

/// Where to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    sequence: u64,
    /// The batch that the first delivery must be.
    stored: Option<BatchId>,
    incarnation: u64,
    line: u64,
    replicas: usize,
}

/// Why reading ended.
enum Stop {
    Shutdown,
    /// The reader was lost: open it again.
    Lost(Box<dyn std::error::Error + Send + Sync>),
    /// The batch at the stored position is another one.
    Forked,
    /// Another sequence came than the one that had to come.
    Elsewhere {
        first: u64,
        needed: u64,
    },
    Halt(FollowError),
}

impl Follower {
    /// Follows the journal until shutdown.
    pub(crate) async fn follow(mut self) -> Result<(), FollowError> {
        let (mut forked, mut elsewhere) = (false, None);
        while !self.context.shutdown.is_cancelled() {
            let state = match stream_state(&self.bus, JOURNAL_STREAM).await {
                Ok(state) => state,
                Err(error) => {
                    self.wait(&error).await;
                    continue;
                }
            };
            let start = start(self.position.as_ref(), &state, forked)?;
            forked = false;
            match self.read(&start).await {
                // Also if the applying thread is gone: it failed, and its reason is the one to tell.
                Stop::Shutdown => {
                    self.context.shutdown.cancelled().await;
                    break;
                }
                Stop::Lost(lost) => self.wait(lost.as_ref()).await,
                Stop::Forked => forked = true,
                // The stream may have moved on, or be another one, since it was looked at: that is found at the next look.
                Stop::Elsewhere { first, needed } if elsewhere != Some((first, needed)) => {
                    elsewhere = Some((first, needed));
                }
                Stop::Elsewhere { first, needed } => return Err(FollowError::Gap { first, needed }),
                Stop::Halt(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn wait(&self, reason: &(dyn std::error::Error + Send + Sync)) {
        self.condition.set_not_ready(reason.to_string());
        self.metrics.journal_reopened();
        let _ = self.context.shutdown.run_until_cancelled(sleep(REOPEN_AFTER)).await;
    }

    async fn read(&mut self, start: &Start) -> Stop {
        let mut reader = match JournalReader::open(&self.bus, JOURNAL_STREAM, None, start.sequence).await {
            Ok(reader) => reader,
            Err(lost) => return Stop::Lost(lost.into()),
        };
        match stream_state(&self.bus, JOURNAL_STREAM).await {
            Ok(state) if nanos(state.created) == start.incarnation => {}
            Ok(_) => return Stop::Lost("the journal was created anew just now".into()),
            Err(lost) => return Stop::Lost(lost.into()),
        }
        self.condition.set_ready();
        let shutdown = self.context.shutdown.clone();
        let mut stored = start.stored;
        if stored.is_none() && self.all_applied_to(start.sequence - 1).await.is_break() {
            return Stop::Shutdown;
        }
        for needed in start.sequence.. {
            let entry = match shutdown.run_until_cancelled(reader.next()).await {
                None => return Stop::Shutdown,
                Some(Err(lost)) => return Stop::Lost(lost.into()),
                Some(Ok(entry)) => entry,
            };
            // Nothing is ever taken out of the middle of the journal, so each entry follows the one before.
            if entry.sequence != needed {
                return Stop::Elsewhere { first: entry.sequence, needed };
            }
            let went_on = match stored.take() {
                Some(expected) if batch_id(&entry) != Some(expected) => return Stop::Forked,
                Some(_) => Ok(self.all_applied_to(needed).await.is_continue()),
                None => self.hand_over(start, &entry).await,
            };
            match went_on {
                Ok(true) => {}
                Ok(false) => return Stop::Shutdown,
                Err(error) => return Stop::Halt(error),
            }
        }
        Stop::Shutdown
    }

    /// Says, behind all that was handed over, that the journal as it is now is applied up to there. Until then nobody
    /// knows to which journal the sequence of the stored batch belongs.
    async fn all_applied_to(&self, sequence: u64) -> ControlFlow<()> {
        match self.work.send(Work::Passed(sequence)).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Hands an entry to the applying thread; false once that is gone.
    async fn hand_over(&mut self, start: &Start, entry: &Entry) -> Result<bool, FollowError> {
        let Some(batch) = read_entry(entry)? else {
            self.metrics.not_ours();
            tracing::warn!(sequence = entry.sequence, "an entry of the journal is none of ours");
            return Ok(self.work.send(Work::Passed(entry.sequence)).await.is_ok());
        };
        let position = Position {
            incarnation: start.incarnation,
            sequence: entry.sequence,
            batch: batch.id,
            published: nanos(entry.published),
            line: start.line,
            terms: batch.terms.clone(),
        };
        self.position = Some(position.clone());
        Ok(self.work.send(Work::Batch(position, batch)).await.is_ok())
    }
}

/// Reads an entry; none if it is not an access server's.
///
/// # Errors
/// See [`FollowError`]: what a replica does not understand it never skips.
pub(crate) fn read_entry(entry: &Entry) -> Result<Option<JournalBatch>, FollowError> {
    let Some(id) = entry.headers.batch() else {
        return Ok(None);
    };
    if entry.subject.ends_with(".control") {
        return Err(FollowError::UnknownKind { sequence: entry.sequence, subject: entry.subject.clone() });
    }
    let undecodable =
        |reason: String| FollowError::Undecodable { sequence: entry.sequence, batch: id.to_owned(), reason };
    let batch: JournalBatch =
        decode(&entry.payload, Encoding::Postcard).map_err(|error| undecodable(error.to_string()))?;
    if BatchId::parse(id) != Some(batch.id) {
        return Err(undecodable(format!("its payload says batch {}", batch.id)));
    }
    Ok(Some(batch))
}

fn batch_id(entry: &Entry) -> Option<BatchId> {
    entry.headers.batch().and_then(BatchId::parse)
}

/// Where to read from, given what is stored and what the stream says. `forked` says that the batch at the stored
/// position was looked at and is another one.
fn start(position: Option<&Position>, state: &StreamState, forked: bool) -> Result<Start, FollowError> {
    let incarnation = nanos(state.created);
    let replicas = state.metadata.get(STORAGE_REPLICAS_KEY).and_then(|text| text.parse().ok()).unwrap_or(1);
    let begin = |sequence, stored, line| Start { sequence, stored, incarnation, line, replicas };
    let Some(position) = position else {
        return match state.first_sequence {
            0 | 1 => Ok(begin(1, None, 1)),
            first => Err(FollowError::Gap { first, needed: 1 }),
        };
    };
    let next = position.sequence + 1;
    if forked || position.incarnation != incarnation || state.last_sequence < position.sequence {
        return new_line(position, state, begin(state.first_sequence.max(1), None, position.line + 1));
    }
    match state.first_sequence {
        first if first <= position.sequence => Ok(begin(position.sequence, Some(position.batch), position.line)),
        // The batch aged out, and nothing is missing behind it.
        first if first == next => Ok(begin(next, None, position.line)),
        first => Err(FollowError::Gap { first, needed: next }),
    }
}

/// The journal is another one than the replica knew. A single replica is the whole truth: it goes on with all that the
/// journal holds, which is safe because applying is idempotent. Several have to agree first.
fn new_line(position: &Position, state: &StreamState, start: Start) -> Result<Start, FollowError> {
    if start.replicas > 1 {
        let (position, batch) = (position.sequence, position.batch);
        return Err(FollowError::Forked { position, batch, replicas: start.replicas });
    }
    if position.incarnation != start.incarnation && start.sequence > 1 {
        // Nobody applied what the new stream held at its beginning.
        return Err(FollowError::Gap { first: start.sequence, needed: 1 });
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

fn nanos(time: time::OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
