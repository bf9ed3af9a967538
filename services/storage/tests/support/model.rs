//! A profile by the rules of the design (section 6), as plainly as they can be written: every
//! write is kept, and each rule is looked up in what is kept. Nothing in here is taken from `decide`. Holds no test.
//!
//! Where the rules leave something open, this is how they are read:
//! - A term of 30 days ends with its last nanosecond: what is exactly as old as the term counts no more.
//! - A record that expired is absent to expectations, but it is still the newest that anybody wrote: an operation that
//!   is older than it on both axes must not come back through it, and beating it unseen is a conflict. Its tombstone
//!   takes its place in both.
//! - A tombstone past its term is absent in every respect.
//! - The quota looks at what the profile would hold after the change, and refuses only what makes it more.
//! - What the expiry writer takes for expired and what is not yet, by the time of its change, stays.

use std::collections::BTreeMap;

use roam_schemas::{Action, Code, Expect, Operation, StampedChange, Terms};

/// A profile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Its head.
    pub(crate) revision: u64,
    /// The time of its head.
    pub(crate) time: u64,
    /// Every version that ever became a record, by key and revision.
    pub(crate) versions: BTreeMap<(String, u64), Written>,
    /// Every operation that came too late, by key and the revision that beat it, in the order in which they came.
    pub(crate) late: BTreeMap<(String, u64), Vec<Written>>,
    /// Every decided change, by its id.
    pub(crate) decided: BTreeMap<[u8; 16], Decided>,
}

/// What an operation wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) time: u64,
    pub(crate) device: String,
    pub(crate) id: [u8; 16],
    pub(crate) base: Option<u64>,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    /// The instant at which the stream took it in.
    pub(crate) raw: u64,
    pub(crate) conflict: bool,
    /// Content type, bytes and end; none for a tombstone.
    pub(crate) value: Option<(String, Vec<u8>, Option<u64>)>,
}

/// A decided change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) content: (Option<u64>, Vec<Operation>),
    pub(crate) time: u64,
    pub(crate) answer: Answer,
}

/// What becomes of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Applied {
        revision: u64,
        time: u64,
        /// Key, the revision that lost, and its device.
        conflicts: Vec<(String, u64, String)>,
        /// Key, and the revision that stands.
        superseded: Vec<(String, u64)>,
        nearly_full: bool,
    },
    Rejected {
        code: Code,
        /// The first record that was not as expected, and its revision.
        failed: Option<(String, Option<u64>)>,
        /// The limit that was passed, and what would have been.
        exceeded: Option<(u64, u64)>,
    },
}

/// What its publisher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    First(Answer),
    Again(Answer),
    /// Another change was decided under its id.
    Mismatch,
}

impl Model {
    /// Decides on a change.
    pub(crate) fn hear(&mut self, change: &StampedChange, terms: &Terms) -> Said {
        let now = (self.time + 1).max(change.stamp.time.as_nanos());
        let id = *change.change.id().as_bytes();
        let content = (change.change.base().map(|base| base.get()), change.change.ops().to_vec());

        // Rule 1.
        if let Some(decided) = self.decided.get(&id)
            && now < decided.time + seconds(terms.seen_seconds)
        {
            return if decided.content == content { Said::Again(decided.answer.clone()) } else { Said::Mismatch };
        }
        let answer = match self.refusal(change, terms, now) {
            Some((code, failed)) => Answer::Rejected { code, failed: Some(failed), exceeded: None },
            None => {
                let mut after = self.clone();
                let answer = after.apply(change, terms, now);
                match over_quota(self.count(), after.count(), terms) {
                    Some(exceeded) => {
                        Answer::Rejected { code: Code::OverQuota, failed: None, exceeded: Some(exceeded) }
                    }
                    None => {
                        *self = after;
                        answer
                    }
                }
            }
        };
        self.decided.insert(id, Decided { content, time: now, answer: answer.clone() });
        Said::First(answer)
    }

    /// The newest version of a key, and its revision.
    pub(crate) fn newest(&self, key: &str) -> Option<(u64, &Written)> {
        let range = (key.to_owned(), 0)..=(key.to_owned(), u64::MAX);
        self.versions.range(range).next_back().map(|((_, revision), written)| (*revision, written))
    }

    /// Every key, with its newest version.
    pub(crate) fn records(&self) -> BTreeMap<&str, (u64, &Written)> {
        self.versions.iter().map(|((key, revision), written)| (key.as_str(), (*revision, written))).collect()
    }

    /// How many records hold a value, and how many bytes their keys and values have.
    pub(crate) fn count(&self) -> (u64, u64) {
        let records = self.records();
        let sizes = records.iter().filter_map(|(key, (_, written))| {
            written.value.as_ref().map(|(_, bytes, _)| (key.len() + bytes.len()) as u64)
        });
        sizes.fold((0, 0), |(records, bytes), size| (records + 1, bytes + size))
    }

