//! `changes`: all that changed since a cursor. Its cost is the number of records changed, never the number held.

use std::ops::ControlFlow;

use roam_schemas::{ChangesReply, Cursor, Encoding, Key, Profile, Revision, Timestamp};

use super::page::Page;
use crate::store::{Head, ProfileKey, Snapshot, StoreError};

/// Where an answer begins, and how it is cut.
pub(super) struct Since<'a> {
    pub(super) profile: &'a Profile,
    pub(super) after: Revision,
    pub(super) limit: Option<u32>,
    pub(super) encoding: Encoding,
}

/// Answers from one state of the store. A page never ends inside a revision: it closes after the first one that fills
/// it.
pub(super) fn changes(
    snapshot: &Snapshot<'_>,
    key: &ProfileKey,
    head: Head,
    since: &Since<'_>,
    now: Timestamp,
) -> Result<ChangesReply, StoreError> {
    let at_head = Cursor::new(since.profile, head.revision, head.time);
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
            reply.cursor = Cursor::new(since.profile, last.revision, last.time);
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
