//! Places in the past of a profile, and how they are written on the command line. No clock is read here.

use std::fmt;

use roam_schemas::{Revision, Timestamp, limits};

/// A place in the past, as somebody writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// After this revision.
    Revision(Revision),
    /// At this instant.
    Time(Timestamp),
    /// So many seconds ago.
    Ago(u64),
}

/// A place in the past of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// After this revision, before the next.
    Revision(Revision),
    /// At this instant.
    Time(Timestamp),
}

/// A place that is not in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no revision {point} yet: the profile is at revision {head}")]
pub(crate) struct Ahead {
    /// The revision that was asked for.
    point: Revision,
    /// The one of the profile.
    head: Revision,
}

impl At {
    /// Reads `42`, `2026-03-01T12:00:00Z`, or `90m`, `2h` and `1d`, with or without ` ago`.
    ///
    /// # Errors
    /// Says how it is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<u64>() {
            return match number < limits::REVISION_END {
                true => Ok(Self::Revision(Revision::new(number))),
                false => Err("a revision is below 2^53".to_owned()),
            };
        }
        if let Some(seconds) = ago(text.strip_suffix(" ago").unwrap_or(text)) {
            return Ok(Self::Ago(seconds));
        }
        let how = "write a revision (42), a time (2026-03-01T12:00:00Z), or how long ago (90s, 15m, 2h, 1d)";
        Timestamp::parse(text).map(Self::Time).map_err(|_| how.to_owned())
    }

    /// The place that this is at that instant.
    pub(crate) fn point(self, now: Timestamp) -> Point {
        match self {
            Self::Revision(revision) => Point::Revision(revision),
            Self::Time(time) => Point::Time(time),
            Self::Ago(seconds) => Point::Time(now.minus_seconds(seconds)),
        }
    }
}

impl Point {
    /// Whether what was written as this revision, at this time, had been written by then.
    pub(crate) fn reaches(self, revision: Revision, time: Timestamp) -> bool {
        match self {
            Self::Revision(point) => revision <= point,
            Self::Time(point) => time <= point,
        }
    }

    /// Makes sure that a profile at this revision has come so far.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn within(self, head: Revision) -> Result<(), Ahead> {
        match self {
            Self::Revision(point) if point > head => Err(Ahead { point, head }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// The seconds of a number with its unit.
fn ago(text: &str) -> Option<u64> {
    let number = text.strip_suffix(['s', 'm', 'h', 'd'])?;
    let unit = match &text[number.len()..] {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 1,
    };
    // `+5` is a number to Rust, and to nobody else.
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(unit)).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_in_the_past_are_read() {
        for (text, expected) in [
            ("42", Some(At::Revision(Revision::new(42)))),
            ("0", Some(At::Revision(Revision::ZERO))),
            ("9007199254740992", None),
            ("90s", Some(At::Ago(90))),
            ("15m", Some(At::Ago(900))),
            ("2h", Some(At::Ago(7_200))),
            ("2h ago", Some(At::Ago(7_200))),
            ("1d", Some(At::Ago(86_400))),
            ("1970-01-01T00:00:01Z", Some(At::Time(Timestamp::from_nanos(1_000_000_000)))),
            ("1970-01-01T01:00:01+01:00", Some(At::Time(Timestamp::from_nanos(1_000_000_000)))),
            ("1969-12-31T23:59:59Z", None),
            ("18446744073709551615d", None),
            ("2026-03-01", None),
            ("+5m", None),
            ("-1h", None),
            ("2w", None),
            ("d", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(At::parse(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn how_long_ago_is_reckoned_from_now() {
        let now = Timestamp::from_nanos(0).plus_seconds(10_000);
        assert_eq!(At::Ago(7_200).point(now), Point::Time(Timestamp::from_nanos(0).plus_seconds(2_800)));
        assert_eq!(At::Ago(20_000).point(now), Point::Time(Timestamp::from_nanos(0)), "there is nothing before that");
    }

    #[test]
    fn a_revision_that_is_not_written_yet_is_no_place_in_the_past() {
        let at = |revision| Point::Revision(Revision::new(revision)).within(Revision::new(7));
        assert_eq!((at(0), at(7)), (Ok(()), Ok(())));
        assert_eq!(at(8).unwrap_err().to_string(), "there is no revision 8 yet: the profile is at revision 7");
        assert_eq!(Point::Time(Timestamp::from_nanos(9)).within(Revision::ZERO), Ok(()));
    }

    #[test]
    fn a_place_reaches_what_was_written_by_then() {
        let time = Timestamp::from_nanos;
        for (point, revision, written, reached) in [
            (Point::Revision(Revision::new(7)), 7, 99, true),
            (Point::Revision(Revision::new(7)), 8, 1, false),
            (Point::Time(time(50)), 99, 50, true),
            (Point::Time(time(50)), 1, 51, false),
        ] {
            assert_eq!(point.reaches(Revision::new(revision), time(written)), reached, "{point}");
        }
    }
}
