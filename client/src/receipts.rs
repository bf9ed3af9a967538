//! The keeper: one task a client that looks after the changes in flight. It matches receipts and PubAcks to them, sends
//! again what needs it, and gives up what is over. It decides nothing itself: `publish/timeline.rs` does.

use std::collections::HashMap;
use std::fmt::Display;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, SelectAll};
use roam_nats::{Bus, Headers, Message, PendingAck, PubAck, PublishError, Publisher, Subscription};
use roam_schemas::{
    BulkReceipt, BulkReceipts, ChangeId, DecodeError, Device, Encoding, Kind, Outcome, Problem, Profile, Receipt,
    decode, subjects,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::publish::{Bulks, Handed, Handover, Lane, Moment, Together, publish};

/// How often the changes in flight are looked through for what is due. With nothing in flight the keeper sleeps.
const SWEEP: Duration = Duration::from_millis(50);
/// How many changes are taken over at once, if so many are there.
const AT_ONCE: usize = 1_024;
/// The registry is looked through for profiles that nobody uses whenever it has doubled, and not below this size.
const FEW_LANES: usize = 64;

/// How many receipts came, by what became of them. What cannot be read counts as one.
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

    /// Takes in what came on the receipts' subject. Whose it is stands in the subject; of a bulk alone the user stands in the payload. If
    /// a bulk was refused as a whole, which one, and why.
    fn receive(&self, message: &Message, moment: Moment) -> Option<(u64, Problem)> {
        let Some(encoding) = message.headers.encoding() else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let of_bulk = subjects::is_receipt_of_bulk(&message.subject);
        let taken = match of_bulk && Kind::peek(&message.payload, encoding) == Some(Kind::BulkReceipts) {
            true => self.receive_bulk(message, encoding, moment).map(|()| None),
            false => self.receive_one(message, encoding, moment, of_bulk),
        };
        taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "a receipt does not decode");
            self.undecodable.fetch_add(1, Ordering::Relaxed);
            None
        })
    }

    fn receive_one(
        &self,
        message: &Message,
        encoding: Encoding,
        moment: Moment,
        of_bulk: bool,
    ) -> Result<Option<(u64, Problem)>, DecodeError> {
        match decode(&message.payload, encoding)? {
            Receipt { sequence, outcome: Outcome::Rejected(problem), .. } if of_bulk => {
                self.matched.fetch_add(1, Ordering::Relaxed);
                Ok(Some((sequence, problem)))
            }
            receipt => {
                self.match_up(&message.subject, receipt, moment);
                Ok(None)
            }
        }
    }

    fn receive_bulk(&self, message: &Message, encoding: Encoding, moment: Moment) -> Result<(), DecodeError> {
        let BulkReceipts { receipts } = decode(&message.payload, encoding)?;
        for BulkReceipt { user, receipt } in receipts {
            if let Some(subject) = subjects::receipt_of_one(&message.subject, &user) {
                self.match_up(&subject, receipt, moment);
            }
        }
        Ok(())
    }

    fn match_up(&self, subject: &str, receipt: Receipt, moment: Moment) {
        let lane = self.lanes().by_receipt_subject.get(subject).map(Arc::clone);
        let count = match lane.is_some_and(|lane| lane.received(receipt, moment)) {
            true => &self.matched,
            false => &self.unmatched,
        };
        count.fetch_add(1, Ordering::Relaxed);
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
    /// What may go together; none for a device, which has nobody's changes but its own.
    pub(crate) bulks: Option<Bulks>,
}

/// What the stream answered to a copy of a change.
type Answer = (Arc<Lane>, ChangeId, Result<PubAck, PublishError>);

/// What the stream answered to changes that left together.
type BulkAnswer = (Vec<(Arc<Lane>, ChangeId)>, Result<PubAck, PublishError>);

/// A copy of a change to wait for.
enum Copy {
    Handed(PendingAck),
    Again,
}

