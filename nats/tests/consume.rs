//! Reading through durable consumers, against a real nats-server: settling, pulling, outages, and pinned readers.

mod unreadable;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{WITHIN, World, eventually, soon};
use bytes::Bytes;
use roam_nats::{
    ConsumeError, Deliveries, Delivery, Headers, PRIORITY_GROUP, PinnedDeliveries, PullSettings, consumer_state,
};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout};

/// Long enough to say that nothing comes.
const A_WHILE: Duration = Duration::from_millis(300);

/// A world with a stream `S` of so many messages (payloads "1", "2", ...) and a durable `d` on it.
async fn world_of(messages: u64) -> World {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    for number in 1..=messages {
        world.store("S.a", &number.to_string()).await;
    }
    world.durable("S", "d", json!({})).await;
    world
}

fn settings(max_messages: usize) -> PullSettings {
    let (expires, heartbeat) = (Duration::from_secs(1), Duration::from_millis(400));
    PullSettings { max_messages, expires, heartbeat, ..PullSettings::default() }
}

async fn open(world: &World, max_messages: usize) -> Deliveries {
    Deliveries::open(&world.bus, "S", "d", settings(max_messages)).await.unwrap()
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    soon(deliveries.next()).await.unwrap()
}

async fn nothing_comes(deliveries: &mut Deliveries) -> bool {
    timeout(A_WHILE, deliveries.next()).await.is_err()
}

fn number(delivery: &Delivery) -> u64 {
    std::str::from_utf8(&delivery.message.payload).unwrap().parse().unwrap()
}

async fn all_settled(world: &World) {
    eventually("all is settled", async || {
        consumer_state(&world.bus, "S", "d").await.is_ok_and(|state| state.backlog() == 0)
    })
    .await;
}

#[tokio::test]
async fn a_delivery_says_where_and_when_the_stream_took_it_in() {
    let world = world_of(3).await;
    let mut deliveries = open(&world, 10).await;
    let server = world.api("STREAM.INFO.S", json!({})).await;
    let before = OffsetDateTime::parse(server["ts"].as_str().unwrap(), &Rfc3339).unwrap();
    for expected in 1..=3 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((number(&delivery), delivery.stream_sequence, delivery.delivered), (expected, expected, 1));
        assert_eq!((delivery.pending, delivery.message.subject.as_str()), (3 - expected, "S.a"));
        assert!((before - delivery.published).abs() < Duration::from_secs(30) && delivery.published < before);
        assert!(delivery.received_at <= std::time::Instant::now() && delivery.message.reply.is_none());
        delivery.ack();
    }
    all_settled(&world).await;
}

#[tokio::test]
async fn what_is_acked_or_terminated_does_not_come_again() {
    let world = world_of(2).await;
    let mut deliveries = open(&world, 10).await;
    next(&mut deliveries).await.ack();
    next(&mut deliveries).await.term();
    all_settled(&world).await;
    assert!(nothing_comes(&mut deliveries).await);
}

#[tokio::test]
async fn what_is_nacked_or_dropped_comes_again_and_is_counted() {
    let world = world_of(2).await;
    let mut deliveries = open(&world, 10).await;
    next(&mut deliveries).await.nak(None);
    drop(next(&mut deliveries).await);
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.delivered, 2);
        delivery.ack();
    }
    all_settled(&world).await;
}

#[tokio::test]
async fn a_nak_with_a_delay_is_not_delivered_before_it() {
    let world = world_of(1).await;
    let mut deliveries = open(&world, 10).await;
    let started = Instant::now();
    next(&mut deliveries).await.nak(Some(A_WHILE));
    let again = next(&mut deliveries).await;
    assert!(started.elapsed() >= A_WHILE && again.delivered == 2, "{:?}", started.elapsed());
    again.ack();
}

