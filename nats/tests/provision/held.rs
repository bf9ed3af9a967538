//! What the server does with these settings: floods and full streams are refused, nothing leaves by request, and the state
//! of streams is told.

use std::time::Duration;

use bytes::Bytes;
use roam_nats::{
    Bus, Cluster, Deployment, Headers, Message, Overrides, StateError, consumer_state, durable_report, provision,
    purge_subject, stream_report, stream_state, subject_messages,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{ALL, WITHIN, World, ask, connect, error_of, must, publish, small};

/// The next delivery of the durable `access`.
async fn pull_one(bus: &Bus) -> Message {
    let inbox = bus.new_inbox();
    let mut deliveries = bus.subscribe(inbox.clone()).await.unwrap();
    let subject = "$JS.API.CONSUMER.MSG.NEXT.ROAM_CHANGES.access".to_owned();
    bus.send_with_reply(subject, inbox, Headers::new(), Bytes::from_static(b"1")).await.unwrap();
    timeout(WITHIN, deliveries.next()).await.unwrap().unwrap()
}

/// Acks a delivery, and waits until the server has taken the ack.
async fn ack(bus: &Bus, delivery: Message) {
    bus.request(delivery.reply.unwrap(), Headers::new(), Bytes::from_static(b"+ACK"), WITHIN).await.unwrap();
}

/// Publishes until one subject is full, then looks who is still taken.
async fn flood_one_subject(bus: &Bus) {
    for sequence in 1..=256 {
        let ack = publish(bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
        assert_eq!(ack["seq"], json!(sequence), "{ack}");
    }
    let refused = publish(bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    assert_eq!(error_of(&refused), (503, 10077, "maximum messages per subject exceeded"));
    let other = publish(bus, "roam.v1.change.acme.alice.notes.phone", b"x").await;
    assert_eq!(other["seq"], json!(257), "another device is still taken: {other}");
}

#[tokio::test]
async fn a_flooding_device_is_refused_alone() {
    let world = World::provisioned(&small(1)).await;
    flood_one_subject(&world.bus).await;
    // Its next change is taken as soon as one of its own was acked.
    let delivery = pull_one(&world.bus).await;
    ack(&world.bus, delivery).await;
    let taken = publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    assert_eq!(taken["seq"], json!(258));
}

#[tokio::test]
async fn a_full_stream_refuses_everybody() {
    let overrides = Overrides { changes_max_messages: Some(2), changes_max_bytes: Some(1_000), ..small(1).overrides };
    let world = World::provisioned(&Deployment { overrides, ..Deployment::new(1, 1) }).await;
    publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    let too_much = publish(&world.bus, "roam.v1.change.acme.alice.notes.phone", &[b'x'; 1_000]).await;
    assert_eq!(error_of(&too_much), (503, 10077, "maximum bytes exceeded"));
    publish(&world.bus, "roam.v1.change.acme.alice.notes.phone", b"x").await;
    let too_many = publish(&world.bus, "roam.v1.change.acme.bob.notes.laptop", b"x").await;
    assert_eq!(error_of(&too_many), (503, 10077, "maximum messages exceeded"));
}

#[tokio::test]
async fn nothing_leaves_a_stream_by_request() {
    let world = World::provisioned(&small(1)).await;
    publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    publish(&world.bus, "roam.v1.journal.0", b"x").await;
    publish(&world.bus, "roam.v1.rejected.acme.alice", b"x").await;
    for stream in ["ROAM_CHANGES", "ROAM_JOURNAL", "ROAM_REJECTED"] {
        // What was rejected of a user who is erased is purged by an operator.
        if stream != "ROAM_REJECTED" {
            let purged = ask(&world.bus, &format!("STREAM.PURGE.{stream}"), &json!({})).await;
            assert_eq!(error_of(&purged), (500, 10110, "stream purge not permitted"));
        }
        let deleted = ask(&world.bus, &format!("STREAM.MSG.DELETE.{stream}"), &json!({"seq": 1})).await;
        assert_eq!(error_of(&deleted), (500, 10057, "message delete not permitted"));
        assert_eq!(stream_state(&world.bus, stream).await.unwrap().messages, 1);
    }
}

#[tokio::test]
async fn what_was_rejected_of_one_user_is_counted_and_purged_up_to_a_sequence() {
    let world = World::provisioned(&small(1)).await;
    for user in ["alice", "bob", "alice", "alice"] {
        publish(&world.bus, &format!("roam.v1.rejected.acme.{user}"), b"x").await;
    }
    let count = async |user: &str| {
        subject_messages(&world.bus, "ROAM_REJECTED", &format!("roam.v1.rejected.acme.{user}")).await
    };
    assert_eq!((count("alice").await.unwrap(), count("bob").await.unwrap(), count("carol").await.unwrap()), (3, 1, 0));
    let purged = purge_subject(&world.bus, "ROAM_REJECTED", "roam.v1.rejected.acme.alice", 3).await;
    assert_eq!(purged.unwrap(), 2, "what came after that stays");
    assert_eq!((count("alice").await.unwrap(), count("bob").await.unwrap()), (1, 1));
    assert!(purge_subject(&world.bus, "ROAM_JOURNAL", "roam.v1.journal.0", 3).await.is_err());
    let report = stream_report(&world.bus, "ROAM_REJECTED").await.unwrap();
    assert_eq!((report.messages, report.last_sequence, report.max_messages), (2, 4, None));
    assert_eq!(report.max_age, Some(Duration::from_secs(30 * 86_400)));
    let durable = durable_report(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
    assert_eq!((durable.asking, durable.state.pending), (0, 0));
}

#[tokio::test]
async fn the_state_of_a_stream_and_its_durable_are_told() {
    let world = World::provisioned(&small(1)).await;
    let empty = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((empty.first_sequence, empty.last_sequence, empty.messages, empty.bytes), (0, 0, 0, 0));

    for _ in 0..3 {
        publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    }
    // The server counts what waits a moment after its PubAck.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let waiting = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
        if (waiting.delivered, waiting.ack_floor, waiting.pending, waiting.unacked) == (0, 0, 3, 0) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{waiting:?}");
        tokio::task::yield_now().await;
    }

    let first = pull_one(&world.bus).await;
    ack(&world.bus, first).await;
    pull_one(&world.bus).await;

    let working = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
    assert_eq!((working.delivered, working.ack_floor, working.pending, working.unacked), (2, 1, 1, 1));
    assert_eq!(working.backlog(), 2);
    let stream = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((stream.first_sequence, stream.last_sequence, stream.messages), (2, 3, 2));
    assert_eq!(stream.created, empty.created);

    // Deleted and made again, it is another incarnation.
    must(&world.bus, "STREAM.DELETE.ROAM_CHANGES", &json!({})).await;
    let gone = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap_err();
    assert!(matches!(gone, StateError::NotFound { .. }), "{gone}");
    provision(&world.bus, &small(1)).await.unwrap();
    assert!(stream_state(&world.bus, "ROAM_CHANGES").await.unwrap().created > empty.created);
}

#[tokio::test]
async fn a_state_that_nobody_can_tell_is_unavailable() {
    let mut world = World::provisioned(&small(1)).await;
    world.server.kill().await.unwrap();
    let error = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap_err();
    assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_keeps_three_replicas() {
    let dir = TempDir::new().unwrap();
    let mut cluster = Cluster::start(dir.path()).await.unwrap();
    let bus = connect(cluster.client_urls()).await;
    let first = provision(&bus, &small(3)).await.unwrap();
    assert_eq!(first.created, ALL);
    for stream in ["ROAM_CHANGES", "ROAM_JOURNAL", "ROAM_REJECTED", "ROAM_CHUNKS"] {
        let info = must(&bus, &format!("STREAM.INFO.{stream}"), &json!({})).await;
        assert_eq!(info["config"]["num_replicas"], json!(3));
        assert_eq!(info["cluster"]["replicas"].as_array().unwrap().len(), 2, "a leader and two more: {info}");
    }
    flood_one_subject(&bus).await;

    // One server of three may go at any time: nothing is lost, and the stream is the same one.
    let before = stream_state(&bus, "ROAM_CHANGES").await.unwrap();
    cluster.servers()[0].kill().await.unwrap();
    let bus = connect(cluster.client_urls()[1..].to_vec()).await;
    assert_eq!(provision(&bus, &small(3)).await.unwrap().unchanged, ALL);
    let after = stream_state(&bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((after.created, after.last_sequence, after.messages), (before.created, 257, 257));
    cluster.servers()[0].restart().await.unwrap();
    cluster.healthy().await.unwrap();
}
