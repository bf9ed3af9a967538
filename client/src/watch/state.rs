//! What a watcher makes of the notices and deltas that reach it. A pure state machine: it fetches nothing, waits for
//! nothing and looks at no clock.
//!
//! **Invariant:** every revision is delivered in order and once, or a state that includes it; nothing is delivered twice,
//! and nothing goes back, whatever was lost, repeated or reordered on the way.

use roam_schemas::{Cursor, Notice, NoticeOperation, Profile, Record, Revision, Timestamp};

use super::Event;
use crate::Delta;

/// Follows one profile.
#[derive(Debug)]
pub(super) struct Follower {
    profile: Profile,
    /// Everything up to this revision was delivered.
    revision: Revision,
    time: Timestamp,
    /// A delta is to be fetched, which reaches at least this revision.
    wanted: Option<Revision>,
}

impl Follower {
    /// Starts just after a revision, with a delta to fetch.
    pub(super) fn new(profile: Profile, revision: Revision, time: Timestamp) -> Self {
        Self { profile, revision, time, wanted: Some(revision) }
    }

    /// Where it stands.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor::new(&self.profile, self.revision, self.time)
    }

    /// The revision that the next delta must reach, if one is to be fetched.
    pub(super) fn wanted(&self) -> Option<Revision> {
        self.wanted
    }

    /// A notice came. Gives the event if it is the next one.
    pub(super) fn notice(&mut self, notice: Notice) -> Option<Event> {
        if notice.revision <= self.revision {
            return None;
        }
        let is_next = self.wanted.is_none() && self.revision.next() == Some(notice.revision);
        let records = if is_next { records(&notice) } else { None };
        let Some(records) = records else {
            self.want(notice.revision);
            return None;
        };
        (self.revision, self.time) = (notice.revision, notice.time);
        let Notice { revision, time, device, change, .. } = notice;
        Some(Event::Revision { revision, time, device, change: Some(change), records, cursor: self.cursor() })
    }

    /// A notice of this revision came that cannot be read.
    pub(super) fn unreadable(&mut self, revision: Revision) {
        if revision > self.revision {
            self.want(revision);
        }
    }

    /// Notices may have been lost.
    pub(super) fn doubt(&mut self) {
        self.want(self.revision);
    }

    /// The replicas do not have the revision that is wanted. A delta to whatever they have brings us further all the same.
    pub(super) fn behind(&mut self) {
        self.wanted = self.wanted.map(|_| self.revision);
    }

    /// The delta since [`Self::cursor`] came, or since an earlier one. Gives the event if there is anything new in it.
    ///
    /// # Errors
    /// `invalid` if it is of another profile.
    pub(super) fn delta(&mut self, delta: Delta) -> Result<Option<Event>, roam_schemas::Problem> {
        let (revision, time) = delta.cursor.open(&self.profile)?;
        if revision < self.revision {
            return Ok(None);
        }
        let before = self.arrive(revision, time);
        let mut records = delta.records;
        records.retain(|record| record.revision > before);
        if records.is_empty() && revision == before {
            return Ok(None);
        }
        Ok(Some(Event::State { records, head: revision, cursor: self.cursor() }))
    }

    /// The whole profile came, because the cursor was too old. Gives the event, unless what came is older than what was
    /// delivered already.
    ///
    /// # Errors
    /// `invalid` if it is of another profile.
    pub(super) fn whole(&mut self, delta: Delta) -> Result<Option<Event>, roam_schemas::Problem> {
        let (revision, time) = delta.cursor.open(&self.profile)?;
        if revision < self.revision {
            return Ok(None);
        }
        self.arrive(revision, time);
        Ok(Some(Event::State { records: delta.records, head: revision, cursor: self.cursor() }))
    }

    /// Goes to a revision that a delta reached. Gives the one before.
    fn arrive(&mut self, revision: Revision, time: Timestamp) -> Revision {
        self.time = time;
        self.wanted = self.wanted.filter(|wanted| *wanted > revision);
        std::mem::replace(&mut self.revision, revision)
    }

    fn want(&mut self, revision: Revision) {
        self.wanted = self.wanted.max(Some(revision));
    }
}

/// The records that a notice carries, if it carries all of them.
fn records(notice: &Notice) -> Option<Vec<Record>> {
    notice.ops.iter().map(|op| record(notice, op)).collect()
}

fn record(notice: &Notice, op: &NoticeOperation) -> Option<Record> {
    Some(Record {
        key: op.key.clone(),
        revision: notice.revision,
        time: notice.time,
        device: notice.device.clone(),
        conflict: op.conflict,
        state: op.state.clone()?,
    })
}

#[cfg(test)]
mod tests;
