//! One place for a file in an open directory: what is there, and how another file takes it. Never follows a symbolic link.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat},
    io::Errno,
};

use super::WriteError;
use crate::tree::TEMPORARY;

/// What a new file may be, as far as the umask lets it.
pub(super) const FILE_MODE: RawMode = 0o644;
/// Permissions that a replaced file hands on: no set-user-id, set-group-id or sticky bit.
const KEPT_MODE: RawMode = 0o777;

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

    fn read(&self, size: usize) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(self.parent, self.name, flags, Mode::empty())?);
        let mut held = Vec::with_capacity(size + 1);
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
    pub(super) fn write(parent: OwnedFd, bytes: &[u8], replaced: Option<&Stat>) -> io::Result<Self> {
        let temporary = format!("{TEMPORARY}{:016x}", rand::random::<u64>());
        let mode = replaced.map_or(FILE_MODE, |stat| stat.st_mode & KEPT_MODE);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(mode))?);
        let mut staged = Self { parent, temporary, file, in_place: false };
        if replaced.is_some() {
            // The umask is for new files; this one stands in for another.
            rustix::fs::fchmod(&staged.file, Mode::from_raw_mode(mode))?;
        }
        staged.file.write_all(bytes)?;
        Ok(staged)
    }

    /// The file, to be synced before it is renamed.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name.
    pub(super) fn rename(mut self, name: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, name)?;
        self.in_place = true;
        Ok(())
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
