//! What compactions may forget: decisions past their term, and versions that were replaced too long ago or stand too deep.
//! A filter decides from the rows of its own compaction and from the horizon; it sees no snapshot, so whatever it drops
//! must be of no use to any reader. **Invariant:** it never drops the newest version of a key.

use std::{
    ffi::CStr,
    sync::{Arc, PoisonError, RwLock},
};

use roam_schemas::Timestamp;
use rocksdb::{
    CompactionDecision,
    compaction_filter::CompactionFilter,
    compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory},
};

use super::{
    RowState, Seen,
    kept::{Bounds, Kept},
    meta::Horizon,
    version,
    version::VersionRow,
};

/// The horizon as the compactions know it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedHorizon(Arc<RwLock<Horizon>>);

impl SharedHorizon {
    pub(super) fn get(&self) -> Horizon {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, horizon: Horizon) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = horizon;
    }
}

/// Makes a filter for each compaction of table `seen`.
pub(super) struct ForgetSeen(pub(super) SharedHorizon);

/// Makes a filter for each compaction of table `version`.
pub(super) struct ForgetVersions(pub(super) SharedHorizon);

pub(super) struct SeenFilter {
    before: Timestamp,
}

#[derive(Debug)]
pub(super) struct VersionFilter {
    bounds: Bounds,
    /// The key whose versions are passing by, newest first.
    key: Vec<u8>,
    kept: Kept,
}

impl CompactionFilterFactory for ForgetSeen {
    type Filter = SeenFilter;

    fn create(&mut self, _: CompactionFilterContext) -> SeenFilter {
        SeenFilter { before: self.0.get().seen }
    }

    fn name(&self) -> &CStr {
        c"roam.seen.1"
    }
}

impl CompactionFilterFactory for ForgetVersions {
    type Filter = VersionFilter;

    fn create(&mut self, _: CompactionFilterContext) -> VersionFilter {
        VersionFilter::new(self.0.get())
    }

    fn name(&self) -> &CStr {
        c"roam.version.1"
    }
}

impl CompactionFilter for SeenFilter {
    fn filter(&mut self, _: u32, _: &[u8], value: &[u8]) -> CompactionDecision {
        // A row that does not read is for whoever reads it to complain of.
        match Seen::read(value) {
            Ok(seen) if seen.time < self.before => CompactionDecision::Remove,
            _ => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"roam.seen.1"
    }
}

impl CompactionFilter for VersionFilter {
    fn filter(&mut self, _: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.is_gone(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        c"roam.version.1"
    }
}

impl VersionFilter {
    pub(super) fn new(horizon: Horizon) -> Self {
        let bounds = Bounds::of_horizon(horizon);
        Self { bounds, key: Vec::new(), kept: Kept::new(bounds) }
    }

    /// Whether the version that passes by may go. One that does not read is for whoever reads it to complain of.
    pub(super) fn is_gone(&mut self, row_key: &[u8], value: &[u8]) -> bool {
        let Some((key, place)) = row_key.split_at_checked(row_key.len().saturating_sub(version::PLACE_BYTES)) else {
            return false;
        };
        if key != self.key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.kept = Kept::new(self.bounds);
        }
        match (version::place(place), VersionRow::read(value)) {
            (Ok(place), Ok(row)) => !self.kept.takes(place, row.time, row.state == RowState::Deleted),
            _ => false,
        }
    }
}