#[tokio::test]
async fn what_is_in_progress_is_not_delivered_again() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    world.durable("S", "d", json!({ "ack_wait": 400_000_000 })).await;
    world.store("S.a", "1").await;
    let mut deliveries = open(&world, 10).await;
    let delivery = next(&mut deliveries).await;
    let until = Instant::now() + Duration::from_millis(1_200);
    while Instant::now() < until {
        delivery.in_progress();
        assert!(timeout(Duration::from_millis(100), deliveries.next()).await.is_err());
    }
    let again = next(&mut deliveries).await;
    assert_eq!(again.delivered, 2);
    again.ack();
    delivery.ack();
}

#[tokio::test]
async fn a_duty_can_be_settled_after_its_message_is_gone() {
    let world = world_of(1).await;
    let mut deliveries = open(&world, 10).await;
    let Delivery { message, duty, .. } = next(&mut deliveries).await;
    assert_eq!(&message.payload[..], b"1");
    drop(message);
    duty.ack();
    all_settled(&world).await;
}

#[tokio::test]
async fn what_is_ready_is_taken_in_batches_within_bounds() {
    let world = world_of(300).await;
    let mut deliveries = open(&world, 400).await;
    let mut numbers = Vec::new();
    let mut largest = 0;
    while numbers.len() < 300 {
        eventually("all that was pulled has come", async || {
            world.consumer_info("S", "d").await["num_pending"] == json!(0) || numbers.is_empty()
        })
        .await;
        let batch = soon(deliveries.next_ready(200, usize::MAX)).await.unwrap();
        assert!(batch.len() <= 200);
        largest = largest.max(batch.len());
        for delivery in batch {
            numbers.push(number(&delivery));
            delivery.ack();
        }
    }
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    assert!(largest > 128, "a batch is not cut where the scheduler's budget of a task ends: {largest}");
    all_settled(&world).await;
}

#[tokio::test]
async fn a_batch_does_not_exceed_its_bytes_and_loses_nothing_by_it() {
    let world = world_of(9).await;
    let mut deliveries = open(&world, 10).await;
    let mut numbers = Vec::new();
    // Subject and payload take four bytes.
    while numbers.len() < 9 {
        let batch = soon(deliveries.next_ready(100, 10)).await.unwrap();
        assert!(batch.len() <= 2, "{}", batch.len());
        for delivery in batch {
            numbers.push(number(&delivery));
            delivery.ack();
        }
    }
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
    all_settled(&world).await;
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let world = world_of(0).await;
    let mut deliveries = open(&world, 10).await;
    let mut numbers = Vec::new();
    let publish = async {
        for number in 1..=200_u64 {
            world.store("S.a", &number.to_string()).await;
        }
    };
    let read = async {
        while numbers.len() < 200 {
            if let Ok(delivery) = timeout(Duration::from_micros(200), deliveries.next()).await {
                let delivery = delivery.unwrap();
                numbers.push(number(&delivery));
                delivery.ack();
            }
        }
    };
    soon(async { tokio::join!(publish, read) }).await;
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_is_pulled_than_was_asked_for_until_it_is_taken() {
    let world = world_of(100).await;
    let mut deliveries = open(&world, 10).await;
    next(&mut deliveries).await.ack();
    assert!(consumer_state(&world.bus, "S", "d").await.unwrap().delivered <= 10);
    for _ in 0..99 {
        next(&mut deliveries).await.ack();
    }
    all_settled(&world).await;
}

#[tokio::test]
async fn a_pause_stops_pulling_and_keeps_what_was_delivered() {
    let world = world_of(4).await;
    let mut deliveries = open(&world, 4).await;
    let first = next(&mut deliveries).await;
    eventually("the rest is delivered", async || consumer_state(&world.bus, "S", "d").await.unwrap().delivered == 4)
        .await;
    deliveries.pause();
    for _ in 0..3 {
        next(&mut deliveries).await.ack();
    }
    first.ack();
    // The pulls that stood are used up or expire; no other follows.
    let waiting = async || world.consumer_info("S", "d").await["num_waiting"].as_u64();
    assert!(timeout(settings(4).expires * 2, deliveries.next()).await.is_err());
    assert_eq!(waiting().await, Some(0));
    world.store("S.a", "5").await;
    assert!(nothing_comes(&mut deliveries).await);
    deliveries.resume();
    let fifth = next(&mut deliveries).await;
    assert_eq!((number(&fifth), fifth.delivered), (5, 1));
    fifth.ack();
}

#[tokio::test]
async fn closing_gives_back_what_was_not_taken() {
    let world = world_of(10).await;
    let mut deliveries = open(&world, 10).await;
    next(&mut deliveries).await.ack();
    eventually("all is delivered", async || consumer_state(&world.bus, "S", "d").await.unwrap().delivered == 10).await;
    deliveries.close().await;
    let mut others = open(&world, 10).await;
    let numbers: BTreeSet<_> = {
        let mut numbers = BTreeSet::new();
        while numbers.len() < 9 {
            let delivery = next(&mut others).await;
            numbers.insert(number(&delivery));
            delivery.ack();
        }
        numbers
    };
    assert_eq!(numbers, (2..=10).collect());
}

#[tokio::test]
async fn a_bound_on_bytes_never_stops_the_flow() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    for number in 0..50 {
        world.store("S.a", &format!("{number:01000}")).await;
    }
    world.durable("S", "d", json!({})).await;
    let settings = PullSettings { max_bytes: Some(2 * 3_000), ..settings(100) };
    let mut deliveries = Deliveries::open(&world.bus, "S", "d", settings).await.unwrap();
    for expected in 0..50 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(number(&delivery), expected);
        delivery.ack();
    }
    all_settled(&world).await;
}

