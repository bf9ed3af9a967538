//! What the applying side tells the others of the process: how far it is, what it applied last, and when a profile
//! reaches a revision. Everything here is memory, and can be lost.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use roam_schemas::{Halted, Revision};
use tokio::sync::{
    oneshot::{self, error::RecvError},
    watch,
};

use crate::{
    apply::{AppliedBatch, Heads},
    store::ProfileKey,
};

/// How many applied batches are remembered for the announcer: twice the back-pressure limit.
const REMEMBERED_BATCHES: usize = 512;
/// How many bytes those may take together, as [`AppliedBatch::weight`] counts them. The announcer reads a batch that is not
/// remembered from the journal.
const REMEMBERED_BYTES: usize = 24 * 1024 * 1024;

/// How far the replica is. Clones share it.
#[derive(Clone)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
}

/// Who waits for a revision of a profile.
type Waiting = HashMap<ProfileKey, Vec<(Revision, oneshot::Sender<()>)>>;

/// A signal that comes once a profile has reached a revision. Whoever drops it waits no longer, and leaves nothing behind.
pub(crate) struct Reached {
    shared: Arc<Shared>,
    profile: ProfileKey,
    signal: oneshot::Receiver<()>,
}

struct Shared {
    applied: watch::Sender<u64>,
    halted: watch::Sender<Option<Halted>>,
    /// Up to where the journal went when it was last begun to be followed; none while it is not followed.
    follows: watch::Sender<Option<u64>>,
    recent: Mutex<Recent>,
    waiting: Mutex<Waiting>,
    /// How many wait, so that the applying side takes no lock while nobody does.
    waiters: AtomicUsize,
}

#[derive(Default)]
struct Recent {
    /// By rising sequence, each with what it weighs.
    batches: VecDeque<(Arc<AppliedBatch>, usize)>,
    bytes: usize,
}

