//! What a backup consists of, as it is written down: one JSON document a backup. Pure.
//!
//! A manifest is input: whoever can write into a repository chose what it says, and a disk may have changed it. So it
//! carries its own hash, and names nothing but plain files of one directory.
//!
//! Persisted: never change the meaning of a field; a change that older builds must not read raises [`FORMAT`].

use std::{collections::BTreeSet, fmt, str::FromStr};

use roam_schemas::{ContentHash, JournalPosition, Timestamp, limits::EPOCHS};
use serde::{Deserialize, Serialize};

/// The newest format of manifests that this build writes and reads: that of a backup with chunks of large values.
pub const FORMAT: u32 = 2;
/// The format of a backup without any, which older builds read too; and of all backups that they made.
pub const FORMAT_WITHOUT_CHUNKS: u32 = 1;

/// The largest manifest that is read: some 100,000 files.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Names a backup. Later ones sort after earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// The text is no id of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id of a backup looks like 20260301T120000.000Z-0123abcd; `roam backup list` shows those that there are")]
pub struct BadId;

/// What a backup is of, and what it consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`], or [`FORMAT_WITHOUT_CHUNKS`].
    pub format: u32,
    /// Its name.
    pub id: BackupId,
    /// When it was begun, by the clock of the replica.
    pub created: Timestamp,
    /// The name of the replica that made it.
    pub replica: String,
    /// The version of Roam that made it.
    pub version: String,
    /// The format of the store.
    pub store_format: u32,
    /// The epoch of its revisions.
    pub epoch: u64,
    /// Where in the journal it stands; none if nothing was ever applied.
    pub position: Option<JournalPosition>,
    /// Its files, in order of their names.
    pub files: Vec<BackupFile>,
    /// The chunks of large values that its records and kept versions need; none if they need none, or if an older
    /// build made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<BackupChunks>,
}

/// The chunks of a backup. Each is a file of the repository, under its own hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupChunks {
    /// How many there are, each counted once for each user who needs it.
    pub count: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many more were needed, and were not there when it was made.
    pub missing: u64,
    /// The hash of the list of them, which is a file of the repository too.
    pub list: Hash,
    /// How long the list is, in bytes.
    pub list_bytes: u64,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// Its name in the directory of the store.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// The BLAKE3 hash of what is in it: also its name in the repository.
    pub blake3: Hash,
}

/// The BLAKE3 hash of a file, which is its name in a repository: 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

/// The document around a manifest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    manifest: Manifest,
    /// Of the manifest as it is written here.
    blake3: Hash,
}

/// Only what must be known before the rest is looked at.
#[derive(Deserialize)]
struct Preamble {
    manifest: Format,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why a manifest is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is of a later Roam.
    #[error("it is of format {found}, and this build reads up to {FORMAT}: use a newer roam")]
    Format {
        /// Its format.
        found: u32,
    },
    /// It is not as it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl BackupId {
    /// A new one.
    pub(super) fn new(created: Timestamp, replica: &str, position: Option<&JournalPosition>) -> Self {
        let time = created.to_string();
        let digits = |from: usize, to: usize| time.get(from..to).unwrap_or_default().replace([':', '-'], "");
        // Two replicas may begin in the same millisecond.
        let about = format!("{}\n{replica}\n{position:?}", created.as_nanos());
        let tail = &blake3::hash(about.as_bytes()).to_hex()[..8];
        Self(format!("{}T{}Z-{tail}", digits(0, 10), digits(11, 23)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        const LIKE: &[u8] = b"00000000T000000.000Z-xxxxxxxx";
        let fits = |(byte, like): (u8, &u8)| match like {
            b'0' => byte.is_ascii_digit(),
            b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            like => byte == *like,
        };
        let is_one = text.len() == LIKE.len() && text.bytes().zip(LIKE).all(fits);
        is_one.then(|| Self(text.to_owned())).ok_or(BadId)
    }
}

impl TryFrom<String> for BackupId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Hash {
    /// The text.
    pub fn to_hex(self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }
}

impl From<ContentHash> for Hash {
    fn from(hash: ContentHash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| format!("{text} is no BLAKE3 hash"))?;
        // One spelling a hash: it is a name.
        if hash.to_hex().as_str() == text { Ok(hash.into()) } else { Err(format!("{text} is not in lower case")) }
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_hex()
    }
}

impl Manifest {
    /// How many bytes its files and its chunks have together.
    pub fn bytes(&self) -> u64 {
        let chunks = self.chunks.map_or(0, |chunks| chunks.bytes + chunks.list_bytes);
        self.files.iter().map(|file| file.bytes).sum::<u64>() + chunks
    }

