//! The files of one profile: what they hold, and how they are changed. Three kinds: files that are values as a whole
//! (`whole.rs`), one file that is taken apart (`taken.rs`), and a directory of address books (`cards.rs`). Blocking; knows
//! nothing of the bus.

mod cards;
mod names;
mod running;
mod taken;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use roam_schemas::{ContentType, Key};

use self::{cards::Cards, taken::Taken, whole::Whole};
use crate::{
    format::{Entries, Format, LeftOut, Malformed},
    reconcile::Digest,
    settings::{Kind, ProfileSettings},
    tree::{Directory, NewFile, OpenError, Over, Reason, ScanError, Source, WriteError},
};

/// How many names are tried for a file that must not take another one's.
const ATTEMPTS: u32 = 1_000;

/// The files of a profile.
#[derive(Debug)]
pub(crate) enum Files {
    /// Each file is a value.
    Whole(Whole),
    /// One file holds all values.
    Taken(Taken),
    /// Each file of a directory holds contacts.
    Cards(Cards),
}

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) local: BTreeMap<Key, Digest>,
    /// What is there and does not roam.
    pub(crate) left_out: Vec<LeftOut>,
}

/// How a key's value in the files is to change.
#[derive(Debug)]
pub(crate) struct Edit {
    pub(crate) key: Key,
    /// None: it is to go.
    pub(crate) value: Option<New>,
    /// What it was when it was looked at. If it is something else by now, the edit is not made.
    pub(crate) over: Option<Digest>,
    /// The name under which what is there now is kept.
    pub(crate) aside: Option<Aside>,
}

/// What a key's value in the files is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum New {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this file holds, which is too large for a record.
    File(PathBuf),
}

impl New {
    fn source(&self) -> Source<'_> {
        match self {
            Self::Bytes(bytes) => Source::Bytes(bytes),
            Self::File(path) => Source::File(path),
        }
    }
}

/// Who and when, for the name of what is set aside.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    pub(crate) device: String,
    pub(crate) time: roam_schemas::Timestamp,
}

/// What became of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// The files are as the edit wants them. If something was set aside, its name.
    Made(Option<String>),
    /// Somebody edited the file meanwhile: look again.
    Edited,
    /// It cannot be, as things are. Nothing was touched.
    Refused(String),
    /// Not now, because of what another program does. Nothing was touched.
    Later(String),
}

/// The files cannot be worked on now. They may be later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("the file cannot be read: {0}")]
    Read(Reason),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a pattern is wrong: {0}")]
    Pattern(#[from] globset::Error),
    #[error("{0} names no file in a directory")]
    Path(String),
}

impl Files {
    /// The files that the settings name.
    pub(crate) fn of(settings: &ProfileSettings) -> Result<Self, FilesError> {
        let taken = |format| Taken::new(&settings.path, format).map(Self::Taken);
        match settings.kind {
            Kind::Tree => Whole::tree(&settings.path, &settings.include, &settings.exclude).map(Self::Whole),
            Kind::Document => Whole::document(&settings.path).map(Self::Whole),
            Kind::Json => taken(Format::Json),
            Kind::Toml => taken(Format::Toml),
            Kind::Vcard => taken(Format::Vcard),
            Kind::Vcards => Ok(Self::Cards(Cards::new(&settings.path))),
            Kind::Bookmarks => taken(Format::Bookmarks),
            Kind::BookmarksHtml => taken(Format::BookmarksHtml),
        }
    }

    /// Whether what was agreed on is needed to look, and to merge.
    pub(crate) fn needs_base(&self) -> bool {
        matches!(self, Self::Taken(_) | Self::Cards(_))
    }

    /// What the files hold now, all of them or under these keys. What does not roam is told of all.
    pub(crate) fn look(&mut self, base: &Entries, only: Option<&BTreeSet<Key>>) -> Result<Look, FilesError> {
        match (self, only) {
            (Self::Whole(whole), Some(keys)) => Ok(whole.look_at(keys)),
            (Self::Whole(whole), None) => whole.look(),
            (Self::Taken(taken), _) => taken.look(base),
            (Self::Cards(cards), _) => cards.look(),
        }
    }

    /// The keys of the files at these paths, if a look at them alone tells what happened.
    pub(crate) fn keys_at(&self, paths: &BTreeSet<PathBuf>) -> Option<BTreeSet<Key>> {
        match self {
            Self::Whole(whole) => whole.keys_at(paths),
            Self::Taken(_) | Self::Cards(_) => None,
        }
    }

    /// Where the value of a key is, if it is too large for a record.
    pub(crate) fn large(&self, key: &Key) -> Option<PathBuf> {
        match self {
            Self::Whole(whole) => whole.large(key),
            Self::Taken(_) | Self::Cards(_) => None,
        }
    }

    /// Whether there is nothing at all where the files should be: no directory, no file, or an empty one.
    pub(crate) fn are_gone(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_gone(),
            Self::Taken(taken) => taken.is_empty(),
            Self::Cards(cards) => cards.is_empty(),
        }
    }

    /// The value that the files hold under a key. It may be another one than was looked at.
    pub(crate) fn value(&self, key: &Key) -> Option<Vec<u8>> {
        match self {
            Self::Whole(whole) => whole.value(key),
            Self::Taken(taken) => taken.value(key),
            Self::Cards(cards) => cards.value(key),
        }
    }

    /// Changes the files. What became of each edit, in their order.
    pub(crate) fn put(&mut self, edits: &[Edit]) -> Result<Vec<Done>, FilesError> {
        match self {
            _ if edits.is_empty() => Ok(Vec::new()),
            Self::Whole(whole) => whole.put(edits),
            Self::Taken(taken) => taken.put(edits),
            Self::Cards(cards) => cards.put(edits),
        }
    }

    /// One value of two, where the kind of file allows it.
    pub(crate) fn merge(&self, base: Option<&[u8]>, local: &[u8], remote: &[u8]) -> Option<Vec<u8>> {
        self.format()?.merge(base, local, remote)
    }

    /// What the value of a key is.
    pub(crate) fn content_type(&self, key: &Key) -> ContentType {
        let Some(format) = self.format() else { return crate::tree::guess_content_type(key.as_str().as_ref()) };
        ContentType::parse(format.content_type()).unwrap_or_else(|_| ContentType::octets())
    }

    fn format(&self) -> Option<Format> {
        match self {
            Self::Whole(_) => None,
            Self::Taken(taken) => Some(taken.format()),
            Self::Cards(_) => Some(Format::Vcard),
        }
    }

    /// The directory to watch for changes, and whether what lies below it counts, too.
    pub(crate) fn watched(&self) -> (&std::path::Path, bool) {
        match self {
            Self::Whole(whole) => whole.watched(),
            Self::Taken(taken) => (taken.directory(), false),
            Self::Cards(cards) => (cards.directory(), false),
        }
    }
}

/// Keeps these bytes in a file of a name that nothing has yet. Its name then.
fn keep(directory: &mut Directory, bytes: &[u8], name: impl Fn(u32) -> String) -> Result<String, FilesError> {
    for attempt in 1..=ATTEMPTS {
        let name = name(attempt);
        let file = NewFile { names: vec![&name], holds: Source::Bytes(bytes), over: Over::Nothing };
        match directory.write(&[file]).pop() {
            Some(Ok(_)) => return Ok(name),
            Some(Err(WriteError::Edited { .. } | WriteError::InTheWay { .. })) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Err(FilesError::Path(name(ATTEMPTS)))
}
