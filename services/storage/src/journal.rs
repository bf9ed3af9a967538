//! Follows the journal: from the replica's own stored position on, entry after entry, to the applying thread. The first
//! delivery must be the batch that the replica stored; if it is not, nothing of that journal is applied before it is
//! known why. A replica that cannot go on stands still, says so, and looks again: an operator, or a newer build, helps.

mod entry;
mod halt;
mod orders;
mod rescue;
mod start;
#[cfg(test)]
mod tests;

use std::{error::Error, ops::ControlFlow, time::Duration};

use roam_nats::{Bus, Entry, JournalReader, StreamState, journal_stream, stream_state};
use roam_process::{Condition, Context, kill_point};
use roam_schemas::{Control, JournalBatch, ReplicaName, Shard, Terms};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    fold::Stuck,
    metrics::Metrics,
    progress::Progress,
    store::{Passed, Position, Reader, StoreError},
};
use entry::batch_id;
pub(crate) use entry::{Read, read_entry};
pub(crate) use halt::Halt;
pub(crate) use orders::Orders;
pub(crate) use rescue::{Rescue, Wanted};
use start::{Known, Start, start};

/// How long to wait before the journal is opened again after it was lost.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// How often a replica that stands still looks whether it may go on.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the applying thread is given.
pub(crate) enum Work {
    /// Before all that comes, revisions go on in this epoch.
    Epoch(u16),
    /// From here on the entries behind the stored position come again: one could not be applied.
    Begin,
    /// A batch, and the position after it.
    Batch(Position, JournalBatch),
    /// A batch that an operator had passed over, and the position after it.
    Skipped(Position, JournalBatch),
    /// What an operator ordered, and the position after it.
    Control(Position, Control),
    /// All up to that sequence is applied once all that came before this is: the stored batch is the one that it was.
    Passed(u64),
    /// The same of an entry that is none of ours, or that an operator had passed over: there is nothing in it to apply.
    PassedOver(Passed),
    /// Nothing of the journal: it is time to remove what may go.
    Clean,
}

/// Follows the journal until shutdown.
pub(crate) struct Follower {
    pub(crate) shard: Shard,
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) metrics: Metrics,
    pub(crate) reader: Reader,
    pub(crate) progress: Progress,
    /// What was handed over last.
    pub(crate) position: Option<Position>,
    /// The last entry that was passed over.
    pub(crate) passed: Option<Passed>,
    pub(crate) name: ReplicaName,
    pub(crate) orders: Orders,
    pub(crate) rescue: Rescue,
    /// How the journal was when it was looked at last.
    pub(crate) state: Option<StreamState>,
    pub(crate) work: mpsc::Sender<Work>,
    pub(crate) stuck: watch::Receiver<Option<Stuck>>,
    pub(crate) condition: Condition,
}

/// Why reading ended.
enum Stop {
    Shutdown,
    /// The reader was lost: open it again.
    Lost(Box<dyn Error + Send + Sync>),
    /// The batch at the stored position is another one.
    Forked,
    /// Another sequence came than the one that had to come.
    Elsewhere {
        first: u64,
        needed: u64,
    },
    Halt(Halt),
}

/// What was found out about the journal before, and has to be found again before it counts.
#[derive(Default)]
struct Suspicion {
    forked: bool,
    elsewhere: Option<(u64, u64)>,
}

impl Follower {
    /// Follows the journal until shutdown.
    ///
    /// # Errors
    /// Those of the store. All else is waited for.
    pub(crate) async fn follow(mut self) -> Result<(), StoreError> {
        let mut suspicion = Suspicion::default();
        while !self.context.shutdown.is_cancelled() {
            let stop = self.read(&mut suspicion).await?;
            // Until it is followed again nobody knows how much of it is missing here.
            self.progress.follows(None);
            suspicion.forked = false;
            match stop {
                // Also if the applying thread is gone: it failed, and its reason is the one to tell.
                Stop::Shutdown => {
                    self.context.shutdown.cancelled().await;
                    break;
                }
                Stop::Lost(lost) => self.wait(lost.as_ref()).await,
                Stop::Forked => suspicion.forked = true,
                // The stream may have moved on, or be another one, since it was looked at: that is found at the next look.
                Stop::Elsewhere { first, needed } if suspicion.elsewhere != Some((first, needed)) => {
                    suspicion.elsewhere = Some((first, needed));
                }
                Stop::Elsewhere { first, needed } => self.stand_still(Halt::Gap { first, needed }).await,
                Stop::Halt(halt) => self.stand_still(halt).await,
            }
        }
        Ok(())
    }

