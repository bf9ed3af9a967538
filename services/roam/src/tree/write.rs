//! Writing and removing files below one directory, and nowhere else. Every directory on the way is opened by its parent
//! without following a symbolic link, so that a link that is there already, or is put there meanwhile, leads nowhere.
//! A file appears whole or not at all: it is written beside its place, synced, and renamed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat},
    io::Errno,
};

use super::TEMPORARY;

/// What a new file may be, as far as the umask lets it.
const FILE_MODE: RawMode = 0o644;
/// What a new directory may be, likewise.
const DIRECTORY_MODE: RawMode = 0o755;
/// Permissions that a replaced file hands on: no set-user-id, set-group-id or sticky bit.
const KEPT_MODE: RawMode = 0o777;

/// The directory below which files are written.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    /// Directories with an entry that was changed and not synced yet, as names from the root.
    unsynced: BTreeSet<Vec<String>>,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used", path.display())]
pub(crate) struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// What writing a file did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// The file held these bytes already, and was not touched.
    Same,
    /// It was written.
    Changed,
}

/// Why a file was not written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Something else is where the file or one of its directories belongs. Nothing was touched.
    #[error("{what} is in the way at {at}")]
    InTheWay {
        /// What it is.
        what: &'static str,
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

impl Directory {
    /// Opens a directory, which is made if it is missing. It may itself be reached by a symbolic link.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { root: root.map_err(|errno| failed(errno.into()))?, unsynced: BTreeSet::new() })
    }

    /// Gives the file at these names these bytes. The names come from [`super::path_of`].
    pub(crate) fn write(&mut self, names: &[&str], bytes: &[u8]) -> Result<Written, WriteError> {
        let (file, parents) = split(names)?;
        let parent = self.descend(parents, true)?;
        let parent = parent.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        let place = Place { parent, name: file, names };
        let mode = match place.stat()? {
            None => FILE_MODE,
            Some(stat) => {
                place.check_regular(&stat)?;
                if place.holds(&stat, bytes) {
                    return Ok(Written::Same);
                }
                stat.st_mode & KEPT_MODE
            }
        };
        place.replace(bytes, mode)?;
        self.unsynced.insert(owned(parents));
        Ok(Written::Changed)
    }

    /// Removes the file at these names, and the directories above it that hold nothing then. Whether there was one.
    pub(crate) fn remove(&mut self, names: &[&str]) -> Result<bool, WriteError> {
        let (file, parents) = split(names)?;
        {
            let parent = match self.descend(parents, false) {
                Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
                other => other?,
            };
            let parent = parent.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let place = Place { parent, name: file, names };
            let Some(stat) = place.stat()? else { return Ok(false) };
            place.check_regular(&stat)?;
            rustix::fs::unlinkat(parent, file, AtFlags::empty()).map_err(|errno| io_error(names, errno))?;
        }
        let kept = self.remove_empty(parents);
        self.unsynced.insert(owned(&parents[..kept]));
        Ok(true)
    }

    /// Makes what was written and removed so far survive a power cut, names included.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        for names in std::mem::take(&mut self.unsynced) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let directory = match self.descend(&names, false) {
                // It was removed meanwhile, by us or by somebody else: there is nothing in it to keep.
                Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let directory = directory.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            rustix::fs::fsync(directory).map_err(|errno| io_error(&names, errno))?;
        }
        Ok(())
    }

    /// Opens the directory at these names, one after the other. `None` is the root.
    fn descend(&mut self, names: &[&str], make: bool) -> Result<Option<OwnedFd>, WriteError> {
        let mut current: Option<OwnedFd> = None;
        for (depth, name) in names.iter().enumerate() {
            let parent = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let so_far = &names[..=depth];
            let next = match enter(parent, name, so_far) {
                Err(WriteError::Io { source, .. }) if make && source.kind() == io::ErrorKind::NotFound => {
                    make_directory(parent, name, so_far)?;
                    self.unsynced.insert(owned(&names[..depth]));
                    enter(parent, name, so_far)?
                }
                other => other?,
            };
            current = Some(next);
        }
        Ok(current)
    }

    /// Removes directories from the lowest upwards as long as they are empty. How many of the names are left.
    fn remove_empty(&mut self, names: &[&str]) -> usize {
        for depth in (0..names.len()).rev() {
            let Ok(parent) = self.descend(&names[..depth], false) else { return depth };
            let parent = parent.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            // It fails if something is left in it, which is what is asked here.
            if rustix::fs::unlinkat(parent, names[depth], AtFlags::REMOVEDIR).is_err() {
                return depth + 1;
            }
        }
        0
    }
}

