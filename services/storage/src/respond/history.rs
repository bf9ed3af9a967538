//! `history`: the kept versions of a key, newest first.

use std::ops::ControlFlow;

use roam_schemas::{Encoding, HistoryReply, HistoryRequest, Timestamp};

use super::page::Page;
use crate::store::{Head, ProfileKey, Snapshot, StoreError};

/// Answers from one state of the store. Operations that came too late stand with the version that beat them and do
/// not count towards the depth that readers are shown.
pub(super) fn history(
    snapshot: &Snapshot<'_>,
    profile: &ProfileKey,
    head: Head,
    request: &HistoryRequest,
    (encoding, depth): (Encoding, u32),
    now: Timestamp,
) -> Result<HistoryReply, StoreError> {
    let mut page = Page::new(encoding, request.limit);
    let mut reply = HistoryReply { head: head.revision, ..HistoryReply::default() };
    let mut versions = 0;
    snapshot.versions(profile, &request.key, |place, row| {
        versions += u32::from(place.rank == 0);
        if versions > depth {
            return Ok(ControlFlow::Break(()));
        }
        if page.is_full() || page.would_pass(&request.key, &row) {
            reply.more = true;
            return Ok(ControlFlow::Break(()));
        }
        page.add(&request.key, &row);
        reply.versions.push(row.version(place, now)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(reply)
}
