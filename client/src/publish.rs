//! Publishing changes: room in the window, the handing to the bus, and what the caller holds meanwhile. What happens to a
//! change in flight afterwards (PubAck, receipt, sending again, giving up) is the keeper's, in `receipts.rs`.
//!
//! A change lives in memory only. The durable outbox is in front of this: it keeps each change on disk until
//! [`Pending::receipt`] has told its outcome, and submits it again, id and all, after a restart.

mod bulk;
mod error;
mod keys;
mod lane;
mod table;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roam_nats::{Headers, PendingAck, Publisher};
use roam_schemas::{Change, ChangeId, Conflict, Encoding, Problem, Revision, Superseded, Timestamp, encode, limits};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, Timeout, timeout};

pub(crate) use bulk::{Bulks, Together};
pub use error::ChangeError;
use keys::KeyHashes;
pub(crate) use lane::Lane;
use table::{Entry, Refusal};
use timeline::Timeline;
pub(crate) use timeline::{Moment, Patience};

/// A change is accepted: the stream has it. It is not saved yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The sequence that it has in the stream.
    pub sequence: u64,
}

/// A change is saved: applied and fsynced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The change.
    pub id: ChangeId,
    /// The sequence that it had in the stream.
    pub sequence: u64,
    /// Whether it had been decided before, when an earlier copy of it arrived; all else tells of that decision.
    pub again: bool,
    /// The profile's revision after it; if all its operations came too late, the revision that stood.
    pub revision: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// Records that another device had changed since `base`. The change won all the same.
    pub conflicts: Vec<Conflict>,
    /// Operations that came too late: a change that was published later had been applied before.
    pub superseded: Vec<Superseded>,
    /// Whether the profile holds 80 % or more of what it may: see [`roam_schemas::Terms`].
    pub nearly_full: bool,
}

/// A change that was handed to the bus. It goes its way whether or not this is awaited or dropped, as long as the client,
/// or a profile client of it, lives.
#[derive(Debug)]
#[must_use = "a change is saved only once its receipt says so"]
pub struct Pending {
    id: ChangeId,
    ack: Ack,
    decision: Decision,
}

#[derive(Debug)]
enum Ack {
    Awaited(oneshot::Receiver<Accepted>),
    Came(Accepted),
    /// It will not come: the decision says why.
    Never,
}

#[derive(Debug)]
enum Decision {
    Awaited(oneshot::Receiver<Result<Saved, ChangeError>>),
    Made(Result<Saved, ChangeError>),
}

impl Pending {
    /// The change.
    pub fn id(&self) -> ChangeId {
        self.id
    }

    /// Waits until the stream has the change. Cancel-safe, and may be asked again.
    ///
    /// # Errors
    /// What [`Self::receipt`] then says too.
    pub async fn pub_ack(&mut self) -> Result<Accepted, ChangeError> {
        if let Ack::Awaited(ack) = &mut self.ack {
            self.ack = ack.await.map_or(Ack::Never, Ack::Came);
        }
        match self.ack {
            Ack::Came(accepted) => Ok(accepted),
            Ack::Awaited(_) | Ack::Never => self.decision().await.map(|saved| Accepted { sequence: saved.sequence }),
        }
    }

    /// Waits until the change is decided.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn receipt(self) -> Result<Saved, ChangeError> {
        match self.decision {
            Decision::Made(outcome) => outcome,
            // The keeper tells nothing if it goes away, with the client.
            Decision::Awaited(decision) => decision.await.unwrap_or(Err(ChangeError::Unknown { id: self.id })),
        }
    }

    async fn decision(&mut self) -> Result<Saved, ChangeError> {
        let outcome = match &mut self.decision {
            Decision::Made(outcome) => return outcome.clone(),
            Decision::Awaited(decision) => decision.await.unwrap_or(Err(ChangeError::Unknown { id: self.id })),
        };
        self.decision = Decision::Made(outcome.clone());
        outcome
    }
}

/// A change on its way from the caller to the keeper.
#[derive(Debug)]
pub(crate) struct Handover {
    registered: Registered,
    handed: Handed,
}

/// How far a change on its way to the keeper is.
#[derive(Debug)]
pub(crate) enum Handed {
    /// The bus has it.
    ToTheBus(PendingAck),
    /// It may wait for company.
    ForABulk(Change),
}

impl Handover {
    /// The keeper looks after it from now on.
    pub(crate) fn take_over(self) -> (Arc<Lane>, ChangeId, Handed) {
        let Self { mut registered, handed } = self;
        registered.kept = true;
        (Arc::clone(&registered.lane), registered.id, handed)
    }
}