    async fn wait(&self, reason: &(dyn Error + Send + Sync)) {
        self.condition.set_not_ready(reason.to_string());
        self.metrics.journal_reopened();
        let _ = self.context.shutdown.run_until_cancelled(sleep(REOPEN_AFTER)).await;
    }

    /// Leaves the queue group, says why, does what can be done about it, and waits until it is time to look again.
    async fn stand_still(&mut self, halt: Halt) {
        let halted = halt.told(self.orders.incarnation());
        if !self.progress.is_halted() {
            tracing::error!(reason = halted.reason, "this replica stands still");
        }
        self.condition.set_not_ready(halted.reason.clone());
        self.progress.set_halted(Some(halted));
        if self.help(&halt).await {
            return;
        }
        let _ = self.context.shutdown.run_until_cancelled(sleep(LOOK_AGAIN_AFTER)).await;
    }

    /// The journal goes on where the replica stands.
    fn goes_on(&self) {
        if self.progress.is_halted() {
            tracing::info!("this replica goes on");
            self.progress.set_halted(None);
        }
        self.condition.set_ready();
    }

    /// Reads from where the replica stands, for as long as that goes.
    async fn read(&mut self, suspicion: &mut Suspicion) -> Result<Stop, StoreError> {
        let state = match self.look().await {
            Ok(state) => state,
            Err(error) => return Ok(Stop::Lost(error)),
        };
        if let Some(halt) = self.recover().await? {
            return Ok(Stop::Halt(halt));
        }
        let line = self.position.as_ref().map_or(0, |position| position.line);
        let resume = self.orders.resume_above(line);
        let known = Known {
            forked: suspicion.forked,
            resume: resume.map(|ordered| &ordered.resume),
            named: resume.is_some_and(|order| order.resume.from == self.name && self.rescue.is_meant(order)),
            passed: self.passed,
            restored: self.rescue.is_restored(),
        };
        let start = match start(self.position.as_ref(), &state, known) {
            Ok(start) => start,
            Err(halt) => return Ok(Stop::Halt(halt)),
        };
        if start.ordered
            && let Some(epoch) = self.rescue.begins(&start, self.reader.epoch())
        {
            // Whether the applying thread is still there shows at the next entry.
            let _ = self.work.send(Work::Epoch(epoch)).await;
        }
        Ok(self.read_from(&start).await)
    }

    /// How the journal is now, and what operators ordered in it.
    async fn look(&mut self) -> Result<StreamState, Box<dyn Error + Send + Sync>> {
        let state = stream_state(&self.bus, &journal_stream(self.shard)).await?;
        self.orders.read(&self.bus, self.shard, nanos(state.created), state.last_sequence).await?;
        self.state = Some(state.clone());
        Ok(state)
    }

    /// Goes back to what is stored if an entry could not be applied, once an operator had it passed over.
    async fn recover(&mut self) -> Result<Option<Halt>, StoreError> {
        let Some(stuck) = self.stuck.borrow_and_update().clone() else {
            return Ok(None);
        };
        if !self.orders.skips_batch(&stuck.position) {
            return Ok(Some(stuck.into()));
        }
        self.position = self.reader.snapshot().position()?;
        // What was passed over behind that one was behind what could not be applied, too.
        self.passed = self.reader.snapshot().passed()?;
        // Whether the applying thread is still there shows at the next entry.
        let _ = self.work.send(Work::Begin).await;
        // Until it has taken that up, what it was stuck at looks as if it were stuck again.
        let _ = self.context.shutdown.run_until_cancelled(self.stuck.wait_for(Option::is_none)).await;
        Ok(None)
    }

