//! Which record each request is about: the same for all sides, spread over profiles, in an order that is none. Pure.

use std::cell::Cell;

/// A prime, so that the keys of a profile are taken in an order that is none.
const STRIDE: u64 = 2_654_435_761;
/// The tenant and the app of all profiles.
pub(crate) const NAME: &str = "bench";

/// The records that a scenario is about, and how large their values are.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// Over how many profiles they are spread.
    pub(crate) profiles: u64,
    /// How many each of them holds.
    pub(crate) keys: u64,
    /// Only keys that this number divides are asked for.
    step: u64,
    value: Vec<u8>,
    salt: Cell<u64>,
}

/// One record, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Which profile.
    pub(crate) profile: u64,
    /// Which of its keys.
    pub(crate) key: u64,
}

impl Keys {
    /// So many profiles of so many keys, with values of that many bytes.
    pub(crate) fn new(profiles: u64, keys: u64, value_bytes: usize) -> Self {
        // Bytes that do not compress, the same in every run: xorshift64*.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut byte = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
        };
        Self { profiles, keys, step: 1, value: (0..value_bytes).map(|_| byte()).collect(), salt: Cell::new(0) }
    }

    /// The same, of which only every so manieth record is asked for.
    pub(crate) fn every(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.profiles * self.keys
    }

    /// The record that request `number` is about: all of them, one after the other, in turn over the profiles.
    pub(crate) fn spot(&self, number: u64) -> Spot {
        let turn = number / self.profiles;
        Spot { profile: number % self.profiles, key: turn.wrapping_mul(STRIDE) % (self.keys / self.step) * self.step }
    }

    /// A value that no other has: a counter, then random bytes.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = self.value.clone();
        self.salt.set(self.salt.get() + 1);
        for (to, from) in value.iter_mut().zip(self.salt.get().to_be_bytes()) {
            *to = from;
        }
        value
    }
}

/// The name of a user.
pub(crate) fn user(profile: u64) -> String {
    format!("user-{profile}")
}

/// A key within a profile.
pub(crate) fn key(key: u64) -> String {
    format!("record-{key:08}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_record_comes_once_before_any_comes_again() {
        let keys = Keys::new(64, 1_000, 16);
        let spots: HashSet<_> =
            (0..keys.records()).map(|number| keys.spot(number)).map(|spot| (spot.profile, spot.key)).collect();
        assert_eq!(spots.len() as u64, keys.records());
    }

    #[test]
    fn no_two_values_are_the_same() {
        let keys = Keys::new(1, 1, 128);
        assert_ne!(keys.value(), keys.value());
        assert_eq!(keys.value().len(), 128);
    }
}
