//! Reading a stream in order, against a real nats-server: where it begins, and what ends it.

use std::time::{Duration, Instant};

use crate::support::{WITHIN, World, soon};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use roam_nats::{Headers, JournalError, JournalReader, LostReason, PublishSettings, Publisher};
use serde_json::json;
use tokio::time::timeout;

async fn world_of(messages: u64) -> World {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let mut acks = FuturesUnordered::new();
    for number in 1..=messages {
        let headers = Headers::new().with_batch(number.to_string());
        acks.push(publisher.publish("S.a".to_owned(), headers, Bytes::from(number.to_string())).await);
        while acks.len() > 400 {
            acks.next().await.unwrap().unwrap();
        }
    }
    while let Some(ack) = acks.next().await {
        ack.unwrap();
    }
    world
}

async fn open(world: &World, start: u64) -> JournalReader {
    JournalReader::open(&world.bus, "S", Some("S.a"), start).await.unwrap()
}

async fn lost(reader: &mut JournalReader) -> LostReason {
    let reason = soon(async {
        loop {
            if let Err(lost) = reader.next().await {
                return lost.reason;
            }
        }
    })
    .await;
    assert_eq!(reader.next().await.unwrap_err().reason, reason, "once lost, always lost");
    assert!(reader.next_ready().is_none());
    reason
}

#[tokio::test]
async fn it_begins_with_the_sequence_that_it_was_given_and_goes_on_in_order() {
    let world = world_of(1_000).await;
    let mut reader = open(&world, 400).await;
    let mut expected = 400;
    while expected <= 1_000 {
        let mut entry = Some(soon(reader.next()).await.unwrap());
        while let Some(found) = entry {
            assert_eq!(found.sequence, expected);
            assert_eq!((&found.payload[..], found.subject.as_str()), (expected.to_string().as_bytes(), "S.a"));
            assert_eq!(found.headers.batch(), Some(expected.to_string().as_str()));
            expected += 1;
            entry = reader.next_ready();
        }
    }
    // And with what comes later.
    assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
    world.store("S.a", "x").await;
    assert_eq!(soon(reader.next()).await.unwrap().sequence, 1_001);
}

#[tokio::test]
async fn it_begins_with_the_first_that_there_is() {
    let world = World::start().await;
    world.stream("S", json!({ "max_msgs": 2 })).await;
    for _ in 0..5 {
        world.store("S.a", "x").await;
    }
    for (start, first) in [(0, 4), (1, 4), (4, 4), (5, 5)] {
        assert_eq!(soon(open(&world, start).await.next()).await.unwrap().sequence, first, "from {start}");
    }
    let mut ahead = open(&world, 6).await;
    assert!(timeout(Duration::from_millis(100), ahead.next()).await.is_err());
    world.store("S.a", "x").await;
    assert_eq!(soon(ahead.next()).await.unwrap().sequence, 6);
}

#[tokio::test]
async fn it_reads_only_the_subjects_that_it_was_given() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    for subject in ["S.a", "S.b", "S.a"] {
        world.store(subject, "x").await;
    }
    let mut all = JournalReader::open(&world.bus, "S", None, 1).await.unwrap();
    let mut some = open(&world, 1).await;
    for sequence in [1, 2, 3] {
        assert_eq!(soon(all.next()).await.unwrap().sequence, sequence);
    }
    for sequence in [1, 3] {
        assert_eq!(soon(some.next()).await.unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn messages_of_any_size_come_through() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let limit = world.bus.max_payload();
    let sizes = [limit, 1, limit, limit, 100_000, limit, 0];
    for size in sizes {
        publisher.publish("S.a".to_owned(), Headers::new(), Bytes::from(vec![0; size])).await.await.unwrap();
    }
    let mut reader = open(&world, 1).await;
    for size in sizes {
        assert_eq!(soon(reader.next()).await.unwrap().payload.len(), size);
    }
}

#[tokio::test]
async fn it_is_lost_when_its_consumer_is_deleted() {
    let world = world_of(1).await;
    let mut reader = open(&world, 1).await;
    soon(reader.next()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
    let names = world.api("CONSUMER.NAMES.S", json!({})).await;
    let name = names["consumers"][0].as_str().unwrap();
    world.api(&format!("CONSUMER.DELETE.S.{name}"), json!({})).await;
    let reason = lost(&mut reader).await;
    assert!(matches!(reason, LostReason::Deleted | LostReason::Silent), "{reason:?}");
}

#[tokio::test]
async fn it_is_lost_when_the_connection_is_made_anew() {
    let mut world = world_of(1).await;
    let mut reader = open(&world, 1).await;
    soon(reader.next()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
    world.server.restart().await.unwrap();
    assert_eq!(lost(&mut reader).await, LostReason::Reconnected);
    // Another one reads on.
    assert_eq!(soon(open(&world, 1).await.next()).await.unwrap().sequence, 1);
}

#[tokio::test]
async fn it_is_lost_when_the_server_is_silent() {
    let mut world = world_of(1).await;
    let mut reader = open(&world, 1).await;
    soon(reader.next()).await.unwrap();
    world.server.kill().await.unwrap();
    assert_eq!(lost(&mut reader).await, LostReason::Silent);
}

#[tokio::test]
async fn it_is_lost_when_the_connection_is_closed() {
    let world = world_of(1).await;
    let mut reader = open(&world, 1).await;
    soon(reader.next()).await.unwrap();
    world.bus.close().await;
    assert_eq!(lost(&mut reader).await, LostReason::Closed);
}

#[tokio::test]
async fn a_delivery_that_is_missing_ends_it() {
    let world = world_of(3).await;
    let mut reader = open(&world, 1).await;
    for _ in 0..3 {
        soon(reader.next()).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
    // Another reader of the same consumer takes a delivery away.
    let names = world.api("CONSUMER.NAMES.S", json!({})).await;
    let name = names["consumers"][0].as_str().unwrap().to_owned();
    let thief = world.connect().await;
    let mut inbox = thief.subscribe("thief".to_owned()).await.unwrap();
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.S.{name}");
    for _ in 0..3 {
        let pull = Bytes::from_static(br#"{"batch":1,"expires":10000000000}"#);
        thief.send_with_reply(next.clone(), "thief".to_owned(), Headers::new(), pull).await.unwrap();
    }
    thief.round_trip(WITHIN).await.unwrap();
    let store = async {
        loop {
            world.store("S.a", "x").await;
        }
    };
    let reason = tokio::select! {
        reason = lost(&mut reader) => reason,
        () = store => unreachable!(),
    };
    assert!(matches!(reason, LostReason::Gap { .. }), "{reason:?}");
    assert!(soon(inbox.next()).await.is_some());
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_named() {
    let world = World::start().await;
    let error = JournalReader::open(&world.bus, "S", None, 1).await.unwrap_err();
    assert!(matches!(&error, JournalError::NotFound { stream } if stream == "S"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_read_without_gaps_at_full_speed() {
    let world = world_of(50_000).await;
    let started = Instant::now();
    let mut reader = open(&world, 1).await;
    for sequence in 1..=50_000 {
        assert_eq!(soon(reader.next()).await.unwrap().sequence, sequence);
    }
    // Half a second here; a pause between pulls would make it many.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(world.bus.state().slow_consumers, 0);
}