    /// Writes the document.
    ///
    /// # Errors
    /// None that can happen: all of it is text and numbers.
    pub fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        let blake3 = blake3::hash(&serde_json::to_vec(self)?).into();
        let mut bytes = serde_json::to_vec(&Document { manifest: self.clone(), blake3 })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a document, which must be exactly what [`Self::write`] wrote.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let damaged = |what: &dyn fmt::Display| ManifestError::Damaged(what.to_string());
        let preamble: Preamble = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if !(FORMAT_WITHOUT_CHUNKS..=FORMAT).contains(&preamble.manifest.format) {
            return Err(ManifestError::Format { found: preamble.manifest.format });
        }
        let Document { manifest, blake3 } = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        let inner = serde_json::to_vec(&manifest).map_err(|error| damaged(&error))?;
        if Hash::from(blake3::hash(&inner)) != blake3 || manifest.write().ok().as_deref() != Some(bytes) {
            return Err(damaged(&"its hash is another one"));
        }
        manifest.check().map_err(|what| damaged(&what))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.epoch > u64::from(EPOCHS) {
            return Err(format!("{} is no epoch", self.epoch));
        }
        if self.chunks.is_some() != (self.format > FORMAT_WITHOUT_CHUNKS) {
            return Err("it is of another format than it says".to_owned());
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            if !is_plain(&file.name) {
                return Err(format!("{:?} is no name of a file", file.name));
            }
            if !names.insert(&file.name) {
                return Err(format!("{} is named twice", file.name));
            }
        }
        Ok(())
    }
}

/// Whether it names a file of the directory that it stands in, and one that RocksDB may have made.
pub(super) fn is_plain(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(letters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use roam_schemas::BatchId;

    use super::*;

    fn manifest(names: &[String], bytes: u64) -> Manifest {
        let created = Timestamp::parse("2026-03-01T12:34:56.789123456Z").unwrap();
        let position = JournalPosition {
            incarnation: 1,
            sequence: bytes,
            batch: BatchId::from_bytes([7; 16]),
            line: 2,
            published: created,
        };
        let file =
            |name: &String| BackupFile { name: name.clone(), bytes, blake3: blake3::hash(name.as_bytes()).into() };
        Manifest {
            format: FORMAT_WITHOUT_CHUNKS,
            id: BackupId::new(created, "a", Some(&position)),
            created,
            replica: "a".to_owned(),
            version: "0.1.0".to_owned(),
            store_format: 2,
            epoch: 3,
            position: Some(position),
            files: names.iter().map(file).collect(),
            chunks: None,
        }
    }

    #[test]
    fn an_id_tells_the_time_and_comes_back_from_its_text() {
        let id = manifest(&[], 1).id;
        assert!(id.as_str().starts_with("20260301T123456.789Z-"), "{id}");
        assert_eq!(id.as_str().parse(), Ok(id));
        for text in [
            "",
            "..",
            "20260301T123456.789Z-0123ABCD",
            "20260301T123456.789Z-0123abcd/",
            "x0260301T123456.789Z-0123abcd",
        ] {
            assert_eq!(text.parse::<BackupId>(), Err(BadId), "{text}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../x", "/etc/passwd", "a/b", "", ".", "..", ".hidden", "a\\b", "a\0", "ü"] {
            let bytes = manifest(&[name.to_owned()], 1).write().unwrap();
            assert!(matches!(Manifest::read(&bytes), Err(ManifestError::Damaged(_))), "{name}");
        }
        let twice = manifest(&["a".to_owned(), "a".to_owned()], 1).write().unwrap();
        assert!(Manifest::read(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut later =
            serde_json::to_value(Document { manifest: manifest(&[], 1), blake3: blake3::hash(b"").into() }).unwrap();
        later["manifest"]["format"] = 9.into();
        later["manifest"]["something_new"] = true.into();
        let read = Manifest::read(later.to_string().as_bytes());
        assert_eq!(read, Err(ManifestError::Format { found: 9 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in prop::collection::btree_set("[0-9A-Za-z_-]{1,12}(\\.sst)?", 0..8), bytes: u64) {
            let names: Vec<String> = names.into_iter().collect();
            let written = manifest(&names, bytes);
            prop_assert_eq!(Manifest::read(&written.write().unwrap()).unwrap(), written);
        }

        #[test]
        fn any_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0_u32..8) {
            let mut bytes = manifest(&["000012.sst".to_owned(), "CURRENT".to_owned()], 77).write().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Manifest::read(&bytes).is_err());
        }

        #[test]
        fn later_ids_sort_after_earlier_ones(a in 0_u64..4_000_000_000_000, b in 0_u64..4_000_000_000_000) {
            let id = |millis: u64| BackupId::new(Timestamp::from_nanos(millis * 1_000_000), "r", None);
            prop_assert_eq!(a.cmp(&b), id(a).cmp(&id(b)));
        }
    }
}
