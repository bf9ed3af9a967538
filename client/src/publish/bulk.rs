//! Bulks: what a service submits while something of it is under way to the stream goes together, in one message for many changes.
//! Pure bookkeeping of what waits; the keeper sends it.
//!
//! Nothing waits for company: with nothing under way a change leaves at once, alone and on the subject of its own profile. So
//! there are bulks only where there is load, and they grow with it (as with Nagle's algorithm, RFC 896). A copy that is sent again
//! goes alone too: whatever was wrong with a bulk does not follow its changes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use roam_schemas::{
    App, Bulk, BulkChange, Change, ChangeId, Encoding, ServiceName, Shard, Shards, Tenant, encode, limits, subjects,
};

use super::Lane;

/// How many messages are under way at once before others wait: what has some of them cannot be slowed by waiting for one.
const AT_ONCE: usize = 4;
/// How many changes wait at most.
const ROOM: usize = 4_096;
/// A bulk takes no further change that would bring it past so many bytes.
const BULK_BYTES: usize = 256 * 1024;
/// A change of more bytes gains nothing from company.
const LARGE: usize = BULK_BYTES / 4;

/// What waits to be sent, and how many messages are under way.
#[derive(Debug)]
pub(crate) struct Bulks {
    tenant: Tenant,
    name: ServiceName,
    shards: Shards,
    waiting: VecDeque<Waiting>,
    under_way: usize,
    /// A bulk was refused as a whole: each change goes by itself from now on.
    given_up: bool,
}

/// A change that waits, and its size as encoded, in bytes.
#[derive(Debug)]
struct Waiting {
    lane: Arc<Lane>,
    id: ChangeId,
    change: Change,
    bytes: usize,
}

/// Changes that leave together.
#[derive(Debug)]
pub(crate) struct Together {
    /// Those that are in flight, and wait for the same PubAck. Never none.
    pub(crate) of: Vec<(Arc<Lane>, ChangeId)>,
    /// Where to, and what.
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

/// Whether a change of so many bytes may wait for company.
pub(super) fn is_small(bytes: usize) -> bool {
    bytes <= LARGE
}

impl Bulks {
    /// Nothing waits. `shards` is how many the deployment has.
    pub(crate) fn new(tenant: Tenant, name: ServiceName, shards: Shards) -> Self {
        Self { tenant, name, shards, waiting: VecDeque::new(), under_way: 0, given_up: false }
    }

    /// Whether more may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < ROOM
    }

    /// A change in flight waits to be sent.
    pub(crate) fn add(&mut self, lane: Arc<Lane>, id: ChangeId, change: Change) {
        let Some(bytes) = lane.payload(id).map(|payload| payload.len()) else { return };
        self.waiting.push_back(Waiting { lane, id, change, bytes });
    }

    /// What is to be sent now, if anything is.
    pub(crate) fn next(&mut self, encoding: Encoding) -> Option<Together> {
        while (self.given_up || self.under_way < AT_ONCE) && !self.waiting.is_empty() {
            let mut taken = self.take();
            // Somebody may have let go of it meanwhile.
            taken.retain(|waiting| waiting.lane.payload(waiting.id).is_some());
            if let Some(together) = self.together(taken, encoding) {
                self.under_way += 1;
                return Some(together);
            }
        }
        None
    }

    /// The PubAck of what was sent together came, or will not come.
    pub(crate) fn answered(&mut self) {
        self.under_way -= 1;
    }

    /// No more bulks.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Takes from the front what may go together: changes of one app and one shard, in their order.
    fn take(&mut self) -> Vec<Waiting> {
        let most = if self.given_up { 1 } else { limits::BULK_CHANGES };
        let of = self.waiting.front().map(|first| self.destination(first));
        let (mut taken, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0);
        while let Some(waiting) = self.waiting.pop_front() {
            if Some(self.destination(&waiting)) != of {
                left.push_back(waiting);
            } else if taken.is_empty() || (taken.len() < most && bytes + waiting.bytes <= BULK_BYTES) {
                bytes += waiting.bytes;
                taken.push(waiting);
            } else {
                self.waiting.push_front(waiting);
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        taken
    }

    fn destination(&self, waiting: &Waiting) -> (Shard, App) {
        let profile = &waiting.lane.profile;
        (self.shards.of_profile(profile), profile.app.clone())
    }

    fn together(&self, taken: Vec<Waiting>, encoding: Encoding) -> Option<Together> {
        let (shard, app) = self.destination(taken.first()?);
        let of = taken.iter().map(|waiting| (Arc::clone(&waiting.lane), waiting.id)).collect();
        if let [alone] = &taken[..] {
            let payload = alone.lane.payload(alone.id)?;
            return Some(Together { of, subject: alone.lane.change_subject.clone(), payload });
        }
        let subject = subjects::bulk(shard, &self.tenant, &app, &self.name);
        let part = |waiting: Waiting| BulkChange {
            user: waiting.lane.profile.user.as_str().to_owned(),
            change: waiting.change.into(),
        };
        let changes = taken.into_iter().map(part).collect();
        // Nothing that the types can hold fails to encode.
        let payload = encode(&Bulk { changes }, encoding).ok()?.into();
        Some(Together { of, subject, payload })
    }
}

#[cfg(test)]
mod tests;
