//! A look at RocksDB's write-ahead logs before they are opened. RocksDB takes a log that ends in the middle of a record
//! for one whose writer died there, whichever log it is. In the newest that is so; in an older one it is damage (one
//! flipped bit in a length is enough), and what came behind it would be lost from the middle of what is kept.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use super::StoreError;

/// A log is written in blocks; no record crosses the end of one.
const BLOCK: u64 = 32 * 1024;
/// Before each record: checksum (4 bytes), length (2 bytes, little-endian), kind (1 byte).
const HEADER: u64 = 7;
const BLANK: [u8; 7] = [0; 7];

/// Looks at every log but the newest that holds something.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let mut logs = logs(directory).map_err(StoreError::Directory)?;
    logs.pop();
    for log in logs {
        if !ends_with_a_record(&log).map_err(StoreError::Directory)? {
            return Err(StoreError::Log { file: log.display().to_string() });
        }
    }
    Ok(())
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
fn ends_with_a_record(path: &Path) -> io::Result<bool> {
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
            return Ok(false);
        }
        let mut header = BLANK;
        bytes.read_exact(&mut header)?;
        let length = u64::from(u16::from_le_bytes([header[4], header[5]]));
        if header == BLANK || HEADER + length > left.min(end - at) {
            return Ok(false);
        }
        at += HEADER + skip(&mut bytes, length)?;
    }
    Ok(true)
}

fn skip(bytes: &mut impl Read, length: u64) -> io::Result<u64> {
    io::copy(&mut bytes.take(length), &mut io::sink())
}
