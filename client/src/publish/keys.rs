//! Which keys of a profile are in flight, so that changes to one key reach the stream in the order in which they were
//! submitted. Pure; keys are held as hashes, and two keys that share one merely wait for each other.
//!
//! **Invariant:** of the changes that share a key, only one at a time is without a PubAck, and one that a later one has
//! overtaken is not sent again. The later one therefore has a higher sequence than every copy of the earlier one, and
//! storage keeps the newer value whatever happens on the way.

use std::collections::{HashMap, hash_map::Entry};

/// The hashes of a change's keys.
pub(crate) type KeyHashes = Box<[u64]>;

/// The keys of the changes in flight on one subject.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_hash: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    /// The change with this key that was submitted last.
    last: u64,
    /// Whether that one is still without a PubAck.
    unacked: bool,
    /// How many changes with this key are in flight.
    in_flight: usize,
}

impl Keys {
    /// Takes the keys for the change that is `order`-th on its subject, unless one of them is without a PubAck.
    pub(crate) fn take(&mut self, keys: &[u64], order: u64) -> bool {
        if keys.iter().any(|key| self.by_hash.get(key).is_some_and(|held| held.unacked)) {
            return false;
        }
        for key in keys {
            let held = self.by_hash.entry(*key).or_insert(Held { last: order, unacked: true, in_flight: 0 });
            (held.last, held.unacked) = (order, true);
            held.in_flight += 1;
        }
        true
    }

    /// The change has its PubAck: the next one may come.
    pub(crate) fn acked(&mut self, keys: &[u64], order: u64) {
        for key in keys {
            if let Some(held) = self.by_hash.get_mut(key).filter(|held| held.last == order) {
                held.unacked = false;
            }
        }
    }

    /// The change will be sent again although it had its PubAck: later ones wait again. Not for one that was overtaken.
    pub(crate) fn hold(&mut self, keys: &[u64], order: u64) {
        for key in keys {
            if let Some(held) = self.by_hash.get_mut(key).filter(|held| held.last == order) {
                held.unacked = true;
            }
        }
    }

    /// The change is no longer in flight.
    pub(crate) fn give_back(&mut self, keys: &[u64], order: u64) {
        self.acked(keys, order);
        for key in keys {
            if let Entry::Occupied(mut held) = self.by_hash.entry(*key) {
                held.get_mut().in_flight -= 1;
                if held.get().in_flight == 0 {
                    held.remove();
                }
            }
        }
    }

    /// Whether a change that was submitted later went out with one of these keys.
    pub(crate) fn overtaken(&self, keys: &[u64], order: u64) -> bool {
        keys.iter().any(|key| self.by_hash.get(key).is_some_and(|held| held.last > order))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_for_the_pub_ack_of_the_change_before() {
        let mut keys = Keys::default();
        assert!(keys.take(&[1, 2], 1));
        assert!(!keys.take(&[2, 3], 2));
        assert!(keys.take(&[3], 3), "the refused change took nothing");
        keys.acked(&[1, 2], 1);
        assert!(keys.take(&[2], 4));
        assert!(!keys.take(&[2], 5));
        keys.acked(&[1, 2], 1);
        assert!(!keys.take(&[2], 6), "only the last one's PubAck counts");
    }

    #[test]
    fn a_change_is_overtaken_by_a_later_one_with_its_key_even_once_that_is_settled() {
        let mut keys = Keys::default();
        assert!(keys.take(&[1], 1));
        assert!(!keys.overtaken(&[1], 1));
        keys.acked(&[1], 1);
        assert!(keys.take(&[1], 2));
        assert!(keys.overtaken(&[1], 1));
        keys.give_back(&[1], 2);
        assert!(keys.overtaken(&[1], 1));
        keys.give_back(&[1], 1);
        assert!(keys.is_empty());
    }

    #[test]
    fn a_key_that_is_held_again_waits_for_the_next_pub_ack() {
        let mut keys = Keys::default();
        assert!(keys.take(&[1], 1));
        keys.acked(&[1], 1);
        keys.hold(&[1], 1);
        assert!(!keys.take(&[1], 2));
        keys.acked(&[1], 1);
        assert!(keys.take(&[1], 2));
    }

    #[test]
    fn a_key_that_is_given_back_without_a_pub_ack_is_free() {
        let mut keys = Keys::default();
        assert!(keys.take(&[1], 1));
        keys.acked(&[1], 1);
        assert!(keys.take(&[1], 2));
        keys.give_back(&[1], 2);
        assert!(keys.take(&[1], 3));
    }
}
