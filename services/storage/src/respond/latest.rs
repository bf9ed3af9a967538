//! `latest`: the newest state of records.

use std::ops::ControlFlow;

use roam_schemas::{Encoding, Key, LatestReply, LatestRequest, Select, Timestamp};

use super::page::Page;
use crate::store::{Head, ProfileKey, Snapshot, StoreError};

/// Answers from one state of the store.
pub(super) fn latest(
    snapshot: &Snapshot<'_>,
    profile: &ProfileKey,
    head: Head,
    request: &LatestRequest,
    encoding: Encoding,
    now: Timestamp,
) -> Result<LatestReply, StoreError> {
    let page = Page::new(encoding, request.limit);
    let mut reply = LatestReply { head: head.revision, time: head.time, ..LatestReply::default() };
    match &request.select {
        Select::Keys(keys) => of_keys(snapshot, profile, keys, page, now, &mut reply)?,
        Select::Prefix(prefix) => scan(snapshot, profile, (prefix, request.after.as_ref()), page, now, &mut reply)?,
        Select::All => scan(snapshot, profile, ("", request.after.as_ref()), page, now, &mut reply)?,
    }
    Ok(reply)
}

fn of_keys(
    snapshot: &Snapshot<'_>,
    profile: &ProfileKey,
    keys: &[Key],
    mut page: Page,
    now: Timestamp,
    reply: &mut LatestReply,
) -> Result<(), StoreError> {
    snapshot.records_of(profile, keys, |index, found| {
        let key = &keys[index];
        let Some((place, row)) = found else {
            reply.unknown.push(key.clone());
            return Ok(ControlFlow::Continue(()));
        };
        if page.is_full() || page.would_pass(key, &row) {
            reply.next = Some(key.clone());
            return Ok(ControlFlow::Break(()));
        }
        page.add(key, &row);
        reply.records.push(row.record(key.clone(), place.revision, now)?);
        Ok(ControlFlow::Continue(()))
    })
}

fn scan(
    snapshot: &Snapshot<'_>,
    profile: &ProfileKey,
    (prefix, after): (&str, Option<&Key>),
    mut page: Page,
    now: Timestamp,
    reply: &mut LatestReply,
) -> Result<(), StoreError> {
    snapshot.records(profile, prefix, after, |found| {
        let (place, row) = (found.place, &found.row);
        if !row.state.is_live(now) {
            return Ok(ControlFlow::Continue(()));
        }
        let key = found.key()?;
        if page.is_full() || page.would_pass(&key, row) {
            reply.next = reply.records.last().map(|record| record.key.clone());
            return Ok(ControlFlow::Break(()));
        }
        page.add(&key, row);
        reply.records.push(row.record(key, place.revision, now)?);
        Ok(ControlFlow::Continue(()))
    })
}
