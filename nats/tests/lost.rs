//! What a consumer delivered and what never arrived, against a real nats-server: it comes again at once, not after `ack_wait`, which
//! is thirty seconds here.

use roam_nats::{Bus, Deliveries, PRIORITY_GROUP, PinnedDeliveries, PullSettings, consumer_state};
use serde_json::json;

use crate::support::{World, eventually, link::Link, soon};

/// A world with a stream `S` and a durable `d` on it, and a way to its server.
async fn world(durable: serde_json::Value) -> (World, Link) {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    world.durable("S", "d", durable).await;
    let link = Link::to(&world.server).await;
    (world, link)
}

/// Loses what the consumer delivers next, with the connection.
async fn lose(world: &World, link: &Link, sequences: std::ops::RangeInclusive<u64>) {
    link.swallow();
    for sequence in sequences.clone() {
        assert_eq!(world.store("S.a", "lost").await, sequence);
    }
    eventually("it is delivered", async || delivered(&world.bus).await == *sequences.end()).await;
    link.cut();
}

async fn delivered(bus: &Bus) -> u64 {
    consumer_state(bus, "S", "d").await.map_or(0, |state| state.delivered)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_with_a_connection_comes_again_at_once() {
    let (world, link) = world(json!({})).await;
    for untrusted in [false, true] {
        let bus = link.connect().await;
        let settings = PullSettings { untrusted, ..PullSettings::default() };
        let mut deliveries = Deliveries::open(&bus, "S", "d", settings).await.unwrap();
        let first = world.store("S.a", "here").await;
        let delivery = soon(deliveries.next()).await.unwrap();
        assert_eq!(delivery.stream_sequence, first);
        delivery.ack();
        lose(&world, &link, first + 1..=first + 3).await;
        let mut lost: Vec<_> = (first + 1..=first + 3).collect();
        while !lost.is_empty() {
            let delivery = soon(deliveries.next()).await.unwrap();
            lost.retain(|sequence| *sequence != delivery.stream_sequence);
            delivery.ack();
        }
        deliveries.close().await;
        bus.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_reader_gets_what_was_lost_with_its_connection() {
    let group = json!({
        "priority_groups": [PRIORITY_GROUP], "priority_policy": "pinned_client", "priority_timeout": 3_000_000_000_u64,
    });
    let (world, link) = world(group).await;
    let bus = link.connect().await;
    let mut reader = PinnedDeliveries::open(&bus, "S", "d", 100).await.unwrap();
    world.store("S.a", "here").await;
    soon(reader.next()).await.unwrap().ack();
    lose(&world, &link, 2..=4).await;
    let mut lost = vec![2, 3, 4];
    while !lost.is_empty() {
        let delivery = soon(reader.next()).await.unwrap();
        lost.retain(|sequence| *sequence != delivery.stream_sequence);
        delivery.ack();
    }
}
