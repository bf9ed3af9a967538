//! Growing, jittered pauses between attempts. Pure apart from the dice in [`Backoff::pause`]; nothing here waits.

use std::time::Duration;

/// The mean of the first pause.
const FIRST: Duration = Duration::from_millis(50);

/// Counts attempts in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pauses: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(Self::LONGEST)
    }
}

impl Backoff {
    /// The mean of the longest pause, unless told otherwise.
    pub(crate) const LONGEST: Duration = Duration::from_secs(2);

    /// With pauses that grow up to this mean.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { pauses: 0, longest }
    }

    /// The next pause. `dice` is in 0 to 1 and spreads it between a half and three halves of its mean, so that clients
    /// that were refused together do not come back together.
    pub(crate) fn next(&mut self, dice: f64) -> Duration {
        let mean = FIRST.saturating_mul(1 << self.pauses.min(16)).min(self.longest);
        self.pauses = self.pauses.saturating_add(1);
        mean.mul_f64(0.5 + dice.clamp(0.0, 1.0))
    }

    /// The next pause, by the dice of this process.
    pub(crate) fn pause(&mut self) -> Duration {
        self.next(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let mut low = Backoff::default();
        let mut high = Backoff::default();
        let mut mean = FIRST;
        for _ in 0..100 {
            assert_eq!(low.next(0.0), mean.mul_f64(0.5));
            assert_eq!(high.next(1.0), mean.mul_f64(1.5));
            mean = (mean * 2).min(Backoff::LONGEST);
        }
    }
}
