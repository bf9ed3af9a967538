//! Damaged files: a replica does not open, or a read fails, or everything is there. It never has less without saying so.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::support::{
    batches::{Random, batch, batch_of, put},
    stores::{Replica, digests, open},
};
use roam_schemas::{Key, Terms};
use roam_storage::store::{Digest, ProfileKey, Reader, StoreError};

type Digests = BTreeMap<&'static str, Digest>;

const PROFILE: &str = "acme/alice/mail";

/// The files of a directory with that ending, oldest first.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    files.sort();
    files
}

/// A copy of a directory in which one file was changed.
fn damaged(healthy: &Path, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(healthy).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.path().join(file.file_name().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    copy
}

/// Reads everything there is, in each of the ways in which it is read.
fn read_all(reader: &Reader, keys: &[Key]) -> Result<(Digests, usize), StoreError> {
    let profile = ProfileKey::new(&PROFILE.parse().unwrap());
    let mut known = 0;
    reader.snapshot().records_of(&profile, keys, |_, found| {
        known += usize::from(found.is_some());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((digests(reader)?, known))
}

#[test]
fn a_flipped_bit_in_a_table_file_is_an_error_or_harmless() {
    let mut replica = Replica::new();
    let mut random = Random(0xF11B);
    let names: Vec<String> = (0..4_000).map(|number| format!("key {number}")).collect();
    for (sequence, names) in (1..).zip(names.chunks(100)) {
        let value = |random: &mut Random| random.next().to_be_bytes().repeat(8);
        let changes = names.iter().enumerate();
        let changes =
            changes.map(|(index, name)| put(PROFILE, sequence * 1_000 + index as u64, name, value(&mut random)));
        let changes = changes.collect();
        replica.apply(sequence, &batch_of(sequence, &Terms::default(), changes));
    }
    replica.compact();
    let keys: Vec<Key> = names.into_iter().map(|name| Key::parse(name).unwrap()).collect();
    let healthy = read_all(replica.reader(), &keys).unwrap();
    assert_eq!(healthy.1, keys.len());
    let directory = replica.close();
    let tables = files(directory.path(), "sst");
    assert!(tables.len() >= 4, "{tables:?}");

    let mut refused = 0;
    for _ in 0..80 {
        let file = &tables[random.below(tables.len() as u64) as usize];
        let copy = damaged(directory.path(), file, |bytes| {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        });
        let read = open(copy.path()).and_then(|(_writer, reader)| read_all(&reader, &keys));
        match read {
            Err(_) => refused += 1,
            Ok(read) => assert_eq!(read, healthy, "{file:?}"),
        }
    }
    assert!(refused > 60, "only {refused} of 80 were noticed");
}

/// A replica whose batches are all in its write-ahead log, and what it held after each.
struct Logged {
    directory: tempfile::TempDir,
    states: Vec<Digests>,
}

impl Logged {
    fn new(batches: u64) -> Self {
        let mut replica = Replica::new();
        let mut states = vec![digests(replica.reader()).unwrap()];
        for sequence in 1..=batches {
            replica.apply(sequence, &batch(sequence));
            states.push(digests(replica.reader()).unwrap());
        }
        Self { directory: replica.close(), states }
    }

    fn log(&self) -> PathBuf {
        let logs = files(self.directory.path(), "log");
        logs.into_iter().max_by_key(|log| fs::metadata(log).unwrap().len()).unwrap()
    }

    /// Opens a copy with a changed log. Either it refuses, or what it holds is what it held at the position that it
    /// names: the journal is read again from there.
    fn open_with(&self, log: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Option<u64> {
        let copy = damaged(self.directory.path(), log, change);
        let (_writer, reader) = open(copy.path()).ok()?;
        let position = reader.snapshot().position().unwrap().map_or(0, |position| position.sequence);
        assert_eq!(digests(&reader).unwrap(), self.states[position as usize], "at {position}");
        Some(position)
    }
}

#[test]
fn a_torn_tail_of_the_log_loses_the_last_batch_and_nothing_else() {
    let logged = Logged::new(40);
    let log = logged.log();
    let length = fs::metadata(&log).unwrap().len();
    let mut random = Random(0x7EA8);
    assert_eq!(logged.open_with(&log, |_| {}), Some(40));
    assert_eq!(logged.open_with(&log, |bytes| bytes.truncate(bytes.len() - 1)), Some(39));
    let mut before = 40;
    let mut cuts: Vec<u64> = (0..20).map(|_| random.below(length)).collect();
    cuts.sort_unstable_by(|a, b| b.cmp(a));
    for cut in cuts {
        let position = logged.open_with(&log, |bytes| bytes.truncate(cut as usize)).expect("a torn tail opens");
        assert!(position <= before);
        before = position;
    }
}

#[test]
fn a_flipped_bit_in_the_log_refuses_or_leaves_whole_batches() {
    let logged = Logged::new(200);
    let log = logged.log();
    let mut random = Random(0xB17);
    let mut refused = 0;
    for _ in 0..60 {
        let opened = logged.open_with(&log, |bytes| {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        });
        refused += usize::from(opened.is_none());
    }
    assert!(refused > 50, "only {refused} of 60 were noticed");
}

#[test]
fn zeros_in_the_log_refuse_or_leave_whole_batches() {
    let logged = Logged::new(200);
    let log = logged.log();
    let mut random = Random(0x2E80);
    for _ in 0..40 {
        logged.open_with(&log, |bytes| {
            let page = random.below(bytes.len() as u64 / 4096) as usize * 4096;
            bytes[page..page + 4096].fill(0);
        });
    }
}

/// Where the records of a log begin: blocks of 32 KiB, in which each has a checksum (4 bytes), a length (2) and a kind (1)
/// before it.
fn headers(log: &[u8]) -> Vec<usize> {
    const BLOCK: usize = 32 * 1024;
    const HEADER: usize = 7;
    let (mut at, mut found) = (0, Vec::new());
    while at + HEADER <= log.len() {
        if BLOCK - at % BLOCK < HEADER {
            at += BLOCK - at % BLOCK;
            continue;
        }
        found.push(at);
        at += HEADER + usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
    }
    found
}

/// A replica whose batches lie in several logs, each of which is needed, and what it held after each batch.
fn logged_twice() -> Logged {
    // Values that fill the memory of one table, so that a second log is begun while others still need the first.
    let mut replica = Replica::new();
    let mut states = vec![digests(replica.reader()).unwrap()];
    let mut random = Random(0x10C);
    for sequence in 1..=30 {
        let value: Vec<u8> = (0..25_000).flat_map(|_| random.next().to_be_bytes()).collect();
        let changes = vec![put(PROFILE, sequence * 10, "large", value), put(PROFILE, sequence * 10 + 1, "small", "x")];
        replica.apply(sequence, &batch_of(sequence, &Terms::default(), changes));
        states.push(digests(replica.reader()).unwrap());
    }
    Logged { directory: replica.close(), states }
}

#[test]
fn no_damage_to_the_lengths_in_any_log_loses_a_batch_from_the_middle() {
    let logged = logged_twice();
    let logs = files(logged.directory.path(), "log");
    assert_eq!(logs.len(), 2, "{logs:?}");
    for log in &logs {
        let headers = headers(&fs::read(log).unwrap());
        let mut opened = 0;
        // The last ones: a length that leads out of the log looks like a torn tail.
        for header in &headers[headers.len() - 3..] {
            for bit in 0..16 {
                let position = logged.open_with(log, |bytes| bytes[header + 4 + bit / 8] ^= 1 << (bit % 8));
                opened += usize::from(position.is_some());
            }
        }
        assert_eq!(opened, 0, "{} is not torn", log.display());
    }
}

#[test]
fn an_older_log_that_is_gone_or_shorter_is_refused() {
    let logged = logged_twice();
    let logs = files(logged.directory.path(), "log");
    let headers = headers(&fs::read(&logs[0]).unwrap());
    let last = *headers.last().unwrap();
    assert_eq!(logged.open_with(&logs[0], |bytes| bytes.truncate(last)), None, "one that ends with a whole record");
    assert_eq!(logged.open_with(&logs[0], |bytes| bytes.truncate(last + 1)), None, "one that ends in a record");
    assert_eq!(logged.open_with(&logs[0], Vec::clear), None, "one that is empty");
    let copy = damaged(logged.directory.path(), &logs[0], |_| {});
    fs::remove_file(copy.path().join(logs[0].file_name().unwrap())).unwrap();
    assert!(open(copy.path()).is_err(), "one that is gone");
    let position = logged.open_with(&logs[1], |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(position, Some(29), "the newest may be torn");
}

#[test]
fn a_flipped_bit_in_the_kind_of_a_record_is_refused_in_the_log_and_in_the_list_of_files() {
    let mut replica = Replica::new();
    for sequence in 1..=20 {
        replica.apply(sequence, &batch(sequence));
    }
    replica.reopen();
    for sequence in 21..=40 {
        replica.apply(sequence, &batch(sequence));
    }
    let directory = replica.close();
    let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_list = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST-");
    let mut damaged_files: Vec<_> = entries.filter(is_list).collect();
    damaged_files.extend(files(directory.path(), "log"));
    for file in damaged_files {
        let bytes = fs::read(&file).unwrap();
        let headers = headers(&bytes);
        assert!(headers.len() > 10, "{file:?}");
        for header in headers {
            // A whole record, or a part of one, as a record of a file that was recycled: RocksDB takes that for the end of a
            // log, and reads a list of files for ever.
            let copy = damaged(directory.path(), &file, |bytes| bytes[header + 6] ^= 1 << 2);
            assert!(open(copy.path()).is_err(), "{file:?}, the record at {header}");
        }
    }
}
