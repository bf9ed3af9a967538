//! What a key was at a place in the past, by its kept history, and what brings it back to that.
//!
//! **Invariant:** a key is said to have been absent only if the history proves it. Where it may have had a value that is
//! not kept any more, the answer is that nobody knows.

use roam_schemas::{Action, Key, limits::TTL_SECONDS};
use roam_schemas::{Expect, HistoryReply, Operation, Put, Revision, State, Stored, Timestamp, Version};

use super::Point;

/// What the history of a key says of a place in the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stood {
    /// This version stood there.
    Version(Version),
    /// The history begins later: there was no such key, as long as [`Memory`] reaches back to where the history is whole from.
    Nothing {
        /// Where that is.
        whole_since: Timestamp,
    },
    /// It is not kept.
    Lost,
}

/// What a key was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// It had this value.
    Value(Stored),
    /// It had none, or one whose time is over by now.
    Absent,
    /// Nobody can tell any more.
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

/// What is known of when a place was. Where a history is no longer whole, nothing follows from what is not there.
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

    /// Whether a history that is whole since then holds whatever stood there.
    pub(crate) fn holds(self, whole_since: Timestamp) -> bool {
        self.before_all || self.before.is_some_and(|before| before >= whole_since)
    }
}

/// What stood at that place.
pub(crate) fn stood_at(history: &HistoryReply, point: Point) -> Stood {
    let whole_since = history.whole_since;
    let mut next = None;
    for version in history.versions.iter().filter(|version| version.rank == 0) {
        if !point.reaches(version.revision, version.time) {
            next = Some(version.time);
            continue;
        }
        // Between it and the next one another may have stood.
        return if next.is_none_or(|next| next >= whole_since) { Stood::Version(version.clone()) } else { Stood::Lost };
    }
    Stood::Nothing { whole_since }
}

impl Then {
    /// What the key was, given what the history says and what is known of when that was.
    pub(crate) fn of(stood: Stood, memory: Memory) -> Self {
        match stood {
            Stood::Version(Version { state: State::Value(stored), .. }) => Self::Value(stored),
            Stood::Version(_) => Self::Absent,
            Stood::Nothing { whole_since } if memory.holds(whole_since) => Self::Absent,
            Stood::Nothing { .. } | Stood::Lost => Self::NotKept,
        }
    }
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

/// What brings a key back. The operation expects the record as it stands, so that it never undoes what somebody writes
/// meanwhile.
pub(crate) fn step(key: &Key, now: Timestamp, standing: &Standing, then: Then) -> Step {
    let expect = standing.value.as_ref().map_or(Expect::Absent, |_| Expect::At(standing.revision));
    let then = match then {
        Then::NotKept => return Step::NotKept,
        Then::Absent => None,
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
