//! What an application is told of a profile. Nothing is queued for ever: what is not fetched is merged, so that a slow
//! reader learns less finely what happened, and never that nothing did.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roam_schemas::{ChangeId, Conflict, Key, Problem, Revision};
use tokio::sync::{Notify, watch};

use super::limits::EVENT_KEYS;

/// What happened to a profile, as this device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEvent {
    /// These keys look different now, by what others wrote, by a reset, or because a change of this device was parked. They
    /// are in order; read them to learn how they are. Edits of this device itself are not told.
    Changed {
        /// The keys.
        keys: Vec<Key>,
    },
    /// So many keys changed that they are not named: look at all.
    ChangedMuch,
    /// Changes of this device won over versions that it had not seen. Those versions are in the history.
    Conflict {
        /// Each key once, with the newest version that lost.
        conflicts: Vec<Conflict>,
    },
    /// A change was rejected and is parked.
    Parked {
        /// The change.
        id: ChangeId,
        /// Why.
        problem: Problem,
    },
    /// More changes were parked than are named: list them.
    ParkedMuch,
    /// All that was written here is saved, and this device has all that the servers had a moment ago.
    Synced {
        /// The revision of the profile.
        revision: Revision,
    },
    /// The servers cannot be reached, or refuse. All goes on here, and is made up for later.
    Offline {
        /// Why, for people.
        reason: String,
    },
}

/// How a profile stands to the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncState {
    /// There is no connection, or the servers refuse.
    Offline {
        /// Why, for people.
        reason: String,
    },
    /// Something is on its way, in one direction or the other.
    Syncing,
    /// Nothing is.
    Synced {
        /// The revision of the profile.
        revision: Revision,
    },
    /// The store was closed.
    Closed,
}

/// The events of one profile, for one reader. Dropping it ends it.
#[derive(Debug)]
pub struct LocalEvents {
    queue: Arc<Queue>,
}

