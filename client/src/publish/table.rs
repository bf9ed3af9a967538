//! The changes of one profile that are in flight, and what each PubAck and each receipt means for them. Pure bookkeeping:
//! it sends nothing, waits for nothing and looks at no clock.

use std::collections::HashMap;

use bytes::Bytes;
use roam_nats::{Failure, PubAck, PublishError};
use roam_schemas::{ChangeId, Outcome, Receipt};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::keys::{KeyHashes, Keys};
use super::timeline::{Moment, Next, Timeline};
use super::{Accepted, ChangeError, Saved};

/// Receipts without an id that came before the PubAck which would tell whose they are: more are not kept.
const EARLY_RECEIPTS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Table {
    in_flight: HashMap<ChangeId, Entry>,
    keys: Keys,
    /// How many changes were registered so far.
    registered: u64,
    early: Vec<Receipt>,
}

/// A change in flight.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) payload: Bytes,
    pub(super) keys: KeyHashes,
    pub(super) timeline: Timeline,
    pub(super) accepted: Option<oneshot::Sender<Accepted>>,
    pub(super) outcome: oneshot::Sender<Result<Saved, ChangeError>>,
    /// Its place in the window, given back with the entry.
    pub(super) _permit: OwnedSemaphorePermit,
    /// Set at registration.
    pub(super) order: u64,
}

/// Why a change cannot be registered now.
#[derive(Debug)]
pub(super) enum Refusal {
    /// One of its keys is without a PubAck: wait until [`Lane::freed`], then try with this again.
    KeyHeld(Box<Entry>),
    /// Its id is in flight.
    InFlight,
}

/// A change that left the table, and what to tell of it once no lock is held.
#[derive(Debug)]
#[must_use = "somebody waits for the outcome"]
pub(super) struct Settled {
    entry: Entry,
    outcome: Result<Saved, ChangeError>,
}

impl Settled {
    /// Tells whoever waits.
    pub(super) fn tell(self) {
        // They may have gone.
        let _ = self.entry.outcome.send(self.outcome);
    }
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The bytes of a change, if it is in flight.
    pub(super) fn payload(&self, id: ChangeId) -> Option<Bytes> {
        self.in_flight.get(&id).map(|entry| entry.payload.clone())
    }

    pub(super) fn register(&mut self, id: ChangeId, mut entry: Entry) -> Result<(), Refusal> {
        if self.in_flight.contains_key(&id) {
            return Err(Refusal::InFlight);
        }
        entry.order = self.registered + 1;
        if !self.keys.take(&entry.keys, entry.order) {
            return Err(Refusal::KeyHeld(Box::new(entry)));
        }
        self.registered = entry.order;
        self.in_flight.insert(id, entry);
        Ok(())
    }

    /// Takes a receipt in. Whether a change in flight was waiting for it, and what that settles.
    pub(super) fn received(&mut self, receipt: Receipt, moment: Moment) -> (bool, Option<Settled>) {
        let Some(id) = receipt.id.or_else(|| self.by_sequence(receipt.sequence)) else {
            return (self.keep_early(receipt), None);
        };
        let Some(entry) = self.in_flight.get_mut(&id) else { return (false, None) };
        entry.tell_accepted(receipt.sequence);
        (true, self.decided(id, receipt, moment))
    }

    /// A bulk with this sequence was refused as a whole, so nothing in it was decided. What settles with that; all else is sent again,
    /// each by itself.
    pub(super) fn refused_in_bulk(&mut self, sequence: u64, moment: Moment) -> Vec<Settled> {
        let mut in_it = Vec::new();
        for (id, entry) in &mut self.in_flight {
            match entry.timeline.sequence() {
                Some(accepted) if accepted == sequence => in_it.push(*id),
                // It is without a PubAck, which may tell that it was in it.
                None => entry.timeline.busy(moment, sequence),
                Some(_) => {}
            }
        }
        in_it.into_iter().filter_map(|id| self.busy(id, sequence, moment)).collect()
    }

    /// The bus takes no bulk: nothing is stored of a change that was in one.
    pub(super) fn not_taken(&mut self, id: ChangeId, moment: Moment) {
        if let Some(entry) = self.in_flight.get_mut(&id) {
            entry.timeline.refused(moment);
        }
    }

    /// Takes out what is past its deadline, and names what must be sent again, marked as being on its way. What was
    /// overtaken is not sent again: its receipt may still come, and if it does not, nobody knows what became of it.
    pub(super) fn sweep(&mut self, moment: Moment) -> (Vec<ChangeId>, Vec<Settled>) {
        let mut again = Vec::new();
        let mut over = Vec::new();
        for (id, entry) in &mut self.in_flight {
            match entry.timeline.next(moment) {
                Next::Wait => {}
                Next::GiveUp => over.push(*id),
                // It may have been turned away unheard, and a copy would come after a later change to one of its keys.
                Next::SendAgain if self.keys.overtaken(&entry.keys, entry.order) => {
                    if entry.timeline.is_hopeless(moment) {
                        over.push(*id);
                    }
                }
                Next::SendAgain => {
                    self.keys.hold(&entry.keys, entry.order);
                    entry.timeline.sent_again();
                    again.push((entry.order, *id));
                }
            }
        }
        // What was refused together goes out again in the order of its submission.
        again.sort_unstable();
        let settled = over.into_iter().filter_map(|id| self.give_up(id)).collect();
        (again.into_iter().map(|(_, id)| id).collect(), settled)
    }

