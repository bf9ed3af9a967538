//! What a key was at a place in the past, by its kept history, and what brings it back to that.
//!
//! **Invariant:** a key is said to have been absent only if the history proves it. Where it may have had a value that is
//! not kept any more, the answer is that nobody knows.

use roam_schemas::{Action, Key, limits::TTL_SECONDS};
use roam_schemas::{Expect, HistoryReply, Operation, Put, Revision, State, Stored, Terms, Timestamp, Version};

use super::Point;

/// What a key was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// It had this value.
    Value(Stored),
    /// It had none, or one whose time is over by now.
    Absent,
    /// Its kept history begins later, and none of it was dropped for want of room: absent, as long as [`Memory`] reaches
    /// back that far.
    Unborn,
    /// Its history is not kept back to then.
    NotKept,
}

/// What a key is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The revision that wrote it.
    pub(crate) revision: Revision,
    /// Its value, if it has one.
    pub(crate) value: Option<Stored>,
}

/// What is to be done with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it was.
    Nothing,
    /// This brings it back.
    Do(Operation),
    /// What it was is not kept: it stays as it is.
    NotKept,
}

/// How far back the system surely remembers. Versions and tombstones are dropped by their age, so that of a place before
/// that nothing follows from what is not there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    point: Point,
    /// The newest time known to lie at or before the point.
    before: Option<Timestamp>,
    /// Whether the first revision of the profile is known to be later.
    before_all: bool,
}

impl Memory {
    /// Of a place of which nothing else is known.
    pub(crate) fn of(point: Point) -> Self {
        let before = match point {
            Point::Time(time) => Some(time),
            Point::Revision(_) => None,
        };
        Self { point, before, before_all: point == Point::Revision(Revision::ZERO) }
    }

    /// Takes notice of something that was written.
    pub(crate) fn saw(&mut self, revision: Revision, time: Timestamp) {
        if self.point.reaches(revision, time) {
            self.before = self.before.max(Some(time));
        } else if Some(revision) == Revision::ZERO.next() {
            self.before_all = true;
        }
    }

    /// Takes notice of a history.
    pub(crate) fn saw_all(&mut self, history: &HistoryReply) {
        for version in history.versions.iter().filter(|version| version.rank == 0) {
            self.saw(version.revision, version.time);
        }
    }

    /// Whether the system remembers whatever stood there or was written since, by what it was told to keep.
    pub(crate) fn holds(self, terms: &Terms, now: Timestamp) -> bool {
        let kept = terms.history_seconds.min(terms.tombstone_seconds);
        self.before_all || self.before.is_some_and(|before| before > now.minus_seconds(kept))
    }
}

/// What a key was at that place.
pub(crate) fn choose(history: &HistoryReply, point: Point, terms: &Terms) -> Then {
    let versions = || history.versions.iter().filter(|version| version.rank == 0);
    match version_at(history, point) {
        Some(Version { state: State::Value(stored), .. }) => Then::Value(stored.clone()),
        Some(_) => Then::Absent,
        None if point == Point::Revision(Revision::ZERO) => Then::Absent,
        None if history.more || versions().count() >= terms.history_versions as usize => Then::NotKept,
        None => Then::Unborn,
    }
}

/// The version of a key that stood at that place; none if none that old is kept.
pub(crate) fn version_at(history: &HistoryReply, point: Point) -> Option<&Version> {
    history.versions.iter().find(|version| version.rank == 0 && point.reaches(version.revision, version.time))
}

/// What a key is now; none if nothing of it is kept.
pub(crate) fn standing(history: &HistoryReply) -> Option<Standing> {
    let newest = history.versions.iter().find(|version| version.rank == 0)?;
    let value = match &newest.state {
        State::Value(stored) => Some(stored.clone()),
        State::Deleted | State::Expired => None,
    };
    Some(Standing { revision: newest.revision, value })
}

/// What brings a key back. `remembered` is what [`Memory::holds`] says. The operation expects the record as it stands, so
/// that it never undoes what somebody writes meanwhile.
pub(crate) fn step(key: &Key, now: Timestamp, standing: &Standing, then: Then, remembered: bool) -> Step {
    let expect = standing.value.as_ref().map_or(Expect::Absent, |_| Expect::At(standing.revision));
    let then = match then {
        Then::NotKept => return Step::NotKept,
        Then::Unborn if !remembered => return Step::NotKept,
        Then::Unborn | Then::Absent => None,
        Then::Value(stored) => put(&stored, now).map(|put| (stored, put)),
    };
    let action = match (then, &standing.value) {
        (None, None) => return Step::Nothing,
        (None, Some(_)) => Action::Delete,
        (Some((stored, _)), Some(value)) if same(&stored, value) => return Step::Nothing,
        (Some((_, put)), _) => Action::Put(put),
    };
    Step::Do(Operation { key: key.clone(), action, expect })
}

/// Whether two values are the same: bytes, type, and whether it ends some time. When it ends is no difference, because
/// what is written again ends a part of a second later.
fn same(one: &Stored, other: &Stored) -> bool {
    one.value == other.value
        && one.content_type == other.content_type
        && one.expires.is_some() == other.expires.is_some()
}

/// What is left of a time to live, in whole seconds; none if it is over.
pub(crate) fn remaining(expires: Timestamp, now: Timestamp) -> Option<u32> {
    let nanos = expires.as_nanos().checked_sub(now.as_nanos()).filter(|nanos| *nanos > 0)?;
    let seconds = u32::try_from(nanos / 1_000_000_000).unwrap_or(TTL_SECONDS);
    Some(seconds.clamp(1, TTL_SECONDS))
}

/// Writes a value again, for as long as it has to live; none if that is over.
fn put(stored: &Stored, now: Timestamp) -> Option<Put> {
    let ttl = match stored.expires {
        None => None,
        Some(expires) => Some(remaining(expires, now)?),
    };
    Some(Put { value: stored.value.clone(), content_type: stored.content_type.clone(), ttl })
}

#[cfg(test)]
mod tests;
