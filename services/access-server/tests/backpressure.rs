//! Back-pressure: nothing is pulled while the journal is ahead of its announcer, and the alarm when a consumer stands
//! ahead of its stream.

use std::time::Duration;

use crate::support::{AccessServer, WITHIN, World, eventually};
use roam_nats::{ANNOUNCE_DURABLE, Bus, Headers, JOURNAL_STREAM, PublishSettings, Publisher};
use roam_schemas::{BatchId, Encoding, Shard, subjects};
use tokio::time::sleep;

/// Appends what looks like batches to the journal.
async fn append(bus: &Bus, count: usize) {
    let publisher = Publisher::new(bus, PublishSettings::default());
    for _ in 0..count {
        let headers = Headers::new().with_content_type(Encoding::Postcard).with_batch(BatchId::random().to_string());
        publisher.publish(subjects::journal(Shard::ONLY), headers, "batch".into()).await.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pulled_while_more_than_256_batches_wait_to_be_announced() {
    let world = World::start().await;
    append(&world.bus, 257).await;
    let server = AccessServer::start(world.settings());
    eventually("the backlog is seen", async || server.metric("announce_backlog") == 257.0).await;
    world.publish_many(10).await;
    eventually("the gate says why", async || {
        server.not_ready().get("gate").is_some_and(|reason| reason.contains("256"))
    })
    .await;
    assert_eq!(world.changes().await.messages, 10);
    assert_eq!(world.access().await.pending, 10, "nothing is delivered");

    let _announcer = world.announcer().await;
    world.settled().await;
    assert_eq!(server.metric("changes_appended_total"), 10.0);
    eventually("pulls are resumed", async || server.metric("pulls_paused") == 0.0).await;
    eventually("it is ready", async || server.context.health.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_pulled_while_a_batch_waits_for_long() {
    let world = World::start().await;
    let server = world.access_server().await;
    world.publish_many(1).await;
    world.settled().await;
    eventually("pulls are paused", async || server.metric("pulls_paused") == 1.0).await;
    assert!(server.metric("announce_backlog") <= 256.0);
    // Pulls that stood when it was paused may still bring something, until they expire. It is not worked on.
    world.publish_many(20).await;
    eventually("it has come", async || world.access().await.unacked == 20).await;
    assert_eq!(server.metric("changes_appended_total"), 1.0);
    eventually("a change stays in the stream", async || {
        world.publish_many(1).await;
        sleep(Duration::from_secs(1)).await;
        world.access().await.pending > 0
    })
    .await;
    let _announcer = world.announcer().await;
    world.settled().await;
    eventually("pulls are resumed", async || server.metric("pulls_paused") == 0.0).await;
}

/// Makes the durable of the announcer anew, so that it begins at this sequence.
async fn announce_from(bus: &Bus, sequence: u64) {
    let api = async |subject: &str, body: String| {
        let subject = format!("$JS.API.CONSUMER.{subject}.{JOURNAL_STREAM}.{ANNOUNCE_DURABLE}");
        let answer = bus.request(subject, Headers::new(), body.into(), WITHIN).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!answer.contains("\"error\""), "{answer}");
    };
    api("DELETE", String::new()).await;
    let config = format!(
        r#"{{"durable_name": "{ANNOUNCE_DURABLE}", "deliver_policy": "by_start_sequence",
            "opt_start_seq": {sequence}, "ack_policy": "explicit", "replay_policy": "instant"}}"#
    );
    api("CREATE", format!(r#"{{"stream_name": "{JOURNAL_STREAM}", "config": {config}}}"#)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_ahead_of_its_stream_is_an_alarm_until_it_is_healed() {
    let world = World::start().await;
    let server = world.access_server().await;
    append(&world.bus, 5).await;
    // A rollback of the stream ends like this: the consumer waits for what others than its publishers have yet to send.
    announce_from(&world.bus, 9).await;
    eventually("the alarm is raised", async || server.metric("consumer_ahead{consumer=\"announce\"}") == 1.0).await;
    eventually("it is not ready", async || server.not_ready().get("gate").is_some_and(|why| why.contains("ahead")))
        .await;
    assert_eq!(server.metric("announce_backlog"), 0.0, "there is no backlog to see");
    assert_eq!(server.metric("pulls_paused"), 1.0);
    assert_eq!(server.metric("consumer_ahead{consumer=\"access\"}"), 0.0);

    announce_from(&world.bus, 1).await;
    eventually("the alarm is over", async || server.metric("consumer_ahead{consumer=\"announce\"}") == 0.0).await;
    eventually("it is ready", async || server.context.health.is_ready()).await;
    world.publish_many(1).await;
    world.settled().await;
}
