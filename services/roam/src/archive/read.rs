//! Reading an exported profile: all of it is looked at before anything of it is used.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
};

use roam_schemas::{Key, Stored, limits};
use serde::de::DeserializeOwned;

use super::{FORMAT, Header, Line, VERSION};
use crate::show;

/// The longest line that is read: the largest value, each of its bytes written as two, the longest key, each of its
/// bytes written as `\u0000`, and some room.
const LINE_BYTES: u64 = (2 * limits::LARGE_VALUE_BYTES + 6 * limits::KEY_BYTES) as u64 + 4_096;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Archive {
    /// The profile that it was made of.
    pub(crate) profile: String,
    /// Its records.
    pub(crate) entries: BTreeMap<Key, Entry>,
}

/// A record of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The value.
    pub(crate) stored: Stored,
    /// The number of its line.
    line: u64,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It cannot be read.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// A line of it is not right.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1 on.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It has another number of records than it says.
    #[error("it says that it has {said} records, and has {found}: a part is missing, or was added")]
    Count {
        /// What the first line says.
        said: u64,
        /// How many there are.
        found: u64,
    },
}

/// Reads a file to its end.
///
/// # Errors
/// The first line that is not right, or what is wrong with the whole.
pub(crate) fn read(mut input: impl BufRead) -> Result<Archive, Unreadable> {
    let mut number = 1;
    let header = next_line(&mut input, number, LINE_BYTES)?.ok_or(Unreadable::Empty)?;
    let header = read_header(&header, number)?;
    let mut entries = BTreeMap::new();
    loop {
        number += 1;
        let Some(line) = next_line(&mut input, number, LINE_BYTES)? else { break };
        let (key, entry) = read_entry(&line, number)?;
        if let Some(Entry { line, .. }) = entries.get(&key) {
            return Err(wrong(number, format!("its key is that of line {line}")));
        }
        entries.insert(key, entry);
    }
    let found = entries.len() as u64;
    match header.records {
        Some(said) if said != found => Err(Unreadable::Count { said, found }),
        _ => Ok(Archive { profile: header.profile, entries }),
    }
}

fn wrong(line: u64, why: impl Into<String>) -> Unreadable {
    Unreadable::Line { line, why: why.into() }
}

/// The next line without its end; none at the end of the file.
fn next_line(input: &mut impl BufRead, number: u64, most: u64) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut line = Vec::new();
    input.by_ref().take(most).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 == most && !line.ends_with(b"\n") {
        return Err(wrong(number, "it is longer than any record"));
    }
    Ok(Some(line))
}

fn parse<T: DeserializeOwned>(line: &[u8], number: u64) -> Result<T, Unreadable> {
    serde_json::from_slice(line).map_err(|error| {
        // serde_json counts lines too, and has seen only this one. It may quote the file, which anybody may have written.
        let why = error.to_string();
        let (why, _) = why.rsplit_once(" at line ").unwrap_or((&why, ""));
        wrong(number, format!("{} (column {})", show::text(why), error.column()))
    })
}

fn read_header(line: &[u8], number: u64) -> Result<Header, Unreadable> {
    let no_header = "it is not the first line of an exported profile";
    let fields: serde_json::Value = parse(line, number)?;
    if fields.get("format").and_then(|format| format.as_str()) != Some(FORMAT) {
        return Err(wrong(number, no_header));
    }
    match fields.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(VERSION) => {
            Err(wrong(number, format!("the format has version {version}, and this program reads {VERSION}")))
        }
        _ => parse(line, number),
    }
}

