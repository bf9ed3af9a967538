//! Several access servers: they share the work, take over from each other, and lose nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::support::{Journal, World, eventually};
use roam_schemas::ChangeId;

/// After this long without an ack a change is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// Reads the journal until all of these are in it, and returns how many came twice.
async fn found(journal: &mut Journal, published: &BTreeMap<u64, ChangeId>) -> usize {
    let mut missing = published.clone();
    let mut twice = 0;
    while !missing.is_empty() {
        let change = journal.next().await;
        let sequence = change.stamp.origin.sequence;
        assert_eq!(published.get(&sequence), Some(&change.change.id()), "{sequence} is what was published");
        twice += usize::from(missing.remove(&sequence).is_none());
    }
    twice
}

#[tokio::test(flavor = "multi_thread")]
async fn two_access_servers_share_the_work_and_lose_nothing() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let (one, two) = (world.access_server().await, world.access_server().await);
    let published = world.publish_many(10_000).await;
    assert_eq!(found(&mut world.journal().await, &published).await, 0, "nothing comes twice");
    world.settled().await;
    let (one, two) = (one.metric("changes_appended_total"), two.metric("changes_appended_total"));
    assert_eq!(one + two, 10_000.0);
    assert!(one > 0.0 && two > 0.0, "one did {one}, the other {two}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_access_server_held_is_taken_over() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let killed = world.access_server().await;
    let mut journal = world.journal().await;
    let mut published = world.publish_many(2_000).await;
    journal.next().await;
    killed.kill();
    published.extend(world.publish_many(2_000).await);
    let _other = world.access_server().await;
    found(&mut world.journal().await, &published).await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_server_that_stops_finishes_its_batches_and_gives_back_the_rest_at_once() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let published = world.publish_many(20_000).await;
    let stopping = world.access_server().await;
    eventually("it appends", async || stopping.metric("changes_appended_total") > 0.0).await;
    stopping.stop().await;
    let stopped = Instant::now();
    let held = world.access().await;
    assert!(held.unacked > 0, "something was pulled ahead");

    let _other = world.access_server().await;
    eventually("the rest is done by the other", async || world.access().await.ack_floor >= held.delivered).await;
    assert!(stopped.elapsed() < ACK_WAIT, "nothing had to wait to be delivered again");
    assert_eq!(found(&mut world.journal().await, &published).await, 0, "what was appended was acked");
    world.settled().await;
}
