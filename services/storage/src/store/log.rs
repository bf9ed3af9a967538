//! A look at RocksDB's write-ahead logs, and at its list of files, which is such a log too, before they are opened. RocksDB
//! takes a log that ends in the middle of a record for one whose writer died there, whichever log it is. In the newest that
//! is so; in an older one it is damage (one flipped bit in a length is enough), and what came behind it would be lost from
//! the middle of what is kept. A kind of record that is written into recycled files only, of which there are none here (one
//! flipped bit in the kind is enough), it takes for the end of a write-ahead log; in the list of files it looks for the rest
//! for ever (RocksDB 11.8).

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::StoreError;

/// A log is written in blocks; no record crosses the end of one.
const BLOCK: u64 = 32 * 1024;
/// Before each record: checksum (4 bytes), length (2 bytes, little-endian), kind (1 byte).
const HEADER: u64 = 7;
const BLANK: [u8; 7] = [0; 7];
/// The kinds of records of recycled files.
const RECYCLED: RangeInclusive<u8> = 5..=8;
/// Names the list of files that counts.
const CURRENT: &str = "CURRENT";

/// How a log goes on from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It ends with a record.
    Whole,
    /// It ends, or so it seems, in the middle of one.
    Torn,
    /// There is a record of a kind that nobody writes.
    Strange,
}

/// Looks at all of them that hold something.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let mut logs = logs(directory).map_err(StoreError::Directory)?;
    let newest = logs.pop();
    for log in logs {
        require(&log, |course| course == Course::Whole)?;
    }
    let may_be_torn = newest.into_iter().chain(list_of_files(directory).map_err(StoreError::Directory)?);
    for log in may_be_torn {
        require(&log, |course| course != Course::Strange)?;
    }
    Ok(())
}

fn require(log: &Path, is_sound: impl Fn(Course) -> bool) -> Result<(), StoreError> {
    if is_sound(follow(log).map_err(StoreError::Directory)?) {
        return Ok(());
    }
    Err(StoreError::Log { file: log.display().to_string() })
}

/// None in a new directory. One that is named and missing is RocksDB's to complain of.
fn list_of_files(directory: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(directory.join(CURRENT)) {
        Ok(name) => Ok(Some(directory.join(name.trim_end())).filter(|list| list.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Oldest first; without those that are empty.
fn logs(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "log"))
            && entry.metadata()?.len() > 0
        {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// Follows the records from one to the next, whatever is in them: their checksums are RocksDB's to look at.
fn follow(path: &Path) -> io::Result<Course> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut bytes = BufReader::with_capacity(64 * 1024, file);
    let mut at = 0;
    while at < end {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += skip(&mut bytes, left.min(end - at))?;
            continue;
        }
        if end - at < HEADER {
            return Ok(Course::Torn);
        }
        let mut header = BLANK;
        bytes.read_exact(&mut header)?;
        let length = u64::from(u16::from_le_bytes([header[4], header[5]]));
        if RECYCLED.contains(&header[6]) {
            return Ok(Course::Strange);
        }
        if header == BLANK || HEADER + length > left.min(end - at) {
            return Ok(Course::Torn);
        }
        at += HEADER + skip(&mut bytes, length)?;
    }
    Ok(Course::Whole)
}

fn skip(bytes: &mut impl Read, length: u64) -> io::Result<u64> {
    io::copy(&mut bytes.take(length), &mut io::sink())
}
