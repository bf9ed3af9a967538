//! Backups of a running system under load, in a directory and in the bucket on the bus: they verify, and a replica that is
//! restored from one holds, with the rest of the journal, what the replica holds that never stopped.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use roam_client::{Lookup, Revision, Timestamp};
use roam_storage::{
    BackupSettings,
    backup::{BackupError, Progress, Repository, restored},
    store::{self, AsOf, Digest, ProfileKey, StoreSettings, scope},
};
use roam_tests::{World, app, eventually, key, text};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
const DEVICES: usize = 6;
const KEYS: u64 = 40;

/// Devices that put one value after the other, each with a receipt before the next.
struct Load {
    devices: JoinSet<(usize, u64, Revision)>,
    saved: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Load {
    async fn on(world: &World) -> Self {
        let (saved, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let mut devices = JoinSet::new();
        for number in 0..DEVICES {
            let client = world.device("acme", &format!("user{number}"), "laptop").await;
            let (saved, stop) = (Arc::clone(&saved), stop.clone());
            devices.spawn(async move {
                let profile = client.profile(app("editor"));
                let (mut last, mut revision) = (0, Revision::default());
                while !stop.is_cancelled() {
                    last += 1;
                    let value = format!("{last} {}", "x".repeat(2_000));
                    let put = profile.put(key(&format!("key {}", last % KEYS)), value, text()).await;
                    revision = put.unwrap().revision;
                    saved.fetch_add(1, Ordering::Relaxed);
                }
                client.close().await;
                (number, last, revision)
            });
        }
        Self { devices, saved, stop }
    }

    /// Waits until so many more changes are saved.
    async fn goes_on(&self, changes: u64) {
        let from = self.saved.load(Ordering::Relaxed);
        eventually("changes are saved", async || (self.saved.load(Ordering::Relaxed) >= from + changes).then_some(()))
            .await;
    }

    /// Stops it; how far each device came.
    async fn end(self) -> Vec<(usize, u64, Revision)> {
        self.stop.cancel();
        self.devices.join_all().await
    }
}

/// Where the world keeps backups.
async fn repository(world: &World, directory: Option<&str>) -> Repository {
    match directory {
        Some(directory) => Repository::in_directory(world.dir().join(directory)),
        None => Repository::in_bucket(&world.operator().await),
    }
}

/// All that `decide` and readers can see of what a replica holds: where it stands in the journal, each profile, and the
/// tables of which nothing is forgotten that is so young. Of the others each replica forgets when it suits it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    sequence: u64,
    profiles: BTreeMap<String, Digest>,
    tables: BTreeMap<&'static str, Digest>,
}

/// What a replica holds that does not run.
pub(crate) fn held(directory: &Path) -> Held {
    let (_writer, reader) = store::open(directory, &StoreSettings::default()).unwrap();
    let snapshot = reader.snapshot();
    let position = snapshot.position().unwrap().unwrap();
    let as_of = AsOf { time: Timestamp::from_nanos(position.published), terms: &position.terms };
    let mut profiles = BTreeMap::new();
    let visit = |profile, _| {
        profiles.insert(format!("{profile:?}"), snapshot.whole_digest(&ProfileKey::new(&profile), as_of)?);
        Ok(ControlFlow::Continue(()))
    };
    snapshot.profiles(&scope(None, None, None), None, visit).unwrap();
    let tables = ["head", "feed", "expiry", "erased"].map(|table| (table, snapshot.table_digest(table).unwrap()));
    Held { sequence: position.sequence, profiles, tables: tables.into() }
}

async fn a_restored_replica_is_as_one_that_never_stopped(directory: Option<&str>) {
    let settings = BackupSettings { directory: directory.map(Into::into), every: 1, ..BackupSettings::default() };
    let mut world = World::new().replicas(2).access_servers(2).backups(settings).as_processes(BINARY).start().await;
    let load = Load::on(&world).await;
    load.goes_on(300).await;
    let repository = repository(&world, directory).await;
    let manifest = eventually("a backup is made by itself", async || match repository.newest().await {
        Err(BackupError::NoRepository { .. }) => None,
        newest => newest.unwrap(),
    })
    .await;
    load.goes_on(300).await;
    let verified = repository.verify(&manifest.id, &Progress::default()).await.unwrap();
    assert_eq!(verified.manifest, manifest);

    world.replicas[0].kill().await;
    let place = world.dir().join("roam-storage-0");
    let refused = repository.fetch(&manifest.id, &place, &Progress::default()).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty { .. })), "{refused:?}");
    fs::rename(&place, world.dir().join("lost")).unwrap();
    repository.fetch(&manifest.id, &place, &Progress::default()).await.unwrap();
    assert_eq!(restored(&place).unwrap().unwrap().backup, manifest.id);
    load.goes_on(300).await;
    world.replicas[0].start().await;
    world.ready().await;
    load.goes_on(300).await;

    let told = load.end().await;
    for (number, last, revision) in told {
        let client = world.device("acme", &format!("user{number}"), "phone").await;
        let found = client.profile(app("editor")).get(key(&format!("key {}", last % KEYS))).await.unwrap();
        let Lookup::Found(record) = found else { panic!("user{number}: {found:?}") };
        assert_eq!(record.revision, revision, "user{number}");
    }
    let journal = world.stream("ROAM_JOURNAL").await.last_sequence;
    eventually("both replicas have applied all", async || {
        for replica in &world.replicas {
            if replica.pages().metric("roam_storage_journal_sequence", &[]).await < journal as f64 {
                return None;
            }
        }
        Some(())
    })
    .await;
    for replica in &mut world.replicas {
        replica.stop().await;
    }
    let [one, other] = [0, 1].map(|index| held(&world.dir().join(format!("roam-storage-{index}"))));
    assert_eq!(one.profiles.len(), DEVICES);
    assert_eq!(one, other);
    // The backup alone is not that far, in any profile: so the rest came from the journal, and a difference shows.
    let backup = world.dir().join("backup");
    repository.fetch(&manifest.id, &backup, &Progress::default()).await.unwrap();
    let backup = held(&backup);
    assert!(backup.sequence < one.sequence);
    assert!(one.profiles.iter().all(|(profile, digest)| backup.profiles.get(profile) != Some(digest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_restored_from_a_directory_is_as_one_that_never_stopped() {
    a_restored_replica_is_as_one_that_never_stopped(Some("backups")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_restored_from_the_bucket_is_as_one_that_never_stopped() {
    a_restored_replica_is_as_one_that_never_stopped(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_made_is_counted_and_stops_nothing() {
    let settings =
        BackupSettings { every: 1, directory: Some("/dev/null/backups".into()), ..BackupSettings::default() };
    let world = World::new().backups(settings).start().await;
    let load = Load::on(&world).await;
    let pages = world.replicas[0].pages();
    let counted = async |result: &str| pages.metric("roam_storage_backups_total", &[result]).await;
    eventually("a backup fails", async || (counted("failed").await > 0.0).then_some(())).await;
    assert_eq!(counted("made").await, 0.0);
    load.goes_on(100).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_in_the_bucket_are_listed_pruned_and_found_damaged() {
    let settings = BackupSettings { every: 1, ..BackupSettings::default() };
    let world = World::new().backups(settings).start().await;
    let load = Load::on(&world).await;
    let repository = repository(&world, None).await;
    let manifest = eventually("a backup is made by itself", async || repository.newest().await.unwrap()).await;
    load.end().await;
    let listed = repository.list().await.unwrap();
    assert_eq!((listed.len(), &listed[0].id), (1, &manifest.id));
    let pruned = eventually("nothing is being made", async || {
        let pruned = repository.prune(1).await.unwrap();
        (!pruned.busy).then_some(pruned)
    })
    .await;
    assert_eq!((pruned.kept, pruned.removed.len(), pruned.files), (1, 0, 0));
    repository.verify(&manifest.id, &Progress::default()).await.unwrap();

    let bus = world.operator().await;
    let objects = roam_nats::ObjectStore::new(&bus, roam_nats::BACKUPS_BUCKET);
    let file = manifest.files.iter().max_by_key(|file| file.bytes).unwrap();
    objects.delete(&format!("files/{}", file.blake3.to_hex())).await.unwrap();
    let verified = repository.verify(&manifest.id, &Progress::default()).await;
    assert!(matches!(verified, Err(BackupError::Damaged { .. })), "{verified:?}");
    let other = vec![b'x'; usize::try_from(file.bytes).unwrap()];
    let name = format!("files/{}", file.blake3.to_hex());
    objects.put(&name, &mut std::io::Cursor::new(other), |_| {}).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let fetched = repository.fetch(&manifest.id, target.path(), &Progress::default()).await;
    assert!(matches!(fetched, Err(BackupError::Damaged { .. })), "{fetched:?}");
    let opened = store::open(target.path(), &StoreSettings::default());
    assert!(matches!(opened, Err(store::StoreError::Unfinished)));
}
