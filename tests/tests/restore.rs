//! What is lost, and comes back: replicas that are restored from an old backup when the journal is lost too begin a new
//! epoch, in which devices offer what they hold; and a replica that the journal does not carry forward takes a newer backup.

use std::{collections::BTreeMap, fs};

use futures_util::TryStreamExt;
use roam_client::{Identity, LocalProfile, LocalStore, ProfileClient, Record, Revision, Select, State};
use roam_nats::{Bus, BusSettings, CHUNKS_STREAM, Headers, JOURNAL_STREAM, Role};
use roam_schemas::{Control, Erase, ReplicaName, Resume, subjects};
use roam_storage::{
    BackupSettings,
    backup::{BackupError, Manifest, Progress, Repository, restored},
};
use roam_tests::{PATIENCE, World, app, device, eventually, key, noise, tenant, text, user};

use crate::backup::held;

/// The first revision of the first epoch that a restore begins.
const FIRST_EPOCH: u64 = 1 << 40;
/// The size of a change of which a [small journal](SMALL_JOURNAL) holds five.
const LARGE: usize = 100_000;
const SMALL_JOURNAL: u64 = 550_000;

fn in_directory() -> BackupSettings {
    BackupSettings { directory: Some("backups".into()), ..BackupSettings::default() }
}

fn directory_of(world: &World) -> Repository {
    Repository::in_directory(world.dir().join("backups"))
}

/// Has a replica make a backup of all that is journaled, and returns it.
async fn back_up(world: &World, replica: &str, repository: &Repository) -> Manifest {
    let last = world.stream(JOURNAL_STREAM).await.last_sequence;
    // Orders are answered into inboxes of operators alone.
    let inbox_prefix = Some(Role::Operator.inbox_prefix());
    let settings = BusSettings { inbox_prefix, ..world.bus_settings_of(Role::Operator) };
    let bus = Bus::connect(&settings, "an operator").await.unwrap();
    let name = ReplicaName::parse(replica).unwrap();
    bus.request(subjects::order_backup(&name), Headers::new(), "{}".into(), PATIENCE).await.unwrap();
    let made = eventually("a backup is made", async || match repository.newest().await {
        Err(BackupError::NoRepository { .. }) => None,
        newest => newest.unwrap().filter(|backup| backup.position.as_ref().is_some_and(|place| place.sequence >= last)),
    });
    let made = made.await;
    bus.close().await;
    made
}

/// All that the bus holds is lost: its streams are made anew, empty.
async fn lose_the_bus(world: &mut World) {
    world.nats.stop().await.unwrap();
    fs::remove_dir_all(world.nats.dir().join("jetstream")).unwrap();
    world.nats.restart().await.unwrap();
    assert!(world.provision().await.created.contains(&format!("stream {JOURNAL_STREAM}")));
}

async fn restore(world: &World, replica: usize, repository: &Repository, backup: &Manifest) {
    let place = world.dir().join(format!("roam-storage-{replica}"));
    fs::remove_dir_all(&place).unwrap();
    repository.fetch(&backup.id, &place, &Progress::default()).await.unwrap();
}

async fn open(world: &World, owner: &str, name: &str) -> LocalStore {
    let identity = Identity::Device { tenant: tenant("acme"), user: user(owner), device: device(name) };
    let path = world.dir().join(format!("{owner}-{name}.redb"));
    LocalStore::open(path, world.client_settings(), identity).await.unwrap()
}

async fn editor(store: &LocalStore) -> LocalProfile {
    store.profile(app("editor")).await.unwrap()
}

async fn put(profile: &LocalProfile, name: &str, value: &str) {
    profile.put(key(name), value, text()).await.unwrap();
}

/// What a device shows.
async fn shown(profile: &LocalProfile) -> BTreeMap<String, String> {
    let records = profile.records("").await.unwrap();
    let value = |record: &roam_client::LocalRecord| record.value().unwrap().value.as_bytes().to_vec();
    records.iter().map(|record| (record.key.to_string(), String::from_utf8(value(record)).unwrap())).collect()
}

/// What the servers hold of a user.
async fn saved(world: &World, owner: &str) -> Vec<Record> {
    let reader = world.device("acme", owner, "reader").await.profile(app("editor"));
    reader.records(Select::All).try_collect().await.unwrap()
}