fn read_entry(line: &[u8], number: u64) -> Result<(Key, Entry), Unreadable> {
    let line: Line = parse(line, number)?;
    let bytes = line.value.len();
    if bytes > limits::LARGE_VALUE_BYTES {
        let most = limits::LARGE_VALUE_BYTES;
        return Err(wrong(number, format!("its value has {bytes} bytes, and at most {most} are kept")));
    }
    if line.content_type.is_manifest() {
        return Err(wrong(number, "its value is a manifest of chunks, which an exported profile never holds"));
    }
    let stored = Stored { value: line.value, content_type: line.content_type, expires: line.expires };
    Ok((line.key, Entry { stored, line: number }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ContentType, Device, Record, Revision, State, Timestamp, Value};

    use super::*;

    #[test]
    fn a_line_that_is_longer_than_any_record_is_refused() {
        assert_eq!(next_line(&mut &b"abc\n"[..], 1, 4).unwrap().unwrap(), b"abc\n");
        let error = next_line(&mut &b"abcd\n"[..], 7, 4).unwrap_err();
        assert_eq!(error.to_string(), "line 7: it is longer than any record");
    }

    const HEADER: &str =
        r#"{"format":"roam-export","version":1,"profile":"t/u/a","head":7,"time":"1970-01-01T00:00:00Z"}"#;

    fn refused(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        let stored =
            |value: &[u8], expires| Stored { value: Value::new(value), content_type: ContentType::text(), expires };
        let values = [
            ("text", stored("dark\n\"ключ\"".as_bytes(), None)),
            ("control", stored(b"\0\x1b", None)),
            ("bytes", stored(&[0xff, 0xfe], Some(Timestamp::from_nanos(1)))),
            ("empty", stored(b"", None)),
            ("large", stored(&vec![0; limits::VALUE_BYTES], None)),
        ];
        let record = |(name, stored): &(&str, Stored)| Record {
            key: Key::parse(*name).unwrap(),
            revision: Revision::new(7),
            time: Timestamp::from_nanos(9),
            device: Device::parse("laptop").unwrap(),
            conflict: false,
            state: State::Value(stored.clone()),
        };
        let header = Header::new(&"t/u/a".parse().unwrap(), Revision::new(7), Timestamp::from_nanos(9), 5);
        let mut file = serde_json::to_vec(&header).unwrap();
        for line in values.iter().filter_map(|value| Line::of(record(value))) {
            file.push(b'\n');
            file.extend(serde_json::to_vec(&line).unwrap());
        }
        let archive = read(file.as_slice()).unwrap();
        let found: Vec<_> = archive.entries.into_iter().map(|(key, entry)| (key, entry.stored)).collect();
        let mut expected = values.map(|(name, stored)| (Key::parse(name).unwrap(), stored));
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!((archive.profile.as_str(), found), ("t/u/a", expected.to_vec()));
    }

    #[test]
    fn a_record_without_a_value_has_no_line() {
        let record = Record {
            key: Key::parse("k").unwrap(),
            revision: Revision::new(1),
            time: Timestamp::from_nanos(1),
            device: Device::parse("d").unwrap(),
            conflict: false,
            state: State::Deleted,
        };
        assert_eq!(Line::of(record), None);
    }

    #[test]
    fn a_line_that_is_not_right_is_named() {
        let line = |text: &str| {
            format!("{HEADER}\n{{\"key\":\"k\",\"content_type\":\"text/plain\",\"value\":\"v\"}}\n{text}\n")
        };
        for (file, why) in [
            (String::new(), "it is empty"),
            ("{}\n".to_owned(), "line 1: it is not the first line of an exported profile"),
            (HEADER.replace(":1,", ":2,"), "line 1: the format has version 2, and this program reads 1"),
            (HEADER.replace("}", ",\"records\":2}"), "it says that it has 2 records, and has 0"),
            (line(""), "line 3: EOF while parsing a value"),
            (line("{"), "line 3: EOF while parsing an object"),
            (line(r#"{"key":"k","content_type":"a/b","value":"w"}"#), "line 3: its key is that of line 2"),
            (line(r#"{"key":"","content_type":"a/b","value":"w"}"#), "line 3: invalid: a key is empty"),
            (line(r#"{"key":"l","content_type":"a/b"}"#), "line 3: missing field `value`"),
            (line(r#"{"key":"l","content_type":"","value":"w"}"#), "line 3: invalid: a content type"),
            (line(r#"{"key":"l","content_type":"a/b","value":{"base64":"*"}}"#), "line 3: Invalid symbol 42"),
            (line(r#"{"key":"l","content_type":"a/b","value":"w","colour":1}"#), "line 3: unknown field `colour`"),
            (line(r#"{"key":"l","\u001b[2J":1}"#), "line 3: unknown field `\\u{1b}[2J`"),
            (
                line(r#"{"key":"l","content_type":"application/vnd.roam.manifest.v1+json","value":"{}"}"#),
                "line 3: its value is a manifest",
            ),
        ] {
            assert!(refused(&file).starts_with(why), "{why}: {}", refused(&file));
        }
    }
}
