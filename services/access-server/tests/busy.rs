//! Who is over the rate is told so, each of them; and it is never said of what may be in the journal.

use std::collections::BTreeSet;

use crate::support::{WITHIN, World, alice, laptop, next_receipt, put, subject_of};
use roam_access_server::{Rate, Settings};
use roam_nats::{ACCESS_DURABLE, CHANGES_STREAM, Deliveries, PullSettings};
use roam_schemas::{
    Bulk, BulkChange, ChangeId, Code, Device, Encoding, Outcome, Receipt, ServiceName, Shard, encode,
    limits::BULK_CHANGES, subjects,
};
use tokio::time::timeout;

/// Of each user one change a second passes.
fn slow(world: &World) -> Settings {
    Settings { rate: Rate { changes_per_second: 1, burst: 1 }, ..world.settings() }
}

async fn publish(world: &World) -> u64 {
    let change = encode(&put("k"), Encoding::Json).unwrap();
    world.publish(&subject_of("laptop"), Encoding::Json, change).await
}

fn directory() -> ServiceName {
    ServiceName::parse("directory").unwrap()
}

/// Publishes so many changes of alice as a bulk. Its sequence, and their ids.
async fn publish_bulk(world: &World, changes: usize) -> (u64, Vec<ChangeId>) {
    let part = |number: usize| BulkChange {
        user: alice().user.as_str().to_owned(),
        change: put(&format!("key {number}")).into(),
    };
    let bulk = Bulk { changes: (0..changes).map(part).collect() };
    let ids = bulk.changes.iter().map(|part| part.change.id).collect();
    let subject = subjects::bulk(Shard::ONLY, &alice().tenant, &alice().app, &directory());
    (world.publish(&subject, Encoding::Postcard, encode(&bulk, Encoding::Postcard).unwrap()).await, ids)
}

/// Takes what is there, as an access server does that appends it and is killed before its acks leave.
async fn taken_before(world: &World, count: usize) {
    let settings = PullSettings::default();
    let mut deliveries = Deliveries::open(&world.bus, CHANGES_STREAM, ACCESS_DURABLE, settings).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(timeout(WITHIN, deliveries.next()).await.expect("it is delivered").unwrap());
    }
    deliveries.close().await;
    drop(taken);
}

/// The sequences in ROAM_CHANGES of the first changes in the journal.
async fn journaled(world: &World, count: usize) -> BTreeSet<u64> {
    let found = world.journal().await.take(count).await;
    found.iter().map(|change| change.stamp.origin.sequence).collect()
}

fn assert_busy(receipt: &Receipt) {
    assert!(matches!(&receipt.outcome, Outcome::Rejected(problem) if problem.code == Code::Busy), "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_in_the_journal_is_not_said_to_be_undecided_and_costs_its_user_nothing() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let mut receipts = world.receipts(&alice(), &laptop()).await;
    let before = [publish(&world).await, publish(&world).await, publish(&world).await];
    taken_before(&world, before.len()).await;
    let (within, over) = (publish(&world).await, publish(&world).await);
    let server = world.access_server_with(slow(&world)).await;
    let expected: BTreeSet<u64> = before.into_iter().chain([within]).collect();
    assert_eq!(journaled(&world, expected.len()).await, expected);
    let receipt = next_receipt(&mut receipts, Encoding::Json).await;
    assert_eq!((receipt.sequence, receipt.id), (over, None));
    assert_busy(&receipt);
    world.settled().await;
    assert_eq!(server.metric("changes_throttled_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_may_be_in_the_journal_is_not_said_to_be_undecided() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let mut receipts = world.receipts(&alice(), &Device::service(&directory())).await;
    let (before, _) = publish_bulk(&world, 3).await;
    taken_before(&world, 1).await;
    let (over, ids) = publish_bulk(&world, 2).await;
    let server = world.access_server_with(slow(&world)).await;
    assert_eq!(journaled(&world, 3).await, BTreeSet::from([before]));
    for id in ids {
        let receipt = next_receipt(&mut receipts, Encoding::Postcard).await;
        assert_eq!((receipt.sequence, receipt.id), (over, Some(id)));
        assert_busy(&receipt);
    }
    world.settled().await;
    assert_eq!(server.metric("changes_throttled_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_each_change_is_told_of() {
    const BULKS: usize = 200;
    let world = World::start().await;
    let mut receipts = world.receipts(&alice(), &Device::service(&directory())).await;
    let mut untold = BTreeSet::new();
    for _ in 0..BULKS {
        untold.extend(publish_bulk(&world, BULK_CHANGES).await.1);
    }
    assert_eq!(untold.len(), BULKS * BULK_CHANGES);
    let server = world.access_server_with(slow(&world)).await;
    while !untold.is_empty() {
        let receipt = next_receipt(&mut receipts, Encoding::Postcard).await;
        assert_busy(&receipt);
        assert!(untold.remove(&receipt.id.unwrap()), "told twice");
    }
    world.settled().await;
    assert_eq!(server.metric("changes_throttled_total"), (BULKS * BULK_CHANGES) as f64);
}
