//! The local store over a real bus, with a stand-in for the services: what is accepted offline, at restarts, at rejections
//! and at resets.

mod kill;

use std::collections::BTreeMap;

use crate::support::{World, app, eventually, key, profile, soon, tenant, user};
use roam_client::{
    Client, ClientSettings, Code, ContentType, Device, Identity, Layer, Layers, LocalEvent, LocalEvents, LocalProfile,
    LocalStore, Operation, ProfileClient, State, SyncState,
};
use tokio::time::timeout;

fn device(name: &str) -> Identity {
    Identity::Device { tenant: tenant(), user: user(), device: Device::parse(name).unwrap() }
}

/// The store of a device of this world.
async fn open(world: &World, name: &str) -> LocalStore {
    let path = world.dir().join(format!("{name}.redb"));
    LocalStore::open(path, world.settings(), device(name)).await.unwrap()
}

/// The same, which no server answers.
async fn open_offline(world: &World, name: &str) -> LocalStore {
    let path = world.dir().join(format!("{name}.redb"));
    LocalStore::open(path, ClientSettings::at("nats://127.0.0.1:1"), device(name)).await.unwrap()
}

async fn put(profile: &LocalProfile, name: &str, value: &str) {
    soon(profile.put(key(name), value, ContentType::text())).await.unwrap();
}

async fn value(profile: &LocalProfile, name: &str) -> Option<String> {
    let record = profile.get(key(name)).await.unwrap()?;
    record.value().and_then(|stored| stored.value.as_text()).map(str::to_owned)
}

