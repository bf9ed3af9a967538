//! Time to live: a record is gone at its instant, and becomes a tombstone through the front door, once, however many
//! replicas there are.

use std::time::Duration;

use roam_client::{Action, ContentType, Event, Expect, Lookup, Operation, ProfileClient, Put, State, Value, WatchFrom};
use roam_tests::{PATIENCE, World, app, eventually, key};
use tokio::time::timeout;

fn expiring(name: &str, value: &str, ttl: u32) -> Operation {
    let put = Put { value: Value::new(value), content_type: ContentType::text(), ttl: Some(ttl) };
    Operation { key: key(name), action: Action::Put(put), expect: Expect::Any }
}

async fn is_deleted(profile: &ProfileClient, name: &str) -> bool {
    matches!(profile.get(key(name)).await.unwrap(), Lookup::Deleted(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_expired_becomes_a_tombstone_once_and_all_devices_are_told() {
    let world = World::new().replicas(2).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
    let ops = (0..300).map(|number| expiring(&format!("session {number}"), "v", 1)).collect();
    let saved = laptop.change(ops).await.unwrap();
    laptop.put(key("kept"), "v", ContentType::text()).await.unwrap();
    eventually("all of them are deleted", async || {
        let records = laptop.changes(None).await.unwrap().records;
        let deleted = records.iter().filter(|record| record.state == State::Deleted).count();
        (deleted == 300).then_some(())
    })
    .await;
    // Nobody but the expiry writer took part, and each record was deleted by one revision of its own.
    let delta = laptop.changes(None).await.unwrap();
    let expired: Vec<_> = delta.records.iter().filter(|record| record.device.is_expiry()).collect();
    assert_eq!((expired.len(), delta.head.get()), (300, saved.revision.get() + 1 + 300));
    let mut told = 0;
    while told < delta.head.get() {
        told = match timeout(PATIENCE, watch.next()).await.expect("an event comes").unwrap() {
            Event::Revision { revision, .. } | Event::State { head: revision, .. } => revision.get(),
            Event::Reset => panic!("nothing was reset"),
        };
    }
    // Nothing more comes of it, although both replicas look every second.
    assert!(timeout(Duration::from_secs(3), watch.next()).await.is_err(), "once");
    assert_eq!(laptop.changes(None).await.unwrap().head, delta.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_record_is_not_returned_and_a_newer_put_is_never_hit() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    laptop.change(vec![expiring("short", "v", 1), expiring("renewed", "v", 1)]).await.unwrap();
    laptop.put(key("renewed"), "stays", ContentType::text()).await.unwrap();
    assert!(matches!(laptop.get(key("short")).await.unwrap(), Lookup::Found(_)));
    eventually("it is hidden", async || {
        (!matches!(laptop.get(key("short")).await.unwrap(), Lookup::Found(_))).then_some(())
    })
    .await;
    eventually("it is a tombstone", async || is_deleted(&laptop, "short").await.then_some(())).await;
    assert!(matches!(laptop.get(key("renewed")).await.unwrap(), Lookup::Found(_)));
    // A record that is there no more may be made again.
    laptop.change(vec![Operation { expect: Expect::Absent, ..expiring("short", "again", 100) }]).await.unwrap();
}
