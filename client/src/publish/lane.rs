//! What one client has in flight on one profile, and how far it has seen that profile. Holds the bookkeeping behind
//! [`crate::ProfileClient::submit`]; sends nothing and waits only for room.
//!
//! The lock is held for single steps of bookkeeping and never across a wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use roam_nats::{PubAck, PublishError};
use roam_schemas::{ChangeId, Device, Key, Outcome, Profile, Receipt, Revision, subjects};
use tokio::sync::{Notify, Semaphore};

use super::keys::KeyHashes;
use super::table::{Entry, Refusal, Settled, Table};
use super::timeline::Moment;

/// One profile, as one client sees it.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) profile: Profile,
    pub(crate) change_subject: String,
    pub(crate) receipt_subject: String,
    /// Room for changes in flight.
    pub(crate) window: Arc<Semaphore>,
    /// Told when a key, or all of them, may have become free.
    pub(crate) freed: Notify,
    /// Whether the keeper looks after this lane.
    pub(crate) watched: AtomicBool,
    seen: AtomicU64,
    hasher: RandomState,
    table: Mutex<Table>,
}

impl Lane {
    pub(crate) fn new(profile: Profile, device: &Device, window: usize) -> Self {
        Self {
            change_subject: subjects::change(&profile, device),
            receipt_subject: subjects::receipt(&profile, device),
            profile,
            window: Arc::new(Semaphore::new(window)),
            freed: Notify::new(),
            watched: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            hasher: RandomState::new(),
            table: Mutex::default(),
        }
    }

    /// The highest revision of the profile that anything has told this client of.
    pub(crate) fn seen(&self) -> Revision {
        Revision::new(self.seen.load(Ordering::Relaxed))
    }

    pub(crate) fn saw(&self, revision: Revision) {
        self.seen.fetch_max(revision.get(), Ordering::Relaxed);
    }

    pub(crate) fn hash<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> KeyHashes {
        keys.map(|key| self.hasher.hash_one(key.as_str())).collect()
    }

    /// Puts a change in flight; from now on its receipt finds it.
    pub(super) fn register(&self, id: ChangeId, entry: Entry) -> Result<(), Refusal> {
        self.table().register(id, entry)
    }

    /// Takes a change out of flight without telling anybody: whoever waits for it learns that its outcome is unknown.
    pub(crate) fn forget(&self, id: ChangeId) {
        let entry = self.table().remove(id);
        self.tell_freed();
        drop(entry);
    }

    /// As [`Self::forget`], for all.
    pub(crate) fn forget_all(&self) {
        let table = std::mem::take(&mut *self.table());
        self.tell_freed();
        drop(table);
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.table().is_empty()
    }

    /// The bytes to send again, if the change is still in flight.
    pub(crate) fn payload(&self, id: ChangeId) -> Option<Bytes> {
        self.table().payload(id)
    }

    /// What the stream answered to a copy of a change.
    pub(crate) fn published(&self, id: ChangeId, answer: Result<PubAck, PublishError>, moment: Moment) {
        let settled = self.table().published(id, answer, moment);
        self.settle(settled);
    }

    /// A receipt for this profile and device. Whether a change in flight was waiting for it.
    pub(crate) fn received(&self, receipt: Receipt, moment: Moment) -> bool {
        if let Outcome::Applied(applied) = &receipt.outcome {
            self.saw(applied.revision);
        }
        let (matched, settled) = self.table().received(receipt, moment);
        self.settle(settled);
        matched
    }

    /// A receipt for a bulk said that nothing in it was decided.
    pub(crate) fn refused_in_bulk(&self, sequence: u64, moment: Moment) {
        let settled = self.table().refused_in_bulk(sequence, moment);
        settled.into_iter().for_each(|settled| self.settle(Some(settled)));
    }

    /// The bus takes no bulk, and a change was in one.
    pub(crate) fn not_taken(&self, id: ChangeId, moment: Moment) {
        self.table().not_taken(id, moment);
    }

    /// Gives up what is past its deadline, and names what must be sent again, marked as being on its way.
    pub(crate) fn sweep(&self, moment: Moment) -> Vec<ChangeId> {
        let (again, settled) = self.table().sweep(moment);
        settled.into_iter().for_each(|settled| self.settle(Some(settled)));
        again
    }

    fn settle(&self, settled: Option<Settled>) {
        if let Some(settled) = settled {
            settled.tell();
        }
        self.tell_freed();
    }

    fn tell_freed(&self) {
        self.freed.notify_waiters();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and the table would still be whole if something did.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