impl Default for Progress {
    fn default() -> Self {
        let shared = Shared {
            applied: watch::Sender::new(0),
            halted: watch::Sender::new(None),
            follows: watch::Sender::new(None),
            recent: Mutex::default(),
            waiting: Mutex::default(),
            waiters: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Progress {
    /// Batches are applied and fsynced, and visible to readers.
    pub(crate) fn applied(&self, batches: impl Iterator<Item = AppliedBatch>, heads: &Heads) {
        let mut last = None;
        {
            let mut recent = lock(&self.shared.recent);
            for batch in batches {
                last = Some(batch.sequence);
                recent.remember(batch);
            }
        }
        if let Some(sequence) = last {
            self.passed(sequence);
        }
        if self.shared.waiters.load(Ordering::Acquire) > 0 {
            self.wake(heads);
        }
    }

    /// What an operator ordered at `sequence` is done. It may have moved any profile: whoever waits looks again.
    pub(crate) fn controlled(&self, sequence: u64) {
        self.passed(sequence);
        let mut waiting = lock(&self.shared.waiting);
        let woken: usize = waiting.values().map(Vec::len).sum();
        waiting.drain().flat_map(|(_, here)| here).for_each(|(_, waiter)| {
            let _ = waiter.send(());
        });
        self.shared.waiters.fetch_sub(woken, Ordering::AcqRel);
    }

    /// The replica stands still, and why; none once it goes on.
    pub(crate) fn set_halted(&self, why: Option<Halted>) {
        self.shared.halted.send_if_modified(|halted| {
            let moved = *halted != why;
            *halted = why;
            moved
        });
    }

    /// Why the replica stands still, if it does.
    pub(crate) fn halt(&self) -> Option<Halted> {
        self.shared.halted.borrow().clone()
    }

    /// Whether the replica stands still.
    pub(crate) fn is_halted(&self) -> bool {
        self.shared.halted.borrow().is_some()
    }

    /// Returns once the replica stands still, or goes on.
    pub(crate) async fn halted(&self, stands_still: bool) {
        let mut halted = self.shared.halted.subscribe();
        // The sender lives as long as `self`.
        let _ = halted.wait_for(|halted| halted.is_some() == stands_still).await;
    }

    /// The journal is followed from here on, and went up to `last` when that began; none: it is not followed any more.
    pub(crate) fn follows(&self, last: Option<u64>) {
        self.shared.follows.send_replace(last);
    }

    /// Returns once the replica is as new as the journal was when it last began to follow it, and does not stand still.
    pub(crate) async fn current(&self) {
        let mut follows = self.shared.follows.subscribe();
        loop {
            // The sender lives as long as `self`.
            let last = follows.wait_for(Option::is_some).await.ok().and_then(|last| *last);
            let applied = async {
                self.reached(last.unwrap_or(u64::MAX)).await;
                self.halted(false).await;
            };
            tokio::select! {
                biased;
                _ = follows.changed() => {}
                () = applied => return,
            }
        }
    }

    /// Returns once the replica stands still, or does not follow the journal any more: what it has grows old.
    pub(crate) async fn outdated(&self) {
        let mut follows = self.shared.follows.subscribe();
        tokio::select! {
            () = self.halted(true) => {}
            // The sender lives as long as `self`.
            _ = follows.wait_for(Option::is_none) => {}
        }
    }

    /// All of the journal up to `sequence` is applied, or was none of ours. Goes back when a new line begins.
    pub(crate) fn passed(&self, sequence: u64) {
        self.shared.applied.send_replace(sequence);
    }

    /// Returns once all of the journal up to `sequence` is applied.
    pub(crate) async fn reached(&self, sequence: u64) {
        let mut applied = self.shared.applied.subscribe();
        // The sender lives as long as `self`.
        let _ = applied.wait_for(|applied| *applied >= sequence).await;
    }

    /// Up to where the journal is applied now.
    pub(crate) fn applied_to(&self) -> u64 {
        *self.shared.applied.borrow()
    }

    /// The batch of that sequence, if it was applied lately.
    pub(crate) fn recent(&self, sequence: u64) -> Option<Arc<AppliedBatch>> {
        lock(&self.shared.recent).find(sequence)
    }

    /// These batches are announced: nobody needs them any more. Kept on, their memory would go round through that of a whole
    /// replica, and be cold each time.
    pub(crate) fn announced(&self, sequences: &[u64]) {
        let forgotten: Vec<_> = {
            let mut recent = lock(&self.shared.recent);
            sequences.iter().filter_map(|sequence| recent.forget(*sequence)).collect()
        };
        // Freed here, while nobody waits for the lock.
        drop(forgotten);
    }

    /// A signal that comes once the profile has reached the revision. Whoever asks looks at the store again after
    /// asking, so that a revision that came in between is not missed.
    pub(crate) fn revision(&self, profile: &ProfileKey, revision: Revision) -> Reached {
        let (reached, signal) = oneshot::channel();
        let mut waiting = lock(&self.shared.waiting);
        waiting.entry(profile.clone()).or_default().push((revision, reached));
        self.shared.waiters.fetch_add(1, Ordering::AcqRel);
        Reached { shared: Arc::clone(&self.shared), profile: profile.clone(), signal }
    }

    fn wake(&self, heads: &Heads) {
        let mut waiting = lock(&self.shared.waiting);
        heads.iter().for_each(|(profile, head)| self.shared.let_go(&mut waiting, profile, *head));
    }
}

impl Shared {
    /// Takes out who waits for a profile and has what they wait for, with this head, and who gave up waiting.
    fn let_go(&self, waiting: &mut Waiting, profile: &ProfileKey, head: Revision) {
        let Some(here) = waiting.get_mut(profile) else { return };
        let before = here.len();
        for (_, waiter) in here.extract_if(.., |(revision, waiter)| *revision <= head || waiter.is_closed()) {
            let _ = waiter.send(());
        }
        self.waiters.fetch_sub(before - here.len(), Ordering::AcqRel);
        if here.is_empty() {
            waiting.remove(profile);
        }
    }
}

impl Future for Reached {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.signal).poll(context)
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        self.signal.close();
        self.shared.let_go(&mut lock(&self.shared.waiting), &self.profile, Revision::ZERO);
    }
}

impl Recent {
    fn remember(&mut self, batch: AppliedBatch) {
        if self.batches.back().is_some_and(|(newest, _)| newest.sequence >= batch.sequence) {
            // A new line of the journal began: its sequences mean other batches.
            *self = Self::default();
        }
        let weight = batch.weight();
        self.bytes += weight;
        self.batches.push_back((Arc::new(batch), weight));
        while self.batches.len() > REMEMBERED_BATCHES || (self.bytes > REMEMBERED_BYTES && self.batches.len() > 1) {
            self.take(0);
        }
    }

    fn find(&self, sequence: u64) -> Option<Arc<AppliedBatch>> {
        self.batches.get(self.place(sequence)?).map(|(batch, _)| Arc::clone(batch))
    }

    fn forget(&mut self, sequence: u64) -> Option<Arc<AppliedBatch>> {
        self.take(self.place(sequence)?)
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        self.batches.binary_search_by_key(&sequence, |(batch, _)| batch.sequence).ok()
    }

    fn take(&mut self, place: usize) -> Option<Arc<AppliedBatch>> {
        let (batch, weight) = self.batches.remove(place)?;
        self.bytes -= weight;
        Some(batch)
    }
}

/// A lock is only poisoned if its holder panicked, and none of the holders above leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
