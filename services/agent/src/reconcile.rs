//! What is to be done about each key, from three states of it: what the file holds, what the profile holds, and what both
//! held when they last agreed. Pure, and it decides the same however often it is asked, so that a crash between any two
//! steps costs nothing but a repetition.

use std::collections::{BTreeMap, BTreeSet};

use roam_schemas::{Key, Revision};

/// The contents of a value.
pub(crate) type Digest = blake3::Hash;

/// What the profile holds under a key, or held when it was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The revision that wrote it.
    pub(crate) revision: Revision,
    /// Its value; `None` for one that was deleted.
    pub(crate) value: Option<Digest>,
}

/// What is to be done about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// File and profile agree, and that is to be remembered.
    Settle,
    /// The profile's state goes into the file.
    Take,
    /// The file's state goes into the profile.
    Publish,
    /// Both have a value, and each has changed apart from the other.
    Clash,
}

/// What is known on the three sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides<'a> {
    pub(crate) local: &'a BTreeMap<Key, Digest>,
    pub(crate) base: &'a BTreeMap<Key, Digest>,
    pub(crate) remote: &'a BTreeMap<Key, Held>,
}

/// The keys about which something is to be done. Those that `is_unknown` names are there and cannot be read, or are none
/// of the profile's business: nothing is done about them.
pub(crate) fn reconcile(sides: Sides<'_>, is_unknown: impl Fn(&Key) -> bool) -> Vec<(Key, Step)> {
    let keys: BTreeSet<&Key> = sides.local.keys().chain(sides.base.keys()).chain(sides.remote.keys()).collect();
    let known = keys.into_iter().filter(|key| !is_unknown(key));
    known.filter_map(|key| Some((key.clone(), step(sides, key)?))).collect()
}

fn step(sides: Sides<'_>, key: &Key) -> Option<Step> {
    let (local, base) = (sides.local.get(key), sides.base.get(key));
    let remote = sides.remote.get(key).and_then(|held| held.value.as_ref());
    match (local == remote, local == base, remote == base) {
        (true, true, _) => None,
        (true, ..) => Some(Step::Settle),
        (_, true, _) => Some(Step::Take),
        (.., true) => Some(Step::Publish),
        // Between a deletion and an edit, the edit stands: it is the one that can be undone.
        _ if local.is_none() => Some(Step::Take),
        _ if remote.is_none() => Some(Step::Publish),
        _ => Some(Step::Clash),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_of_the_ways_in_which_three_states_can_differ_has_its_step() {
        let key = Key::parse("k").unwrap();
        for (local, base, remote, expected) in [
            ("", "", "", None),
            ("a", "a", "a", None),
            ("a", "", "a", Some(Step::Settle)),
            ("", "a", "", Some(Step::Settle)),
            ("b", "a", "b", Some(Step::Settle)),
            ("", "", "a", Some(Step::Take)),
            ("a", "a", "b", Some(Step::Take)),
            ("a", "a", "", Some(Step::Take)),
            ("a", "", "", Some(Step::Publish)),
            ("b", "a", "a", Some(Step::Publish)),
            ("", "a", "a", Some(Step::Publish)),
            ("", "a", "b", Some(Step::Take)),
            ("b", "a", "", Some(Step::Publish)),
            ("b", "a", "c", Some(Step::Clash)),
            ("b", "", "c", Some(Step::Clash)),
        ] {
            let side = |value: &str| (!value.is_empty()).then(|| (key.clone(), blake3::hash(value.as_bytes())));
            let remote_side =
                side(remote).map(|(key, digest)| (key, Held { revision: Revision::new(1), value: Some(digest) }));
            let (local_side, base_side) = (side(local).into_iter().collect(), side(base).into_iter().collect());
            let remote_side = remote_side.into_iter().collect();
            let sides = Sides { local: &local_side, base: &base_side, remote: &remote_side };
            let steps = reconcile(sides, |_| false);
            assert_eq!(steps.first().map(|(_, step)| *step), expected, "{local:?} {base:?} {remote:?}");
            assert!(reconcile(sides, |_| true).is_empty());
        }
    }
}
