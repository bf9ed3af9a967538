//! Names for a file that is set aside because another device's is to have its place: who made it, and when. Pure.

use roam_schemas::Timestamp;
use time::OffsetDateTime;

/// The longest name of a file, in bytes (NAME_MAX of Linux and of macOS).
const NAME_BYTES: usize = 255;

/// `letter (conflict from laptop, 2026-11-22 10-15).docx` for `letter.docx`; with a number from the second attempt on,
/// for when that name is taken. The time is UTC, because devices may be in different zones.
pub(crate) fn name(name: &str, device: &str, time: Timestamp, attempt: u32) -> String {
    let (stem, ending) = match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    };
    let device: String = device.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    let number = if attempt > 1 { format!(" {attempt}") } else { String::new() };
    let mark = |device: &str| format!(" (conflict from {device}, {}){number}", minute(time));
    let mark = mark(cut(&device, NAME_BYTES / 3));
    let ending = cut(ending, NAME_BYTES / 4);
    format!("{}{mark}{ending}", cut(stem, NAME_BYTES - mark.len() - ending.len()))
}

/// No colons: not every file system takes them.
fn minute(time: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos().into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!("{} {:02}-{:02}", time.date(), time.hour(), time.minute())
}

fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 10:15:31 UTC.
    fn time() -> Timestamp {
        Timestamp::from_nanos(1_795_342_531_000_000_000)
    }

    #[test]
    fn the_name_says_who_and_when_and_keeps_the_ending() {
        for (from, attempt, expected) in [
            ("letter.docx", 1, "letter (conflict from laptop, 2026-11-22 10-15).docx"),
            ("letter.docx", 2, "letter (conflict from laptop, 2026-11-22 10-15) 2.docx"),
            (".bashrc", 1, ".bashrc (conflict from laptop, 2026-11-22 10-15)"),
            ("Makefile", 1, "Makefile (conflict from laptop, 2026-11-22 10-15)"),
            ("a.tar.gz", 1, "a.tar (conflict from laptop, 2026-11-22 10-15).gz"),
        ] {
            assert_eq!(name(from, "laptop", time(), attempt), expected);
        }
    }

    #[test]
    fn a_name_is_a_name_whatever_the_device_is_called() {
        let hostile = name(&"é".repeat(127), &"../\0".repeat(40), time(), 1);
        assert!(hostile.len() <= NAME_BYTES && !hostile.contains(['/', '\0']), "{hostile:?}");
        assert!(name(&format!("a.{}", "é".repeat(126)), "laptop", time(), 12).len() <= NAME_BYTES);
    }
}
