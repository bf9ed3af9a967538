//! Backups in a directory, of a store that is written to meanwhile: what comes back is what was there, with the rest of
//! the journal applied it is what the replica holds that never stopped, and no damage goes unnoticed.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    batches::{Random, batch, batch_of, put},
    stores::{Replica, apply, digests, open},
};
use roam_schemas::Terms;
use roam_storage::{
    apply::Applier,
    backup::{self, BackupError, BackupId, Created, Manifest, Progress, Repository, create, restored},
    store::{Reader, StoreError},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A repository in a temporary directory.
struct Kept {
    directory: TempDir,
    repository: Repository,
    runtime: Runtime,
}

impl Kept {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::in_directory(directory.path());
        Self { directory, repository, runtime: runtime() }
    }

    fn create(&self, reader: &Reader) -> Created {
        self.runtime.block_on(create(reader, "a", &self.repository, &Progress::default())).unwrap()
    }

    fn verify(&self, id: &BackupId) -> Result<(), BackupError> {
        self.runtime.block_on(self.repository.verify(id, &Progress::default())).map(drop)
    }

    fn fetch(&self, id: &BackupId, target: &Path) -> Result<(), BackupError> {
        self.runtime.block_on(self.repository.fetch(id, target, &Progress::default())).map(drop)
    }

    fn ids(&self) -> Vec<BackupId> {
        let listed = self.runtime.block_on(self.repository.list()).unwrap();
        listed.into_iter().map(|listed| listed.id).collect()
    }

    /// Every file below a directory of the repository.
    fn files(&self, below: &str) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.directory.path().join(below)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }
}

fn sequence(manifest: &Manifest) -> u64 {
    manifest.position.as_ref().map_or(0, |position| position.sequence)
}

