//! Deletions that look like a mistake are held back until somebody confirms them: an emptied directory, a settings file that
//! was reset, a server that lost its data. What is removed file by file is seen in several rounds, so what was deleted lately
//! counts, too, also across a restart. What was made since the first of those deletions does not: temporary files come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use roam_schemas::{Key, Timestamp};

use super::{Desk, HeldBack};
use crate::{
    reconcile::{Digest, Step},
    store::StoreError,
};

/// Deletions of more keys than this are held back if they are more than half of all.
const DELETIONS: usize = 20;
/// Deletions of this time count as one.
const LATELY: Duration = Duration::from_secs(600);

/// The keys that a round would delete.
#[derive(Debug, Default)]
struct Deletions {
    /// In the profile.
    publish: BTreeSet<Key>,
    /// In the files.
    take: BTreeSet<Key>,
    /// They are gone on both sides.
    settle: BTreeSet<Key>,
}

impl Deletions {
    fn of(steps: &[(Key, Step)], desk: &Desk, local: &BTreeMap<Key, Digest>) -> Self {
        let mut deletions = Self::default();
        for (key, step) in steps {
            let is_live =
                || desk.layered.in_force(&desk.known.remote, key).is_some_and(|(.., held)| held.value.is_some());
            let of = match (step, local.contains_key(key)) {
                (Step::Publish, false) => &mut deletions.publish,
                (Step::Take, true) if !is_live() => &mut deletions.take,
                (Step::Settle, false) => &mut deletions.settle,
                _ => continue,
            };
            of.insert(key.clone());
        }
        deletions
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.publish.iter().chain(&self.take).chain(&self.settle)
    }

    fn contain(&self, key: &Key) -> bool {
        self.publish.contains(key) || self.take.contains(key) || self.settle.contains(key)
    }
}

impl Desk {
    /// Takes deletions out of the steps if they look like a mistake, and remembers those that it lets pass. The steps are
    /// about these keys, or about all.
    pub(super) fn hold_back(
        &mut self,
        steps: &mut Vec<(Key, Step)>,
        local: &BTreeMap<Key, Digest>,
        only: Option<&BTreeSet<Key>>,
        now: Timestamp,
    ) -> Result<Option<HeldBack>, StoreError> {
        let mut deletions = Deletions::of(steps, self, local);
        self.confirmed_keys.retain(|key| only.is_some_and(|keys| !keys.contains(key)) || deletions.contain(key));
        let is_confirmed = std::mem::take(&mut self.confirmed);
        if is_confirmed {
            self.confirmed_keys.extend(deletions.keys().cloned());
            self.store.forget_deletions(&self.scope, &mut self.known)?;
        }
        for keys in [&mut deletions.publish, &mut deletions.take, &mut deletions.settle] {
            keys.retain(|key| !self.confirmed_keys.contains(key));
        }
        if deletions.keys().next().is_none() {
            if only.is_none() && self.known.holds_back {
                self.store.hold_back(&self.scope, &mut self.known, false)?;
            }
            return Ok(None);
        }
        let (publish, take) = (deletions.publish.len(), deletions.take.len());
        let before = self.deleted_before(&deletions, now);
        let known = &self.known;
        let made = known.made.keys().filter(|key| known.base.contains_key(*key)).count();
        let of = known.base.len() - made + before;
        let deleted = deletions.publish.iter().chain(&deletions.take);
        let made_and_deleted = deleted.filter(|key| known.made.contains_key(*key)).count();
        let is_much = |count: usize, of: usize| count > DELETIONS && 2 * count > of;
        let at_once = is_much(publish + take, known.base.len());
        let in_pieces = publish + take > 0 && is_much(publish + take + before - made_and_deleted, of);
        let is_gone = publish > 0 && self.files.are_gone();
        let is_held = is_gone || at_once || in_pieces;
        let held_back = HeldBack { publish, take, before, of };
        // A round about a few keys alone does not tell that nothing is held back any more.
        if is_held != self.known.holds_back && (is_held || only.is_none()) {
            self.store.hold_back(&self.scope, &mut self.known, is_held)?;
        }
        if !is_held {
            self.store.deleting(&self.scope, &mut self.known, deletions.keys(), now, LATELY)?;
            return Ok(None);
        }
        if is_gone {
            // Nothing is written into files that are gone, either: what is written would hide what is missing.
            steps.clear();
        }
        steps.retain(|(key, _)| !deletions.publish.contains(key) && !deletions.take.contains(key));
        Ok(Some(held_back))
    }

    /// How many keys were deleted lately that are not there again and not among these. While something is held back, it
    /// counts however long ago that was: waiting is no confirmation.
    fn deleted_before(&self, deletions: &Deletions, now: Timestamp) -> usize {
        let since = now.minus_seconds(LATELY.as_secs());
        let counts = |key: &Key, at: Timestamp| {
            (self.known.holds_back || at >= since) && !self.known.base.contains_key(key) && !deletions.contain(key)
        };
        self.known.deleted.iter().filter(|(key, at)| counts(key, **at)).count()
    }
}
