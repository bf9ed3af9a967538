//! Reading one file that may change, vanish or turn into something else at any moment.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use roam_schemas::{
    ContentHash, ContentHasher,
    limits::{LARGE_VALUE_BYTES, VALUE_BYTES},
};
use rustix::fs::OFlags;

use super::Reason;

/// How much of a large file is in memory at once.
const PIECE: usize = 64 * 1024;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// All of it: it fits into a record.
    Whole(Vec<u8>),
    /// The hash of it: it is larger.
    Large(ContentHash),
}

/// Reads a file, if it is a regular file and no larger than a large value may be. Of one that does not fit into a record
/// only the hash is kept.
///
/// # Errors
/// What is in the way.
pub fn contents(path: &Path) -> Result<Contents, Reason> {
    let unreadable = |error: io::Error| Reason::unreadable(&error);
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Reason::NotAFile);
    }
    if metadata.len() > LARGE_VALUE_BYTES as u64 {
        return Err(Reason::TooLarge { bytes: metadata.len(), most: LARGE_VALUE_BYTES });
    }
    // Files under /proc and /sys say 0 and have more; others may grow while they are read.
    let mut bytes = Vec::new();
    let mut file = file.take(LARGE_VALUE_BYTES as u64 + 1);
    (&mut file).take(VALUE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() <= VALUE_BYTES {
        return Ok(Contents::Whole(bytes));
    }
    let mut hasher = ContentHasher::default();
    hasher.update(&bytes);
    let more = hash_rest(&mut file, &mut hasher).map_err(unreadable)?;
    match bytes.len() as u64 + more {
        bytes if bytes > LARGE_VALUE_BYTES as u64 => Err(Reason::TooLarge { bytes, most: LARGE_VALUE_BYTES }),
        _ => Ok(Contents::Large(hasher.finish())),
    }
}

/// The hash of a regular file; none if it is not there or cannot be read.
pub fn digest(path: &Path) -> Option<ContentHash> {
    let mut file = open(path).ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))?;
    let mut hasher = ContentHasher::default();
    hash_rest(&mut file, &mut hasher).ok()?;
    Some(hasher.finish())
}

/// Hashes what is left. Says how many bytes that was.
fn hash_rest(source: &mut impl Read, hasher: &mut ContentHasher) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match source.read(&mut piece)? {
            0 => return Ok(bytes),
            read => {
                hasher.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
}

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
///
/// # Errors
/// Those of the system.
pub fn open(path: &Path) -> io::Result<File> {
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
    fn only_a_regular_file_of_at_most_100_mib_is_read() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("largest"), vec![7; VALUE_BYTES]).unwrap();
        fs::write(at("larger"), vec![7; VALUE_BYTES + 1]).unwrap();
        // Full of holes: it takes no room.
        File::create(at("too large")).unwrap().set_len(LARGE_VALUE_BYTES as u64 + 1).unwrap();
        symlink(at("largest"), at("link")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(contents(&at("largest")), Ok(Contents::Whole(vec![7; VALUE_BYTES])));
        let hash = ContentHash::of(&vec![7; VALUE_BYTES + 1]);
        assert_eq!(contents(&at("larger")), Ok(Contents::Large(hash)));
        assert_eq!((digest(&at("larger")), digest(&at("missing"))), (Some(hash), None));
        assert_eq!(
            contents(&at("too large")),
            Err(Reason::TooLarge { bytes: LARGE_VALUE_BYTES as u64 + 1, most: LARGE_VALUE_BYTES })
        );
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
        let Contents::Whole(bytes) = contents(Path::new("/proc/self/status")).unwrap() else {
            panic!("not that large")
        };
        assert!(!bytes.is_empty());
    }
}