    /// The newest version of a key that counts at all.
    fn counting(&self, key: &str, terms: &Terms, now: u64) -> Option<(u64, &Written)> {
        self.newest(key)
            .filter(|(_, written)| written.value.is_some() || now < written.time + seconds(terms.tombstone_seconds))
    }

    /// Rule 2, then what rule 4 says of conditional operations.
    fn refusal(&self, change: &StampedChange, terms: &Terms, now: u64) -> Option<(Code, (String, Option<u64>))> {
        for op in change.change.ops() {
            let key = op.key.as_str().to_owned();
            let exists = self.counting(&key, terms, now).filter(|(_, written)| match &written.value {
                None => false,
                Some((_, _, end)) => change.device.is_expiry() || end.is_none_or(|end| now < end),
            });
            let revision = exists.map(|(revision, _)| revision);
            match op.expect {
                Expect::Any => {}
                Expect::Absent if revision.is_none() => {}
                Expect::Absent => return Some((Code::Exists, (key, revision))),
                Expect::At(expected) if revision == Some(expected.get()) => {}
                Expect::At(_) => return Some((Code::Conflict, (key, revision))),
            }
        }
        if change.device.is_expiry() {
            for op in change.change.ops() {
                let key = op.key.as_str().to_owned();
                let live = self.counting(&key, terms, now).filter(|(_, written)| {
                    written.value.as_ref().is_some_and(|(_, _, end)| end.is_none_or(|end| now < end))
                });
                if let Some((revision, _)) = live {
                    return Some((Code::Conflict, (key, Some(revision))));
                }
            }
        }
        let mut conditional = change.change.ops().iter().filter(|op| op.expect != Expect::Any);
        conditional.find_map(|op| {
            let (revision, written) = self.counting(op.key.as_str(), terms, now)?;
            is_older(change, written).then(|| (Code::Conflict, (op.key.as_str().to_owned(), Some(revision))))
        })
    }

    /// Rules 4 and 5.
    fn apply(&mut self, change: &StampedChange, terms: &Terms, now: u64) -> Answer {
        let before = self.clone();
        let (mut conflicts, mut superseded) = (Vec::new(), Vec::new());
        let revision = before.revision + 1;
        for op in change.change.ops() {
            let key = op.key.as_str().to_owned();
            let known = before.counting(&key, terms, now);
            if let Some((beaten_by, _)) = known.filter(|(_, written)| is_older(change, written)) {
                superseded.push((key.clone(), beaten_by));
                let raw = change.stamp.time.as_nanos();
                self.late.entry((key, beaten_by)).or_default().push(write(change, op, raw, false));
                continue;
            }
            let unseen = known.filter(|(revision, written)| {
                change.change.base().is_some_and(|base| *revision > base.get())
                    && written.device != change.device.as_str()
            });
            conflicts.extend(unseen.map(|(revision, written)| (key.clone(), revision, written.device.clone())));
            self.versions.insert((key, revision), write(change, op, now, unseen.is_some()));
        }
        if superseded.len() < change.change.ops().len() {
            (self.revision, self.time) = (revision, now);
        }
        let (records, bytes) = self.count();
        let nearly_full = records * 5 >= terms.profile_records * 4 || bytes * 5 >= terms.profile_bytes * 4;
        Answer::Applied { revision: self.revision, time: self.time, conflicts, superseded, nearly_full }
    }
}

/// The limit that a change passes by making more of something, and what would be.
fn over_quota(before: (u64, u64), after: (u64, u64), terms: &Terms) -> Option<(u64, u64)> {
    if after.0 > before.0 && after.0 > terms.profile_records {
        return Some((terms.profile_records, after.0));
    }
    (after.1 > before.1 && after.1 > terms.profile_bytes).then_some((terms.profile_bytes, after.1))
}

/// Whether a change is older than a version on both axes, in the same stream.
fn is_older(change: &StampedChange, than: &Written) -> bool {
    let (stamp, origin) = (change.stamp, change.stamp.origin);
    origin.incarnation == than.incarnation && origin.sequence < than.sequence && stamp.time.as_nanos() <= than.raw
}

fn write(change: &StampedChange, op: &Operation, time: u64, conflict: bool) -> Written {
    Written {
        time,
        device: change.device.as_str().to_owned(),
        id: *change.change.id().as_bytes(),
        base: change.change.base().map(|base| base.get()),
        incarnation: change.stamp.origin.incarnation,
        sequence: change.stamp.origin.sequence,
        raw: change.stamp.time.as_nanos(),
        conflict,
        value: match &op.action {
            Action::Delete => None,
            Action::Put(put) => {
                let end = put.ttl.map(|ttl| time + seconds(ttl.into()));
                Some((put.content_type.as_str().to_owned(), put.value.as_bytes().to_vec(), end))
            }
        },
    }
}

fn seconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}