    async fn read_from(&mut self, start: &Start) -> Stop {
        let mut reader = match JournalReader::open(&self.bus, &journal_stream(self.shard), None, start.sequence).await {
            Ok(reader) => reader,
            Err(lost) => return Stop::Lost(lost.into()),
        };
        let last = match stream_state(&self.bus, &journal_stream(self.shard)).await {
            Ok(state) if nanos(state.created) == start.incarnation => state.last_sequence,
            Ok(_) => return Stop::Lost("the journal was created anew just now".into()),
            Err(lost) => return Stop::Lost(lost.into()),
        };
        let shutdown = self.context.shutdown.clone();
        let mut stuck = self.stuck.clone();
        let mut stored = start.stored;
        if stored.is_none() && self.all_applied_to(start.sequence - 1).await.is_break() {
            return Stop::Shutdown;
        }
        if start.sequence > last {
            self.goes_on();
        }
        self.progress.follows(Some(last));
        for needed in start.sequence.. {
            let next = async {
                tokio::select! {
                    biased;
                    // The applying thread is as old as this task, and says nothing more when it ends.
                    Ok(found) = stuck.wait_for(Option::is_some) => Err(found.clone()),
                    entry = reader.next() => Ok(entry),
                }
            };
            let entry = match shutdown.run_until_cancelled(next).await {
                None => return Stop::Shutdown,
                Some(Ok(Ok(entry))) => entry,
                Some(Ok(Err(lost))) => return Stop::Lost(lost.into()),
                Some(Err(found)) => return found.map_or(Stop::Shutdown, |stuck| Stop::Halt(stuck.into())),
            };
            // Nothing is ever taken out of the middle of the journal, so each entry follows the one before.
            if entry.sequence != needed {
                return Stop::Elsewhere { first: entry.sequence, needed };
            }
            let is_new = stored.is_none();
            let went_on = match stored.take() {
                Some(expected) if batch_id(&entry) != Some(expected) => return Stop::Forked,
                Some(_) => Ok(self.all_applied_to(needed).await.is_continue()),
                None => self.hand_over(start, &entry).await,
            };
            self.note_restored(start);
            match went_on {
                // That the stored batch is there says nothing of what comes behind it.
                Ok(true) if is_new || needed >= last => self.goes_on(),
                Ok(true) => {}
                Ok(false) => return Stop::Shutdown,
                Err(halt) => return Stop::Halt(halt),
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
    async fn hand_over(&mut self, start: &Start, entry: &Entry) -> Result<bool, Halt> {
        kill_point("received");
        let skipped = self.orders.skips(entry);
        let work = match read_entry(entry) {
            Ok(Read::Batch(batch)) => {
                let position = self.move_to(start, entry, batch.id, Some(batch.terms.clone()));
                if skipped { Work::Skipped(position, batch) } else { Work::Batch(position, batch) }
            }
            Ok(Read::Control(id, control)) => {
                if let Control::Resume(resume) = &control
                    && resume.line > start.line
                {
                    return Err(Halt::outdated(resume));
                }
                Work::Control(self.move_to(start, entry, id, None), control)
            }
            Ok(Read::Foreign) => {
                self.metrics.not_ours();
                tracing::warn!(sequence = entry.sequence, "an entry of the journal is none of ours");
                Work::PassedOver(self.pass_over(start, entry))
            }
            Err(halt) if skipped => {
                tracing::warn!(sequence = entry.sequence, reason = %halt, "an entry that does not decode is passed over");
                Work::PassedOver(self.pass_over(start, entry))
            }
            Err(halt) => return Err(halt),
        };
        Ok(self.work.send(work).await.is_ok())
    }

    /// The position after an entry, from which the next one is looked at.
    fn move_to(
        &mut self,
        start: &Start,
        entry: &Entry,
        batch: roam_schemas::BatchId,
        terms: Option<Terms>,
    ) -> Position {
        let before = self.position.as_ref().map(|position| position.terms.clone());
        let position = Position {
            incarnation: start.incarnation,
            sequence: entry.sequence,
            batch,
            published: nanos(entry.published),
            line: start.line,
            terms: terms.or(before).unwrap_or_default(),
        };
        self.position = Some(position.clone());
        // What was passed over behind it was so before the journal was rolled back.
        self.passed = self.passed.filter(|passed| passed.sequence < entry.sequence);
        position
    }

    /// The same for an entry that has nothing to apply. The position stays: the next first delivery is to be the batch there,
    /// for as long as the journal holds that.
    fn pass_over(&mut self, start: &Start, entry: &Entry) -> Passed {
        let passed = Passed { incarnation: start.incarnation, line: start.line, sequence: entry.sequence };
        self.passed = Some(passed);
        passed
    }
}

/// An instant of the bus's, in nanoseconds since the Unix epoch.
pub(crate) fn nanos(time: time::OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}
