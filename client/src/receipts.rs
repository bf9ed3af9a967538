//! The keeper: one task a client that looks after the changes in flight. It matches receipts and PubAcks to them, sends
//! again what needs it, and gives up what is over. It decides nothing itself: `publish/timeline.rs` does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, SelectAll};
use roam_nats::{Bus, Message, PendingAck, PubAck, PublishError, Publisher, Subscription};
use roam_schemas::{ChangeId, Device, Encoding, Profile, Receipt, decode, subjects};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::publish::{Handover, Lane, Moment, publish};

/// How often the changes in flight are looked through for what is due. With nothing in flight the keeper sleeps.
const SWEEP: Duration = Duration::from_millis(50);
/// The registry is looked through for profiles that nobody uses whenever it has doubled, and not below this size.
const FEW_LANES: usize = 64;

/// How many messages came on the receipts' subject, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiptCounts {
    /// Told a change in flight what became of it.
    pub matched: u64,
    /// For no change in flight: repeated, late, or for another process of the same identity.
    pub unmatched: u64,
    /// Without our header: somebody steered them here.
    pub foreign: u64,
    /// With our header, and not decodable: of a newer version, perhaps.
    pub undecodable: u64,
}

/// The profiles that a client has to do with, by the subject of their receipts, and the counts.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    lanes: Mutex<Lanes>,
    matched: AtomicU64,
    unmatched: AtomicU64,
    foreign: AtomicU64,
    undecodable: AtomicU64,
}

#[derive(Debug, Default)]
struct Lanes {
    by_receipt_subject: HashMap<String, Arc<Lane>>,
    crowded: usize,
}

impl Registry {
    /// The one lane of a profile; all profile clients of it share it.
    pub(crate) fn lane(&self, profile: Profile, device: &Device, window: usize) -> Arc<Lane> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.by_receipt_subject.get(&subjects::receipt(&profile, device)) {
            return Arc::clone(lane);
        }
        if lanes.by_receipt_subject.len() >= lanes.crowded {
            // What a profile client or the keeper uses has a second owner.
            lanes.by_receipt_subject.retain(|_, lane| Arc::strong_count(lane) > 1);
            lanes.crowded = FEW_LANES.max(2 * lanes.by_receipt_subject.len());
        }
        let lane = Arc::new(Lane::new(profile, device, window));
        lanes.by_receipt_subject.insert(lane.receipt_subject.clone(), Arc::clone(&lane));
        lane
    }

    pub(crate) fn counts(&self) -> ReceiptCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReceiptCounts {
            matched: load(&self.matched),
            unmatched: load(&self.unmatched),
            foreign: load(&self.foreign),
            undecodable: load(&self.undecodable),
        }
    }

    /// Takes in what came on the receipts' subject. Whose it is stands in the subject, never in the payload.
    fn receive(&self, message: &Message, moment: Moment) {
        let count = match message.headers.encoding().map(|encoding| decode(&message.payload, encoding)) {
            None => &self.foreign,
            Some(Err(error)) => {
                tracing::warn!(%error, "a receipt does not decode");
                &self.undecodable
            }
            Some(Ok(receipt)) => match self.matches(&message.subject, receipt, moment) {
                true => &self.matched,
                false => &self.unmatched,
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn matches(&self, subject: &str, receipt: Receipt, moment: Moment) -> bool {
        let lane = self.lanes().by_receipt_subject.get(subject).map(Arc::clone);
        lane.is_some_and(|lane| lane.received(receipt, moment))
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Nothing panics while it holds the lock, and the table would still be whole if something did.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's own state. Dropped, it lets go of everything in flight: whoever waits learns that the outcome is unknown.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) bus: Bus,
    pub(crate) registry: Arc<Registry>,
    pub(crate) publisher: Publisher,
    pub(crate) encoding: Encoding,
    /// The lanes that may have something in flight.
    pub(crate) watched: Vec<Arc<Lane>>,
}

/// What the stream answered to a copy of a change.
type Answer = (Arc<Lane>, ChangeId, Result<PubAck, PublishError>);

/// A copy of a change to wait for.
enum Copy {
    Handed(PendingAck),
    Again,
}

impl Keeper {
    /// Works until the connection or the client is closed.
    pub(crate) async fn run(mut self, mut receipts: SelectAll<Subscription>, mut handovers: mpsc::Receiver<Handover>) {
        let mut answers = FuturesUnordered::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = receipts.next() => match message {
                    Some(message) => self.registry.receive(&message, self.moment()),
                    None => break,
                },
                handover = handovers.recv() => match handover {
                    Some(handover) => {
                        let (lane, id, ack) = handover.take_over();
                        self.watch(&lane);
                        answers.push(self.answer(lane, id, Copy::Handed(ack)));
                    }
                    None => break,
                },
                Some(answer) = answers.next() => self.answered(answer),
                _ = sweep.tick(), if !self.watched.is_empty() => {
                    for (lane, id) in self.sweep() {
                        answers.push(self.answer(lane, id, Copy::Again));
                    }
                }
            }
        }
    }

    fn moment(&self) -> Moment {
        let bus = self.bus.state();
        Moment { now: Instant::now(), connected: bus.connected, generation: bus.generation, dice: rand::random() }
    }

    fn watch(&mut self, lane: &Arc<Lane>) {
        if !lane.watched.swap(true, Ordering::Relaxed) {
            self.watched.push(Arc::clone(lane));
        }
    }

    /// Publishes a copy if that is still to be done, and waits for its PubAck.
    fn answer(&self, lane: Arc<Lane>, id: ChangeId, copy: Copy) -> impl Future<Output = Option<Answer>> + Send + use<> {
        let (publisher, encoding) = (self.publisher.clone(), self.encoding);
        async move {
            let ack = match copy {
                Copy::Handed(ack) => ack,
                // In a box, because it is rare and large, and there is one of these futures for each change in flight.
                Copy::Again => Box::pin(publish(&publisher, &lane, lane.payload(id)?, encoding)).await,
            };
            Some((lane, id, ack.await))
        }
    }

    fn answered(&self, answer: Option<Answer>) {
        // None: the change was settled before it could be sent again.
        if let Some((lane, id, answer)) = answer {
            lane.published(id, answer, self.moment());
        }
    }

    /// Names what must be sent again, and lets go of the lanes that are idle.
    fn sweep(&mut self) -> Vec<(Arc<Lane>, ChangeId)> {
        let moment = self.moment();
        let mut again = Vec::new();
        self.watched.retain(|lane| {
            again.extend(lane.sweep(moment).into_iter().map(|id| (Arc::clone(lane), id)));
            // A change that is registered now is handed over later, and the lane is watched again then.
            let idle = lane.is_idle();
            lane.watched.store(!idle, Ordering::Relaxed);
            !idle
        });
        again
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for lane in &self.watched {
            lane.forget_all();
        }
    }
}
