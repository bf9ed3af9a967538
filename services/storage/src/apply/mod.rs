//! Apply: one journal batch becomes one synced write. What becomes of each change is decided in `decide.rs`; this
//! gathers the facts for it, turns effects into rows, and commits them together with the journal position.

mod facts;
mod newest;
mod recent;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use roam_schemas::{
    Action, BatchId, Control, Erase, JournalBatch, Outcome, Problem, Revision, StampedChange, Timestamp,
};

use crate::planted::planted;
use crate::{
    decide::{Decision, Effect, Effects, Facts, Known, KnownValue, bytes_of, decide, skip},
    store::{
        ChangeTables, Commit, Committer, Passed, Place, Position, ProfileKey, Reader, RecordKey, Removed, RowState,
        Seen, StoreError, Traces, UserKey, VersionRow, Writer,
    },
};
use facts::{Knowledge, Stored};

/// A batch that is applied and fsynced.
#[derive(Debug)]
pub struct AppliedBatch {
    /// Its sequence in the journal.
    pub sequence: u64,
    /// The batch.
    pub batch: JournalBatch,
    /// What became of each of its changes, in order.
    pub verdicts: Vec<Verdict>,
}

impl AppliedBatch {
    /// About how many bytes of memory it takes.
    pub(crate) fn weight(&self) -> usize {
        self.batch.changes.iter().map(weight).sum()
    }
}

/// What became of a change, as its publisher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was decided in this batch.
    Decided(Outcome),
    /// It had been decided before: this is the first outcome.
    Again(Outcome),
    /// Another change had been decided under its id.
    Mismatch(Problem),
}

/// Where each profile that a batch touched stands after it.
pub type Heads = Vec<(ProfileKey, Revision)>;

/// Why a batch cannot be applied. Only a full disk heals by itself.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The batch is decided under rules that this build does not know: a newer build must go on.
    #[error("batch {batch} is decided under rules {rules}, this build knows them up to {}", roam_schemas::RULES)]
    Rules {
        /// The batch.
        batch: BatchId,
        /// Its rules.
        rules: u16,
    },
    /// A change makes `decide` panic. Nothing of its batch was written.
    #[error("deciding change {index} of batch {batch} panicked")]
    Panicked {
        /// The batch.
        batch: BatchId,
        /// The index of the change.
        index: usize,
    },
}

/// Applies batches, one after the other.
pub struct Applier {
    writer: Writer,
    reader: Reader,
    knowledge: Knowledge,
    /// How many operations showed since [`Self::take_rolled_back`] that ROAM_CHANGES was rolled back.
    rolled_back: u64,
    /// What was passed and is not written down yet.
    passed: Option<Passed>,
    /// What is written down of it.
    written: Option<Passed>,
}

impl Applier {
    /// Takes over the right to write.
    ///
    /// # Errors
    /// As all reads.
    pub fn new(writer: Writer, reader: Reader) -> Result<Self, StoreError> {
        let written = reader.newest().passed()?;
        Ok(Self { writer, knowledge: Knowledge::new(reader.clone())?, reader, rolled_back: 0, passed: None, written })
    }

    /// Decides on every change of a batch and collects what is to be written. Nothing is written yet.
    ///
    /// # Errors
    /// See [`ApplyError`]. Nothing of the batch counts then.
    pub fn prepare(&mut self, batch: &JournalBatch, position: &Position) -> Result<Prepared, ApplyError> {
        self.prepare_group([(position, batch)]).map_err(|(_, error)| error)
    }

