//! `profiles`: what this replica holds.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use roam_schemas::{ProfileStanding, ProfilesReply, ProfilesRequest, ReplicaName, limits::PAGE_RECORDS};

use crate::store::{AsOf, ProfileKey, Snapshot, StoreError, scope};

/// A page closes after so long, since digests have all that a profile holds read.
const AT_MOST: Duration = Duration::from_millis(500);

/// Lists profiles from one state of the store.
pub(super) fn list(
    snapshot: &Snapshot<'_>,
    name: ReplicaName,
    asked: &ProfilesRequest,
) -> Result<ProfilesReply, StoreError> {
    let began = Instant::now();
    let position = snapshot.position()?;
    let terms = position.as_ref().map(|position| position.terms.clone()).unwrap_or_default();
    let limit = asked.limit.unwrap_or(PAGE_RECORDS) as usize;
    let mut reply =
        ProfilesReply { name, position: position.as_ref().map(Into::into), profiles: Vec::new(), next: None };
    let prefix = scope(asked.tenant.as_ref(), asked.user.as_ref(), asked.app.as_ref());
    let after = asked.after.as_ref().map(ProfileKey::new);
    snapshot.profiles(&prefix, after.as_ref(), |profile, head| {
        if reply.profiles.len() >= limit || (began.elapsed() > AT_MOST && !reply.profiles.is_empty()) {
            reply.next = reply.profiles.last().map(|last| last.profile.clone());
            return Ok(ControlFlow::Break(()));
        }
        let digest = match asked.digests_as_of {
            Some(time) => {
                let digest = snapshot.whole_digest(&ProfileKey::new(&profile), AsOf { time, terms: &terms })?;
                Some(blake3::Hash::from(digest.hash).to_hex().to_string())
            }
            None => None,
        };
        let (revision, time, records, bytes) = (head.revision, head.time, head.records, head.bytes);
        reply.profiles.push(ProfileStanding { profile, revision, time, records, bytes, digest });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(reply)
}
