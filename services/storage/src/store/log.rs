//! A look at RocksDB's write-ahead logs, and at its list of files, which is such a log too, before they are opened. RocksDB
//! takes a log that ends in the middle of a record for one whose writer died there, whichever log it is. In the newest that
//! is so, unless the checksum tells that the record is whole and only its length is not what it was; in an older one it is
//! damage, and what came behind it would be lost from the middle of what is kept. A kind of record that is written into recycled files only, of which there are none here (one
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

/// RocksDB adds this to checksums, so that one of bytes with checksums among them means something.
const MASK: u32 = 0xA282_EAD8;

/// How a log goes on from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It ends with a record.
    Whole,
    /// It ends in the middle of one.
    Torn,
    /// There is a record of a kind that nobody writes, or a whole one whose length says that it goes on beyond the end.
    Damaged,
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
        require(&log, |course| course != Course::Damaged)?;
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
            return Ok(Course::Damaged);
        }
        let here = left.min(end - at);
        if header == BLANK {
            return Ok(Course::Torn);
        }
        if HEADER + length > here {
            let mut rest = Vec::new();
            bytes.take(here - HEADER).read_to_end(&mut rest)?;
            return Ok(if begins_with_record(header, &rest) { Course::Damaged } else { Course::Torn });
        }
        at += HEADER + skip(&mut bytes, length)?;
    }
    Ok(Course::Whole)
}

/// Whether the checksum of a record is right for some of what follows its header: then it is whole, and its length is wrong.
/// By chance that is so of one torn record in a hundred thousand, which is refused for nothing.
fn begins_with_record(header: [u8; 7], rest: &[u8]) -> bool {
    let expected = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let is_it = |sum: u32| sum.rotate_right(15).wrapping_add(MASK) == expected;
    let mut sum = crc32c::crc32c(&header[6..]);
    is_it(sum)
        || rest.iter().any(|byte| {
            sum = crc32c::crc32c_append(sum, &[*byte]);
            is_it(sum)
        })
}

fn skip(bytes: &mut impl Read, length: u64) -> io::Result<u64> {
    io::copy(&mut bytes.take(length), &mut io::sink())
}
