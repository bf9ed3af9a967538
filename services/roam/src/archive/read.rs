//! Reading exported profiles, line by line.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Read},
};

use roam_schemas::{Key, ProfileError, Stored, limits};
use serde::{Deserialize, de::DeserializeOwned};

use super::{FORMAT, Header, Line, USER_FORMAT, UserHeader, VERSION};
use crate::show;

/// The longest line that is read: the largest value, each of its bytes written as two, the longest key, each of its
/// bytes written as `\u0000`, and some room.
const LINE_BYTES: u64 = (2 * limits::LARGE_VALUE_BYTES + 6 * limits::KEY_BYTES) as u64 + 4_096;

/// A file that is read piece by piece. Only the keys of the profile in hand are kept in memory.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    input: R,
    /// The number of the line that was read last.
    number: u64,
    /// How many profiles the file says that it has; none where it does not say.
    said_profiles: Option<u64>,
    /// Whether it holds profiles of a user.
    of_user: bool,
    /// The profiles that were begun, with the numbers of their lines.
    profiles: BTreeMap<String, u64>,
    section: Section,
}

/// The profile in hand.
#[derive(Debug, Default)]
struct Section {
    said: Option<u64>,
    /// The keys that were read, with the numbers of their lines.
    keys: HashMap<Key, u64>,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A profile begins, of which this is the name.
    Profile(String),
    /// A record of it.
    Record(Key, Stored),
}

/// Only what tells one kind of line from another.
#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    format: Option<serde_json::Value>,
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
    /// It does not say whose profile follows.
    #[error("it has a profile without a name")]
    Profile {
        /// What is wrong with it.
        source: ProfileError,
    },
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It has another number of records or of profiles than it says.
    #[error("it says that it has {said} {what}, and has {found}: a part is missing, or was added")]
    Count {
        /// Of what.
        what: &'static str,
        /// What a first line says.
        said: u64,
        /// How many there are.
        found: u64,
    },
}