impl Keeper {
    /// Works until the connection or the client is closed.
    pub(crate) async fn run(mut self, mut receipts: SelectAll<Subscription>, mut handovers: mpsc::Receiver<Handover>) {
        let mut answers = FuturesUnordered::new();
        let mut bulk_answers = FuturesUnordered::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = receipts.next() => match message {
                    Some(message) => {
                        if let Some((sequence, problem)) = self.registry.receive(&message, self.moment()) {
                            self.refused_bulk(sequence, &problem);
                        }
                    }
                    None => break,
                },
                handover = handovers.recv(), if self.bulks.as_ref().is_none_or(Bulks::has_room) => {
                    let Some(first) = handover else { break };
                    // All that is there comes at once, so that it can go together.
                    let others = iter::from_fn(|| handovers.try_recv().ok()).take(AT_ONCE);
                    let acks = iter::once(first).chain(others).filter_map(|handover| self.take_over(handover));
                    let acks: Vec<_> = acks.collect();
                    answers.extend(acks.into_iter().map(|(lane, id, ack)| self.answer(lane, id, Copy::Handed(ack))));
                    bulk_answers.extend(self.send_bulks());
                }
                Some(answer) = answers.next() => self.answered(answer),
                Some((of, answer)) = bulk_answers.next() => {
                    self.bulk_answered(of, answer);
                    bulk_answers.extend(self.send_bulks());
                }
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

    /// A change that the bus has is still to be waited for; any other waits here.
    fn take_over(&mut self, handover: Handover) -> Option<(Arc<Lane>, ChangeId, PendingAck)> {
        let (lane, id, handed) = handover.take_over();
        self.watch(&lane);
        match (handed, &mut self.bulks) {
            (Handed::ToTheBus(ack), _) => return Some((lane, id, ack)),
            (Handed::ForABulk(change), Some(bulks)) => bulks.add(lane, id, change),
            // Nobody hands such a one over where there are no bulks.
            (Handed::ForABulk(_), None) => lane.forget(id),
        }
        None
    }

    /// Sends what may leave now, and waits for the PubAcks.
    fn send_bulks(&mut self) -> Vec<impl Future<Output = BulkAnswer> + Send + use<>> {
        let (publisher, encoding) = (&self.publisher, self.encoding);
        let send = |Together { of, subject, payload }| {
            let publisher = publisher.clone();
            async move {
                let headers = Headers::new().with_content_type(encoding);
                (of, publisher.publish(subject, headers, payload).await.await)
            }
        };
        let bulks = self.bulks.as_mut();
        bulks.map(|bulks| iter::from_fn(|| bulks.next(encoding)).map(send).collect()).unwrap_or_default()
    }

    fn bulk_answered(&mut self, of: Vec<(Arc<Lane>, ChangeId)>, answer: Result<PubAck, PublishError>) {
        let moment = self.moment();
        if let Some(bulks) = &mut self.bulks {
            bulks.answered();
        }
        let is_bulk = of.len() > 1;
        match answer {
            // No copy of any of them would be taken in such company; what is said of each by itself counts.
            Err(error @ (PublishError::Denied | PublishError::TooLarge | PublishError::Refused { .. })) if is_bulk => {
                self.give_up_bulks(&error);
                of.into_iter().for_each(|(lane, id)| lane.not_taken(id, moment));
            }
            answer => of.into_iter().for_each(|(lane, id)| lane.published(id, answer.clone(), moment)),
        }
    }

    /// An access server refused a bulk as a whole.
    fn refused_bulk(&mut self, sequence: u64, problem: &Problem) {
        self.give_up_bulks(problem);
        let moment = self.moment();
        self.watched.iter().for_each(|lane| lane.refused_in_bulk(sequence, moment));
    }

    fn give_up_bulks(&mut self, why: &dyn Display) {
        if let Some(bulks) = &mut self.bulks {
            tracing::warn!(%why, "changes of several users do not go together here, so each goes by itself from now on");
            bulks.give_up();
        }
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
