//! The directory of one nats-server: its lock, its configuration file, its log. Never touches what JetStream keeps there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

const TAIL_BYTES: u64 = 4 * 1024;
const TAIL_LINES: usize = 15;

/// A directory that no other server uses, until this is dropped and every server that was given its lock has ended.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes the directory and locks it. `None` if a server, perhaps one without a parent, still uses it: two servers on
    /// one JetStream directory destroy each other's data, and nats-server itself does not look.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Directory>> {
        fs::create_dir_all(path)?;
        // Flags and variables of the child take no relative path: a server keeps its directory if we change ours.
        let path = path.canonicalize()?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).read(true).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Directory { path, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The lock once more, for a child to hold: the directory stays locked as long as that child lives, also without us.
    pub(crate) fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Writes a configuration file into the directory.
    pub(crate) fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("nats-server.log")
    }

    /// The log, to append to.
    pub(crate) fn log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log_path())
    }

    /// The last lines of the log that were written after `from` bytes.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        read_tail(&self.log_path(), from).unwrap_or_else(|error| format!("the log cannot be read: {error}"))
    }
}

fn read_tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A log that is shorter than before was begun anew.
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap().unwrap();
        assert!(Directory::open(dir.path()).unwrap().is_none());
        let with_child = first.lock().unwrap();
        drop(first);
        assert!(Directory::open(dir.path()).unwrap().is_none(), "whoever holds the lock still uses it");
        drop(with_child);
        assert!(Directory::open(dir.path()).unwrap().is_some());
    }

    #[test]
    fn the_tail_is_what_was_written_last_and_since() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap().unwrap();
        let mut log = directory.log().unwrap();
        writeln!(log, "an old start").unwrap();
        let from = log.metadata().unwrap().len();
        assert_eq!(directory.log_tail(from), "");
        for line in 0..100 {
            writeln!(log, "line {line}").unwrap();
        }
        let tail = directory.log_tail(from);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("line 85\n") && tail.ends_with("line 99"), "{tail}");
        assert_eq!(directory.log_tail(1 << 40).lines().count(), TAIL_LINES);
    }
}
