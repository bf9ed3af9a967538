//! One place for a file in an open directory: what is there, and how another file takes it. Never follows a symbolic link.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use roam_schemas::limits::LARGE_VALUE_BYTES;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawMode, RenameFlags, Stat},
    io::Errno,
};

use super::{Over, Source, WriteError};
use crate::tree::{TEMPORARY, open};

/// What a new file may be, as far as the umask lets it.
pub(super) const FILE_MODE: RawMode = 0o644;
/// Permissions that a replaced file hands on: no set-user-id, set-group-id or sticky bit.
const KEPT_MODE: RawMode = 0o777;

/// The most that is read of a file to compare it, in bytes: as much as the largest value has. Files that are taken apart are
/// smaller.
const LARGEST: u64 = LARGE_VALUE_BYTES as u64;

/// Where one file is or will be.
pub(super) struct Place<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a str,
    /// From the top, for messages.
    pub(super) names: &'a [&'a str],
}

impl Place<'_> {
    /// What is there, `None` if nothing is.
    pub(super) fn stat(&self) -> Result<Option<Stat>, WriteError> {
        match rustix::fs::statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(WriteError::io(self.names, errno)),
        }
    }

    /// Refuses whatever is no regular file.
    pub(super) fn check_regular(&self, stat: &Stat) -> Result<(), WriteError> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a directory",
            _ => "something that is no regular file",
        };
        Err(WriteError::in_the_way(self.names, what))
    }

    /// Whether the file that is there has these bytes. One that cannot be read has not.
    pub(super) fn holds(&self, stat: &Stat, bytes: &[u8]) -> bool {
        u64::try_from(stat.st_size).is_ok_and(|size| size == bytes.len() as u64)
            && self.read(bytes.len()).is_ok_and(|held| held == bytes)
    }

    /// Refuses to go on if the file is not what may be replaced. A file that is larger than any value is none of ours.
    pub(super) fn check_unedited(&self, over: Over) -> Result<(), WriteError> {
        let unedited = match over {
            Over::Anything => true,
            Over::Nothing => self.stat()?.is_none(),
            Over::Contents(hash) => match self.hash() {
                Ok(held) => held == hash,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(WriteError::io(self.names, error)),
            },
        };
        if unedited { Ok(()) } else { Err(WriteError::Edited { at: self.names.join("/") }) }
    }

    fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self.parent, self.name, flags, Mode::empty())?))
    }

    /// The hash of what is there, of which no more than a piece is in memory.
    fn hash(&self) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(self.open()?.take(LARGEST + 1))?;
        Ok(hasher.finalize())
    }

    fn read(&self, size: usize) -> io::Result<Vec<u8>> {
        let file = self.open()?;
        let mut held = Vec::with_capacity(size.min(4_096) + 1);
        file.take(size as u64 + 1).read_to_end(&mut held)?;
        Ok(held)
    }
}

/// A file that was written beside its place. It goes away if it does not get there.
#[derive(Debug)]
pub(super) struct Staged {
    parent: OwnedFd,
    temporary: String,
    file: File,
    in_place: bool,
}

impl Staged {
    /// Writes a file into a directory. It takes the permissions of the one that it will replace.
    pub(super) fn write(parent: OwnedFd, holds: Source<'_>, replaced: Option<&Stat>) -> io::Result<Self> {
        let temporary = format!("{TEMPORARY}{:016x}", rand::random::<u64>());
        let mode = replaced.map_or(FILE_MODE, |stat| stat.st_mode & KEPT_MODE);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(mode))?);
        let mut staged = Self { parent, temporary, file, in_place: false };
        if replaced.is_some() {
            // The umask is for new files; this one stands in for another.
            rustix::fs::fchmod(&staged.file, Mode::from_raw_mode(mode))?;
        }
        match holds {
            Source::Bytes(bytes) => staged.file.write_all(bytes)?,
            Source::File(path) => drop(io::copy(&mut open(path)?, &mut staged.file)?),
        }
        Ok(staged)
    }

    /// The directory that it is in.
    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// The file, to be synced before it is renamed.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, over what it may replace. Whether it was that: somebody may save between any look and the
    /// rename, so the two files change places, and what came out is looked at.
    pub(super) fn rename(mut self, name: &str, over: Over) -> Result<bool, Errno> {
        let flags = match over {
            Over::Anything => RenameFlags::empty(),
            Over::Nothing => RenameFlags::NOREPLACE,
            Over::Contents(_) => RenameFlags::EXCHANGE,
        };
        match (self.rename_with(name, flags), over) {
            (Err(Errno::EXIST), Over::Nothing) | (Err(Errno::NOENT), Over::Contents(_)) => Ok(false),
            // Not every file system can do either.
            (Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP), Over::Nothing | Over::Contents(_)) => {
                self.in_place = true;
                self.rename_with(name, RenameFlags::empty()).map(|()| true)
            }
            (Err(errno), _) => Err(errno),
            (Ok(()), Over::Contents(hash)) => self.give_back_unless(name, hash),
            (Ok(()), Over::Anything | Over::Nothing) => {
                self.in_place = true;
                Ok(true)
            }
        }
    }

    /// After the exchange the temporary name is that of the file which was replaced. If it was edited, it gets its place
    /// back. It is deleted only as long as it is known for what it is.
    fn give_back_unless(mut self, name: &str, hash: blake3::Hash) -> Result<bool, Errno> {
        let ours = self.file.metadata().map(|metadata| metadata.ino());
        let replaced = Place { parent: self.parent.as_fd(), name: &self.temporary, names: &[] };
        if replaced.hash().is_ok_and(|replaced| replaced == hash) {
            return Ok(true);
        }
        self.in_place = true;
        self.rename_with(name, RenameFlags::EXCHANGE)?;
        let back = rustix::fs::statat(&self.parent, &self.temporary, AtFlags::SYMLINK_NOFOLLOW)?;
        self.in_place = !ours.is_ok_and(|ours| ours == back.st_ino);
        Ok(false)
    }

    fn rename_with(&self, name: &str, flags: RenameFlags) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.parent, &self.temporary, &self.parent, name, flags)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.in_place {
            // What went wrong before is what is told.
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary, AtFlags::empty());
        }
    }
}
