//! `decide`: what becomes of a change, given what is known of its profile. The same on every replica: it sees no clock,
//! no disk, no compaction and no local setting. Its now is the change's own time.

use roam_schemas::{
    Action, Applied, Code, Conflict, Device, Expect, Key, Operation, Outcome, Problem, Quota, Revision, Stamp,
    StampedChange, Superseded, Terms, Timestamp, counted_bytes,
};

use crate::planted::planted;
use crate::store::{ERASED_SECONDS, Erased, Head, Seen};

/// How far the time of a change may lie behind the instant at which the journal took its batch in, in seconds: 12 hours. One
/// that lay in the stream for longer (nothing worked for days) has this later time. What is removed by the journal's time a
/// day after its term is thus of no use to any change, however late it comes.
pub const LATE_SECONDS: u64 = 12 * 3600;

/// What the store knows of the profile of a change, before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What was decided on the change's id before.
    pub seen: Option<Seen>,
    /// Where the profile stands, in the epoch that is.
    pub head: Head,
    /// For each operation, the newest version of its key on disk.
    pub records: Vec<Option<Known>>,
    /// How many profiles the user has; known only for a profile that was never written, which is not among them.
    pub user_profiles: Option<u32>,
    /// Since when the user is erased, if they are.
    pub erased: Option<Erased>,
    /// Whether the user is in another shard: whoever published this named the wrong one.
    pub elsewhere: bool,
    /// When the journal took the batch in.
    pub journaled: Timestamp,
}

/// What is known of the newest version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The revision that wrote it.
    pub revision: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// Who wrote it.
    pub device: Device,
    /// Its raw time and origin.
    pub stamp: Stamp,
    /// Its value, or none for a tombstone.
    pub value: Option<KnownValue>,
}

/// What is known of a value without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownValue {
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// How many bytes it has, its key's included.
    pub bytes: u64,
}

/// What becomes of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It was not decided before.
    Decided {
        /// The time of the decision.
        time: Timestamp,
        /// The outcome, which is remembered under the change's id.
        outcome: Outcome,
        /// What is written; nothing if it was rejected.
        effects: Effects,
    },
    /// It was decided before: this is the first outcome.
    Again(Outcome),
    /// Another change was decided under its id.
    Mismatch(Problem),
}

/// What a change that was applied writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Where the profile stands after it; none if it stays where it was.
    pub head: Option<Head>,
    /// What becomes of each operation, in order.
    pub operations: Vec<Effect>,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It becomes the record.
    Record {
        /// When the record ends.
        expires: Option<Timestamp>,
        /// Whether it beats a version that its writer had not seen.
        conflict: bool,
    },
    /// It came too late, and goes to the history of the version that beat it.
    Late {
        /// The revision of that version.
        beaten_by: Revision,
    },
}

/// Decides on a change by rules 1.
pub fn decide(facts: &Facts, terms: &Terms, quota: Quota, stamped: &StampedChange) -> Decision {
    let (before, time) = facts.begin(stamped);
    if let Some(again) = facts.repeat(terms, stamped, time) {
        return again;
    }
    let records = || {
        let known = facts.records.iter().map(Option::as_ref);
        stamped.change.ops().iter().zip(known.map(move |known| known.filter(|known| counts(known, terms, time))))
    };
    let rejection = (facts.elsewhere.then(Problem::of_another_shard))
        .or_else(|| is_erased(facts, stamped, time))
        .or_else(|| records().find_map(|(op, known)| unmet(op, known.filter(|known| exists(known, stamped, time)))))
        .or_else(|| records().find_map(|(op, known)| early_expiry(op, known, stamped, time)))
        .or_else(|| records().find_map(|(op, known)| late_condition(op, known, stamped.stamp)));
    let outcome = match rejection {
        Some(problem) => Err(problem),
        None => apply(facts, (before, time), quota, stamped, records()),
    };
    match outcome {
        Ok((applied, effects)) => Decision::Decided { time, outcome: Outcome::Applied(applied), effects },
        Err(problem) => Decision::Decided { time, outcome: Outcome::Rejected(problem), effects: Effects::default() },
    }
}

/// Decides on a change of a batch that an operator had passed over: by rule 1, and else that it is rejected.
pub fn skip(facts: &Facts, terms: &Terms, stamped: &StampedChange) -> Decision {
    let (_, time) = facts.begin(stamped);
    facts.repeat(terms, stamped, time).unwrap_or_else(|| {
        let problem = Problem::new(Code::Skipped, "an operator had the batch of this change passed over");
        Decision::Decided { time, outcome: Outcome::Rejected(problem), effects: Effects::default() }
    })
}

