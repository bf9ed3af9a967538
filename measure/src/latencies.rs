//! How long things took: counted to a thousandth, told in milliseconds.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// What is shorter counts as this, in nanoseconds.
const SHORTEST: u64 = 1_000;
/// What is longer counts as this, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// To how many digits.
const DIGITS: u8 = 3;

/// A count of latencies.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// There is no room for the count.
#[derive(Debug, thiserror::Error)]
#[error("the latencies cannot be counted")]
pub struct LatenciesError(#[from] hdrhistogram::CreationError);

/// How latencies are spread, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them took at most this.
    pub p50: f64,
    /// Nine out of ten.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latencies {
    /// Nothing counted as yet.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn new() -> Result<Self, LatenciesError> {
        Ok(Self(Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)?))
    }

    /// Counts one, if there is one.
    pub fn record(&mut self, took: impl Into<Option<Duration>>) {
        if let Some(took) = took.into() {
            self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// How they are spread.
    pub fn spread(&self) -> Spread {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Spread { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max } = self;
        write!(f, "{p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        latencies.record(None);
        assert_eq!(latencies.count(), 100);
        let spread = latencies.spread();
        for (found, expected) in [(spread.p50, 50.0), (spread.p90, 90.0), (spread.p99, 99.0), (spread.max, 100.0)] {
            assert!((found - expected).abs() < expected / 500.0, "{found} is not {expected}");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_counts_as_the_bound() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_secs(3_600));
        assert!((latencies.spread().max - 60_000.0).abs() < 60.0);
    }
}