/// Values that do not compress, so that tables are flushed and compacted.
fn heavy_batch(sequence: u64) -> roam_schemas::JournalBatch {
    let mut random = Random(sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let change = |index: u64| {
        let value: Vec<u8> = (0..128).flat_map(|_| random.next().to_be_bytes()).collect();
        let profile = format!("acme/user {}/mail", random.below(50));
        put(&profile, sequence * 100 + index, &format!("key {}", random.below(200)), value)
    };
    batch_of(sequence, &Terms::default(), (0..50).map(change).collect())
}

#[test]
fn backups_under_full_write_load_verify_and_go_on_to_what_the_replica_holds_that_never_stopped() {
    const BACKUPS: usize = 4;
    let kept = Kept::new();
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = {
        let (stop, applied, reader) = (Arc::clone(&stop), Arc::clone(&applied), reader.clone());
        let write = move || {
            let mut applier = Applier::new(writer, reader).unwrap();
            for sequence in 1.. {
                apply(&mut applier, sequence, &heavy_batch(sequence));
                applied.store(sequence, Ordering::Release);
                if stop.load(Ordering::Acquire) {
                    return sequence;
                }
            }
            unreachable!()
        };
        thread::Builder::new().spawn(write).unwrap()
    };
    let mut made = Vec::new();
    for _ in 0..BACKUPS {
        let before = applied.load(Ordering::Acquire);
        while applied.load(Ordering::Acquire) < before + 20 {
            thread::yield_now();
        }
        let before = applied.load(Ordering::Acquire);
        let created = kept.create(&reader);
        let after = applied.load(Ordering::Acquire);
        assert!(after > before, "the writer went on");
        assert!((before..=after + 1).contains(&sequence(&created.manifest)), "{before} {created:?} {after}");
        made.push(created.manifest);
    }
    stop.store(true, Ordering::Release);
    let last = writing.join().unwrap();
    for manifest in &made {
        kept.verify(&manifest.id).unwrap();
        let target = tempfile::tempdir().unwrap();
        kept.fetch(&manifest.id, target.path()).unwrap();
        let (writer, copy) = open(target.path()).unwrap();
        let stands = copy.snapshot().position().unwrap().unwrap().sequence;
        assert_eq!(stands, sequence(manifest));
        let mut applier = Applier::new(writer, copy.clone()).unwrap();
        for sequence in stands + 1..=last {
            apply(&mut applier, sequence, &heavy_batch(sequence));
        }
        assert_eq!(digests(&copy).unwrap(), digests(&reader).unwrap(), "from {stands} to {last}");
    }
    println!("{last} batches, backups at {:?}", made.iter().map(sequence).collect::<Vec<_>>());
}

/// A replica whose tables are on disk, with several files.
fn filled() -> Replica {
    let mut replica = Replica::new();
    for sequence in 1..=60 {
        replica.apply(sequence, &heavy_batch(sequence));
    }
    replica.compact();
    replica
}

#[test]
fn a_backup_of_what_did_not_change_stores_next_to_nothing() {
    let kept = Kept::new();
    let mut replica = filled();
    let first = kept.create(replica.reader());
    assert!(first.new_bytes == first.manifest.bytes() && first.new_bytes > 1_000_000, "{first:?}");
    let again = kept.create(replica.reader());
    assert!(again.new_bytes < 20_000, "{again:?}");
    replica.apply(61, &batch(61));
    let third = kept.create(replica.reader());
    assert!(third.new_bytes < 60_000, "{third:?}");
    let newest_first = [third.manifest.id, again.manifest.id, first.manifest.id];
    assert_eq!(kept.ids(), newest_first);
    let newest = kept.runtime.block_on(kept.repository.newest()).unwrap().unwrap();
    assert_eq!(newest.id, newest_first[0]);
    for id in &newest_first {
        kept.verify(id).unwrap();
    }
    assert_eq!(kept.files("work").len(), 0);
    assert!(!replica.path().join("checkpoint").exists());
}

#[test]
fn a_flipped_bit_in_any_file_is_found_by_verify_and_by_fetch() {
    let kept = Kept::new();
    let replica = filled();
    let id = kept.create(replica.reader()).manifest.id;
    kept.verify(&id).unwrap();
    let mut random = Random(0xF11B);
    let files: Vec<_> = kept.files("files").union(&kept.files("backups")).cloned().collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let healthy = fs::read(&file).unwrap();
        let mut damaged = healthy.clone();
        if damaged.is_empty() {
            damaged.push(0);
        } else {
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
        }
        let longer = [&healthy[..], b"x"].concat();
        let alterations: [Option<&[u8]>; 3] = [Some(&damaged), Some(&longer), None];
        for altered in alterations {
            match altered {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let verified = kept.verify(&id).unwrap_err();
            let target = tempfile::tempdir().unwrap();
            let fetched = kept.fetch(&id, target.path()).unwrap_err();
            for error in [verified, fetched] {
                let told = matches!(
                    error,
                    BackupError::Damaged { .. } | BackupError::Manifest { .. } | BackupError::NoSuchBackup { .. }
                );
                assert!(told, "{file:?}: {error}");
            }
            let begun = fs::read_dir(target.path()).unwrap().count() > 0;
            assert!(!begun || matches!(open(target.path()), Err(StoreError::Unfinished)), "{file:?}");
        }
        fs::write(&file, healthy).unwrap();
    }
    kept.verify(&id).unwrap();
    assert_eq!(kept.files("work").len(), 0);
}

#[test]
fn files_that_are_whole_but_of_another_backup_are_found_by_verify() {
    let kept = Kept::new();
    let mut replica = filled();
    let first = kept.create(replica.reader()).manifest;
    replica.apply(61, &batch(61));
    let second = kept.create(replica.reader()).manifest;
    // Every file is as it should be, and the position is that of another batch.
    let mixed = Manifest { position: second.position, ..first.clone() };
    let path = kept.directory.path().join(format!("backups/{}.json", first.id));
    fs::write(path, mixed.write().unwrap()).unwrap();
    assert!(matches!(kept.verify(&first.id), Err(BackupError::Unlike { .. })));
}

#[test]
fn a_backup_goes_into_an_empty_directory_only_and_leaves_a_note() {
    let kept = Kept::new();
    let replica = filled();
    let manifest = kept.create(replica.reader()).manifest;
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("mine"), "x").unwrap();
    assert!(matches!(kept.fetch(&manifest.id, target.path()), Err(BackupError::NotEmpty { .. })));
    assert!(matches!(kept.fetch(&manifest.id, replica.path()), Err(BackupError::NotEmpty { .. })));
    fs::remove_file(target.path().join("mine")).unwrap();
    assert_eq!(restored(target.path()).unwrap(), None);
    kept.fetch(&manifest.id, target.path()).unwrap();
    let note = restored(target.path()).unwrap().unwrap();
    assert_eq!((note.backup, note.position), (manifest.id, manifest.position));
    open(target.path()).unwrap();
}

