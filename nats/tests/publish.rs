//! Publishing into streams, against a real nats-server: the window, the retries, and what a refusal means.

use std::time::Duration;

use crate::support::scripted::{End, connect};
use crate::support::{Guarded, WITHIN, World, eventually, soon};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use roam_nats::{Failure, Headers, PublishError, PublishSettings, Publisher, stream_state};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

/// One attempt, and no more.
const ONCE: PublishSettings =
    PublishSettings { window: 8, ack_timeout: Duration::from_millis(300), retry_for: Duration::ZERO };

fn payload() -> Bytes {
    Bytes::from_static(b"x")
}

#[tokio::test]
async fn each_message_is_acked_with_its_sequence() {
    let world = World::start().await;
    world.stream("S", json!({})).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let mut acks = FuturesUnordered::new();
    for _ in 0..2_000 {
        let headers = Headers::new().with("A", "1");
        acks.push(soon(publisher.publish("S.a".to_owned(), headers, payload())).await);
        while acks.len() > 100 {
            acks.next().await.unwrap().unwrap();
        }
    }
    let rest: Vec<_> = soon(acks.map(|ack| ack.unwrap().sequence).collect()).await;
    assert_eq!(rest.iter().max(), Some(&2_000));
    assert_eq!((publisher.unacked(), world.bus.awaited_replies()), (0, 0));
    assert_eq!(stream_state(&world.bus, "S").await.unwrap().messages, 2_000);
}

#[tokio::test]
async fn no_more_than_the_window_is_without_an_ack() {
    let mut world = World::start().await;
    world.stream("S", json!({})).await;
    let publisher = Publisher::new(&world.bus, PublishSettings { window: 3, ..PublishSettings::default() });
    let mut acks = Vec::new();
    for _ in 0..3 {
        acks.push(soon(publisher.publish("S.a".to_owned(), Headers::new(), payload())).await);
    }
    assert_eq!(publisher.unacked(), 3);
    let fourth = publisher.publish("S.a".to_owned(), Headers::new(), payload());
    let mut fourth = Box::pin(fourth);
    assert!(timeout(Duration::from_millis(100), &mut fourth).await.is_err(), "the window is full");
    assert_eq!(stream_state(&world.bus, "S").await.unwrap().messages, 3);
    // A place is given back by an ack, and by giving up.
    acks.pop().unwrap().await.unwrap();
    let fourth = soon(fourth).await;
    assert_eq!(publisher.unacked(), 3);
    drop(acks);
    assert_eq!(publisher.unacked(), 1);
    assert_eq!(soon(fourth).await.unwrap().sequence, 4);
    assert_eq!((publisher.unacked(), world.bus.awaited_replies()), (0, 0));
    world.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_stream_is_busy() {
    let world = World::start().await;
    world.stream("S", json!({ "discard": "new", "max_msgs": 2 })).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let publish = async || publisher.publish("S.a".to_owned(), Headers::new(), payload()).await.await;
    for _ in 0..2 {
        publish().await.unwrap();
    }
    assert_eq!(publish().await.unwrap_err(), PublishError::Busy { code: 10_077 });
}

#[tokio::test]
async fn a_full_subject_is_busy_and_the_others_are_not() {
    let world = World::start().await;
    let settings = json!({ "discard": "new", "max_msgs_per_subject": 1, "discard_new_per_subject": true });
    world.stream("S", settings).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let publish = async |subject: &str| publisher.publish(subject.to_owned(), Headers::new(), payload()).await.await;
    publish("S.a").await.unwrap();
    assert_eq!(publish("S.a").await.unwrap_err(), PublishError::Busy { code: 10_077 });
    publish("S.b").await.unwrap();
}

#[tokio::test]
async fn whoever_had_no_answer_does_not_take_a_full_stream_for_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (bus, mut server) = tokio::join!(connect(listener.local_addr().unwrap()), End::accept(&listener));
    let settings = PublishSettings { window: 1, ack_timeout: Duration::from_millis(50), retry_for: WITHIN };
    let pending = soon(Publisher::new(&bus, settings).publish("S.a".to_owned(), Headers::new(), payload())).await;
    let answering = async {
        let said = server.until("PUB S.a ").await;
        let inbox = said.iter().find(|line| line.starts_with("SUB _INBOX")).unwrap();
        let number = inbox.rsplit(' ').next().unwrap();
        // The first one is stored, for all that anybody knows, and takes the last place.
        let again = server.until("PUB S.a ").await;
        let reply = again.last().unwrap().split(' ').nth(2).unwrap();
        let busy = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#;
        server.say(&format!("MSG {reply} {number} {}\r\n{busy}", busy.len())).await;
    };
    let (answer, ()) = soon(async { tokio::join!(pending, answering) }).await;
    assert_eq!(answer, Err(PublishError::Unavailable { source: Failure::TimedOut }));
}

#[tokio::test]
async fn a_message_that_can_never_be_stored_is_not_tried_again() {
    let world = World::start().await;
    world.stream("S", json!({ "max_msg_size": 100 })).await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let publish = async |subject: &str, headers: Headers, size: usize| {
        let started = Instant::now();
        let payload = Bytes::from(vec![0; size]);
        let result = publisher.publish(subject.to_owned(), headers, payload).await.await;
        assert!(started.elapsed() < Duration::from_secs(1), "no retries");
        result.unwrap_err()
    };
    assert_eq!(publish("S.a", Headers::new(), 200).await, PublishError::TooLarge);
    assert_eq!(publish("S.a", Headers::new(), world.bus.max_payload() + 1).await, PublishError::TooLarge);
    let wrong = publish("S.a", Headers::new().with("Nats-Expected-Stream", "T"), 1).await;
    assert!(matches!(wrong, PublishError::Refused { code: 10_060, .. }), "{wrong:?}");
    let malformed = publish("S. a", Headers::new(), 1).await;
    assert!(matches!(malformed, PublishError::Refused { code: 0, .. }), "{malformed:?}");
    assert_eq!(publisher.unacked(), 0);
}

