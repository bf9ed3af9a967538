//! One file that is taken apart. It is read whole and written whole, and only over what was read.

use std::path::{Path, PathBuf};

use roam_schemas::Key;

use super::{Done, Edit, FilesError, Look, New, keep, running, whole::in_directory};
use crate::{
    beside,
    format::{Entries, Format},
    tree::{Directory, NewFile, Over, Reason, Source, WriteError, read_up_to, sweep},
};

/// The largest file that is taken apart, in bytes: as much as a profile may hold.
const FILE_BYTES: usize = 64 * 1024 * 1024;
/// Why a large value is not written.
pub(super) const TOO_LARGE: &str = "it is over 256 KiB, which is too large for a part of a file";

/// One file that is taken apart.
#[derive(Debug)]
pub(crate) struct Taken {
    directory: PathBuf,
    name: String,
    format: Format,
    /// As it was looked at; none if there is no file.
    bytes: Option<Vec<u8>>,
    entries: Entries,
}

impl Taken {
    pub(super) fn new(path: &Path, format: Format) -> Result<Self, FilesError> {
        let (directory, name) = in_directory(path)?;
        sweep(&directory);
        Ok(Self { directory, name: name.to_owned(), format, bytes: None, entries: Entries::new() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn look(&mut self, base: &Entries) -> Result<Look, FilesError> {
        self.bytes = match read_up_to(&self.directory.join(&self.name), FILE_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(Reason::Missing) => None,
            Err(why) => return Err(FilesError::Read(why)),
        };
        let reading = self.format.read(self.bytes.as_deref().unwrap_or_default(), base)?;
        let local = reading.entries.iter().map(|(key, value)| (key.clone(), blake3::hash(value))).collect();
        self.entries = reading.entries;
        Ok(Look { local, left_out: reading.left_out })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn put(&mut self, edits: &[Edit]) -> Result<Vec<Done>, FilesError> {
        if self.format == Format::Bookmarks
            && let Some(why) = running::browser(&self.directory)
        {
            return Ok(vec![Done::Later(why); edits.len()]);
        }
        let before = self.bytes.as_deref().unwrap_or_default();
        let mut wanted = self.entries.clone();
        for edit in edits {
            match &edit.value {
                Some(New::Bytes(value)) => drop(wanted.insert(edit.key.clone(), value.clone())),
                // It has no place in a file that is taken apart.
                Some(New::File(_)) => {}
                None => drop(wanted.remove(&edit.key)),
            }
        }
        let writing = self.format.write(before, &wanted)?;
        let mut directory = Directory::open(&self.directory)?;
        let over = self.bytes.as_deref().map_or(Over::Nothing, |bytes| Over::Contents(blake3::hash(bytes)));
        let aside = match edits.iter().find_map(|edit| edit.aside.as_ref()).zip(self.bytes.as_deref()) {
            Some((aside, bytes)) => Some(keep(&mut directory, bytes, |attempt| {
                beside::name(&self.name, &aside.device, aside.time, attempt)
            })?),
            None => None,
        };
        let file = NewFile { names: vec![&self.name], holds: Source::Bytes(&writing.bytes), over };
        match directory.write(&[file]).pop() {
            Some(Ok(_)) => directory.sync()?,
            Some(Err(WriteError::Edited { .. })) | None => return Ok(vec![Done::Edited; edits.len()]),
            Some(Err(error)) => return Err(error.into()),
        }
        let refused = |edit: &Edit| writing.refused.iter().find(|left_out| left_out.key == edit.key.as_str());
        let done = edits.iter().map(|edit| match (refused(edit), &edit.value) {
            (Some(left_out), Some(_)) => Done::Refused(left_out.why.clone()),
            (None, Some(New::File(_))) => Done::Refused(TOO_LARGE.to_owned()),
            _ => Done::Made(edit.aside.as_ref().and(aside.clone())),
        });
        Ok(done.collect())
    }
}
