//! `history`: the kept versions of a key, newest first, and since when nothing that the key was is missing among them.

use std::ops::ControlFlow;

use roam_schemas::{Encoding, HistoryReply, HistoryRequest, Timestamp};

use super::page::Page;
use crate::store::{Bounds, Head, Horizon, Kept, ProfileKey, Reader, RowState, Snapshot, StoreError};

/// Whose history is asked for, and where the profile stands.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) profile: &'a ProfileKey,
    pub(super) head: Head,
    pub(super) request: &'a HistoryRequest,
}

/// Answers from one state of the store. What is beyond the terms is not there, whether or not it is still on disk, so all replicas
/// show the same.
pub(super) fn history(
    reader: &Reader,
    snapshot: &Snapshot<'_>,
    of: Of<'_>,
    encoding: Encoding,
    now: Timestamp,
) -> Result<HistoryReply, StoreError> {
    // Compactions see no snapshot. What one of them dropped before the rows were read, it dropped by no later horizon than this.
    let mut horizon = reader.horizon();
    loop {
        let reply = read(snapshot, of, horizon, encoding, now)?;
        let after = reader.horizon();
        if after == horizon {
            return Ok(reply);
        }
        horizon = after;
    }
}

fn read(
    snapshot: &Snapshot<'_>,
    Of { profile, head, request }: Of<'_>,
    horizon: Horizon,
    encoding: Encoding,
    now: Timestamp,
) -> Result<HistoryReply, StoreError> {
    let terms = snapshot.position()?.map(|position| position.terms).unwrap_or_default();
    let bounds = Bounds::of_terms(&terms, now).within(horizon);
    let erased = snapshot.erasure(profile)?.map(|erased| erased.time);
    let mut reply = HistoryReply { head: head.revision, ..HistoryReply::default() };
    reply.whole_since = bounds.since().max(erased.unwrap_or_default());
    let (mut page, mut kept, mut oldest) = (Page::new(encoding, request.limit), Kept::new(bounds), None);
    snapshot.versions(profile, &request.key, |place, row| {
        let counts = kept.takes(place, row.time, row.state == RowState::Deleted);
        // What the key is now is told as long as it is there: `changes` tells of it, too.
        if !counts && !reply.versions.is_empty() {
            return Ok(if kept.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        }
        if page.is_full() || page.would_pass(&request.key, &row) {
            reply.more = true;
            return Ok(ControlFlow::Break(()));
        }
        page.add(&request.key, &row);
        if place.rank == 0 {
            oldest = Some(row.time);
        }
        reply.versions.push(row.version(place, now)?);
        Ok(ControlFlow::Continue(()))
    })?;
    if reply.more || kept.is_deep() {
        reply.whole_since = reply.whole_since.max(oldest.unwrap_or_default());
    }
    Ok(reply)
}
