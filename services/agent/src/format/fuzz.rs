//! Whatever stands in a file of an application, or comes from another device for it: nothing panics, and what is written reads
//! back. Each target replays its corpus and tries some more; `scripts/fuzz` runs them for long.
#![allow(clippy::unwrap_used)]

use super::*;

/// Reads a file, gives it the entries of another one, and takes them back.
fn taken_apart(format: Format, bytes: &[u8]) {
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (file, other) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    let Ok(before) = format.read(file, &Entries::new()) else { return };
    assert_eq!(format.write(file, &before.entries).map(|writing| writing.bytes), Ok(file.to_vec()), "nothing changes");
    let Ok(wanted) = format.read(other, &Entries::new()) else { return };
    let Ok(written) = format.write(file, &wanted.entries) else { return };
    let mut expected = wanted.entries.clone();
    for refused in &written.refused {
        let key = Key::parse(refused.key.clone()).unwrap();
        expected.remove(&key);
        expected.extend(before.entries.get(&key).map(|value| (key, value.clone())));
    }
    assert_eq!(format.read(&written.bytes, &wanted.entries).unwrap().entries, expected);
}

#[test]
fn fuzz_json() {
    bolero::check!().for_each(|bytes: &[u8]| taken_apart(Format::Json, bytes));
}

#[test]
fn fuzz_toml() {
    bolero::check!().for_each(|bytes: &[u8]| taken_apart(Format::Toml, bytes));
}

#[test]
fn fuzz_vcard() {
    bolero::check!().for_each(|bytes: &[u8]| taken_apart(Format::Vcard, bytes));
}

#[test]
fn fuzz_bookmarks() {
    bolero::check!().for_each(|bytes: &[u8]| taken_apart(Format::Bookmarks, bytes));
}
