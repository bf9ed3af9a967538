//! What is lost, and comes back: replicas that are restored from an old backup when the journal is lost too begin a new
//! epoch, in which devices offer what they hold; and a replica that the journal does not carry forward takes a newer backup.

use std::{collections::BTreeMap, fs};

use futures_util::TryStreamExt;
use roam_client::{Identity, LocalProfile, LocalStore, ProfileClient, Record, Revision, Select, State};
use roam_nats::{Bus, BusSettings, Headers, JOURNAL_STREAM, Role};
use roam_schemas::{Control, ReplicaName, Resume, subjects};
use roam_storage::{
    BackupSettings,
    backup::{BackupError, Manifest, Progress, Repository, restored},
};
use roam_tests::{PATIENCE, World, app, device, eventually, key, tenant, text, user};

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
    bus.request(subjects::order_backup(Some(&name)), Headers::new(), "{}".into(), PATIENCE).await.unwrap();
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