#[test]
fn a_restore_that_was_cut_short_is_begun_anew() {
    let kept = Kept::new();
    let replica = filled();
    let id = kept.create(replica.reader()).manifest.id;
    let target = tempfile::tempdir().unwrap();
    let file = kept.files("files").into_iter().next_back().unwrap();
    let healthy = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    kept.fetch(&id, target.path()).unwrap_err();
    assert!(matches!(open(target.path()), Err(StoreError::Unfinished)));
    fs::write(&file, healthy).unwrap();
    kept.fetch(&id, target.path()).unwrap();
    let (_writer, reader) = open(target.path()).unwrap();
    assert_eq!(digests(&reader).unwrap(), digests(replica.reader()).unwrap());
}

#[test]
fn pruning_keeps_the_newest_and_all_that_they_need() {
    let kept = Kept::new();
    let mut replica = filled();
    let mut made = Vec::new();
    for sequence in 61..=65 {
        replica.apply(sequence, &heavy_batch(sequence));
        replica.compact();
        made.push(kept.create(replica.reader()).manifest);
    }
    let prune = |keep| kept.runtime.block_on(kept.repository.prune(keep)).unwrap();
    let pruned = prune(2);
    assert_eq!((pruned.removed.len(), pruned.kept, pruned.busy), (3, 2, false));
    assert!(pruned.files > 0 && pruned.bytes > 1_000_000, "{pruned:?}");
    let named: BTreeSet<String> =
        made[3..].iter().flat_map(|manifest| manifest.files.iter().map(|file| file.blake3.to_hex())).collect();
    let there = kept.files("files").iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(named, there);
    made[3..].iter().for_each(|manifest| kept.verify(&manifest.id).unwrap());
    let gone = kept.verify(&made[0].id);
    assert!(matches!(gone, Err(BackupError::NoSuchBackup { .. })), "{gone:?}");
    assert_eq!(prune(0).kept, 1, "the last one stays");
    assert_eq!(prune(1).files, 0);
}

#[test]
fn pruning_beside_backups_in_the_making_takes_nothing_from_them() {
    let kept = Kept::new();
    let mut replica = filled();
    kept.create(replica.reader());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let (runtime, mut times) = (runtime(), 0);
            while !stop.load(Ordering::Acquire) {
                runtime.block_on(kept.repository.prune(1)).unwrap_or_else(|error| panic!("{error}"));
                times += 1;
            }
            times
        });
        for sequence in 61..=75 {
            replica.apply(sequence, &batch(sequence));
            let id = kept.create(replica.reader()).manifest.id;
            kept.verify(&id).unwrap();
        }
        stop.store(true, Ordering::Release);
        assert!(pruning.join().unwrap() > 0);
    });
}

