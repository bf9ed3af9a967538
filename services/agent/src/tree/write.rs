//! Writing and removing files below one directory, and nowhere else. Every directory on the way is opened by its parent
//! without following a symbolic link, so that a link that is there already, or is put there meanwhile, leads nowhere.
//! A file appears whole or not at all: it is written beside its place, synced, and renamed.

mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawMode, RenameFlags},
    io::Errno,
};

use self::place::{Place, Staged};

/// What a new directory may be, as far as the umask lets it.
const DIRECTORY_MODE: RawMode = 0o755;
/// How many files are written before any of them is renamed. Each takes two descriptors, of which a process may have few.
const GROUP: usize = 64;
/// How many files are synced at once: the disk writes them in one go, where one after the other each would wait its turn.
const SYNCS: usize = 8;

/// The directory below which files are written.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
    /// Directories with an entry that was changed and not synced yet, as names from the root.
    unsynced: BTreeSet<Vec<String>>,
}

/// A file that is to be: its names from the top, which come from [`super::path_of`], and its bytes.
#[derive(Debug)]
pub struct NewFile<'a> {
    /// Its names from the top.
    pub names: Vec<&'a str>,
    /// What it is to hold.
    pub holds: Source<'a>,
    /// What it may replace.
    pub over: Over,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From a file that nobody changes meanwhile: for what is too large to be in memory.
    File(&'a Path),
}

/// What a file may replace or be removed as. It is looked at right before, so that an edit that was made since somebody
/// looked at the file is not lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Whatever is there, if it is a regular file.
    Anything,
    /// Only a file with these contents.
    Contents(blake3::Hash),
    /// Nothing: there must be no file.
    Nothing,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// What writing a file did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file held these bytes already, and was not touched.
    Same,
    /// It was written.
    Changed,
}

/// Why a file was not written or removed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something else is where the file or one of its directories belongs. Nothing was touched.
    #[error("{what} is in the way at {at}")]
    InTheWay {
        /// What it is.
        what: &'static str,
        /// Where, as a path below the directory.
        at: String,
    },
    /// The file is not what it was to replace any more. Nothing was touched.
    #[error("{at} was edited meanwhile")]
    Edited {
        /// Where, as a path below the directory.
        at: String,
    },
    /// There is no room for it. Nothing was touched.
    #[error("the disk is full: there is no room for {at}")]
    Full {
        /// Where, as a path below the directory.
        at: String,
    },
    /// The operating system did not do it.
    #[error("{at}")]
    Io {
        /// Where, as a path below the directory.
        at: String,
        /// What it said.
        source: io::Error,
    },
}

impl WriteError {
    fn io(names: &[&str], error: impl Into<io::Error>) -> Self {
        let (at, source) = (names.join("/"), error.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { at }
            }
            _ => Self::Io { at, source },
        }
    }

    fn in_the_way(names: &[&str], what: &'static str) -> Self {
        Self::InTheWay { what, at: names.join("/") }
    }
}