/// Where one file is or will be.
struct Place<'a> {
    parent: BorrowedFd<'a>,
    name: &'a str,
    /// For messages.
    names: &'a [&'a str],
}

impl Place<'_> {
    /// What is there, `None` if nothing is.
    fn stat(&self) -> Result<Option<Stat>, WriteError> {
        match rustix::fs::statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io_error(self.names, errno)),
        }
    }

    fn check_regular(&self, stat: &Stat) -> Result<(), WriteError> {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a directory",
            _ => "something that is no regular file",
        };
        Err(WriteError::InTheWay { what, at: self.names.join("/") })
    }

    /// Whether the file that is there has these bytes. One that cannot be read has not.
    fn holds(&self, stat: &Stat, bytes: &[u8]) -> bool {
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

    /// Puts a file with these bytes there, in place of the one that may be there.
    fn replace(&self, bytes: &[u8], mode: RawMode) -> Result<(), WriteError> {
        let temporary = format!("{TEMPORARY}{:016x}", rand::random::<u64>());
        let written = self.write_temporary(&temporary, bytes, mode).and_then(|()| {
            rustix::fs::renameat(self.parent, &temporary, self.parent, self.name).map_err(io::Error::from)
        });
        written.map_err(|source| {
            // It may not even exist; what matters is the first error.
            let _ = rustix::fs::unlinkat(self.parent, &temporary, AtFlags::empty());
            WriteError::Io { at: self.names.join("/"), source }
        })
    }

    fn write_temporary(&self, name: &str, bytes: &[u8], mode: RawMode) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(self.parent, name, flags, Mode::from_raw_mode(mode))?);
        if mode != FILE_MODE {
            // The umask is for new files; this one stands in for another.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    }
}

fn enter(parent: BorrowedFd<'_>, name: &str, names: &[&str]) -> Result<OwnedFd, WriteError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(directory),
        // Which of the two a link gives depends on the system.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            Err(WriteError::InTheWay { what: what_is(parent, name), at: names.join("/") })
        }
        Err(errno) => Err(io_error(names, errno)),
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
        Err(errno) => Err(io_error(names, errno)),
    }
}

