//! What the agent says of itself: the state of each profile as plain data.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use roam_schemas::{Revision, Timestamp};
use serde::Serialize;

use crate::{desk::HeldBack, format::LeftOut, store::Known};

/// Most names of files that were set aside that are remembered for each profile.
const SET_ASIDE: usize = 100;

/// The state of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProfileStatus {
    /// Where its files are.
    pub path: PathBuf,
    /// The highest revision that this device has heard the records of.
    pub revision: Revision,
    /// The highest revision of the profile that it knows the system to have; zero since the agent started if none.
    pub revision_seen: Revision,
    /// How many keys file and profile agree on.
    pub agreed: usize,
    /// How many edits wait to be published.
    pub waiting: usize,
    /// When the system last answered; none since the agent started.
    pub last_contact: Option<Timestamp>,
    /// Why nothing goes on, if so.
    pub trouble: Option<String>,
    /// Deletions that wait for `confirm`.
    pub held_back: Option<HeldBack>,
    /// What has to end before the files can have what they lack, such as a browser that runs.
    pub waits_for: Option<String>,
    /// What the system refused for good: it waits for another edit, or for `retry`.
    pub parked: Vec<LeftOut>,
    /// Of what was refused for good, what was let go: it stays as it is on this device until it is edited.
    pub dropped: Vec<String>,
    /// Keys of the profile that this device's files cannot hold.
    pub refused: Vec<LeftOut>,
    /// What the files hold and does not roam.
    pub left_out: Vec<LeftOut>,
    /// Files that were set aside since the agent started, newest last.
    pub set_aside: Vec<String>,
}

impl ProfileStatus {
    /// What the agent's database tells of a profile.
    pub(crate) fn set_known(&mut self, known: KnownStatus) {
        let KnownStatus { revision, agreed, parked, dropped } = known;
        (self.revision, self.agreed, self.parked, self.dropped) = (revision, agreed, parked, dropped);
    }
}

/// What of a profile's state outlives the agent.
#[derive(Debug)]
pub(crate) struct KnownStatus {
    revision: Revision,
    agreed: usize,
    parked: Vec<LeftOut>,
    dropped: Vec<String>,
}

impl KnownStatus {
    pub(crate) fn of(known: &Known) -> Self {
        let parked = known.parked.iter();
        let parked = parked.map(|(key, parked)| LeftOut { key: key.to_string(), why: parked.reason.clone() });
        Self {
            revision: known.revision(),
            agreed: known.base.len(),
            parked: parked.collect(),
            dropped: known.dropped.keys().map(ToString::to_string).collect(),
        }
    }
}

/// The state of all profiles, by their apps. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    profiles: Arc<Mutex<BTreeMap<String, ProfileStatus>>>,
}

impl Board {
    /// Changes what is said of a profile.
    pub(crate) fn update(&self, app: &str, change: impl FnOnce(&mut ProfileStatus)) {
        let mut profiles = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        let status = profiles.entry(app.to_owned()).or_default();
        change(status);
        let surplus = status.set_aside.len().saturating_sub(SET_ASIDE);
        status.set_aside.drain(..surplus);
    }

    /// What is said of a profile now.
    pub(crate) fn read_one(&self, app: &str) -> ProfileStatus {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner).get(app).cloned().unwrap_or_default()
    }

    /// What is said of all profiles now.
    pub(crate) fn read(&self) -> BTreeMap<String, ProfileStatus> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