impl Directory {
    /// Opens a directory, which is made if it is missing. It may itself be reached by a symbolic link.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { root: root.map_err(|errno| failed(errno.into()))?, unsynced: BTreeSet::new() })
    }

    /// Makes these files be as given, and says of each what that took. No two have the same names. What is written is
    /// on the disk; its names are after [`Self::sync`].
    pub fn write(&mut self, files: &[NewFile<'_>]) -> Vec<Result<Written, WriteError>> {
        let mut written = Vec::with_capacity(files.len());
        for group in files.chunks(GROUP) {
            let staged: Vec<_> = group.iter().map(|file| self.stage(file)).collect();
            let files: Vec<_> = staged.iter().flatten().flatten().map(Staged::file).collect();
            let synced = sync_together(&files);
            let mut synced = synced.into_iter();
            for (staged, file) in staged.into_iter().zip(group) {
                written.push(match staged {
                    Ok(Some(staged)) => self.commit(staged, synced.next(), file),
                    Ok(None) => Ok(Written::Same),
                    Err(error) => Err(error),
                });
            }
        }
        written
    }

    /// Removes the file at these names, and the directories above it that hold nothing then. Whether there was one.
    pub fn remove(&mut self, names: &[&str], over: Over) -> Result<bool, WriteError> {
        let (name, parents) = split(names)?;
        let parent = match self.descend(parents, false) {
            Err(error) if is_missing(&error) => return Ok(false),
            other => other?,
        };
        let place = Place { parent: parent.as_fd(), name, names };
        let Some(stat) = place.stat()? else { return Ok(false) };
        place.check_regular(&stat)?;
        place.check_unedited(over)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(|errno| WriteError::io(names, errno))?;
        let kept = self.remove_empty(parents);
        self.unsynced.insert(owned(&parents[..kept]));
        Ok(true)
    }

    /// Gives the file at these names another name in its directory, which nothing has yet. Whether both are so.
    pub fn set_aside(&mut self, names: &[&str], aside: &str) -> Result<bool, WriteError> {
        let (name, parents) = split(names)?;
        let parent = self.descend(parents, false)?;
        let place = Place { parent: parent.as_fd(), name, names };
        let Some(stat) = place.stat()? else { return Ok(false) };
        place.check_regular(&stat)?;
        match rustix::fs::renameat_with(&parent, name, &parent, aside, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(WriteError::io(names, errno)),
        }
        self.unsynced.insert(owned(parents));
        Ok(true)
    }

    /// Makes what was written and removed so far survive a power cut, names included.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        let unsynced: Vec<_> = std::mem::take(&mut self.unsynced).into_iter().collect();
        for group in unsynced.chunks(GROUP) {
            let mut directories = Vec::with_capacity(group.len());
            for names in group {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                match self.descend(&names, false) {
                    // It was removed meanwhile, by us or by somebody else: there is nothing in it to keep.
                    Err(error) if is_missing(&error) => {}
                    other => directories.push(File::from(other?)),
                }
            }
            let synced = sync_together(&directories.iter().collect::<Vec<_>>());
            let synced: io::Result<()> = synced.into_iter().collect();
            synced.map_err(|source| WriteError::Io { at: "the directories".to_owned(), source })?;
        }
        Ok(())
    }

    /// Writes a file beside its place. `None` if it is as it should be already.
    fn stage(&mut self, file: &NewFile<'_>) -> Result<Option<Staged>, WriteError> {
        let (name, parents) = split(&file.names)?;
        let parent = self.descend(parents, true)?;
        let place = Place { parent: parent.as_fd(), name, names: &file.names };
        let replaced = place.stat()?;
        if let Some(stat) = &replaced {
            place.check_regular(stat)?;
            if let Source::Bytes(bytes) = file.holds
                && place.holds(stat, bytes)
            {
                return Ok(None);
            }
        }
        let staged = Staged::write(parent, file.holds, replaced.as_ref());
        staged.map(Some).map_err(|error| WriteError::io(&file.names, error))
    }

    /// Puts a file in its place, once it is synced.
    fn commit(
        &mut self,
        staged: Staged,
        synced: Option<io::Result<()>>,
        file: &NewFile<'_>,
    ) -> Result<Written, WriteError> {
        let (name, parents) = split(&file.names)?;
        let synced = synced.unwrap_or_else(|| Err(io::Error::other("it was not synced")));
        synced.map_err(|error| WriteError::io(&file.names, error))?;
        Place { parent: staged.parent(), name, names: &file.names }.check_unedited(file.over)?;
        let renamed = staged.rename(name, file.over).map_err(|errno| match errno {
            // Made for another file since this one was looked at.
            Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => WriteError::in_the_way(&file.names, "a directory"),
            errno => WriteError::io(&file.names, errno),
        })?;
        if !renamed {
            return Err(WriteError::Edited { at: file.names.join("/") });
        }
        self.unsynced.insert(owned(parents));
        Ok(Written::Changed)
    }

    /// Opens the directory at these names, one after the other.
    fn descend(&mut self, names: &[&str], make: bool) -> Result<OwnedFd, WriteError> {
        let mut current = self.root.try_clone().map_err(|error| WriteError::io(names, error))?;
        for (depth, name) in names.iter().enumerate() {
            let so_far = &names[..=depth];
            current = match enter(current.as_fd(), name, so_far) {
                Err(error) if make && is_missing(&error) => {
                    make_directory(current.as_fd(), name, so_far)?;
                    self.unsynced.insert(owned(&names[..depth]));
                    enter(current.as_fd(), name, so_far)?
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// Removes directories from the lowest upwards as long as they are empty. How many of the names are left.
    fn remove_empty(&mut self, names: &[&str]) -> usize {
        for depth in (0..names.len()).rev() {
            let Ok(parent) = self.descend(&names[..depth], false) else { return depth };
            // It fails if something is left in it, which is what is asked here.
            if rustix::fs::unlinkat(&parent, names[depth], AtFlags::REMOVEDIR).is_err() {
                return depth + 1;
            }
        }
        0
    }
}

/// Syncs files, several at once. The results are in the order of the files.
fn sync_together(files: &[&File]) -> Vec<io::Result<()>> {
    let sync = |files: &[&File]| files.iter().map(|file| file.sync_all()).collect::<Vec<_>>();
    if let [] | [_] = files {
        return sync(files);
    }
    let portion = files.len().div_ceil(SYNCS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = files.chunks(portion).map(|portion| scope.spawn(move || sync(portion))).collect();
        // A thread that panicked leaves results out, which is taken for a failure.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn enter(parent: BorrowedFd<'_>, name: &str, names: &[&str]) -> Result<OwnedFd, WriteError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(directory),
        // Which of the two a link gives depends on the system.
        Err(Errno::NOTDIR | Errno::LOOP) => Err(WriteError::in_the_way(names, what_is(parent, name))),
        Err(errno) => Err(WriteError::io(names, errno)),
    }
}

fn what_is(parent: BorrowedFd<'_>, name: &str) -> &'static str {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => "a symbolic link",
        _ => "a file",
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &str, names: &[&str]) -> Result<(), WriteError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(WriteError::io(names, errno)),
    }
}

fn is_missing(error: &WriteError) -> bool {
    matches!(error, WriteError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn split<'a, 'n>(names: &'a [&'n str]) -> Result<(&'n str, &'a [&'n str]), WriteError> {
    let empty = || WriteError::io(names, io::ErrorKind::InvalidInput);
    names.split_last().map(|(file, parents)| (*file, parents)).ok_or_else(empty)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
