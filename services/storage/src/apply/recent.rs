//! What was used lately, up to a number of entries. It never reads or writes the store: who keeps something here says what is
//! true of it.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, mem};

use foldhash::fast::RandomState;

/// A map that forgets what was not used for long: in two generations, of which the older one is dropped whole once the younger
/// one is full. What is looked up in the older one becomes young again. Costs a map more than a plain one, and nothing per
/// entry.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    /// How many entries fill a generation.
    full: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// One whose generations are full with so many entries.
    pub(super) fn new(full: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), full }
    }

    /// What is kept under a key, for whoever changes it or uses it.
    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if !self.old.is_empty()
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            return Some(self.young.entry(key).insert_entry(value).into_mut());
        }
        self.young.get_mut(key)
    }

    /// The same for whoever only looks: it does not become young again.
    pub(super) fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Keeps something under a key, in place of what was there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if !self.old.is_empty() {
            self.old.remove(&key);
        }
        self.young.insert(key, value);
    }

    /// Forgets what is kept under a key.
    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets what is old if there is enough that is young. Nothing is forgotten in between: what was kept since the last
    /// call but one is there.
    pub(super) fn age(&mut self) {
        if self.young.len() >= self.full {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::new(4);
        for round in 0..10 {
            assert_eq!(recent.get_mut("used").copied(), (round > 0).then_some(7), "round {round}");
            recent.insert("used".to_owned(), 7);
            (0..3).for_each(|number| recent.insert(format!("{round}-{number}"), round));
            recent.age();
        }
        assert_eq!(recent.peek("9-0"), Some(&9));
        assert_eq!(recent.peek("8-0"), None);
        assert!(recent.young.len() + recent.old.len() <= 8);
    }

    #[test]
    fn a_key_has_one_value_in_whichever_generation() {
        let mut recent = Recent::new(1);
        recent.insert("key", 1);
        recent.age();
        recent.insert("key", 2);
        assert_eq!(recent.peek("key"), Some(&2));
        assert_eq!(recent.old.len(), 0);
        recent.age();
        assert_eq!(recent.get_mut("key"), Some(&mut 2));
        assert_eq!((recent.young.len(), recent.old.len()), (1, 0));
        recent.age();
        recent.remove("key");
        assert_eq!(recent.peek("key"), None);
        recent.insert("key", 3);
        recent.clear();
        assert_eq!(recent.peek("key"), None);
    }
}