    /// The same for batches that follow each other, and are committed at once: with the position of the last, and each profile where it
    /// stands after all of them.
    ///
    /// # Errors
    /// The index of the first batch that cannot be applied, and why. Nothing of all of them counts then.
    pub fn prepare_group<'b>(
        &mut self,
        group: impl IntoIterator<Item = (&'b Position, &'b JournalBatch)>,
    ) -> Result<Prepared, (usize, ApplyError)> {
        let prepared = self.decide_group(group);
        if prepared.is_err() {
            self.knowledge.forget();
        }
        prepared
    }

    /// Decides that every change of a batch is rejected, because an operator had it passed over.
    ///
    /// # Errors
    /// Those of the store.
    pub fn prepare_skipped(&mut self, batch: &JournalBatch, position: &Position) -> Result<Prepared, ApplyError> {
        let mut prepared = Prepared::default();
        let decide = |facts: &Facts, stamped: &StampedChange| skip(facts, &batch.terms, stamped);
        self.decide_all(&mut prepared, batch, position, decide)?;
        self.close(&mut prepared, position)?;
        Ok(prepared)
    }

    /// Does what an operator ordered, and moves the position past it, in one write. Says what was removed by it.
    ///
    /// # Errors
    /// [`StoreError::Full`] may be tried again; after any other the process must end.
    pub fn control(&mut self, control: &Control, position: &Position) -> Result<Option<Removed>, StoreError> {
        match control {
            Control::Erase(Erase { tenant, user }) => {
                let user = UserKey::new(tenant, user);
                let (removed, marker) = self.writer.erase(&user, position)?;
                self.knowledge.learn_erased(&user, marker);
                return Ok(Some(removed));
            }
            Control::Epoch(epoch) => {
                self.writer.begin_epoch(epoch.epoch, Some(position))?;
                self.knowledge.forget();
            }
            // What they say was heeded when the journal was opened: here they only take their place in it.
            Control::Resume(_) | Control::Skip(_) => self.writer.pass(position)?,
        }
        Ok(None)
    }

    /// All that came before an entry is written, and the entry itself had nothing to apply: see [`Self::write_passed`].
    pub(crate) fn pass(&mut self, passed: Passed) {
        self.passed = Some(passed);
    }

    /// Writes down what was passed since the last call, unless the position is beyond it by now: the batch there says the same.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub(crate) fn write_passed(&mut self) -> Result<(), StoreError> {
        let Some(passed) = self.passed else { return Ok(()) };
        if self.reader.newest().position()?.is_none_or(|position| position.sequence < passed.sequence) {
            self.writer.put_passed(&passed)?;
            self.written = Some(passed);
        }
        self.passed = None;
        Ok(())
    }

    /// Lets revisions go on in an epoch before anything more is applied, unless they are there already.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub fn begin_epoch(&mut self, epoch: u16) -> Result<(), StoreError> {
        self.writer.begin_epoch(epoch, None)?;
        self.knowledge.forget();
        Ok(())
    }

    /// The right to write what is prepared, for whoever does that on another thread: see [`Self::hand_over`].
    pub(crate) fn committer(&self) -> Committer {
        self.writer.committer()
    }

    /// What was prepared is to be written by a [`Committer`] from here on. The next may be prepared meanwhile; it may be handed over,
    /// and all else be called, only once this is written.
    pub(crate) fn hand_over(&mut self) {
        self.knowledge.settle();
    }

    /// Writes what is prepared and returns once it is fsynced.
    ///
    /// # Errors
    /// [`StoreError::Full`] may be tried again; after any other the process must end.
    pub fn commit(&mut self, prepared: &Prepared) -> Result<(), StoreError> {
        self.writer.commit(&prepared.commit)?;
        self.knowledge.settle();
        Ok(())
    }

    /// Removes up to `most` tombstones whose stay is over; says how many went. `now` is the replica's clock; what is
    /// applied may be older, and then it goes by that.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn clean(&mut self, now: Timestamp, most: usize) -> Result<usize, StoreError> {
        let Some(position) = self.reader.newest().position()? else {
            return Ok(0);
        };
        let gone = self.writer.clean(now, &position, most)?;
        gone.iter().for_each(|record| self.knowledge.unlearn_record(record));
        Ok(gone.len())
    }

    /// How many operations showed since the last call that ROAM_CHANGES was rolled back: an alarm, not a decision.
    pub fn take_rolled_back(&mut self) -> u64 {
        std::mem::take(&mut self.rolled_back)
    }

    /// Compacts everything: for tests and for proofs that bytes are gone.
    ///
    /// # Errors
    /// None that RocksDB reports.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.writer.compact()
    }

    fn decide_group<'b>(
        &mut self,
        group: impl IntoIterator<Item = (&'b Position, &'b JournalBatch)>,
    ) -> Result<Prepared, (usize, ApplyError)> {
        let (mut prepared, mut last) = (Prepared::default(), None);
        for (index, (position, batch)) in group.into_iter().enumerate() {
            let decide = |facts: &Facts, stamped: &StampedChange| {
                decide(facts, &batch.terms, batch.quota(&stamped.profile.tenant), stamped)
            };
            let decided = match batch.rules == roam_schemas::RULES {
                true => self.decide_all(&mut prepared, batch, position, decide),
                false => Err(ApplyError::Rules { batch: batch.id, rules: batch.rules }),
            };
            decided.map_err(|error| (index, error))?;
            last = Some((index, position));
        }
        if let Some((index, position)) = last {
            self.close(&mut prepared, position).map_err(|error| (index, error.into()))?;
        }
        Ok(prepared)
    }

    fn decide_all(
        &mut self,
        prepared: &mut Prepared,
        batch: &JournalBatch,
        position: &Position,
        decide: impl Fn(&Facts, &StampedChange) -> Decision,
    ) -> Result<(), ApplyError> {
        let journaled = Timestamp::from_nanos(position.published);
        let reader = self.reader.clone();
        let (newest, tables) = (reader.newest(), reader.change_tables()?);
        let mut stored = Stored::new(&newest);
        for (index, stamped) in batch.changes.iter().enumerate() {
            let profile = ProfileKey::new(&stamped.profile);
            let keys: Vec<_> = stamped.change.ops().iter().map(|op| profile.record(&op.key)).collect();
            let facts = self.knowledge.facts(&mut stored, &profile, &keys, (stamped, journaled))?;
            let decision = catch_unwind(AssertUnwindSafe(|| decide(&facts, stamped)))
                .map_err(|_| ApplyError::Panicked { batch: batch.id, index })?;
            let change = InBatch { batch: batch.id, index, profile, keys, stamped, records: facts.records };
            prepared.verdicts.push(self.write(&mut prepared.commit, &tables, change, decision)?);
        }
        Ok(())
    }

    /// Adds what is written once for all batches of a commit.
    fn close(&mut self, prepared: &mut Prepared, position: &Position) -> Result<(), StoreError> {
        for (profile, head) in self.knowledge.moved_heads() {
            self.writer.put_head(&mut prepared.commit, profile, head)?;
            prepared.heads.push((profile.clone(), head.revision));
        }
        // The journal was rolled back to before what was passed: its sequences mean other entries now.
        self.passed = self.passed.filter(|passed| passed.sequence < position.sequence);
        if self.written.is_some_and(|written| written.sequence >= position.sequence) {
            self.writer.forget_passed(&mut prepared.commit)?;
        }
        self.writer.put_position(&mut prepared.commit, position)
    }

    fn write(
        &mut self,
        commit: &mut Commit,
        tables: &ChangeTables<'_>,
        change: InBatch<'_>,
        decision: Decision,
    ) -> Result<Verdict, StoreError> {
        let (time, outcome, effects) = match decision {
            Decision::Again(Outcome::Applied(mut applied)) if planted("another-outcome-again") => {
                applied.revision = applied.revision.next().unwrap_or(applied.revision);
                return Ok(Verdict::Again(Outcome::Applied(applied)));
            }
            Decision::Again(outcome) => return Ok(Verdict::Again(outcome)),
            Decision::Mismatch(problem) => return Ok(Verdict::Mismatch(problem)),
            Decision::Decided { time, outcome, effects } => (time, outcome, effects),
        };
        let id = change.stamped.change.id();
        let seen = change.seen(time, outcome);
        self.write_effects(commit, tables, &change, time, &effects)?;
        commit.put_seen(tables, &change.profile, id, &seen)?;
        let verdict = Verdict::Decided(seen.outcome.clone());
        self.knowledge.learn(change.profile, id, seen, effects.head);
        Ok(verdict)
    }

    fn write_effects(
        &mut self,
        commit: &mut Commit,
        tables: &ChangeTables<'_>,
        change: &InBatch<'_>,
        time: Timestamp,
        effects: &Effects,
    ) -> Result<(), StoreError> {
        let operations =
            change.stamped.change.ops().iter().zip(&effects.operations).zip(&change.records).zip(&change.keys);
        for (((op, effect), old), key) in operations {
            if (planted("delete-ignored") && op.action == Action::Delete)
                || (planted("half-a-change") && op.key != change.stamped.change.ops()[0].key)
            {
                continue;
            }
            match (*effect, effects.head) {
                (Effect::Record { expires, conflict }, Some(head)) => {
                    let shows = old.as_ref().is_some_and(|old| old.shows_rollback(change.stamped.stamp));
                    self.rolled_back += u64::from(shows);
                    let row = change.row(&op.action, time, expires, conflict);
                    let known = change.known(op, head.revision, time, expires);
                    let old = old.as_ref().map(traces);
                    commit.put_record(tables, key, &row, traces(&known), old)?;
                    self.knowledge.learn_record(key, known);
                }
                (Effect::Late { beaten_by }, _) => {
                    let raw = change.stamped.stamp.time;
                    let row = change.row(&op.action, raw, expiry_of(&op.action, raw), false);
                    let rank = self.knowledge.next_rank(key, beaten_by)?;
                    commit.put_version(tables, key, Place { revision: beaten_by, rank }, &row)?;
                }
                (Effect::Record { .. }, None) => {}
            }
        }
        Ok(())
    }
}

