//! How a record differs from what it is going to be, for people and for programs. Only the beginning of a value is kept
//! here, so that thousands of differences are no burden.

use std::fmt;

use roam_schemas::{ContentType, Key, Manifest, Value};
use serde::Serialize;

use crate::show;

/// How many characters of a text are shown.
const TEXT: usize = 40;

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The key.
    pub(crate) key: Key,
    /// What it is; none if it has no value.
    pub(crate) from: Option<Glance>,
    /// What it is going to be; none if it is deleted.
    pub(crate) to: Option<Glance>,
}

/// A value at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Glance {
    /// Its size.
    bytes: u64,
    /// What it is.
    content_type: ContentType,
    /// Its beginning, if it is text.
    text: Option<String>,
}

impl Glance {
    /// At a value.
    pub(crate) fn at(value: &Value, content_type: &ContentType) -> Self {
        if content_type.is_manifest()
            && let Ok(large) = Manifest::parse(value.as_bytes())
        {
            return Self { bytes: large.length, content_type: large.content_type, text: None };
        }
        let text = value.as_text().map(shorten);
        Self { bytes: value.len() as u64, content_type: content_type.clone(), text }
    }
}

fn shorten(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(TEXT).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = show::text(self.key.as_str());
        match (&self.from, &self.to) {
            (None, None) => write!(f, "  {key}"),
            (None, Some(to)) => write!(f, "+ {key}  {}  {}", show::bytes(to.bytes), Quoted(to)),
            (Some(from), None) => write!(f, "- {key}  {}  {}", show::bytes(from.bytes), Quoted(from)),
            (Some(from), Some(to)) => {
                write!(f, "~ {key}  {} -> {}", show::bytes(from.bytes), show::bytes(to.bytes))?;
                if from.content_type != to.content_type {
                    let [from, to] = [from, to].map(|glance| show::text(glance.content_type.as_str()));
                    write!(f, "  {from} -> {to}")?;
                }
                match (&from.text, &to.text) {
                    (None, None) => Ok(()),
                    _ => write!(f, "  {} -> {}", Quoted(from), Quoted(to)),
                }
            }
        }
    }
}

/// The beginning of a text between quotes.
struct Quoted<'a>(&'a Glance);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.text {
            Some(text) => write!(f, "\"{}\"", show::text(text)),
            None => f.write_str("(no text)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_difference_is_one_line() {
        let glance = |value: &[u8]| Glance::at(&Value::new(value), &ContentType::text());
        let json = Glance::at(&Value::new("{}"), &ContentType::parse("application/json").unwrap());
        let long = "x".repeat(41);
        for (from, to, line) in [
            (None, Some(glance(b"dark")), "+ k  4 B  \"dark\"".to_owned()),
            (Some(glance(b"a\nb")), None, "- k  3 B  \"a\\u{a}b\"".to_owned()),
            (Some(glance(b"dark")), Some(glance(b"light")), "~ k  4 B -> 5 B  \"dark\" -> \"light\"".to_owned()),
            (Some(glance(b"\xff")), Some(glance(b"\xfe\xff")), "~ k  1 B -> 2 B".to_owned()),
            (Some(glance(b"\xff")), Some(glance(b"a")), "~ k  1 B -> 1 B  (no text) -> \"a\"".to_owned()),
            (
                Some(glance(b"{}")),
                Some(json),
                "~ k  2 B -> 2 B  text/plain -> application/json  \"{}\" -> \"{}\"".to_owned(),
            ),
            (None, Some(glance(long.as_bytes())), format!("+ k  41 B  \"{}…\"", &long[..40])),
        ] {
            let difference = Difference { key: Key::parse("k").unwrap(), from, to };
            assert_eq!(difference.to_string(), line);
        }
    }
}
