//! A file that is damaged, newer, somebody else's or in use, and a disk that is full.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Builder, StorageBackend};
use roam_schemas::{ContentType, Encoding, Key, Operation, Timestamp};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::super::error::LocalError;
use super::super::file::{File, Handle, Opener, opener};
use super::super::layout::{FORMAT, META, META_FORMAT};

const OWNER: &str = "acme/alice/laptop";
const NAME: &str = "acme/alice/editor";

fn open(path: &Path) -> Result<File, LocalError> {
    File::open(path, OWNER, opener())
}

#[test]
fn a_file_that_is_not_as_it_should_be_is_refused_with_a_code_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.redb");
    let file = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err().code(), "local_in_use");
    drop(file);
    let error = File::open(&path, "acme/bob/laptop", opener()).unwrap_err();
    assert!(matches!(&error, LocalError::OtherDevice { owner, .. } if owner == OWNER), "{error}");
    drop(open(&path).unwrap());

    let database = Builder::new().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(META_FORMAT, (FORMAT + 1).to_be_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, LocalError::Newer { found, known, .. } if (found, known) == (FORMAT + 1, FORMAT)));
}

#[test]
fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.redb");
    drop(open(&path).unwrap());
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(4_096) {
        let mut damaged = whole.clone();
        let end = damaged.len().min(at + 4_096);
        damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, &damaged).unwrap();
        match open(&path) {
            Ok(file) => drop(file),
            Err(LocalError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("at {at}: {error}"),
        }
    }
    assert!(refused > 0, "pages that are in use are found");
    for broken in [&b"this is no database, and never was one"[..], &whole[..whole.len() / 2]] {
        fs::write(&path, broken).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.code(), "local_damaged", "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(fs::read(&path).unwrap().len(), broken.len());
    }
}

/// A disk that holds so many bytes.
#[derive(Debug)]
struct SmallDisk {
    file: FileBackend,
    room: Arc<AtomicU64>,
}

impl StorageBackend for SmallDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.room.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

fn on_small_disk(room: &Arc<AtomicU64>) -> Opener {
    let room = Arc::clone(room);
    Box::new(move |path| {
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let disk = SmallDisk { file: FileBackend::new(file)?, room: Arc::clone(&room) };
        Builder::new().create_with_backend(disk)
    })
}

async fn put(handle: &Handle, number: u64) -> Result<(), LocalError> {
    let op = Operation::put(Key::parse(format!("k{number}")).unwrap(), vec![7; 100_000], ContentType::octets());
    let write = handle.write(move |tables| {
        let mut row = tables.profile_row(NAME)?;
        tables.append(&mut row, vec![vec![op]], Encoding::Postcard, Timestamp::default())?;
        tables.set_profile_row(NAME, &row)
    });
    write.await
}

async fn held(handle: &Handle) -> usize {
    handle.read(|view| Ok(view.unsaved(&view.profile_row(NAME)?)?.waiting)).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_fails_the_write_loses_nothing_and_is_recovered_from_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let room = Arc::new(AtomicU64::new(4 * 1024 * 1024));
    let file = File::open(&dir.path().join("a.redb"), OWNER, on_small_disk(&room)).unwrap();
    let (handle, writer) = Handle::new(file);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run());
    let mut accepted = 0;
    let error = loop {
        match put(&handle, accepted).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "disk_full", "{error}");
    assert!(accepted > 5);
    assert_eq!(held(&handle).await as u64, accepted, "what was accepted is there");
    room.store(u64::MAX, Ordering::Relaxed);
    put(&handle, accepted).await.unwrap();
    assert_eq!(held(&handle).await as u64, accepted + 1);
    handle.close().await;
    assert_eq!(put(&handle, 0).await.unwrap_err().code(), "closed");
}
