//! How records, revisions and sizes read for people. What others wrote (keys, device names) is shown with its control
//! characters escaped, so that a key can neither break a line nor drive a terminal.

use std::fmt::{self, Write};

use indicatif::{HumanBytes, HumanCount};
use roam_client::Effective;
use roam_schemas::{Record, State, Version};

/// A text that somebody else chose, safe to print on one line.
pub(crate) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            safe.push(c);
        } else {
            // Writing to a String does not fail.
            let _ = write!(safe, "{}", c.escape_unicode());
        }
    }
    safe
}

/// Whether a character shows as itself wherever it stands: no control, and none that turns the direction of writing.
fn is_plain(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> HumanCount {
    HumanCount(number)
}

/// A number of things, such as `1 file` and `1,200 files`.
pub(crate) fn of(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// A size in bytes, rounded.
pub(crate) fn bytes(number: u64) -> HumanBytes {
    HumanBytes(number)
}

/// How long something took.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    match duration.as_secs_f64() {
        short if short < 10.0 => format!("{short:.2} s"),
        long if long < 120.0 => format!("{long:.1} s"),
        long => format!("{:.0} min {:02.0} s", (long / 60.0).floor(), (long % 60.0).floor()),
    }
}

/// One line for a record: revision, time, device, what happened, key.
pub(crate) struct RecordLine<'a>(pub(crate) &'a Record);

impl fmt::Display for RecordLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let (device, key) = (text(record.device.as_str()), text(record.key.as_str()));
        write!(f, "{:>8}  {}  {device:<16}  {:<7}  {key}", record.revision.get(), record.time, verb(&record.state))?;
        write_value(f, &record.state)?;
        write_conflict(f, record.conflict)
    }
}

/// One line for a value that is in force: the layer that won, then as a record, under its plain key.
pub(crate) struct EffectiveLine<'a>(pub(crate) &'a Effective);

impl fmt::Display for EffectiveLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Effective { key, layer, record } = self.0;
        write!(f, "{layer:<8}  {:>8}  {}", record.revision.get(), text(key.as_str()))?;
        write_value(f, &record.state)
    }
}

/// One line for a version of a key.
pub(crate) struct VersionLine<'a>(pub(crate) &'a Version);

impl fmt::Display for VersionLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.0;
        let device = text(version.device.as_str());
        write!(f, "{:>8}  {}  {device:<16}  {:<7}", version.revision.get(), version.time, verb(&version.state))?;
        write_value(f, &version.state)?;
        if version.rank > 0 {
            f.write_str("  came too late")?;
        }
        write_conflict(f, version.conflict)
    }
}

/// What a state says was done.
pub(crate) fn verb(state: &State) -> &'static str {
    match state {
        State::Value(_) => "put",
        State::Deleted => "deleted",
        State::Expired => "expired",
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, state: &State) -> fmt::Result {
    let State::Value(stored) = state else { return Ok(()) };
    // Of a large value what it is, not what its record holds.
    match stored.manifest() {
        Ok(Some(large)) => write!(f, "  {}  {}", bytes(large.length), text(large.content_type.as_str()))?,
        _ => write!(f, "  {}  {}", bytes(stored.value.len() as u64), text(stored.content_type.as_str()))?,
    }
    match stored.expires {
        Some(expires) => write!(f, "  expires {expires}"),
        None => Ok(()),
    }
}

fn write_conflict(f: &mut fmt::Formatter<'_>, conflict: bool) -> fmt::Result {
    match conflict {
        true => f.write_str("  won a conflict"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use roam_schemas::{ContentType, Device, Key, Revision, Stored, Timestamp, Value};

    use super::*;

    #[test]
    fn a_hostile_text_cannot_drive_the_terminal() {
        for (hostile, shown) in [
            ("plain/ключ", "plain/ключ"),
            ("a\nb", "a\\u{a}b"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("evil\u{202e}txt.exe", "evil\\u{202e}txt.exe"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(text(hostile), shown);
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let value = Stored { value: Value::new("dark"), content_type: ContentType::text(), expires: None };
        let record = Record {
            key: Key::parse("theme\n").unwrap(),
            revision: Revision::new(12),
            time: Timestamp::from_nanos(0),
            device: Device::parse("laptop").unwrap(),
            conflict: true,
            state: State::Value(value),
        };
        let line = RecordLine(&record).to_string();
        let expected = "12  1970-01-01T00:00:00.000000000Z  laptop            put      theme\\u{a}  4 B  text/plain";
        assert_eq!(line.trim_start(), format!("{expected}  won a conflict"));
    }

    #[test]
    fn durations_are_as_exact_as_they_matter() {
        for (millis, shown) in [(1_234, "1.23 s"), (61_500, "61.5 s"), (125_000, "2 min 05 s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), shown);
        }
    }
}
