//! Reading one file that may change, vanish or turn into something else at any moment.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use roam_schemas::limits::VALUE_BYTES;
use rustix::fs::OFlags;

use super::Reason;

/// Reads a file whole, if it is a regular file and no larger than a value may be.
///
/// # Errors
/// What is in the way.
pub fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    read_up_to(path, VALUE_BYTES)
}

/// Reads a file whole, if it is a regular file of at most so many bytes.
///
/// # Errors
/// What is in the way.
pub fn read_up_to(path: &Path, most: usize) -> Result<Vec<u8>, Reason> {
    let file = open(path).map_err(|error| Reason::unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| Reason::unreadable(&error))?;
    if !metadata.is_file() {
        return Err(Reason::NotAFile);
    }
    if metadata.len() > most as u64 {
        return Err(Reason::TooLarge { bytes: metadata.len(), most });
    }
    // Files under /proc and /sys say 0 and have more; others may grow while they are read.
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| Reason::unreadable(&error))?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(Reason::TooLarge { bytes: bytes.len() as u64, most }),
    }
}

/// Opens without following a symbolic link that has taken the file's place, and without waiting for the other end of a
/// pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_regular_file_of_at_most_256_kib_is_read() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("largest"), vec![7; VALUE_BYTES]).unwrap();
        fs::write(at("larger"), vec![7; VALUE_BYTES + 1]).unwrap();
        symlink(at("largest"), at("link")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(&at("largest")).unwrap().len(), VALUE_BYTES);
        assert_eq!(read(&at("larger")), Err(Reason::TooLarge { bytes: VALUE_BYTES as u64 + 1, most: VALUE_BYTES }));
        assert_eq!(read(root.path()), Err(Reason::NotAFile));
        assert_eq!(read(&at("missing")), Err(Reason::Missing));
        assert!(matches!(read(&at("link")), Err(Reason::Unreadable(_))));

        let started = std::time::Instant::now();
        assert_eq!(read(&at("pipe")), Err(Reason::NotAFile));
        assert!(started.elapsed() < Duration::from_secs(5), "it waited for a writer");
    }

    #[test]
    fn a_file_that_says_it_is_empty_is_read_all_the_same() {
        assert!(!read(Path::new("/proc/self/status")).unwrap().is_empty());
    }
}
