//! Files that are taken apart: a settings file, an address book or a file of bookmarks becomes keys and values, so that
//! edits of different keys on two devices merge. Pure: bytes in, entries out; entries and the local bytes in, new bytes
//! out. Nothing here opens a file or knows what a profile is.
//!
//! **Invariant:** what is written reads back as what was asked for. [`Format::write`] looks before it hands bytes on, so
//! that no entry of another device can make a file that this device would misread, or lose one silently.

mod bookmarks;
mod card;
#[cfg(test)]
mod fuzz;
mod json;
mod pointer;
mod position;
#[cfg(test)]
mod tests;
mod toml;
mod vcard;

use std::collections::BTreeMap;

use roam_schemas::{Key, limits::VALUE_BYTES};
use serde::{Deserialize, Serialize};

use self::bookmarks::netscape;

/// Keys and values, as they stand in a file or in a profile.
pub type Entries = BTreeMap<Key, Vec<u8>>;

/// How a file is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON, also with comments and trailing commas: a key per leaf, by JSON Pointer (RFC 6901). An array is one leaf.
    Json,
    /// TOML: a key per leaf, by JSON Pointer. An array, also one of tables, is one leaf.
    Toml,
    /// vCard (RFC 6350, and versions 2.1 and 3.0): a key per contact, by its UID. Its fields merge.
    Vcard,
    /// The file `Bookmarks` of Chromium: a key per bookmark and folder, by its GUID.
    Bookmarks,
    /// Bookmarks in HTML, the format of Netscape: the same entries.
    BookmarksHtml,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// What becomes keys and values.
    pub entries: Entries,
    /// What does not. It stays in the file as it is.
    pub left_out: Vec<LeftOut>,
}

/// A file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Writing {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Entries that the file cannot hold. What it held under these keys, it holds still.
    pub refused: Vec<LeftOut>,
}

/// Something that a file holds and a profile does not, or the other way round.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// Its key, or what comes nearest to one.
    pub key: String,
    /// Why, as a sentence without its full stop.
    pub why: String,
}

/// A file is not what it is said to be, or would not be after a write. It is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The file that is there cannot be taken apart.
    #[error("it is no valid {format}: {why}")]
    Local {
        /// What it should be.
        format: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file of several cannot be taken apart.
    #[error("{file}: {why}")]
    Within {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// What would be written does not read back as what was asked for.
    #[error("what would be written does not read back the same: {0}")]
    Unfaithful(String),
}

impl Format {
    /// Takes a file apart. An empty one, or one with nothing but white space, holds nothing.
    ///
    /// `base` is what was last agreed on with the profile: a format that keeps an order finds places there that it gave
    /// out before. The other formats do not look at it.
    ///
    /// # Errors
    /// [`Malformed::Local`].
    pub fn read(self, file: &[u8], base: &Entries) -> Result<Reading, Malformed> {
        if file.iter().all(u8::is_ascii_whitespace) {
            return Ok(Reading::default());
        }
        let reading = match self {
            Self::Json => json::read(file),
            Self::Toml => toml::read(file),
            Self::Vcard => vcard::read(file),
            Self::Bookmarks => bookmarks::read(file, base),
            Self::BookmarksHtml => netscape::read(file, base),
        };
        let reading = reading.map_err(|why| Malformed::Local { format: self.name(), why })?;
        Ok(reading.without_large_values())
    }

    /// Makes a file hold exactly these entries. Whatever else it holds (comments, order, what was left out of the reading,
    /// members that do not roam) stays as it is.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn write(self, file: &[u8], wanted: &Entries) -> Result<Writing, Malformed> {
        let local = |why| Malformed::Local { format: self.name(), why };
        let before = self.read(file, wanted)?;
        let fitting = self.fitting(&before, wanted);
        if before.entries == fitting.entries {
            return Ok(Writing { bytes: file.to_vec(), refused: fitting.left_out });
        }
        let empty = file.iter().all(u8::is_ascii_whitespace);
        let file = if empty { self.empty() } else { file };
        let bytes = match self {
            Self::Json => json::write(file, &fitting.entries),
            Self::Toml => toml::write(file, &fitting.entries),
            Self::Vcard => vcard::write(file, &fitting.entries),
            Self::Bookmarks => bookmarks::write(file, &fitting.entries),
            Self::BookmarksHtml => netscape::write(file, &fitting.entries),
        };
        let bytes = bytes.map_err(local)?;
        let after = self.read(&bytes, &fitting.entries)?;
        match first_difference(&fitting.entries, &after.entries) {
            None => Ok(Writing { bytes, refused: fitting.left_out }),
            Some(key) => Err(Malformed::Unfaithful(key.to_string())),
        }
    }

    /// One value from two that were made of a third apart from each other. `None` if they cannot be merged.
    pub fn merge(self, base: Option<&[u8]>, local: &[u8], remote: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Json | Self::Toml => None,
            Self::Vcard => card::merge(base, local, remote),
            Self::Bookmarks | Self::BookmarksHtml => bookmarks::merge(base, local, remote),
        }
    }

    /// The content type of the values.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Bookmarks | Self::BookmarksHtml => "application/json",
            Self::Toml => "application/toml",
            Self::Vcard => "text/vcard",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Toml => "TOML",
            Self::Vcard => "address book",
            Self::Bookmarks => "file of Chromium's bookmarks",
            Self::BookmarksHtml => "page of bookmarks",
        }
    }

    /// What a file of this format begins as.
    fn empty(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}\n",
            Self::Toml | Self::Vcard | Self::BookmarksHtml => b"",
            Self::Bookmarks => bookmarks::EMPTY.as_bytes(),
        }
    }

    /// Of the entries those that a file can hold, in the spelling that it would be read in; and the others.
    fn fitting(self, before: &Reading, wanted: &Entries) -> Reading {
        let mut fitting = match self {
            Self::Json => json::fitting(wanted),
            Self::Toml => toml::fitting(wanted),
            Self::Vcard => vcard::fitting(wanted),
            Self::Bookmarks => bookmarks::fitting(wanted),
            Self::BookmarksHtml => netscape::fitting(wanted),
        };
        for LeftOut { key, .. } in &before.left_out {
            let Ok(key) = Key::parse(key.as_str()) else { continue };
            if fitting.entries.remove(&key).is_some() {
                fitting.leave_out(&key, "the file holds something there that does not roam");
            }
        }
        fitting
    }
}

impl Reading {
    fn leave_out(&mut self, key: impl std::fmt::Display, why: impl std::fmt::Display) {
        self.left_out.push(LeftOut { key: key.to_string(), why: why.to_string() });
    }

    fn without_large_values(mut self) -> Self {
        let large = self.entries.extract_if(.., |_, value| value.len() > VALUE_BYTES);
        self.left_out.extend(large.map(|(key, value)| LeftOut {
            key: key.to_string(),
            why: format!("{} bytes, a value has at most {VALUE_BYTES}", value.len()),
        }));
        self
    }
}

fn first_difference<'e>(wanted: &'e Entries, found: &'e Entries) -> Option<&'e Key> {
    let missing = wanted.iter().find(|(key, value)| found.get(key) != Some(value));
    missing.map(|(key, _)| key).or_else(|| found.keys().find(|key| !wanted.contains_key(key)))
}
