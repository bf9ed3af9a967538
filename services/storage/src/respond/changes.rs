//! `changes`: all that changed since a cursor. Its cost is the number of records changed, never the number held.

use std::ops::ControlFlow;

use roam_schemas::{ChangesReply, Code, Cursor, Encoding, Key, Problem, Profile, Revision, Timestamp};

use super::page::Page;
use crate::decide::LATE_SECONDS;
use crate::store::{Head, ProfileKey, Snapshot, StoreError};

/// Where an answer begins, and how it is cut.
pub(super) struct Since<'a> {
    pub(super) profile: &'a Profile,
    /// Everything up to this revision is known to the asker,
    pub(super) after: Revision,
    /// and no tombstone that was written before this instant is missed; none for whoever begins.
    pub(super) as_of: Option<Timestamp>,
    pub(super) limit: Option<u32>,
    pub(super) encoding: Encoding,
}

impl Since<'_> {
    /// `reset` if the asker may have missed tombstones that are gone: one at the head has missed nothing. Also if they know
    /// what was below `floor`, see [`Snapshot::floor`].
    pub(super) fn check(&self, head: Head, floor: Revision, tombstones_before: Timestamp) -> Result<(), Problem> {
        let missed = self.as_of.is_some_and(|as_of| as_of < tombstones_before);
        let begins = self.after == Revision::ZERO;
        if !begins && self.after < floor {
            return Err(Problem::new(Code::Reset, "the cursor is older than an erasure or a restored backup"));
        }
        if missed && !begins && self.after < head.revision {
            return Err(Problem::new(Code::Reset, "the cursor is older than deletions that are forgotten"));
        }
        Ok(())
    }
}

/// Answers from one state of the store, which holds all that was journaled before `applied`. A page never ends inside a revision: it closes after the first one that fills
/// it.
pub(super) fn changes(
    snapshot: &Snapshot<'_>,
    key: &ProfileKey,
    head: Head,
    since: &Since<'_>,
    applied: Timestamp,
    now: Timestamp,
) -> Result<ChangesReply, StoreError> {
    // Whoever has it all up to here misses no tombstone that is older. A page on the way there does not make it newer.
    let as_of = applied.minus_seconds(LATE_SECONDS);
    let at_head = Cursor::new(since.profile, head.revision, as_of.max(head.time));
    let mut reply = ChangesReply { head: head.revision, records: Vec::new(), cursor: at_head, more: false };
    if since.after >= head.revision {
        return Ok(reply);
    }
    let mut page = Page::new(since.encoding, since.limit);
    let mut revision: Vec<Key> = Vec::new();
    let mut at = Revision::ZERO;
    snapshot.feed(key, since.after, |next, changed| {
        if next != at {
            take(snapshot, key, &mut revision, &mut page, now, &mut reply)?;
            at = next;
            if page.is_full() {
                reply.more = true;
                return Ok(ControlFlow::Break(()));
            }
        }
        revision.push(changed);
        Ok(ControlFlow::Continue(()))
    })?;
    if reply.more {
        if let Some(last) = reply.records.last() {
            reply.cursor = Cursor::new(since.profile, last.revision, since.as_of.unwrap_or(as_of));
        }
    } else {
        take(snapshot, key, &mut revision, &mut page, now, &mut reply)?;
    }
    Ok(reply)
}

/// Takes the records of one whole revision in.
fn take(
    snapshot: &Snapshot<'_>,
    profile: &ProfileKey,
    keys: &mut Vec<Key>,
    page: &mut Page,
    now: Timestamp,
    reply: &mut ChangesReply,
) -> Result<(), StoreError> {
    snapshot.records_of(profile, &*keys, |index, found| {
        let key = &keys[index];
        let gone = || StoreError::Damaged { table: "feed", what: "a row without a version".to_owned() };
        let (place, row) = found.ok_or_else(gone)?;
        page.add(key, &row);
        reply.records.push(row.record(key.clone(), place.revision, now)?);
        Ok(ControlFlow::Continue(()))
    })?;
    keys.clear();
    Ok(())
}