fn split<'a>(names: &'a [&'a str]) -> Result<(&'a str, &'a [&'a str]), WriteError> {
    let empty = || WriteError::Io { at: String::new(), source: io::ErrorKind::InvalidInput.into() };
    names.split_last().map(|(file, parents)| (*file, parents)).ok_or_else(empty)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn io_error(names: &[&str], errno: Errno) -> WriteError {
    WriteError::Io { at: names.join("/"), source: errno.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct World {
        root: tempfile::TempDir,
        directory: Directory,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("outside")).unwrap();
            fs::write(root.path().join("outside/file"), "untouched").unwrap();
            let directory = Directory::open(&root.path().join("tree")).unwrap();
            Self { root, directory }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join("tree").join(path)
        }

        fn write(&mut self, path: &str, text: &str) -> Result<Written, WriteError> {
            self.directory.write(&path.split('/').collect::<Vec<_>>(), text.as_bytes())
        }

        fn remove(&mut self, path: &str) -> Result<bool, WriteError> {
            self.directory.remove(&path.split('/').collect::<Vec<_>>())
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.at(path)).unwrap()
        }

        fn names(&self, path: &str) -> Vec<String> {
            let names = fs::read_dir(self.at(path)).unwrap();
            let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn check_outside_is_untouched(&self) {
            let outside = self.root.path().join("outside");
            assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
            assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
        }
    }

    fn in_the_way<T: std::fmt::Debug>(result: Result<T, WriteError>) -> (&'static str, String) {
        match result {
            Err(WriteError::InTheWay { what, at }) => (what, at),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn files_are_made_with_their_directories_and_replaced_whole() {
        let mut world = World::new();
        assert_eq!(world.write("a/b/c", "one").unwrap(), Written::Changed);
        assert_eq!(world.write("a/b/c", "two").unwrap(), Written::Changed);
        assert_eq!(world.write("top", "").unwrap(), Written::Changed);
        world.directory.sync().unwrap();
        assert_eq!(world.read("a/b/c"), "two");
        assert_eq!(world.names("a/b"), ["c"], "no temporary file is left");
        assert_eq!(world.names(""), ["a", "top"]);
    }

    #[test]
    fn a_file_that_holds_the_bytes_already_is_not_touched() {
        let mut world = World::new();
        world.write("a", "one").unwrap();
        let before = fs::metadata(world.at("a")).unwrap().ino();
        assert_eq!(world.write("a", "one").unwrap(), Written::Same);
        assert_eq!(fs::metadata(world.at("a")).unwrap().ino(), before);
        assert_eq!(world.write("a", "two").unwrap(), Written::Changed);
        assert_ne!(fs::metadata(world.at("a")).unwrap().ino(), before, "it is another file, renamed into its place");
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions_but_no_special_bit() {
        let mut world = World::new();
        world.write("a", "one").unwrap();
        for (mode, kept) in [(0o600, 0o600), (0o4755, 0o755), (0o666, 0o666)] {
            fs::set_permissions(world.at("a"), PermissionsExt::from_mode(mode)).unwrap();
            world.write("a", &format!("under {mode:o}")).unwrap();
            assert_eq!(fs::metadata(world.at("a")).unwrap().mode() & 0o7777, kept, "{mode:o}");
        }
    }

    #[test]
    fn a_new_file_is_never_executable() {
        let mut world = World::new();
        world.write("a", "#!/bin/sh").unwrap();
        let mode = fs::metadata(world.at("a")).unwrap().mode() & 0o7777;
        assert_eq!(mode & !FILE_MODE, 0, "{mode:o}");
    }

    #[test]
    fn a_symbolic_link_in_the_way_is_refused_and_leads_nowhere() {
        let mut world = World::new();
        symlink("../outside", world.at("dir")).unwrap();
        symlink("../outside/file", world.at("file")).unwrap();
        symlink("nowhere", world.at("dangling")).unwrap();
        fs::create_dir(world.at("deep")).unwrap();
        symlink("../../outside", world.at("deep/dir")).unwrap();
        for (path, at) in [
            ("dir/file", "dir"),
            ("dir/new", "dir"),
            ("file", "file"),
            ("dangling", "dangling"),
            ("dangling/a", "dangling"),
            ("deep/dir/a/b", "deep/dir"),
        ] {
            let expected = ("a symbolic link", at.to_owned());
            assert_eq!(in_the_way(world.write(path, "hostile")), expected, "{path}");
            assert_eq!(in_the_way(world.remove(path)), expected, "{path}");
        }
        world.check_outside_is_untouched();
        assert!(fs::symlink_metadata(world.at("file")).unwrap().is_symlink());
    }

    #[test]
    fn a_file_and_a_directory_do_not_take_each_others_place() {
        let mut world = World::new();
        world.write("a", "file").unwrap();
        world.write("d/x", "file").unwrap();
        assert_eq!(in_the_way(world.write("a/b", "below a file")), ("a file", "a".to_owned()));
        assert_eq!(in_the_way(world.write("d", "over a directory")), ("a directory", "d".to_owned()));
        assert_eq!(in_the_way(world.remove("d")), ("a directory", "d".to_owned()));
        assert_eq!(world.read("a"), "file");
        assert_eq!(world.names("d"), ["x"]);
    }

    #[test]
    fn a_removed_file_takes_empty_directories_with_it_and_no_others() {
        let mut world = World::new();
        for path in ["a/b/c/one", "a/two", "three"] {
            world.write(path, "x").unwrap();
        }
        assert!(world.remove("a/b/c/one").unwrap());
        assert_eq!(world.names("a"), ["two"]);
        assert!(world.remove("a/two").unwrap());
        assert!(world.remove("three").unwrap());
        world.directory.sync().unwrap();
        assert_eq!(world.names(""), [] as [&str; 0], "the directory itself stays");
        assert!(!world.remove("a/two").unwrap());
        assert!(!world.remove("three").unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_behind() {
        let mut world = World::new();
        let long = "n".repeat(256);
        assert!(matches!(world.write(&long, "x"), Err(WriteError::Io { .. })));
        assert_eq!(world.names(""), [] as [&str; 0]);
    }
}
