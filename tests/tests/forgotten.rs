//! A deletion that is forgotten: its tombstone goes after 30 days and one more, a cursor from before gets `reset`, and a device
//! that was away for longer comes to what the servers hold: nothing deleted comes back, nothing unsent is lost.
//!
//! No clock is moved. What is old was applied to the replica's store while it was stopped, as batches that the journal
//! took in 45 and 40 days ago; all that follows goes through the servers as they are.

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::TryStreamExt;
use roam_client::{Identity, LocalProfile, LocalStore, Lookup, ReadError, Record, Select, State};
use roam_process::clock;
use roam_schemas::{
    BatchId, Change, ChangeId, Encoding, JournalBatch, Operation, Origin, RULES, Stamp, StampedChange, Terms, Timestamp,
};
use roam_storage::{
    apply::Applier,
    store::{self, Position, StoreSettings},
};
use roam_tests::{World, app, device, eventually, key, profile, tenant, text, user};

const DAY: u64 = 24 * 3_600;

/// Applies a change to a store that no replica has open: one that the journal took in so many days ago.
fn applied_before(directory: &Path, days: u64, sequence: u64, ops: Vec<Operation>) {
    let time = Timestamp::from_nanos(clock::now_ns()).minus_seconds(days * DAY);
    let change = Change::new(ChangeId::random(), None, ops).unwrap();
    let stamped = StampedChange {
        profile: profile("acme/alice/editor"),
        device: device("laptop"),
        encoding: Encoding::Postcard,
        stamp: Stamp { time, origin: Origin { incarnation: 7, sequence } },
        digest: change.digest(),
        change,
    };
    let (id, terms) = (BatchId::random(), Terms::default());
    let batch = JournalBatch { id, rules: RULES, terms: terms.clone(), quotas: Vec::new(), changes: vec![stamped] };
    let position = Position { incarnation: 7, sequence, batch: id, published: time.as_nanos(), line: 1, terms };
    let (writer, reader) = store::open(directory, &StoreSettings::default()).unwrap();
    let mut applier = Applier::new(writer, reader).unwrap();
    let prepared = applier.prepare(&batch, &position).unwrap();
    applier.commit(&prepared).unwrap();
}

async fn open(world: &World) -> (LocalStore, LocalProfile) {
    let identity = Identity::Device { tenant: tenant("acme"), user: user("alice"), device: device("phone") };
    let path = world.dir().join("phone.redb");
    let store = LocalStore::open(path, world.client_settings(), identity).await.unwrap();
    let profile = store.profile(app("editor")).await.unwrap();
    (store, profile)
}

async fn held(profile: &LocalProfile) -> BTreeMap<String, Vec<u8>> {
    let records = profile.records("").await.unwrap();
    let value = |record: &roam_client::LocalRecord| record.value().unwrap().value.as_bytes().to_vec();
    records.iter().map(|record| (record.key.to_string(), value(record))).collect()
}

fn live(records: Vec<Record>) -> BTreeMap<String, Vec<u8>> {
    let live = records.into_iter().filter_map(|record| match record.state {
        State::Value(stored) => Some((record.key.to_string(), stored.value.into_bytes())),
        State::Deleted | State::Expired => None,
    });
    live.collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_away_for_longer_than_a_tombstone_stays_comes_to_what_the_servers_hold() {
    let mut world = World::new().start().await;
    let replica = world.dir().join("roam-storage-0");
    world.replicas[0].stop().await;
    fs::remove_dir_all(&replica).unwrap();
    let put = |name: &str| Operation::put(key(name), "old", text());
    applied_before(&replica, 45, 1, ["kept", "gone", "edited", "changed"].map(put).to_vec());
    world.replicas[0].start().await;
    world.ready().await;

    // The phone has all of it, and then is alone; what it writes leaves it with nobody.
    let (phone_store, phone) = open(&world).await;
    phone.synced().await.unwrap();
    assert_eq!(held(&phone).await.len(), 4);
    let reader = world.device("acme", "alice", "reader").await.profile(app("editor"));
    let cursor = reader.changes(None).await.unwrap().cursor;
    world.nats.stop().await.unwrap();
    phone.put(key("edited"), "unsent", text()).await.unwrap();
    phone.put(key("new"), "unsent", text()).await.unwrap();
    drop(phone);
    phone_store.close().await;
    world.nats.restart().await.unwrap();

    // Others delete, and all of that is older than a tombstone stays.
    world.replicas[0].stop().await;
    let ops = vec![
        Operation::delete(key("gone")),
        Operation::delete(key("edited")),
        Operation::put(key("changed"), "newer", text()),
    ];
    applied_before(&replica, 40, 2, ops);
    world.replicas[0].start().await;
    world.ready().await;
    assert!(matches!(reader.get(key("gone")).await.unwrap(), Lookup::Deleted(_)), "it is known as deleted");
    let delta = reader.changes(Some(cursor)).await.unwrap();
    assert_eq!(delta.records.len(), 3, "the cursor is good as long as the tombstones are there");
    // The next batch says what time it is.
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    laptop.put(key("laptop"), "today", text()).await.unwrap();
    eventually("the tombstones go", async || {
        let removed = world.replicas[0].pages().metric("roam_storage_tombstones_removed_total", &[]).await;
        (removed >= 2.0).then_some(())
    })
    .await;
    assert_eq!(reader.get(key("gone")).await.unwrap(), Lookup::Unknown);
    let old = reader.changes(Some(cursor)).await;
    assert!(matches!(old, Err(ReadError::Reset)), "{old:?}");

    let (_phone_store, phone) = open(&world).await;
    let end = [("kept", "old"), ("changed", "newer"), ("laptop", "today"), ("edited", "unsent"), ("new", "unsent")];
    let end = expected(&end);
    eventually("the phone and the servers hold the same", async || {
        phone.synced().await.unwrap();
        let saved: Vec<Record> = reader.records(Select::All).try_collect().await.unwrap();
        let unsaved = phone.unsaved().await.unwrap();
        (live(saved) == end && held(&phone).await == end && unsaved.is_empty()).then_some(())
    })
    .await;
    assert_eq!(phone.parked().await.unwrap(), []);
    assert_eq!(reader.get(key("gone")).await.unwrap(), Lookup::Unknown, "nobody brought it back");
}