/// A change in flight. Dropped before the keeper looks after it, it takes the change out of flight, so that nobody waits
/// for it in vain.
#[derive(Debug)]
struct Registered {
    lane: Arc<Lane>,
    id: ChangeId,
    kept: bool,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.kept {
            self.lane.forget(self.id);
        }
    }
}

/// Submits changes for a client.
#[derive(Debug)]
pub(crate) struct Submitter {
    pub(crate) publisher: Publisher,
    pub(crate) keeper: mpsc::Sender<Handover>,
    pub(crate) encoding: Encoding,
    /// Whether small changes are left to the keeper, which puts those together that it has at once.
    pub(crate) in_bulk: bool,
    pub(crate) receipt_timeout: Duration,
}

impl Submitter {
    /// Hands a change to the bus as soon as there is room.
    pub(crate) async fn submit(&self, lane: &Arc<Lane>, change: Change) -> Result<Pending, ChangeError> {
        self.submit_with(lane, change, Patience::within(self.receipt_timeout)).await
    }

    /// As [`Self::submit`], and waits for the receipt as patiently as this.
    pub(crate) async fn submit_with(
        &self,
        lane: &Arc<Lane>,
        change: Change,
        patience: Patience,
    ) -> Result<Pending, ChangeError> {
        let id = change.id();
        let payload = self.write(&change)?;
        let keys = lane.hash(change.ops().iter().map(|op| &op.key));
        let change = (self.in_bulk && bulk::is_small(payload.len())).then_some(change);
        let room = self.register(lane, id, payload.clone(), keys, patience);
        let (registered, pending) = self.within(room).await.map_err(|_| ChangeError::Busy)??;
        let handing = async {
            let keeper = self.keeper.reserve().await.map_err(|_| ChangeError::Closed)?;
            let handed = match change {
                Some(change) => Handed::ForABulk(change),
                None => Handed::ToTheBus(publish(&self.publisher, lane, payload, self.encoding).await),
            };
            keeper.send(Handover { registered, handed });
            Ok(pending)
        };
        self.within(handing).await.map_err(|_| ChangeError::Unknown { id })?
    }

    fn within<F: Future>(&self, step: F) -> Timeout<F> {
        timeout(self.receipt_timeout, step)
    }

    fn write(&self, change: &Change) -> Result<Bytes, ChangeError> {
        let invalid = |error: roam_schemas::EncodeError| ChangeError::Invalid(Problem::invalid(error.to_string()));
        let payload = encode(change, self.encoding).map_err(invalid)?;
        if payload.len() > limits::CHANGE_BYTES {
            let message = "a change is too large as it is encoded, in bytes";
            let problem = Problem::too_large(message, limits::CHANGE_BYTES, payload.len());
            return Err(ChangeError::Invalid(problem));
        }
        Ok(Bytes::from(payload))
    }

    /// Puts a change in flight as soon as there is room for it, and none of its keys is without a PubAck.
    async fn register(
        &self,
        lane: &Arc<Lane>,
        id: ChangeId,
        payload: Bytes,
        keys: KeyHashes,
        patience: Patience,
    ) -> Result<(Registered, Pending), ChangeError> {
        let permit = Arc::clone(&lane.window).acquire_owned().await.map_err(|_| ChangeError::Closed)?;
        let timeline = Timeline::new(Instant::now(), patience);
        let (mut entry, pending) = entry(id, payload, keys, timeline, permit);
        loop {
            // Made before the look, so that what becomes free in between is not missed.
            let freed = lane.freed.notified();
            entry.timeline = Timeline::new(Instant::now(), patience);
            match lane.register(id, entry) {
                Ok(()) => return Ok((Registered { lane: Arc::clone(lane), id, kept: false }, pending)),
                Err(Refusal::InFlight) => return Err(ChangeError::InFlight { id }),
                Err(Refusal::KeyHeld(back)) => entry = *back,
            }
            freed.await;
        }
    }
}

fn entry(
    id: ChangeId,
    payload: Bytes,
    keys: KeyHashes,
    timeline: Timeline,
    permit: OwnedSemaphorePermit,
) -> (Entry, Pending) {
    let (accepted, when_accepted) = oneshot::channel();
    let (outcome, when_decided) = oneshot::channel();
    let entry = Entry { payload, keys, timeline, accepted: Some(accepted), outcome, _permit: permit, order: 0 };
    let pending = Pending { id, ack: Ack::Awaited(when_accepted), decision: Decision::Awaited(when_decided) };
    (entry, pending)
}

/// Hands one copy of a change to the bus.
pub(crate) async fn publish(publisher: &Publisher, lane: &Lane, payload: Bytes, encoding: Encoding) -> PendingAck {
    let headers = Headers::new().with_content_type(encoding);
    publisher.publish(lane.change_subject.clone(), headers, payload).await
}