/// Batches that are decided, and what they write.
#[derive(Default)]
pub struct Prepared {
    pub(crate) commit: Commit,
    /// What became of each change, in order.
    pub verdicts: Vec<Verdict>,
    /// Where each profile that moved stands after it.
    pub heads: Heads,
}

/// A change in its batch, with the newest versions of its keys on disk.
struct InBatch<'a> {
    batch: BatchId,
    index: usize,
    profile: ProfileKey,
    /// Those of its operations.
    keys: Vec<RecordKey>,
    stamped: &'a StampedChange,
    records: Vec<Option<Known>>,
}

impl InBatch<'_> {
    fn row<'r>(
        &'r self,
        action: &'r Action,
        time: Timestamp,
        expires: Option<Timestamp>,
        conflict: bool,
    ) -> VersionRow<'r> {
        let state = match action {
            Action::Delete => RowState::Deleted,
            Action::Put(put) => {
                RowState::Value { content_type: put.content_type.as_str(), expires, value: put.value.as_bytes() }
            }
        };
        VersionRow {
            time,
            device: self.stamped.device.as_str(),
            change: self.stamped.change.id(),
            base: self.stamped.change.base(),
            stamp: self.stamped.stamp,
            conflict: conflict != planted("replica-differs"),
            state,
        }
    }

    fn known(
        &self,
        op: &roam_schemas::Operation,
        revision: Revision,
        time: Timestamp,
        expires: Option<Timestamp>,
    ) -> Known {
        let value = match &op.action {
            Action::Delete => None,
            Action::Put(put) => {
                let bytes = bytes_of(&op.key, put.content_type.as_str(), put.value.as_bytes());
                Some(KnownValue { expires, bytes })
            }
        };
        Known { revision, time, device: self.stamped.device.clone(), stamp: self.stamped.stamp, value }
    }

    fn seen(&self, time: Timestamp, outcome: Outcome) -> Seen {
        // A batch holds at most 1,000 changes.
        let index = u32::try_from(self.index).unwrap_or(u32::MAX);
        Seen { batch: self.batch, index, digest: self.stamped.digest, time, outcome }
    }
}

/// About how many bytes of memory a change takes: its keys and values, and what holds them.
fn weight(stamped: &StampedChange) -> usize {
    const CHANGE: usize = 512;
    const OPERATION: usize = 128;
    let op = |op: &roam_schemas::Operation| match &op.action {
        Action::Put(put) => OPERATION + op.key.as_str().len() + put.value.len(),
        Action::Delete => OPERATION + op.key.as_str().len(),
    };
    CHANGE + stamped.change.ops().iter().map(op).sum::<usize>()
}

fn traces(known: &Known) -> Traces {
    Traces {
        revision: known.revision,
        expires: known.value.and_then(|value| value.expires),
        deleted: known.value.is_none().then_some(known.time),
    }
}

fn expiry_of(action: &Action, time: Timestamp) -> Option<Timestamp> {
    match action {
        Action::Put(put) => put.ttl.map(|seconds| time.plus_seconds(seconds.into())),
        Action::Delete => None,
    }
}