impl<R: BufRead> Archive<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// If it is not one.
    pub(crate) fn open(mut input: R) -> Result<(Self, Piece), Unreadable> {
        let first = next_line(&mut input, 1, LINE_BYTES)?.ok_or(Unreadable::Empty)?;
        let (section, profiles) = (Section::default(), BTreeMap::new());
        let mut archive = Self { input, number: 1, said_profiles: None, of_user: false, profiles, section };
        if format_of(&first, 1)?.as_deref() != Some(USER_FORMAT) {
            let begun = archive.begin(&first)?;
            return Ok((archive, begun));
        }
        let header: UserHeader = read_header(&first, 1, USER_FORMAT)?;
        (archive.of_user, archive.said_profiles) = (true, header.profiles);
        Ok((archive, Piece::Profile(header.user)))
    }

    /// Whether it holds profiles of a user; the first piece is then the user's name, and no profile's.
    pub(crate) fn is_of_user(&self) -> bool {
        self.of_user
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The first line that is not right, or what is wrong with the whole.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Unreadable> {
        self.number += 1;
        let Some(line) = next_line(&mut self.input, self.number, LINE_BYTES)? else {
            self.end_section()?;
            let found = self.profiles.len() as u64;
            return match self.said_profiles {
                Some(said) if said != found => Err(Unreadable::Count { what: "profiles", said, found }),
                _ => Ok(None),
            };
        };
        if self.of_user && (self.profiles.is_empty() || format_of(&line, self.number)?.is_some()) {
            return self.begin(&line).map(Some);
        }
        let (key, stored) = read_record(&line, self.number)?;
        match self.section.keys.insert(key.clone(), self.number) {
            Some(before) => Err(wrong(self.number, format!("its key is that of line {before}"))),
            None => Ok(Some(Piece::Record(key, stored))),
        }
    }

    /// Begins with the next profile.
    fn begin(&mut self, line: &[u8]) -> Result<Piece, Unreadable> {
        self.end_section()?;
        let header: Header = read_header(line, self.number, FORMAT)?;
        if let Some(before) = self.profiles.insert(header.profile.clone(), self.number) {
            return Err(wrong(self.number, format!("its profile is that of line {before}")));
        }
        self.section = Section { said: header.records, ..Section::default() };
        Ok(Piece::Profile(header.profile))
    }

    fn end_section(&self) -> Result<(), Unreadable> {
        let found = self.section.keys.len() as u64;
        match self.section.said {
            Some(said) if said != found => Err(Unreadable::Count { what: "records", said, found }),
            _ => Ok(()),
        }
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

/// What a line says that it is the first one of; none if it is a record.
fn format_of(line: &[u8], number: u64) -> Result<Option<String>, Unreadable> {
    let kind: Kind = parse(line, number)?;
    Ok(kind.format.map(|format| format.as_str().unwrap_or_default().to_owned()))
}

fn read_header<T: DeserializeOwned>(line: &[u8], number: u64, format: &str) -> Result<T, Unreadable> {
    let fields: serde_json::Value = parse(line, number)?;
    if fields.get("format").and_then(|format| format.as_str()) != Some(format) {
        return Err(wrong(number, "it is not the first line of an exported profile"));
    }
    match fields.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version != u64::from(VERSION) => {
            Err(wrong(number, format!("the format has version {version}, and this program reads {VERSION}")))
        }
        _ => parse(line, number),
    }
}

fn read_record(line: &[u8], number: u64) -> Result<(Key, Stored), Unreadable> {
    let line: Line = parse(line, number)?;
    let bytes = line.value.len();
    if bytes > limits::LARGE_VALUE_BYTES {
        let most = limits::LARGE_VALUE_BYTES;
        return Err(wrong(number, format!("its value has {bytes} bytes, and at most {most} are kept")));
    }
    if line.content_type.is_manifest() {
        return Err(wrong(number, "its value is a manifest of chunks, which an exported profile never holds"));
    }
    Ok((line.key, Stored { value: line.value, content_type: line.content_type, expires: line.expires }))
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

    fn read(file: &[u8]) -> Result<Vec<Piece>, Unreadable> {
        let (mut archive, first) = Archive::open(file)?;
        let mut pieces = vec![first];
        while let Some(piece) = archive.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn refused(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn profiles_of_a_user_are_read_one_after_the_other() {
        let user = r#"{"format":"roam-export-user","version":1,"user":"t/u","profiles":2}"#;
        let record = r#"{"key":"k","content_type":"text/plain","value":"v"}"#;
        let (one, other) = (HEADER.replace("}", ",\"records\":1}"), HEADER.replace("t/u/a", "t/u/b"));
        let whole = format!("{user}\n{one}\n{record}\n{other}\n{record}\n");
        let pieces = read(whole.as_bytes()).unwrap();
        let names: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Profile(name) => name.as_str(),
                Piece::Record(key, _) => key.as_str(),
            })
            .collect();
        assert_eq!(names, ["t/u", "t/u/a", "k", "t/u/b", "k"]);
        for (file, why) in [
            (whole.replace("t/u/b", "t/u/a"), "line 4: its profile is that of line 2"),
            (whole.replace("\"profiles\":2", "\"profiles\":3"), "it says that it has 3 profiles, and has 2"),
            (whole.replace("\"records\":1", "\"records\":2"), "it says that it has 2 records, and has 1"),
            (format!("{user}\n{record}\n"), "line 2: it is not the first line of an exported profile"),
            (format!("{user}\n{user}\n"), "line 2: it is not the first line of an exported profile"),
            (format!("{one}\n{record}\n{other}\n"), "line 3: unknown field `format`"),
            (user.replace(":1,", ":2,"), "line 1: the format has version 2, and this program reads 1"),
        ] {
            assert!(refused(&file).starts_with(why), "{why}: {}", refused(&file));
        }
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
        let records = values.map(|(name, stored)| Piece::Record(Key::parse(name).unwrap(), stored));
        let expected: Vec<_> = [Piece::Profile("t/u/a".to_owned())].into_iter().chain(records).collect();
        assert_eq!(read(file.as_slice()).unwrap(), expected);
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