#[tokio::test]
async fn a_stream_that_does_not_exist_yet_is_tried_until_it_does() {
    let world = World::start().await;
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let mut ack = publisher.publish("S.a".to_owned(), Headers::new(), payload()).await;
    // Long enough for the first attempt and some more to fail.
    assert!(timeout(Duration::from_millis(300), &mut ack).await.is_err());
    world.stream("S", json!({})).await;
    let ack = soon(ack).await.unwrap();
    assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("S", 1, false));
    assert_eq!(stream_state(&world.bus, "S").await.unwrap().messages, 1);
}

#[tokio::test]
async fn without_a_stream_it_is_unavailable_once_the_time_is_over() {
    let world = World::start().await;
    let retry_for = Duration::from_millis(400);
    let publisher = Publisher::new(&world.bus, PublishSettings { retry_for, ..ONCE });
    let started = Instant::now();
    let error = publisher.publish("S.a".to_owned(), Headers::new(), payload()).await.await.unwrap_err();
    assert_eq!(error, PublishError::Unavailable { source: Failure::NoStream });
    assert!((retry_for / 4..retry_for * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!((publisher.unacked(), world.bus.awaited_replies()), (0, 0));
}

#[tokio::test]
async fn an_ack_that_does_not_come_times_out_and_leaves_nothing_behind() {
    let world = World::start().await;
    // Somebody listens, and is no stream.
    let _silent = world.bus.subscribe("S.a".to_owned()).await.unwrap();
    let publisher = Publisher::new(&world.bus, ONCE);
    let started = Instant::now();
    let error = publisher.publish("S.a".to_owned(), Headers::new(), payload()).await.await.unwrap_err();
    assert_eq!(error, PublishError::Unavailable { source: Failure::TimedOut });
    assert!((ONCE.ack_timeout..ONCE.ack_timeout * 3).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!((publisher.unacked(), world.bus.awaited_replies()), (0, 0));
}

#[tokio::test]
async fn an_ack_that_did_not_come_is_made_up_for_by_another_attempt() {
    let world = World::start().await;
    let mut impostor = world.bus.subscribe("S.a".to_owned()).await.unwrap();
    let settings = PublishSettings { retry_for: WITHIN, ..ONCE };
    let publisher = Publisher::new(&world.bus, settings);
    let ack = publisher.publish("S.a".to_owned(), Headers::new().with("A", "1"), payload()).await;
    let answers = async {
        let _unanswered = impostor.next().await.unwrap();
        let again = impostor.next().await.unwrap();
        assert_eq!((again.headers.get("A"), again.headers.get("Nats-Msg-Id")), (Some("1"), None));
        let answer = Bytes::from_static(br#"{"stream":"S","seq":9}"#);
        world.bus.send(again.reply.unwrap(), Headers::new(), answer).await.unwrap();
    };
    let (ack, ()) = soon(async { tokio::join!(ack, answers) }).await;
    assert_eq!(ack.unwrap().sequence, 9);
}

#[tokio::test]
async fn what_is_published_while_the_server_is_away_is_stored_once_it_is_back() {
    let mut world = World::start().await;
    world.stream("S", json!({})).await;
    let publisher = Publisher::new(&world.bus, PublishSettings { ack_timeout: ONCE.ack_timeout, ..Default::default() });
    world.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !world.bus.state().connected).await;
    let mut acks: FuturesUnordered<_> = FuturesUnordered::new();
    for _ in 0..100 {
        acks.push(soon(publisher.publish("S.a".to_owned(), Headers::new(), payload())).await);
    }
    assert!(acks.next().now_or_never().is_none());
    let (restarted, results) = tokio::join!(world.server.restart(), acks.collect::<Vec<_>>());
    restarted.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // Nothing was handed to a connection that was down, so nothing is there twice.
    assert_eq!(stream_state(&world.bus, "S").await.unwrap().messages, 100);
}

#[tokio::test]
async fn a_closed_connection_ends_what_is_pending() {
    let world = World::start().await;
    let _silent = world.connect().await.subscribe("S.a".to_owned()).await.unwrap();
    let publisher = Publisher::new(&world.bus, PublishSettings::default());
    let ack = publisher.publish("S.a".to_owned(), Headers::new(), payload()).await;
    world.bus.close().await;
    assert_eq!(soon(ack).await.unwrap_err(), PublishError::Closed);
    let ack = publisher.publish("S.a".to_owned(), Headers::new(), payload()).await;
    assert_eq!(soon(ack).await.unwrap_err(), PublishError::Closed);
}

#[tokio::test]
async fn what_is_denied_is_said_at_once() {
    let guarded = Guarded::start("publish: [\"S.a\", \"_INBOX.>\"]").await;
    let publisher = Publisher::new(&guarded.bus, PublishSettings::default());
    let started = Instant::now();
    let error = publisher.publish("S.b".to_owned(), Headers::new(), payload()).await.await.unwrap_err();
    assert_eq!(error, PublishError::Denied);
    assert!(started.elapsed() < Duration::from_secs(1));
}
