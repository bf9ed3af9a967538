//! Whether a process is alive, ready or failed: three different things. *Live*: it runs, and has
//! not failed. *Ready*: each of its named conditions holds, so it can do its work now. *Failed*: it
//! met something that it cannot mend; that is sticky and the first reason wins. Nothing here
//! probes anything: a condition is what its owner last said.

use std::sync::Arc;

use tokio::sync::watch;

/// The health of one process. Clones are the same health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
    scope: Option<Arc<str>>,
}

/// One thing that must hold for the process to be ready, such as the connection to the bus.
/// Clones are the same condition. It keeps what was last said of it also after it is dropped.
#[derive(Clone, Debug)]
pub struct Condition {
    state: Arc<watch::Sender<State>>,
    index: usize,
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NotReady {
    /// The condition's name.
    pub condition: String,
    /// Why it does not hold, in words for an operator.
    pub reason: String,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<String>,
    conditions: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// `None` while the condition holds.
    missing: Option<String>,
}

impl Health {
    /// Health without conditions, which is not ready: nobody has said yet what readiness means.
    pub fn new() -> Health {
        Health::default()
    }

    /// The same health, for one of several services: conditions made through it are named
    /// `scope.name`.
    pub fn scoped(&self, scope: &str) -> Health {
        Health { state: Arc::clone(&self.state), scope: Some(self.name_in_scope(scope).into()) }
    }

    /// Adds a condition, which does not hold until it is told that it does. A service makes all of
    /// its conditions before it sets the first one ready. Each call makes another condition, also
    /// under a name that is there already.
    pub fn condition(&self, name: &str) -> Condition {
        let mut index = 0;
        self.state.send_modify(|state| {
            index = state.conditions.len();
            state.conditions.push(Entry { name: self.name_in_scope(name), missing: Some("starting".to_owned()) });
        });
        Condition { state: Arc::clone(&self.state), index }
    }

    /// Says that the process has failed for good. Returns whether this was the first reason, which
    /// is the one that stays.
    pub fn fail(&self, reason: impl Into<String>) -> bool {
        let reason = reason.into();
        let first = self.state.send_if_modified(|state| {
            let first = state.failure.is_none();
            if first {
                state.failure = Some(reason.clone());
            }
            first
        });
        if first {
            tracing::error!(reason, "failed");
        } else {
            tracing::debug!(reason, "failed again");
        }
        first
    }

    /// Why the process has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.state.borrow().failure.clone()
    }

    /// The conditions that do not hold, in the order in which they were made. Without any
    /// condition it is one of its own, that none was made.
    pub fn not_ready(&self) -> Vec<NotReady> {
        self.state.borrow().not_ready()
    }

    /// Of these, those of the service whose health this is, as it named them: what other services of the process lack is not its own.
    pub fn not_ready_of_its_own(&self) -> Vec<NotReady> {
        let all = self.not_ready();
        let Some(scope) = &self.scope else { return all };
        let own = |missing: NotReady| {
            let name = missing.condition.strip_prefix(&**scope)?.strip_prefix('.')?.to_owned();
            Some(NotReady { condition: name, ..missing })
        };
        all.into_iter().filter_map(own).collect()
    }

    /// Whether the process has not failed and all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Waits until the process is ready.
    ///
    /// # Errors
    /// The reason, if the process fails first.
    pub async fn ready(&self) -> Result<(), String> {
        let mut changes = self.state.subscribe();
        let state = changes.wait_for(|state| state.failure.is_some() || state.is_ready()).await;
        // The sender cannot be gone, because `self` holds it.
        match state.ok().and_then(|state| state.failure.clone()) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    fn name_in_scope(&self, name: &str) -> String {
        match &self.scope {
            Some(scope) => format!("{scope}.{name}"),
            None => name.to_owned(),
        }
    }
}

impl Condition {
    /// The condition holds.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// The condition does not hold; `reason` is for an operator and carries no secrets.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, missing: Option<String>) {
        self.state.send_if_modified(|state| {
            let Some(entry) = state.conditions.get_mut(self.index) else {
                return false;
            };
            if entry.missing == missing {
                return false;
            }
            match &missing {
                None => tracing::info!(condition = entry.name, "ready"),
                Some(reason) => tracing::warn!(condition = entry.name, reason, "not ready"),
            }
            entry.missing = missing;
            true
        });
    }
}

impl State {
    fn is_ready(&self) -> bool {
        self.failure.is_none()
            && !self.conditions.is_empty()
            && self.conditions.iter().all(|entry| entry.missing.is_none())
    }

    fn not_ready(&self) -> Vec<NotReady> {
        if self.conditions.is_empty() {
            return vec![NotReady { condition: "start".to_owned(), reason: "starting".to_owned() }];
        }
        self.conditions
            .iter()
            .filter_map(|entry| Some(NotReady { condition: entry.name.clone(), reason: entry.missing.clone()? }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(health: &Health) -> Vec<(String, String)> {
        let list = health.not_ready().into_iter();
        list.map(|each| (each.condition, each.reason)).collect()
    }

    #[test]
    fn nothing_is_ready_before_somebody_said_what_ready_means() {
        let health = Health::new();
        assert!(!health.is_ready());
        assert_eq!(missing(&health), [("start".into(), "starting".into())]);
    }

    #[test]
    fn ready_means_that_every_condition_holds() {
        let health = Health::new();
        let (bus, store) = (health.condition("bus"), health.condition("store"));
        bus.set_ready();
        assert_eq!(missing(&health), [("store".into(), "starting".into())]);
        store.set_ready();
        assert!(health.is_ready());
        bus.set_not_ready("disconnected");
        assert!(!health.is_ready());
        assert_eq!(missing(&health), [("bus".into(), "disconnected".into())]);
        assert_eq!(health.failure(), None, "not ready is not failed");
    }

    #[test]
    fn the_first_reason_of_a_failure_stays() {
        let health = Health::new();
        health.condition("bus").set_ready();
        let same = health.clone();
        assert!(health.fail("fsync failed"));
        assert!(!same.fail("bus lost"));
        assert_eq!(health.failure().as_deref(), Some("fsync failed"));
        assert!(!health.is_ready(), "what has failed is not ready");
    }

    #[test]
    fn two_services_of_one_process_keep_their_conditions_apart() {
        let health = Health::new();
        let access = health.scoped("access").condition("bus");
        let _storage = health.scoped("storage").condition("bus");
        let _second = health.scoped("storage-2").condition("bus");
        access.set_ready();
        let starting = |name: &str| (name.to_owned(), "starting".to_owned());
        assert_eq!(missing(&health), [starting("storage.bus"), starting("storage-2.bus")]);
        let own =
            |scope| health.scoped(scope).not_ready_of_its_own().into_iter().map(|each| (each.condition, each.reason));
        assert_eq!(own("storage").collect::<Vec<_>>(), [starting("bus")]);
        assert_eq!(own("access").count(), 0);
        assert_eq!(health.not_ready_of_its_own(), health.not_ready());
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_when_the_last_condition_holds() {
        let health = Health::new();
        let bus = health.condition("bus");
        let mut waiting = Box::pin(health.ready());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        bus.set_ready();
        assert_eq!(waiting.await, Ok(()));
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_with_the_reason_of_a_failure() {
        let health = Health::new();
        let mut waiting = Box::pin(health.ready());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        health.fail("disk gone");
        assert_eq!(waiting.await, Err("disk gone".to_owned()));
    }
}