fn values(records: &[Record]) -> BTreeMap<String, String> {
    let live = records.iter().filter_map(|record| match &record.state {
        State::Value(stored) => {
            Some((record.key.to_string(), String::from_utf8(stored.value.as_bytes().to_vec()).unwrap()))
        }
        State::Deleted | State::Expired => None,
    });
    live.collect()
}

/// Waits until the servers and all devices of a user hold this.
async fn all_hold(world: &World, owner: &str, devices: &[&LocalProfile], expected: &[(&str, &str)]) -> Vec<Record> {
    let expected: BTreeMap<_, _> = expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let mut last = Vec::new();
    let what = format!("{owner} holds {expected:?} everywhere");
    eventually(&what, async || {
        let records = saved(world, owner).await;
        last = vec![values(&records)];
        for device in devices {
            device.synced().await.unwrap();
            last.push(shown(device).await);
        }
        last.iter().all(|held| *held == expected).then_some(records)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_everything_but_an_old_backup_was_lost_devices_bring_back_what_they_hold() {
    let mut world = World::new().backups(in_directory()).start().await;
    let stores = [open(&world, "alice", "laptop").await, open(&world, "alice", "phone").await];
    let (laptop, phone) = (editor(&stores[0]).await, editor(&stores[1]).await);
    let away = open(&world, "alice", "tablet").await;
    for (name, value) in [("theme", "dark"), ("font", "serif"), ("gone", "1"), ("given up", "1")] {
        put(&laptop, name, value).await;
    }
    let early = [("theme", "dark"), ("font", "serif"), ("gone", "1"), ("given up", "1")];
    let tablet = editor(&away).await;
    all_hold(&world, "alice", &[&laptop, &phone, &tablet], &early).await;
    // The tablet holds what the backup holds, and hears nothing of what comes.
    drop(tablet);
    away.close().await;
    let repository = directory_of(&world);
    let backup = back_up(&world, "roam-storage-0", &repository).await;

    put(&laptop, "theme", "light").await;
    put(&laptop, "late", "1").await;
    laptop.delete(key("gone")).await.unwrap();
    laptop.synced().await.unwrap();
    put(&phone, "phone", "1").await;
    phone.delete(key("given up")).await.unwrap();
    let late = [("theme", "light"), ("font", "serif"), ("late", "1"), ("phone", "1")];
    let before = all_hold(&world, "alice", &[&laptop, &phone], &late).await;
    // Of somebody else the backup knows nothing at all.
    let bobs = open(&world, "bob", "laptop").await;
    let bob = editor(&bobs).await;
    put(&bob, "theme", "red").await;
    all_hold(&world, "bob", &[&bob], &[("theme", "red")]).await;

    world.replicas[0].stop().await;
    lose_the_bus(&mut world).await;
    // Written while nobody is there to save it.
    put(&phone, "unsent", "1").await;
    restore(&world, 0, &repository, &backup).await;
    world.replicas[0].start().await;
    world.ready().await;

    let late = [("theme", "light"), ("font", "serif"), ("late", "1"), ("phone", "1"), ("unsent", "1")];
    let after = all_hold(&world, "alice", &[&laptop, &phone], &late).await;
    all_hold(&world, "bob", &[&bob], &[("theme", "red")]).await;
    let highest = before.iter().map(|record| record.revision).max().unwrap();
    let new: Vec<Revision> =
        after.iter().map(|record| record.revision).filter(|revision| *revision > highest).collect();
    assert!(!new.is_empty() && new.iter().all(|revision| revision.get() > FIRST_EPOCH), "{new:?}");
    // One that comes late, with what the backup held, brings nothing of that back.
    let away = open(&world, "alice", "tablet").await;
    let tablet = editor(&away).await;
    all_hold(&world, "alice", &[&laptop, &phone, &tablet], &late).await;
    for profile in [&laptop, &phone, &tablet, &bob] {
        assert_eq!(profile.parked().await.unwrap(), []);
    }

    // The restore is taken note of, and the next one begins an epoch above this one.
    let place = world.dir().join("roam-storage-0");
    eventually("the note is gone", async || restored(&place).unwrap().is_none().then_some(())).await;
    let newest = eventually("a backup is made of the new epoch", async || {
        repository.newest().await.unwrap().filter(|newest| newest.epoch == 1)
    });
    assert_eq!(newest.await.position.unwrap().line, 2);
    world.replicas[0].stop().await;
    restore(&world, 0, &repository, &backup).await;
    let note = restored(&place).unwrap().unwrap();
    assert_eq!((note.epoch, note.highest_epoch), (0, 1));
    world.replicas[0].start().await;
    world.ready().await;
    let again = all_hold(&world, "alice", &[&laptop, &phone, &tablet], &late).await;
    assert!(again.iter().any(|record| record.revision.get() > 2 * FIRST_EPOCH), "{again:?}");
}

fn value_of(record: &Record) -> &[u8] {
    let State::Value(stored) = &record.state else { panic!("no value: {record:?}") };
    stored.value.as_bytes()
}

/// Waits until a device reads a large value whole.
async fn reads(profile: &ProfileClient, name: &str, value: &[u8]) {
    eventually("the large value is whole again", async || match profile.get(key(name)).await {
        Ok(roam_client::Lookup::Found(record)) => {
            assert!(value_of(&record) == value, "another value of {name} came");
            Some(())
        }
        Err(roam_client::ReadError::Missing(_)) => None,
        other => panic!("{name}: {other:?}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_come_back_from_a_backup_when_the_bus_is_lost() {
    const MIB: usize = 1 << 20;
    let mut world = World::new().backups(in_directory()).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let (before, book, film) = (noise(1, MIB), noise(2, 3 * MIB), noise(3, 2 * MIB));
    laptop.put(key("book"), before.clone(), text()).await.unwrap();
    laptop.put(key("book"), book.clone(), text()).await.unwrap();
    let bob = world.device("acme", "bob", "laptop").await.profile(app("editor"));
    bob.put(key("same book"), book.clone(), text()).await.unwrap();
    let repository = directory_of(&world);
    let first = back_up(&world, "roam-storage-0", &repository).await;
    let of_first = first.chunks.unwrap();
    assert_eq!(of_first.missing, 0);
    assert_eq!(of_first.bytes, (before.len() + 2 * book.len()) as u64);
    laptop.put(key("film"), film.clone(), text()).await.unwrap();
    laptop.put(key("note"), "small", text()).await.unwrap();
    let chunks_then = files_of(&world);
    let second = back_up(&world, "roam-storage-0", &repository).await;
    // What two users share, and what was there already, is there once.
    let new: Vec<_> = files_of(&world).into_iter().filter(|file| !chunks_then.contains(file)).collect();
    let new_bytes: u64 = new.iter().map(|file| fs::metadata(file).unwrap().len()).filter(|size| *size > 64 << 10).sum();
    assert!((film.len() as u64..film.len() as u64 + MIB as u64 / 2).contains(&new_bytes), "{new_bytes}");
    let verified = repository.verify(&second.id, &Progress::default()).await.unwrap();
    assert_eq!((verified.manifest, verified.missing_chunks), (second.clone(), 0));
    let pruned = repository.prune(1).await.unwrap();
    assert_eq!(pruned.removed, [first.id]);
    repository.verify(&second.id, &Progress::default()).await.unwrap();

    world.replicas[0].stop().await;
    lose_the_bus(&mut world).await;
    assert_eq!(world.stream(CHUNKS_STREAM).await.messages, 0);
    restore(&world, 0, &repository, &second).await;
    let waiting = world.dir().join("roam-storage-0/chunks");
    assert!(waiting.is_dir());
    world.replicas[0].start().await;
    world.ready().await;

    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    reads(&phone, "book", &book).await;
    reads(&phone, "film", &film).await;
    let bob = world.device("acme", "bob", "phone").await.profile(app("editor"));
    reads(&bob, "same book", &book).await;
    eventually("nothing waits any more", async || (!waiting.exists()).then_some(())).await;
    // The version before is part of the history, and comes back with it.
    let versions = phone.history(key("book"), None).await.unwrap();
    let State::Value(stored) = &versions[1].state else { panic!("no value") };
    let mut bytes = Vec::new();
    phone.download(&stored.manifest().unwrap().unwrap(), &mut bytes, |_| {}).await.unwrap();
    assert!(bytes == before, "another version came");

    // Restored once more, on a bus that has all of them, nothing is sent again.
    let messages = world.stream(CHUNKS_STREAM).await.messages;
    assert_eq!(messages, second.chunks.unwrap().count);
    world.replicas[0].stop().await;
    restore(&world, 0, &repository, &second).await;
    world.replicas[0].start().await;
    world.ready().await;
    eventually("nothing waits any more", async || (!waiting.exists()).then_some(())).await;
    assert_eq!(world.stream(CHUNKS_STREAM).await.last_sequence, messages);
}

/// The files of the repository of a world.
fn files_of(world: &World) -> Vec<std::path::PathBuf> {
    let parts = fs::read_dir(world.dir().join("backups/files")).unwrap();
    parts.flat_map(|part| fs::read_dir(part.unwrap().path()).unwrap().map(|file| file.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_in_a_backup_are_checked_and_the_chunks_of_who_was_erased_do_not_come_back() {
    let mut world = World::new().replicas(1).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let (book, film) = (noise(1, 1 << 20), noise(2, 1 << 20));
    laptop.put(key("book"), book.clone(), text()).await.unwrap();
    let bob = world.device("acme", "bob", "laptop").await.profile(app("editor"));
    bob.put(key("film"), film.clone(), text()).await.unwrap();
    let bus = world.operator().await;
    let repository = Repository::in_bucket(&bus);
    let backup = back_up(&world, "roam-storage-0", &repository).await;
    assert_eq!(backup.chunks.unwrap().bytes, (book.len() + film.len()) as u64);
    repository.verify(&backup.id, &Progress::default()).await.unwrap();

    // The journal that carries the backup forward says that bob was erased.
    world.order(Control::Erase(Erase { tenant: tenant("acme"), user: user("bob") })).await;
    let chunks = (book.len() + film.len()) as u64;
    eventually("the chunks of bob are gone", async || {
        (world.stream(CHUNKS_STREAM).await.bytes < chunks * 3 / 4).then_some(())
    })
    .await;
    let before = world.stream(CHUNKS_STREAM).await;
    world.replicas[0].stop().await;
    restore(&world, 0, &repository, &backup).await;
    world.replicas[0].start().await;
    world.ready().await;
    let waiting = world.dir().join("roam-storage-0/chunks");
    eventually("nothing waits any more", async || (!waiting.exists()).then_some(())).await;
    let after = world.stream(CHUNKS_STREAM).await;
    assert_eq!((after.last_sequence, after.messages), (before.last_sequence, before.messages));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    reads(&phone, "book", &book).await;

    // A chunk that is lost or damaged in the repository does not go unnoticed.
    let objects = roam_nats::ObjectStore::new(&bus, roam_nats::BACKUPS_BUCKET);
    let name = format!("files/{}", roam_schemas::ContentHash::of(&first_chunk(&phone, "book").await));
    objects.delete(&name).await.unwrap();
    let verified = repository.verify(&backup.id, &Progress::default()).await;
    assert!(matches!(&verified, Err(BackupError::Damaged { file, .. }) if file.starts_with("chunk ")), "{verified:?}");
    objects.put(&name, &mut std::io::Cursor::new(b"other bytes".to_vec()), |_| {}).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let fetched = repository.fetch(&backup.id, target.path(), &Progress::default()).await;
    assert!(matches!(fetched, Err(BackupError::Damaged { .. })), "{fetched:?}");
    // The records alone are whole.
    let target = tempfile::tempdir().unwrap();
    repository.fetch_records(&backup.id, target.path(), &Progress::default()).await.unwrap();
    assert!(!target.path().join("chunks").exists());
}

/// The bytes of the first chunk of a large value.
async fn first_chunk(profile: &ProfileClient, name: &str) -> Vec<u8> {
    let versions = profile.history(key(name), None).await.unwrap();
    let State::Value(stored) = &versions[0].state else { panic!("no value") };
    let manifest = stored.manifest().unwrap().unwrap();
    let mut bytes = Vec::new();
    profile.download(&manifest, &mut bytes, |_| {}).await.unwrap();
    bytes.truncate(manifest.chunks[0].length as usize);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_that_were_restored_one_counts_by_order_and_the_other_takes_its_backup() {
    let mut world = World::new().replicas(2).backups(in_directory()).start().await;
    let store = open(&world, "alice", "laptop").await;
    let laptop = editor(&store).await;
    put(&laptop, "theme", "dark").await;
    laptop.synced().await.unwrap();
    let repository = directory_of(&world);
    let backup = back_up(&world, "roam-storage-0", &repository).await;
    put(&laptop, "theme", "light").await;
    put(&laptop, "late", "1").await;
    laptop.synced().await.unwrap();

    for replica in &mut world.replicas {
        replica.stop().await;
    }
    lose_the_bus(&mut world).await;
    for replica in 0..2 {
        restore(&world, replica, &repository, &backup).await;
        world.replicas[replica].start().await;
    }
    for replica in &world.replicas {
        replica.complains("2 replicas have to agree").await;
    }
    let from = ReplicaName::parse("roam-storage-1").unwrap();
    world.order(Control::Resume(Resume { line: 2, from })).await;
    world.ready().await;

    let after = all_hold(&world, "alice", &[&laptop], &[("theme", "light"), ("late", "1")]).await;
    assert!(after.iter().all(|record| record.revision.get() > FIRST_EPOCH), "{after:?}");
    let profile = world.device("acme", "alice", "tablet").await.profile(app("editor"));
    compare(&mut world, &profile).await;
}

async fn applied(replica: &roam_tests::Part, sequence: u64) {
    eventually("all is applied", async || {
        (replica.pages().metric("roam_storage_journal_sequence", &[]).await >= sequence as f64).then_some(())
    })
    .await;
}

/// Saves changes until the journal begins behind a sequence.
async fn age_out(world: &World, profile: &ProfileClient, sequence: u64) -> Revision {
    let mut saved = Revision::ZERO;
    while world.stream(JOURNAL_STREAM).await.first_sequence <= sequence {
        saved = profile.put(key("large"), "x".repeat(LARGE), text()).await.unwrap().revision;
    }
    saved
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_the_journal_does_not_carry_forward_takes_a_newer_backup_and_answers_nothing_before() {
    let mut world = World::new().replicas(2).journal_max_bytes(SMALL_JOURNAL).start().await;
    let profile = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    profile.put(key("theme"), "dark", text()).await.unwrap();
    let bus = world.operator().await;
    let repository = Repository::in_bucket(&bus);
    let old = back_up(&world, "roam-storage-0", &repository).await;
    world.replicas[1].stop().await;
    let stands = old.position.as_ref().unwrap().sequence;
    let revision = age_out(&world, &profile, stands + 1).await;

    restore(&world, 1, &repository, &old).await;
    world.replicas[1].start().await;
    world.replicas[1].complains(&format!("but this replica needs {}", stands + 1)).await;
    for _ in 0..50 {
        let found = profile.get(key("large")).await.unwrap();
        assert!(matches!(found, roam_client::Lookup::Found(record) if record.revision == revision));
    }
    assert_eq!(world.replicas[1].pages().metric("roam_storage_requests_total", &["latest"]).await, 0.0);
    let newer = back_up(&world, "roam-storage-0", &repository).await;
    world.replicas[1].ready().await;
    assert!(restored(&world.dir().join("roam-storage-1")).unwrap().is_none());
    assert!(newer.position.unwrap().sequence > stands);
    compare(&mut world, &profile).await;

    // One that has nothing does the same.
    for replica in &mut world.replicas {
        replica.start().await;
    }
    world.ready().await;
    let newest = back_up(&world, "roam-storage-0", &repository).await;
    world.replicas[1].stop().await;
    fs::remove_dir_all(world.dir().join("roam-storage-1")).unwrap();
    age_out(&world, &profile, newest.position.unwrap().sequence - 1).await;
    world.replicas[1].start().await;
    world.ready().await;
    assert_eq!(saved(&world, "alice").await.iter().map(|record| record.revision.get() / FIRST_EPOCH).max(), Some(0));
    compare(&mut world, &profile).await;
}

/// Stops both replicas once they have applied something more: they hold the same.
async fn compare(world: &mut World, profile: &ProfileClient) {
    profile.put(key("last"), "1", text()).await.unwrap();
    let journal = world.stream(JOURNAL_STREAM).await.last_sequence;
    for replica in &mut world.replicas {
        applied(replica, journal).await;
        replica.stop().await;
    }
    let [one, other] = [0, 1].map(|replica| held(&world.dir().join(format!("roam-storage-{replica}"))));
    assert_eq!(one, other);
}