    pub(super) fn remove(&mut self, id: ChangeId) -> Option<Entry> {
        let entry = self.in_flight.remove(&id)?;
        self.keys.give_back(&entry.keys, entry.order);
        if self.in_flight.is_empty() {
            self.early.clear();
        }
        Some(entry)
    }

    fn finish(&mut self, id: ChangeId, outcome: Result<Saved, ChangeError>) -> Option<Settled> {
        self.remove(id).map(|entry| Settled { entry, outcome })
    }

    fn give_up(&mut self, id: ChangeId) -> Option<Settled> {
        let unknown = self.in_flight.get(&id)?.timeline.may_take_effect();
        self.finish(id, Err(if unknown { ChangeError::Unknown { id } } else { ChangeError::Busy }))
    }

    fn by_sequence(&self, sequence: u64) -> Option<ChangeId> {
        let is_it = |entry: &Entry| entry.timeline.sequence() == Some(sequence);
        self.in_flight.iter().find(|(_, entry)| is_it(entry)).map(|(id, _)| *id)
    }

    /// A receipt that names no id may have outrun the PubAck that tells whose it is.
    fn keep_early(&mut self, receipt: Receipt) -> bool {
        let expected = receipt.id.is_none() && self.in_flight.values().any(|entry| entry.timeline.is_handed());
        let kept = expected && self.early.len() < EARLY_RECEIPTS;
        if kept {
            self.early.push(receipt);
        }
        kept
    }

    pub(super) fn published(
        &mut self,
        id: ChangeId,
        answer: Result<PubAck, PublishError>,
        moment: Moment,
    ) -> Option<Settled> {
        let entry = self.in_flight.get_mut(&id)?;
        let timeline = &mut entry.timeline;
        match answer {
            Ok(PubAck { sequence, .. }) => {
                timeline.accepted(moment, sequence);
                if timeline.sequence().is_some() {
                    self.keys.acked(&entry.keys, entry.order);
                }
                entry.tell_accepted(sequence);
                let early = self.early.iter().position(|receipt| receipt.sequence == sequence)?;
                let receipt = self.early.swap_remove(early);
                self.decided(id, receipt, moment)
            }
            // Where no stream listens, or none has a leader, nothing is stored.
            Err(PublishError::Busy { .. } | PublishError::Unavailable { source: Failure::NoStream }) => {
                timeline.refused(moment);
                None
            }
            Err(PublishError::Unavailable { .. } | PublishError::Closed) => {
                timeline.unanswered(moment);
                None
            }
            Err(error) => self.refused(id, error, moment),
        }
    }

    /// The bus refuses this copy, and would refuse any other.
    fn refused(&mut self, id: ChangeId, error: PublishError, moment: Moment) -> Option<Settled> {
        let timeline = &mut self.in_flight.get_mut(&id)?.timeline;
        if timeline.has_doubt() {
            timeline.hold(moment);
            return None;
        }
        let error = match error {
            PublishError::Denied => ChangeError::Denied,
            error => ChangeError::Refused(error),
        };
        self.finish(id, Err(error))
    }

    fn decided(&mut self, id: ChangeId, receipt: Receipt, moment: Moment) -> Option<Settled> {
        match receipt.outcome {
            Outcome::Applied(applied) => {
                let saved = Saved {
                    id,
                    sequence: receipt.sequence,
                    again: receipt.again,
                    revision: applied.revision,
                    time: applied.time,
                    conflicts: applied.conflicts,
                    superseded: applied.superseded,
                    nearly_full: applied.nearly_full,
                };
                self.finish(id, Ok(saved))
            }
            Outcome::Rejected(problem) if problem.code.retry() => self.busy(id, receipt.sequence, moment),
            Outcome::Rejected(problem) => self.finish(id, Err(ChangeError::Rejected(problem))),
        }
    }

    /// Nothing was decided. It is sent again by itself, unless that would put it after a later change to one of its keys.
    fn busy(&mut self, id: ChangeId, sequence: u64, moment: Moment) -> Option<Settled> {
        let entry = self.in_flight.get_mut(&id)?;
        entry.timeline.busy(moment, sequence);
        if self.keys.overtaken(&entry.keys, entry.order) {
            return self.give_up(id);
        }
        if entry.timeline.sequence().is_none() {
            self.keys.hold(&entry.keys, entry.order);
        }
        None
    }
}

impl Entry {
    fn tell_accepted(&mut self, sequence: u64) {
        if let Some(accepted) = self.accepted.take() {
            // Few callers ask for the PubAck.
            let _ = accepted.send(Accepted { sequence });
        }
    }
}

#[cfg(test)]
mod tests;