impl Facts {
    /// Where the profile stands for this change, and the time of the change there (rule 5). A profile that is made under the marker
    /// of an erased user begins above all that there was.
    fn begin(&self, stamped: &StampedChange) -> (Head, Timestamp) {
        let earliest = self.journaled.minus_seconds(LATE_SECONDS).max(stamped.stamp.time);
        let time = |head: Head| {
            if planted("time-falls") { earliest } else { head.time.successor().max(earliest) }
        };
        let erased = self.erased.filter(|_| self.user_profiles.is_some());
        let erased = erased.filter(|erased| erased.counts(time(self.head)));
        let head = erased.map_or(self.head, |erased| erased.head().not_below(self.head.revision));
        (head, time(head))
    }

    /// Rule 1: a change that was decided before gets its first outcome.
    fn repeat(&self, terms: &Terms, stamped: &StampedChange, time: Timestamp) -> Option<Decision> {
        let seen = self.seen.as_ref().filter(|seen| is_fresh(seen.time, terms.seen_seconds, time))?;
        if planted("seen-forgotten") {
            return None;
        }
        Some(match seen.digest == stamped.digest {
            true => Decision::Again(seen.outcome.clone()),
            false => Decision::Mismatch(mismatch()),
        })
    }
}

impl Erased {
    /// Whether it still counts at that time.
    fn counts(&self, time: Timestamp) -> bool {
        is_fresh(self.time, ERASED_SECONDS, time)
    }
}

/// What was on its way when its user was erased stays away.
fn is_erased(facts: &Facts, stamped: &StampedChange, time: Timestamp) -> Option<Problem> {
    let erased = facts.erased.filter(|erased| erased.counts(time) && stamped.stamp.time <= erased.time);
    erased.map(|_| Problem::new(Code::Skipped, "the user was erased after this change was made"))
}

/// What whoever takes an id again for another change is told.
pub fn mismatch() -> Problem {
    Problem::invalid("another change was decided under this id")
}

/// Rule 2: the problem of an operation whose expectation does not hold, given the record that exists.
fn unmet(op: &Operation, record: Option<&Known>) -> Option<Problem> {
    let revision = record.map(|known| known.revision);
    if planted("expectation-ignored") {
        return None;
    }
    match (op.expect, revision) {
        (Expect::Any, _) | (Expect::Absent, None) => None,
        (Expect::At(expected), _) if revision == Some(expected) => None,
        (Expect::Absent, Some(_)) => {
            let problem = Problem::new(Code::Exists, "a record exists that was expected to be absent");
            Some(problem.with_failed(op.key.clone(), revision))
        }
        (Expect::At(_), _) => {
            let problem = Problem::new(Code::Conflict, "a record is not at the revision that was expected");
            Some(problem.with_failed(op.key.clone(), revision))
        }
    }
}

/// The expiry writer goes by a replica's clock. A record that it takes for expired and that is not yet, by the time of
/// its change, stays.
fn early_expiry(op: &Operation, known: Option<&Known>, stamped: &StampedChange, now: Timestamp) -> Option<Problem> {
    let known = known.filter(|known| stamped.device.is_expiry() && known.is_live(now))?;
    let problem = Problem::new(Code::Conflict, "a record has not expired yet");
    Some(problem.with_failed(op.key.clone(), Some(known.revision)))
}

/// Rule 3: what a profile may hold, and how many profiles a user may have. A change that does not make more of either
/// always passes, so a delete of a live record does.
fn over_quota(facts: &Facts, before: Head, quota: Quota, head: Head) -> Option<Problem> {
    let exceeds = |limit: u64, before: u64, after: u64| after > limit && after > before;
    let refuse = |message, limit, actual| Some(Problem::new(Code::OverQuota, message).with_limit(limit, actual));
    if exceeds(quota.profile_records, before.records, head.records) {
        return refuse("the profile would hold too many records", quota.profile_records, head.records);
    }
    if exceeds(quota.profile_bytes, before.bytes, head.bytes) {
        return refuse("the profile would hold too many bytes", quota.profile_bytes, head.bytes);
    }
    let profiles = facts.user_profiles.filter(|profiles| *profiles >= quota.user_profiles)?;
    refuse("the user would have too many profiles", quota.user_profiles.into(), u64::from(profiles) + 1)
}

/// Whether a profile holds 80 % or more of what it may.
fn is_nearly_full(quota: Quota, head: Head) -> bool {
    let nearly = |limit: u64, actual: u64| u128::from(actual) * 5 >= u128::from(limit) * 4;
    nearly(quota.profile_records, head.records) || nearly(quota.profile_bytes, head.bytes)
}

/// Rule 4 for conditional operations: one that came too late must not be taken for one that was in time.
fn late_condition(op: &Operation, known: Option<&Known>, stamp: Stamp) -> Option<Problem> {
    let known = known.filter(|known| op.expect != Expect::Any && known.supersedes(stamp))?;
    let problem = Problem::new(Code::Conflict, "a later change to a record was applied before this one");
    Some(problem.with_failed(op.key.clone(), Some(known.revision)))
}

