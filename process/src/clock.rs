//! The one door through which wall-clock time enters a Roam process. Nothing else in the services
//! asks the system for the date; order never rests on what is read here.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in nanoseconds since 1970-01-01T00:00:00 UTC.
///
/// It may jump and run backwards. A clock set before 1970 reads as 0, one set after 2554 as
/// `u64::MAX`.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_clock_agrees_with_the_one_that_stamps_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        let modified = modified.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let apart = u128::from(super::now_ns()).abs_diff(modified);
        assert!(apart < 60_000_000_000, "{apart} ns apart");
    }
}
