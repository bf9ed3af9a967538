//! Objects in a bucket: whole or absent, readable by the tools of NATS, and gone when they are deleted.

use std::{
    io::Cursor,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use roam_nats::{
    BACKUPS_BUCKET, Deployment, Headers, ObjectError, ObjectStore, Overrides, Put, provision, stream_state,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{Guarded, World, eventually, few_bytes, soon};

const STREAM: &str = "OBJ_ROAM_BACKUPS";
const MIB: u64 = 1024 * 1024;

async fn bucket(max_bytes: u64) -> (World, ObjectStore) {
    let world = World::start().await;
    let overrides = Overrides { backups_max_bytes: Some(max_bytes), ..few_bytes() };
    provision(&world.bus, &Deployment { overrides, ..Deployment::new(1, 1) }).await.unwrap();
    let store = ObjectStore::new(&world.bus, BACKUPS_BUCKET);
    (world, store)
}

/// So many bytes that are all different from what is beside them.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]).collect()
}

async fn put(store: &ObjectStore, name: &str, content: &[u8]) -> Result<Put, ObjectError> {
    soon(store.put(name, &mut Cursor::new(content), |_| {})).await
}

async fn get(store: &ObjectStore, name: &str) -> Result<Vec<u8>, ObjectError> {
    let mut content = Vec::new();
    soon(store.get(name, &mut content, |_| {})).await.map(|()| content)
}

async fn messages(world: &World) -> u64 {
    stream_state(&world.bus, STREAM).await.unwrap().messages
}

#[tokio::test]
async fn objects_of_any_size_come_back_as_they_were() {
    let (_world, store) = bucket(64 * MIB).await;
    for length in [0, 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 5 * 1024 * 1024 + 7] {
        let (name, content) = (format!("of {length}"), bytes(length));
        let sent = AtomicU64::new(0);
        let count = |bytes| {
            sent.fetch_add(bytes, Ordering::Relaxed);
        };
        let done = soon(store.put(&name, &mut Cursor::new(&content), count)).await.unwrap();
        assert_eq!((done, sent.into_inner()), (Put::Stored, length as u64));
        assert_eq!(get(&store, &name).await.unwrap(), content, "{length}");
        assert_eq!(store.info(&name).await.unwrap().unwrap().bytes, length as u64);
    }
    assert_eq!(store.names("of 1").await.unwrap(), ["of 1", "of 131071", "of 131072", "of 131073"]);
}

#[tokio::test]
async fn an_object_is_never_replaced() {
    let (world, store) = bucket(64 * MIB).await;
    assert_eq!(put(&store, "a", b"first").await.unwrap(), Put::Stored);
    assert_eq!(put(&store, "a", b"second").await.unwrap(), Put::Exists);
    let (one, other) = (bytes(3_000_000), bytes(3_000_001));
    let (first, second) = tokio::join!(put(&store, "b", &one), put(&store, "b", &other));
    let mut outcomes = [first.unwrap(), second.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome == Put::Exists);
    assert_eq!(outcomes, [Put::Stored, Put::Exists]);
    let kept = get(&store, "b").await.unwrap();
    assert!(kept == one || kept == other);
    assert_eq!(get(&store, "a").await.unwrap(), b"first");
    // One entry and one piece of "a", one entry and 23 pieces of "b": the loser left nothing.
    assert_eq!(messages(&world).await, 2 + 24);
}

#[tokio::test]
async fn what_is_deleted_leaves_nothing() {
    let (world, store) = bucket(64 * MIB).await;
    put(&store, "a", &bytes(1_000_000)).await.unwrap();
    assert!(store.delete("a").await.unwrap());
    assert!(!store.delete("a").await.unwrap());
    assert_eq!(messages(&world).await, 0);
    assert!(matches!(get(&store, "a").await, Err(ObjectError::NotFound { .. })));
    put(&store, "a", b"again").await.unwrap();
    assert_eq!(get(&store, "a").await.unwrap(), b"again");
}

#[tokio::test]
async fn a_sign_is_renewed_in_its_place() {
    let (world, store) = bucket(64 * MIB).await;
    store.touch("sign").await.unwrap();
    let first = store.info("sign").await.unwrap().unwrap().modified;
    store.touch("sign").await.unwrap();
    assert!(store.info("sign").await.unwrap().unwrap().modified > first);
    assert_eq!(messages(&world).await, 1);
}

#[tokio::test]
async fn pieces_of_a_put_that_never_ended_are_swept() {
    let (world, store) = bucket(64 * MIB).await;
    put(&store, "whole", &bytes(300_000)).await.unwrap();
    for _ in 0..3 {
        world.store("$O.ROAM_BACKUPS.C.orphan", "a piece").await;
    }
    assert_eq!(store.sweep(OffsetDateTime::UNIX_EPOCH).await.unwrap(), 0, "they may be of a put that goes on");
    let later = stream_state(&world.bus, STREAM).await.unwrap().created + time::Duration::hours(1);
    assert_eq!(store.sweep(later).await.unwrap(), 1);
    assert_eq!(messages(&world).await, 4);
    assert_eq!(get(&store, "whole").await.unwrap(), bytes(300_000));
}

#[tokio::test]
async fn a_full_bucket_refuses_and_keeps_what_it_has() {
    let (world, store) = bucket(2 * MIB).await;
    put(&store, "small", &bytes(500_000)).await.unwrap();
    let before = messages(&world).await;
    let refused = put(&store, "large", &bytes(4_000_000)).await;
    assert!(matches!(refused, Err(ObjectError::Full { .. })), "{refused:?}");
    eventually("what was put in part is taken away", async || messages(&world).await == before).await;
    assert_eq!(get(&store, "small").await.unwrap(), bytes(500_000));
}

/// What the API says of the newest message on a subject, and its data.
async fn meta(world: &World, name: &str) -> Value {
    use base64::Engine as _;
    let name = base64::prelude::BASE64_URL_SAFE.encode(name);
    let question = json!({ "last_by_subj": format!("$O.ROAM_BACKUPS.M.{name}") });
    let answer = world.api(&format!("STREAM.MSG.GET.{STREAM}"), question).await;
    let data = base64::prelude::BASE64_STANDARD.decode(answer["message"]["data"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&data).unwrap()
}

#[tokio::test]
async fn what_comes_back_otherwise_than_it_was_is_refused() {
    let (world, store) = bucket(64 * MIB).await;
    put(&store, "a", &bytes(300_000)).await.unwrap();
    let good = meta(&world, "a").await;
    let alterations = [
        ("digest", json!("SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=")),
        ("size", json!(299_999)),
        ("chunks", json!(4)),
        ("nuid", json!("nobody")),
    ];
    for (field, value) in alterations {
        let mut bad = good.clone();
        bad[field] = value;
        let subject = {
            use base64::Engine as _;
            format!("$O.ROAM_BACKUPS.M.{}", base64::prelude::BASE64_URL_SAFE.encode("a"))
        };
        let headers = Headers::new().with("Nats-Rollup", "sub");
        let payload = Bytes::from(bad.to_string());
        soon(world.bus.request(subject, headers, payload, std::time::Duration::from_secs(5))).await.unwrap();
        let got = get(&store, "a").await;
        assert!(matches!(got, Err(ObjectError::Damaged { .. })), "{field}: {got:?}");
    }
}

#[tokio::test]
async fn a_put_goes_through_a_server_that_is_killed_and_comes_back() {
    let (mut world, store) = bucket(64 * MIB).await;
    let content = bytes(20_000_000);
    let (reached, mut halfway) = tokio::sync::mpsc::channel(1);
    let sent = AtomicU64::new(0);
    let mut source = Cursor::new(&content);
    let putting = store.put("a", &mut source, |bytes| {
        if sent.fetch_add(bytes, Ordering::Relaxed) > 5_000_000 {
            let _ = reached.try_send(());
        }
    });
    let killing = async {
        halfway.recv().await.unwrap();
        world.server.kill().await.unwrap();
        world.server.restart().await.unwrap();
    };
    let (done, ()) = tokio::time::timeout(std::time::Duration::from_secs(60), async { tokio::join!(putting, killing) })
        .await
        .unwrap();
    assert_eq!(done.unwrap(), Put::Stored);
    assert_eq!(get(&store, "a").await.unwrap(), content);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_or_denied_is_told() {
    let world = World::start().await;
    let store = ObjectStore::new(&world.bus, "NOBODY");
    assert!(matches!(put(&store, "a", b"x").await, Err(ObjectError::NoBucket { .. })));
    assert!(matches!(store.names("").await, Err(ObjectError::NoBucket { .. })));
    let guarded = Guarded::start("publish: { deny: [\"$JS.API.>\"] }").await;
    let denied = soon(ObjectStore::new(&guarded.bus, BACKUPS_BUCKET).info("a")).await;
    assert!(matches!(denied, Err(ObjectError::Denied { .. })), "{denied:?}");
}