#[tokio::test]
async fn reading_goes_on_after_the_server_was_away() {
    let mut world = world_of(5).await;
    let mut deliveries = open(&world, 10).await;
    next(&mut deliveries).await.ack();
    world.bus.round_trip(WITHIN).await.unwrap();
    world.server.kill().await.unwrap();
    assert!(timeout(A_WHILE, async { while deliveries.next().await.is_ok() {} }).await.is_err());
    world.server.restart().await.unwrap();
    let publisher = world.connect().await;
    eventually("the stream is there", async || {
        publisher.request("S.a".to_owned(), Headers::new(), Bytes::from_static(b"6"), A_WHILE).await.is_ok()
    })
    .await;
    let read = async { while !matches!(deliveries.next().await, Ok(delivery) if number(&delivery) == 6) {} };
    soon(read).await;
}

#[tokio::test]
async fn a_consumer_that_does_not_exist_is_named() {
    let world = world_of(0).await;
    let missing = Deliveries::open(&world.bus, "S", "e", settings(1)).await.unwrap_err();
    assert!(matches!(&missing, ConsumeError::NotFound { consumer } if consumer == "S/e"), "{missing:?}");
    let missing = Deliveries::open(&world.bus, "T", "d", settings(1)).await.unwrap_err();
    assert!(matches!(&missing, ConsumeError::NotFound { consumer } if consumer == "T/d"), "{missing:?}");
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_noticed() {
    let world = world_of(0).await;
    let mut deliveries = open(&world, 10).await;
    assert!(nothing_comes(&mut deliveries).await);
    world.api("CONSUMER.DELETE.S.d", json!({})).await;
    let error = soon(deliveries.next()).await.unwrap_err();
    assert!(matches!(error, ConsumeError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn settings_that_the_server_refuses_are_told() {
    let world = world_of(0).await;
    let settings = PullSettings { heartbeat: Duration::from_secs(1), ..settings(10) };
    let mut deliveries = Deliveries::open(&world.bus, "S", "d", settings).await.unwrap();
    let error = soon(deliveries.next()).await.unwrap_err();
    assert!(matches!(error, ConsumeError::Refused { .. }), "{error:?}");
}

/// A world with a stream `S` and a durable `p` that pins its readers.
async fn world_with_pins() -> World {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    let pins = json!({
        "priority_policy": "pinned_client",
        "priority_groups": [PRIORITY_GROUP],
        "priority_timeout": 3_000_000_000_u64,
        "ack_wait": 5_000_000_000_u64,
        "headers_only": true,
    });
    world.durable("S", "p", pins).await;
    world
}

#[tokio::test]
async fn only_one_of_two_readers_is_pinned_and_the_other_takes_over_when_it_leaves() {
    let world = world_with_pins().await;
    let mut first = PinnedDeliveries::open(&world.bus, "S", "p", 10).await.unwrap();
    world.store("S.a", "1").await;
    soon(first.next()).await.unwrap().ack();
    assert!(first.is_pinned());
    let other = world.connect().await;
    let mut second = PinnedDeliveries::open(&other, "S", "p", 10).await.unwrap();
    // For longer than the pin would last without pulls, each message goes to the first reader.
    for round in 0..8 {
        assert!(timeout(Duration::from_millis(500), second.next()).await.is_err(), "round {round}");
        assert!(timeout(Duration::from_millis(1), first.next()).await.is_err());
        world.store("S.a", "2").await;
        soon(first.next()).await.unwrap().ack();
    }
    assert!(!second.is_pinned());
    first.close().await;
    let left = Instant::now();
    world.store("S.a", "3").await;
    soon(second.next()).await.unwrap().ack();
    assert!(second.is_pinned() && left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
}

#[tokio::test]
async fn a_reader_that_lost_its_pin_gets_it_again() {
    let world = world_with_pins().await;
    let mut reader = PinnedDeliveries::open(&world.bus, "S", "p", 10).await.unwrap();
    world.store("S.a", "1").await;
    soon(reader.next()).await.unwrap().ack();
    world.api("CONSUMER.UNPIN.S.p", json!({ "group": PRIORITY_GROUP })).await;
    world.store("S.a", "2").await;
    soon(reader.next()).await.unwrap().ack();
    assert!(reader.is_pinned());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_a_reader_closes_is_given_back() {
    let world = world_of(0).await;
    for _ in 0..5 {
        let mut deliveries = open(&world, 50).await;
        let publishing = async {
            for number in 0..300 {
                world.store("S.a", &number.to_string()).await;
            }
        };
        let reading = async {
            for _ in 0..60 {
                next(&mut deliveries).await.ack();
            }
            deliveries.close().await;
        };
        tokio::join!(publishing, reading);
        let began = Instant::now();
        let mut rest = open(&world, 1_000).await;
        for _ in 0..240 {
            next(&mut rest).await.ack();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nothing waits for `ack_wait`, which is 30 s");
        all_settled(&world).await;
        rest.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_closes_while_others_go_on_loses_nothing_that_is_on_its_way() {
    let world = world_of(0).await;
    let gone = Cell::new(false);
    let publishing = async {
        for number in 0.. {
            world.store("S.a", &number.to_string()).await;
            if gone.get() {
                break;
            }
        }
        Instant::now()
    };
    // It asks for more than it will get: its pulls are never fulfilled, and something may be on its way to it at any time.
    let leaving = async {
        for _ in 0..20 {
            let mut deliveries = open(&world, 1_000).await;
            deliveries.next().await.unwrap().ack();
            deliveries.close().await;
        }
        gone.set(true);
    };
    let staying = async {
        let mut deliveries = open(&world, 10).await;
        while !gone.get() || consumer_state(&world.bus, "S", "d").await.unwrap().backlog() > 0 {
            if let Ok(delivery) = timeout(A_WHILE, deliveries.next()).await {
                delivery.unwrap().ack();
            }
        }
        Instant::now()
    };
    let (published, (), settled) = soon(Box::pin(async { tokio::join!(publishing, leaving, staying) })).await;
    assert!(settled - published < Duration::from_secs(5), "nothing waits for `ack_wait`, which is 30 s");
}