impl LocalEvents {
    /// The next event. Waits for one; cancel-safe. None once the store is closed.
    pub async fn next(&mut self) -> Option<LocalEvent> {
        loop {
            let told = self.queue.told.notified();
            match self.queue.pending().take() {
                Taken::Event(event) => return Some(event),
                Taken::Nothing => {}
                Taken::Closed => return None,
            }
            told.await;
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    told: Notify,
}

/// What was not fetched yet, merged.
#[derive(Debug, Default)]
struct Pending {
    changed: BTreeSet<Key>,
    changed_much: bool,
    conflicts: BTreeMap<Key, Conflict>,
    parked: BTreeMap<ChangeId, Problem>,
    parked_much: bool,
    /// Only how it stands now is of interest.
    state: Option<LocalEvent>,
    closed: bool,
}

enum Taken {
    Event(LocalEvent),
    Nothing,
    Closed,
}

impl Pending {
    fn change(&mut self, keys: &[Key]) {
        if !self.changed_much {
            self.changed.extend(keys.iter().cloned());
        }
        if self.changed.len() > EVENT_KEYS {
            self.changed.clear();
            self.changed_much = true;
        }
    }

    fn conflict(&mut self, conflicts: &[Conflict]) {
        self.conflicts.extend(conflicts.iter().map(|conflict| (conflict.key.clone(), conflict.clone())));
        // The history tells of those that are left out here.
        while self.conflicts.len() > EVENT_KEYS {
            self.conflicts.pop_first();
        }
    }

    fn park(&mut self, id: ChangeId, problem: Problem) {
        if !self.parked_much {
            self.parked.insert(id, problem);
        }
        if self.parked.len() > EVENT_KEYS {
            self.parked.clear();
            self.parked_much = true;
        }
    }

    /// Takes one event out: what changed first, how it all stands last.
    fn take(&mut self) -> Taken {
        if std::mem::take(&mut self.changed_much) {
            return Taken::Event(LocalEvent::ChangedMuch);
        }
        if !self.changed.is_empty() {
            return Taken::Event(LocalEvent::Changed { keys: std::mem::take(&mut self.changed).into_iter().collect() });
        }
        if !self.conflicts.is_empty() {
            let conflicts = std::mem::take(&mut self.conflicts).into_values().collect();
            return Taken::Event(LocalEvent::Conflict { conflicts });
        }
        if std::mem::take(&mut self.parked_much) {
            return Taken::Event(LocalEvent::ParkedMuch);
        }
        if let Some((id, problem)) = self.parked.pop_first() {
            return Taken::Event(LocalEvent::Parked { id, problem });
        }
        match self.state.take() {
            Some(event) => Taken::Event(event),
            None if self.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }
}

impl Queue {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds the lock, and what is pending would still be whole if something did.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where trouble may be on the way to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connection = 0,
    Following = 1,
    Publishing = 2,
}

/// What is known of the way to the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    /// Why it is not open, by where the trouble is.
    troubles: [Option<String>; 3],
    /// Whether the copy has all that the servers had.
    current: bool,
    /// Whether nothing of this device is unsaved, as of this many edits.
    empty_as_of: Option<u64>,
    revision: Revision,
}

/// Tells all readers of one profile.
#[derive(Debug)]
pub(super) struct Hub {
    queues: Mutex<Vec<Weak<Queue>>>,
    standing: Mutex<(Standing, u64)>,
    state: watch::Sender<SyncState>,
}

impl Hub {
    pub(super) fn new(revision: Revision) -> Self {
        let reason = "not connected yet".to_owned();
        let troubles = [Some(reason.clone()), None, None];
        let standing = Standing { troubles, current: false, empty_as_of: None, revision };
        let state = watch::Sender::new(SyncState::Offline { reason });
        Self { queues: Mutex::default(), standing: Mutex::new((standing, 0)), state }
    }

    pub(super) fn subscribe(&self) -> LocalEvents {
        let queue = Arc::<Queue>::default();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue.pending().state = event_of(&self.state.borrow());
        LocalEvents { queue }
    }

    pub(super) fn state(&self) -> watch::Receiver<SyncState> {
        self.state.subscribe()
    }

    pub(super) fn changed(&self, keys: &[Key]) {
        if !keys.is_empty() {
            self.tell(|pending| pending.change(keys));
        }
    }

    pub(super) fn conflict(&self, conflicts: &[Conflict]) {
        if !conflicts.is_empty() {
            self.tell(|pending| pending.conflict(conflicts));
        }
    }

    pub(super) fn parked(&self, id: ChangeId, problem: &Problem) {
        self.tell(|pending| pending.park(id, problem.clone()));
    }

    /// What is in the way, or that nothing is there any more.
    pub(super) fn set_trouble(&self, place: Place, trouble: Option<String>) {
        self.stand(|standing, _| standing.troubles[place as usize] = trouble);
    }

    /// Whether the copy has all that the servers had, and the revision that it has.
    pub(super) fn set_current(&self, current: bool, revision: Revision) {
        self.stand(|standing, _| {
            standing.current = current;
            standing.revision = standing.revision.max(revision);
        });
    }

    /// Something was written here.
    pub(super) fn edited(&self) {
        self.stand(|_, edits| *edits += 1);
    }

    /// How many edits there were.
    pub(super) fn edits(&self) -> u64 {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Nothing of this device was unsaved after so many edits; none if something is.
    pub(super) fn set_empty(&self, as_of: Option<u64>, seen: Revision) {
        self.stand(|standing, _| {
            standing.empty_as_of = as_of;
            standing.revision = standing.revision.max(seen);
        });
    }

    pub(super) fn close(&self) {
        self.state.send_replace(SyncState::Closed);
        self.tell(|pending| pending.closed = true);
    }

    fn stand(&self, change: impl FnOnce(&mut Standing, &mut u64)) {
        let mut held = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let (standing, edits) = &mut *held;
        change(standing, edits);
        let state = match standing.troubles.iter().flatten().next() {
            Some(reason) => SyncState::Offline { reason: reason.clone() },
            None if standing.current && standing.empty_as_of == Some(*edits) => {
                SyncState::Synced { revision: standing.revision }
            }
            None => SyncState::Syncing,
        };
        let event = event_of(&state);
        // Under the lock, so that readers see the states in their order.
        let before = self.state.send_replace(state.clone());
        if before != state && event.is_some() {
            self.tell(|pending| pending.state = event.clone());
        }
    }

    fn tell(&self, what: impl Fn(&mut Pending)) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.iter().filter_map(Weak::upgrade) {
            what(&mut queue.pending());
            queue.told.notify_one();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

fn event_of(state: &SyncState) -> Option<LocalEvent> {
    match state {
        SyncState::Offline { reason } => Some(LocalEvent::Offline { reason: reason.clone() }),
        SyncState::Synced { revision } => Some(LocalEvent::Synced { revision: *revision }),
        SyncState::Syncing | SyncState::Closed => None,
    }
}