async fn values(profile: &LocalProfile) -> BTreeMap<String, String> {
    let records = profile.records("").await.unwrap();
    let text = |record: &roam_client::LocalRecord| record.value().unwrap().value.as_text().unwrap().to_owned();
    records.iter().map(|record| (record.key.to_string(), text(record))).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Another device, without a store.
async fn other(world: &World) -> ProfileClient {
    Client::connect(world.settings(), device("phone")).await.unwrap().profile(app("mail"))
}

async fn write(profile: &ProfileClient, name: &str, value: &str) {
    soon(profile.put(key(name), value, ContentType::text())).await.unwrap();
}

async fn event(events: &mut LocalEvents, wanted: impl Fn(&LocalEvent) -> bool) -> LocalEvent {
    soon(async {
        loop {
            let event = events.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_written_offline_is_read_at_once_survives_a_restart_and_is_sent_as_one_change() {
    let world = World::running().await;
    let store = open_offline(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let mut events = mail.events();
    put(&mail, "a", "1").await;
    put(&mail, "b", "1").await;
    put(&mail, "a", "2").await;
    mail.delete(key("gone")).await.unwrap();
    assert_eq!(values(&mail).await, pairs([("a", "2"), ("b", "1")]));
    assert_eq!(mail.get(key("gone")).await.unwrap().unwrap().state(), Some(&State::Deleted));
    event(&mut events, |event| matches!(event, LocalEvent::Offline { .. })).await;
    store.close().await;
    assert!(matches!(mail.put(key("x"), "1", ContentType::text()).await, Err(roam_client::LocalError::Closed)));

    // Nobody asks for the profile: it is sent all the same.
    let store = open(&world, "laptop").await;
    eventually("it is sent", || world.system().values(&profile("mail")) == pairs([("a", "2"), ("b", "1")])).await;
    assert_eq!(world.system().revision(&profile("mail")), 1);
    let mail = store.profile(app("mail")).await.unwrap();
    assert_eq!(soon(mail.synced()).await.unwrap().get(), 1);
    assert!(mail.unsaved().await.unwrap().is_empty());
    let record = mail.get(key("a")).await.unwrap().unwrap();
    assert_eq!((record.saved.unwrap().revision.get(), record.unsaved), (1, None));
}

#[tokio::test]
async fn a_value_of_this_device_is_read_over_the_shared_one_without_a_connection() {
    let world = World::running().await;
    let mail = open_offline(&world, "laptop").await.profile(app("mail")).await.unwrap();
    let layers = Layers::new(&Device::parse("laptop").unwrap(), "linux").unwrap();
    let read = async || {
        let found = mail.effective(&key("size"), &layers).await.unwrap();
        found.map(|(layer, record)| (layer, record.value().unwrap().value.as_text().unwrap().to_owned()))
    };
    assert_eq!(read().await, None);
    put(&mail, "size", "12").await;
    put(&mail, "@device/phone/size", "20").await;
    assert_eq!(read().await, Some((Layer::Shared, "12".to_owned())));
    put(&mail, "@platform/linux/size", "13").await;
    put(&mail, "@device/laptop/size", "14").await;
    assert_eq!(read().await, Some((Layer::Device, "14".to_owned())));
    mail.delete(key("@device/laptop/size")).await.unwrap();
    assert_eq!(read().await, Some((Layer::Platform, "13".to_owned())));
}

#[tokio::test]
async fn what_others_change_is_copied_told_and_read_without_a_connection() {
    let world = World::running().await;
    let phone = other(&world).await;
    write(&phone, "a", "1").await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let mut events = mail.events();
    let told = event(&mut events, |event| matches!(event, LocalEvent::Changed { .. })).await;
    assert_eq!(told, LocalEvent::Changed { keys: vec![key("a")] });
    event(&mut events, |event| matches!(event, LocalEvent::Synced { .. })).await;
    write(&phone, "b", "2").await;
    event(&mut events, |event| *event == LocalEvent::Changed { keys: vec![key("b")] }).await;
    store.close().await;
    let store = open_offline(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    assert_eq!(values(&mail).await, pairs([("a", "1"), ("b", "2")]));
    assert_eq!(mail.seen().await.unwrap().get(), 2);
}

#[tokio::test]
async fn an_edit_of_what_another_device_changed_unseen_wins_and_is_told_as_a_conflict() {
    let world = World::running().await;
    let store = open_offline(&world, "laptop").await;
    put(&store.profile(app("mail")).await.unwrap(), "a", "mine").await;
    store.close().await;
    write(&other(&world).await, "a", "theirs").await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let mut events = mail.events();
    let LocalEvent::Conflict { conflicts } = event(&mut events, |e| matches!(e, LocalEvent::Conflict { .. })).await
    else {
        unreachable!()
    };
    assert_eq!((&conflicts[0].key, conflicts[0].device.as_str()), (&key("a"), "phone"));
    soon(mail.synced()).await.unwrap();
    assert_eq!(value(&mail, "a").await.as_deref(), Some("mine"));
}

#[tokio::test]
async fn a_rejected_change_is_parked_blocks_nothing_and_is_retried_or_discarded() {
    let world = World::running().await;
    world.system().reject.extend([Code::OverQuota, Code::OverQuota]);
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let mut events = mail.events();
    put(&mail, "a", "1").await;
    event(&mut events, |event| matches!(event, LocalEvent::Parked { .. })).await;
    assert_eq!(value(&mail, "a").await, None, "what is parked is not seen");
    put(&mail, "b", "1").await;
    event(&mut events, |event| matches!(event, LocalEvent::Parked { .. })).await;
    put(&mail, "c", "1").await;
    soon(mail.synced()).await.unwrap();
    assert_eq!(values(&mail).await, pairs([("c", "1")]));
    let parked = mail.parked().await.unwrap();
    assert_eq!(parked.iter().map(|parked| parked.problem.code).collect::<Vec<_>>(), [Code::OverQuota; 2]);
    mail.retry(parked[0].id).await.unwrap();
    assert_eq!(mail.discard(parked[1].id).await.unwrap().ops[0].key, key("b"));
    assert_eq!(mail.discard(parked[1].id).await.unwrap_err().code(), "not_parked");
    soon(mail.synced()).await.unwrap();
    assert_eq!(world.system().values(&profile("mail")), pairs([("a", "1"), ("c", "1")]));
    assert_eq!(mail.parked().await.unwrap(), []);
    assert_eq!(mail.unsaved().await.unwrap(), roam_client::Unsaved::default());
}

#[tokio::test]
async fn busy_is_sent_again_under_the_same_id_and_never_parked() {
    let world = World::running().await;
    world.system().reject.extend([Code::Busy, Code::StorageFull, Code::Busy]);
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    put(&mail, "a", "1").await;
    soon(mail.synced()).await.unwrap();
    let came = world.system().came.clone();
    assert_eq!((came.len(), came.iter().all(|id| *id == came[0])), (4, true));
    assert_eq!(mail.parked().await.unwrap(), []);
}

#[tokio::test]
async fn a_lost_receipt_is_told_again_after_a_restart_and_nothing_is_done_twice() {
    let world = World::running().await;
    world.system().lose_receipts = 1;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    put(&mail, "a", "1").await;
    eventually("it is applied", || world.system().revision(&profile("mail")) == 1).await;
    assert!(timeout(std::time::Duration::from_millis(300), mail.synced()).await.is_err(), "it waits for its receipt");
    store.close().await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    soon(mail.synced()).await.unwrap();
    let system = world.system();
    assert_eq!((system.came.len(), system.came[0] == system.came[1], system.applied.len()), (2, true, 1));
}

#[tokio::test]
async fn thousands_of_writes_go_out_in_few_changes() {
    let world = World::running().await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let ops = (0..10_000).map(|n| Operation::put(key(format!("k{n}")), n.to_string(), ContentType::text()));
    soon(mail.change_each(ops.collect())).await.unwrap();
    soon(mail.synced()).await.unwrap();
    assert_eq!(world.system().values(&profile("mail")).len(), 10_000);
    assert!(world.system().came.len() <= 11, "{}", world.system().came.len());
}

/// A device that has seen `a` and `b`, and is away since.
async fn away(world: &World) -> ProfileClient {
    let phone = other(world).await;
    write(&phone, "a", "1").await;
    write(&phone, "b", "1").await;
    let store = open(world, "laptop").await;
    soon(store.profile(app("mail")).await.unwrap().synced()).await.unwrap();
    store.close().await;
    phone
}

#[tokio::test]
async fn a_reset_within_the_epoch_resurrects_nothing_and_loses_no_edit() {
    let world = World::running().await;
    let phone = away(&world).await;
    soon(phone.delete(key("a"))).await.unwrap();
    soon(phone.delete(key("b"))).await.unwrap();
    write(&phone, "c", "1").await;
    world.system().forget(&profile("mail"));
    let store = open_offline(&world, "laptop").await;
    put(&store.profile(app("mail")).await.unwrap(), "b", "mine").await;
    store.close().await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    soon(mail.synced()).await.unwrap();
    let expect = pairs([("b", "mine"), ("c", "1")]);
    assert_eq!(values(&mail).await, expect);
    assert_eq!(world.system().values(&profile("mail")), expect);
}

#[tokio::test]
async fn in_a_new_epoch_a_device_offers_what_it_alone_holds_and_beats_nothing_newer() {
    let world = World::running().await;
    let phone = other(&world).await;
    for name in ["kept", "changed", "deleted", "rewritten"] {
        write(&phone, name, "1").await;
    }
    let backup = world.system().backup(&profile("mail"));
    write(&phone, "changed", "2").await;
    write(&phone, "made", "2").await;
    write(&phone, "rewritten", "2").await;
    soon(phone.delete(key("deleted"))).await.unwrap();
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    soon(mail.synced()).await.unwrap();
    store.close().await;

    world.system().restore(&profile("mail"), backup);
    // Somebody who knows of nothing is faster.
    let stranger = Client::connect(world.settings(), device("tablet")).await.unwrap().profile(app("mail"));
    write(&stranger, "rewritten", "3").await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    soon(mail.synced()).await.unwrap();
    let expect = pairs([("kept", "1"), ("changed", "2"), ("made", "2"), ("rewritten", "3")]);
    assert_eq!(world.system().values(&profile("mail")), expect);
    assert_eq!(values(&mail).await, expect);
    // What nobody can tell the age of is lost to nobody.
    let parked = mail.parked().await.unwrap();
    assert_eq!((parked.len(), &parked[0].ops[0].key, parked[0].problem.code), (1, &key("rewritten"), Code::Conflict));
    assert_eq!(mail.seen().await.unwrap().get() >> 40, 1);
}

#[tokio::test]
async fn the_state_tells_how_things_stand_and_events_end_with_the_store() {
    let world = World::running().await;
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    let mut events = mail.events();
    soon(mail.synced()).await.unwrap();
    store.close().await;
    assert_eq!(*mail.state().borrow(), SyncState::Closed);
    while soon(events.next()).await.is_some() {}
    assert!(soon(mail.synced()).await.is_err());
}