#[test]
fn a_manifest_that_does_not_read_stops_the_removal_of_files() {
    let kept = Kept::new();
    let replica = filled();
    let id = kept.create(replica.reader()).manifest.id;
    let before = kept.files("files");
    fs::write(kept.directory.path().join(format!("backups/{id}.json")), "{").unwrap();
    let pruned = kept.runtime.block_on(kept.repository.prune(1));
    assert!(matches!(pruned, Err(BackupError::Manifest { .. })), "{pruned:?}");
    assert_eq!(kept.files("files"), before);
    let listed = kept.runtime.block_on(kept.repository.list()).unwrap();
    assert!(listed[0].manifest.is_err());
    assert!(kept.runtime.block_on(kept.repository.newest()).unwrap().is_none());
}

#[test]
fn a_directory_that_is_no_repository_is_left_alone() {
    let kept = Kept::new();
    let replica = filled();
    let listed = kept.runtime.block_on(kept.repository.list());
    assert!(matches!(listed, Err(BackupError::NoRepository { .. })), "{listed:?}");
    fs::write(kept.directory.path().join("holiday.jpg"), "x").unwrap();
    let refused = kept.runtime.block_on(create(replica.reader(), "a", &kept.repository, &Progress::default()));
    assert!(matches!(refused, Err(BackupError::NotARepository { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(kept.directory.path()).unwrap().count(), 1);
}

/// Names the directories that a child works in: its store and its repository.
const CHILD: &str = "ROAM_BACKUP_TEST_DIRECTORIES";

#[test]
#[ignore = "a part of the test below, which runs it as another process"]
fn a_child_makes_backups_until_it_is_killed() {
    let Some(directories) = env::var_os(CHILD) else {
        return;
    };
    let [store, repository] = env::split_paths(&directories).collect::<Vec<_>>().try_into().unwrap();
    let (writer, reader) = open(&store).unwrap();
    let mut applier = Applier::new(writer, reader.clone()).unwrap();
    let stands = reader.snapshot().position().unwrap().map_or(0, |position| position.sequence);
    let (runtime, repository) = (runtime(), Repository::in_directory(repository));
    for sequence in stands + 1.. {
        apply(&mut applier, sequence, &heavy_batch(sequence));
        runtime.block_on(create(&reader, "a", &repository, &Progress::default())).unwrap();
    }
}

#[test]
fn a_process_killed_while_it_makes_a_backup_leaves_a_repository_that_is_whole() {
    const KILLS: u64 = 12;
    let kept = Kept::new();
    let directory = filled().close();
    let directories = env::join_paths([directory.path(), kept.directory.path()]).unwrap();
    let mut random = Random(0x51AB);
    let (mut in_work, mut checkpoints) = (0, 0);
    for _ in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "backup::a_child_makes_backups_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &directories)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let checkpoint = directory.path().join("checkpoint");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !checkpoint.exists() {
            assert!(Instant::now() < deadline, "the child makes backups");
            thread::yield_now();
        }
        let life = Instant::now() + Duration::from_millis(random.below(150));
        while Instant::now() < life {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        in_work += kept.files("work").len();
        checkpoints += usize::from(checkpoint.exists());
        for id in kept.ids() {
            kept.runtime.block_on(kept.repository.manifest(&id)).unwrap();
        }
    }
    println!("{} backups, {in_work} unfinished files, {checkpoints} checkpoints left behind", kept.ids().len());
    assert!(checkpoints > 0, "some were killed in the middle");
    // The next one that is made removes what they left.
    let (_writer, reader) = open(directory.path()).unwrap();
    assert!(!directory.path().join("checkpoint").exists());
    let last = kept.create(&reader).manifest.id;
    assert_eq!(kept.files("work").len(), 0);
    for id in kept.ids() {
        kept.verify(&id).unwrap();
    }
    kept.runtime.block_on(kept.repository.prune(1)).unwrap();
    assert_eq!(kept.ids(), std::slice::from_ref(&last));
    kept.verify(&last).unwrap();
    // What holds no large value is read by builds that know none.
    assert_eq!(kept.runtime.block_on(kept.repository.manifest(&last)).unwrap().format, backup::FORMAT_WITHOUT_CHUNKS);
}
