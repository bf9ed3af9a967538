//! What the tests of this crate share: a plain model of a profile, random histories, and deterministic batches. Holds
//! no test.

// Each test binary compiles all of it and uses its own part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod batches;
pub(crate) mod histories;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod stores;

use proptest::test_runner::Config;

/// How many cases a property is tried with: `default`, or in proportion to what `PROPTEST_CASES` asks for in place of
/// the 20,000 histories that `decide` is tried with.
pub(crate) fn cases(default: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().map(|text| text.parse::<u64>().unwrap());
    let cases = asked.map_or(u64::from(default), |asked| (asked * u64::from(default)).div_ceil(20_000));
    Config { cases: u32::try_from(cases).unwrap(), failure_persistence: None, ..Config::default() }
}