/// Rules 3 to 5: which operations become records, at which revision, and whether the profile may hold them.
fn apply<'a>(
    facts: &Facts,
    (before, time): (Head, Timestamp),
    quota: Quota,
    stamped: &StampedChange,
    records: impl Iterator<Item = (&'a Operation, Option<&'a Known>)>,
) -> Result<(Applied, Effects), Problem> {
    let mut head = before;
    let exhausted = || Problem::new(Code::OverQuota, "the profile has used up its revisions");
    if !(planted("revision-taken-twice") && stamped.change.ops().len() > 1) {
        head.revision = head.revision.next().ok_or_else(exhausted)?;
    }
    head.time = time;
    let (conflicts, superseded) = (Vec::new(), Vec::new());
    let mut applied = Applied { revision: head.revision, time, conflicts, superseded, nearly_full: false };
    let mut operations = Vec::with_capacity(stamped.change.ops().len());
    for ((op, known), on_disk) in records.zip(&facts.records) {
        if let Some(known) = known.filter(|known| known.supersedes(stamped.stamp)) {
            applied.superseded.push(Superseded { key: op.key.clone(), revision: known.revision });
            operations.push(Effect::Late { beaten_by: known.revision });
            continue;
        }
        let beaten = known.filter(|known| is_conflict(known, stamped));
        applied.conflicts.extend(beaten.map(|known| Conflict {
            key: op.key.clone(),
            revision: known.revision,
            device: known.device.clone(),
        }));
        let expires = account(&mut head, op, on_disk.as_ref(), time);
        operations.push(Effect::Record { expires, conflict: beaten.is_some() });
    }
    if applied.superseded.len() == operations.len() {
        (applied.revision, applied.time) = (before.revision, before.time);
        applied.nearly_full = is_nearly_full(quota, before);
        return Ok((applied, Effects { head: None, operations }));
    }
    if let Some(problem) = over_quota(facts, before, quota, head) {
        return Err(problem);
    }
    applied.nearly_full = is_nearly_full(quota, head);
    Ok((applied, Effects { head: Some(head), operations }))
}

/// Whether the operation beats a version that its writer had not seen: newer than its base, by another device.
fn is_conflict(known: &Known, stamped: &StampedChange) -> bool {
    stamped.change.base().is_some_and(|base| known.revision > base) && known.device != stamped.device
}

/// Moves what the profile holds from the version on disk to the operation; says when the new record ends.
fn account(head: &mut Head, op: &Operation, on_disk: Option<&Known>, time: Timestamp) -> Option<Timestamp> {
    if let Some(value) = on_disk.and_then(|known| known.value) {
        head.records = head.records.saturating_sub(1);
        head.bytes = head.bytes.saturating_sub(value.bytes);
    }
    let Action::Put(put) = &op.action else {
        return None;
    };
    head.records += 1;
    head.bytes += bytes_of(&op.key, put.content_type.as_str(), put.value.as_bytes());
    put.ttl.map(|seconds| time.plus_seconds(seconds.into()))
}

/// How many bytes a record counts for: those of its key and of its value, a large one with all that its chunks have.
pub(crate) fn bytes_of(key: &Key, content_type: &str, value: &[u8]) -> u64 {
    key.as_str().len() as u64 + counted_bytes(content_type, value)
}

/// Whether a version counts by the terms: a tombstone past its age does not, whether or not it is still on disk.
fn counts(known: &Known, terms: &Terms, now: Timestamp) -> bool {
    known.value.is_some() || is_fresh(known.time, terms.tombstone_seconds, now)
}

/// Whether a record exists to the writer of a change: one that expired does so only to the expiry writer.
fn exists(known: &Known, stamped: &StampedChange, now: Timestamp) -> bool {
    known.is_live(now) || (stamped.device.is_expiry() && known.value.is_some())
}

fn is_fresh(since: Timestamp, seconds: u64, now: Timestamp) -> bool {
    since.plus_seconds(seconds) > now
}

impl Known {
    /// Whether it holds a value at that instant.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.value.is_some_and(|value| value.expires.is_none_or(|end| now < end))
    }

    /// Whether an operation with that stamp is older on both axes: lower in the same stream, and not later in time. A
    /// lower sequence with a later time means that the stream was rolled back, and is no reason to hold it back.
    pub fn supersedes(&self, stamp: Stamp) -> bool {
        !planted("superseded-ignored")
            && self.stamp.origin.incarnation == stamp.origin.incarnation
            && stamp.origin.sequence < self.stamp.origin.sequence
            && stamp.time <= self.stamp.time
    }

    /// Whether an operation with that stamp shows that its stream was rolled back: lower in it, and later in time.
    pub fn shows_rollback(&self, stamp: Stamp) -> bool {
        self.stamp.origin.incarnation == stamp.origin.incarnation
            && stamp.origin.sequence < self.stamp.origin.sequence
            && stamp.time > self.stamp.time
    }
}
