//! Devices with a local store: what they write goes on while they are alone, and in the end all of them hold the same.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use roam_client::{App, Identity, LocalProfile, LocalStore, Operation, Record, Select, State, SyncState};
use roam_tests::{World, app, device, eventually, key, tenant, text, user};

async fn open(world: &World, name: &str) -> LocalStore {
    let identity = Identity::Device { tenant: tenant("acme"), user: user("alice"), device: device(name) };
    let path = world.dir().join(format!("{name}.redb"));
    LocalStore::open(path, world.client_settings(), identity).await.unwrap()
}

fn editor() -> App {
    app("editor")
}

async fn put(profile: &LocalProfile, name: &str, value: &str) {
    profile.put(key(name), value, text()).await.unwrap();
}

async fn held(profile: &LocalProfile) -> BTreeMap<String, Vec<u8>> {
    let records = profile.records("").await.unwrap();
    let value = |record: &roam_client::LocalRecord| record.value().unwrap().value.as_bytes().to_vec();
    records.iter().map(|record| (record.key.to_string(), value(record))).collect()
}

/// What the servers hold.
async fn saved(world: &World) -> BTreeMap<String, Vec<u8>> {
    let reader = world.device("acme", "alice", "reader").await.profile(editor());
    let records: Vec<Record> = reader.records(Select::All).try_collect().await.unwrap();
    let live = records.into_iter().filter_map(|record| match record.state {
        State::Value(stored) => Some((record.key.to_string(), stored.value.into_bytes())),
        State::Deleted | State::Expired => None,
    });
    live.collect()
}

/// Waits until all devices are in step with the servers and with each other.
async fn all_equal(world: &World, devices: &[&LocalProfile]) -> BTreeMap<String, Vec<u8>> {
    eventually("all devices hold what the servers hold", async || {
        let saved = saved(world).await;
        for device in devices {
            device.synced().await.unwrap();
            if held(device).await != saved || !device.unsaved().await.unwrap().is_empty() {
                return None;
            }
        }
        Some(saved)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_on_two_devices_through_an_absence_and_a_cut_end_equal_and_nothing_is_lost() {
    let mut world = World::new().start().await;
    let laptop_store = open(&world, "laptop").await;
    let laptop = laptop_store.profile(editor()).await.unwrap();
    let phone_store = open(&world, "phone").await;
    let phone = phone_store.profile(editor()).await.unwrap();
    put(&laptop, "theme", "light").await;
    put(&laptop, "font", "serif").await;
    all_equal(&world, &[&laptop, &phone]).await;

    // The phone is away while the laptop goes on.
    drop(phone);
    phone_store.close().await;
    laptop.delete(key("font")).await.unwrap();
    put(&laptop, "size", "12").await;
    laptop.synced().await.unwrap();

    // Then nobody reaches anybody, and both go on.
    world.nats.stop().await.unwrap();
    let phone_store = open(&world, "phone").await;
    let phone = phone_store.profile(editor()).await.unwrap();
    put(&phone, "theme", "dark").await;
    put(&phone, "phone", "1").await;
    let many = (0..1_500).map(|n| Operation::put(key(&format!("many/{n:04}")), n.to_string(), text()));
    phone.change_each(many.collect()).await.unwrap();
    put(&laptop, "size", "14").await;
    put(&laptop, "laptop", "1").await;
    let mut state = laptop.state();
    state.wait_for(|state| matches!(state, SyncState::Offline { .. })).await.unwrap();
    assert_eq!(held(&phone).await["font"], b"serif", "the phone has not heard of the delete");
    assert_eq!(held(&laptop).await["size"], b"14", "each reads what it wrote");

    world.nats.restart().await.unwrap();
    let end = all_equal(&world, &[&laptop, &phone]).await;
    assert_eq!(end.len(), 1_500 + 4);
    let expect = [("theme", "dark"), ("phone", "1"), ("size", "14"), ("laptop", "1"), ("many/1499", "1499")];
    for (name, value) in expect {
        assert_eq!(end[name], value.as_bytes(), "{name}");
    }
    assert_eq!(laptop.parked().await.unwrap(), []);
    assert_eq!(phone.parked().await.unwrap(), []);

    // What was saved is there after a restart, without anybody to ask.
    let seen = phone.seen().await.unwrap();
    drop(phone);
    phone_store.close().await;
    world.nats.stop().await.unwrap();
    let phone = open(&world, "phone").await.profile(editor()).await.unwrap();
    assert_eq!((held(&phone).await, phone.seen().await.unwrap()), (end, seen));
}
