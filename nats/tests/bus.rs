//! The connection, against a real nats-server: sending, asking, listening, and what is known of its state.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use roam_nats::{Bus, BusSettings, ConnectError, Headers, RequestError, SendError, Subscription};
use roam_schemas::Encoding;
use tokio::task::JoinSet;

use crate::support::{Guarded, WITHIN, World, eventually, soon};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_message_arrives_with_its_headers() {
    let world = World::start().await;
    let mut subscription = world.bus.subscribe("a.*".to_owned()).await.unwrap();
    let headers = Headers::new().with_content_type(Encoding::Json).with_batch("b7");
    world.bus.send("a.b".to_owned(), headers, Bytes::from_static(b"x")).await.unwrap();
    let message = soon(subscription.next()).await.unwrap();
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("a.b", &b"x"[..]));
    assert_eq!((message.headers.encoding(), message.headers.batch()), (Some(Encoding::Json), Some("b7")));
    assert_eq!(message.reply, None);
}

#[tokio::test]
async fn a_server_without_keys_asks_nobody_who_comes() {
    assert!(!World::start().await.bus.asks_who_comes());
}

#[tokio::test]
async fn a_round_trip_returns_after_the_server_has_processed_what_was_sent_before() {
    let world = World::start().await;
    let other = world.connect().await;
    let mut subscription = other.subscribe("order".to_owned()).await.unwrap();
    other.round_trip(WITHIN).await.unwrap();
    for _ in 0..100 {
        for _ in 0..20 {
            world.bus.send("order".to_owned(), Headers::new(), Bytes::new()).await.unwrap();
        }
        world.bus.round_trip(WITHIN).await.unwrap();
        // Now the server has all twenty, and sends them to the other connection before its answer to this:
        other.round_trip(WITHIN).await.unwrap();
        for _ in 0..20 {
            assert!(subscription.next().now_or_never().is_some(), "what was sent before has arrived");
        }
    }
}

#[tokio::test]
async fn a_request_is_answered() {
    let world = World::start().await;
    let mut service = world.connect().await.subscribe("echo".to_owned()).await.unwrap();
    let answerer = world.connect().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(request) = service.next().await {
            answerer.send(request.reply.unwrap(), request.headers, request.payload).await.unwrap();
        }
    });
    eventually("the service listens", async || {
        let payload = Bytes::from_static(b"hello");
        world.bus.request("echo".to_owned(), Headers::new().with("A", "1"), payload, WITHIN).await.is_ok()
    })
    .await;
    let payload = Bytes::from_static(b"hello");
    let answer = world.bus.request("echo".to_owned(), Headers::new().with("A", "1"), payload, WITHIN).await.unwrap();
    assert_eq!((&answer.payload[..], answer.headers.get("A")), (&b"hello"[..], Some("1")));
    assert_eq!(world.bus.awaited_replies(), 0);
}

#[tokio::test]
async fn a_request_that_nobody_listens_for_is_told_from_one_that_nobody_answers() {
    let world = World::start().await;
    let _silent = world.bus.subscribe("silent".to_owned()).await.unwrap();
    let ask = async |subject: &str| {
        world.bus.request(subject.to_owned(), Headers::new(), Bytes::new(), SHORT).await.unwrap_err()
    };
    assert_eq!(ask("silent").await, RequestError::TimedOut);
    assert_eq!(ask("nobody").await, RequestError::NoResponders);
    assert_eq!(ask("white space").await, RequestError::Subject);
}

#[tokio::test]
async fn requests_without_an_answer_leave_nothing_behind() {
    let world = World::start().await;
    let _silent = world.bus.subscribe("silent".to_owned()).await.unwrap();
    let asked = (0..500).map(|_| world.bus.request("silent".to_owned(), Headers::new(), Bytes::new(), SHORT));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(RequestError::TimedOut))));
    assert_eq!(world.bus.awaited_replies(), 0);
    // One that is cancelled leaves nothing either.
    let cancelled = world.bus.request("silent".to_owned(), Headers::new(), Bytes::new(), WITHIN);
    assert!(tokio::time::timeout(SHORT, cancelled).await.is_err());
    assert_eq!(world.bus.awaited_replies(), 0);
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_that_of_a_later_request() {
    let world = World::start().await;
    let mut listener = world.bus.subscribe("slow".to_owned()).await.unwrap();
    let first = world.bus.request("slow".to_owned(), Headers::new(), Bytes::from_static(b"first"), SHORT).await;
    assert_eq!(first.unwrap_err(), RequestError::TimedOut);
    let late = listener.next().await.unwrap();
    let second = world.bus.request("slow".to_owned(), Headers::new(), Bytes::from_static(b"second"), WITHIN);
    let answers = async {
        let in_time = listener.next().await.unwrap();
        for request in [late, in_time] {
            world.bus.send(request.reply.unwrap(), Headers::new(), request.payload).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(second, answers);
    assert_eq!(&answer.unwrap().payload[..], b"second");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_before_it_is_sent() {
    let world = World::start().await;
    let limit = world.bus.max_payload();
    let payload = Bytes::from(vec![0; limit + 1]);
    let sent = world.bus.send("a".to_owned(), Headers::new(), payload.clone()).await;
    assert_eq!(sent.unwrap_err(), SendError::TooLarge { limit });
    let asked = world.bus.request("a".to_owned(), Headers::new(), payload, WITHIN).await;
    assert_eq!(asked.unwrap_err(), RequestError::TooLarge { limit });
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_told_by_its_generation() {
    let mut world = World::start().await;
    let mut subscription = world.bus.subscribe("a".to_owned()).await.unwrap();
    let before = world.bus.state();
    assert!(before.connected && before.generation == 1, "{before:?}");
    world.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !world.bus.state().connected).await;
    world.server.restart().await.unwrap();
    let mut state = world.bus.watch_state();
    let after = *soon(state.wait_for(|state| state.generation == 2 && state.connected)).await.unwrap();
    assert_eq!(world.bus.state(), after);
    // Subscriptions and the inbox of answers are there again.
    world.bus.round_trip(WITHIN).await.unwrap();
    world.bus.send("a".to_owned(), Headers::new(), Bytes::new()).await.unwrap();
    assert!(soon(subscription.next()).await.is_some());
}

#[tokio::test]
async fn closing_lets_what_was_sent_leave_first() {
    let world = World::start().await;
    let other = world.connect().await;
    let mut subscription = other.subscribe("a".to_owned()).await.unwrap();
    other.round_trip(WITHIN).await.unwrap();
    for _ in 0..1_000 {
        world.bus.send("a".to_owned(), Headers::new(), Bytes::from_static(b"x")).await.unwrap();
    }
    world.bus.close().await;
    for _ in 0..1_000 {
        soon(subscription.next()).await.unwrap();
    }
    let state = world.bus.state();
    assert!(state.closed && !state.connected, "{state:?}");
    let sent = world.bus.send("a".to_owned(), Headers::new(), Bytes::new()).await;
    assert_eq!(sent.unwrap_err(), SendError::Closed);
    let asked = world.bus.request("a".to_owned(), Headers::new(), Bytes::new(), WITHIN).await;
    assert_eq!(asked.unwrap_err(), RequestError::Closed);
}

#[tokio::test]
async fn closing_without_a_server_does_not_hang() {
    let mut world = World::start().await;
    world.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !world.bus.state().connected).await;
    soon(world.bus.close()).await;
    let asked = world.bus.request("a".to_owned(), Headers::new(), Bytes::new(), WITHIN).await;
    assert_eq!(asked.unwrap_err(), RequestError::Closed);
}

#[tokio::test]
async fn a_first_connection_that_cannot_be_made_says_why() {
    let connect = async |settings: BusSettings| Bus::connect(&settings, "test").await.unwrap_err();
    let nobody = connect(BusSettings::at("nats://127.0.0.1:1")).await;
    assert!(matches!(nobody, ConnectError::Unreachable { .. }), "{nobody:?}");
    let wrong =
        connect(BusSettings { servers: Vec::new(), user: Some("u".to_owned()), ..BusSettings::default() }).await;
    assert!(matches!(&wrong, ConnectError::Settings(problems) if problems.len() == 2), "{wrong:?}");
    let missing = connect(BusSettings { credentials: Some("/nowhere".into()), ..BusSettings::default() }).await;
    assert!(matches!(missing, ConnectError::Credentials(_)), "{missing:?}");
}

#[tokio::test]
async fn without_tls_a_connection_that_demands_it_is_refused() {
    let world = World::start().await;
    let settings = BusSettings { tls: true, ..BusSettings::at(world.server.client_url()) };
    let error = Bus::connect(&settings, "test").await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn whoever_has_no_password_is_not_let_in() {
    let guarded = Guarded::start("").await;
    let stranger = BusSettings { user: None, password: None, ..guarded.settings.clone() };
    let error = Bus::connect(&stranger, "test").await.unwrap_err();
    assert!(matches!(error, ConnectError::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_denied_is_said_at_once_and_counted() {
    let guarded = Guarded::start("publish: [\"ok\", \"_INBOX.>\"], subscribe: [\"ok\", \"_INBOX.>\"]").await;
    let _listener = guarded.bus.subscribe("ok".to_owned()).await.unwrap();
    let ask = async |subject: &str, within| {
        guarded.bus.request(subject.to_owned(), Headers::new(), Bytes::new(), within).await.unwrap_err()
    };
    assert_eq!(ask("forbidden", WITHIN).await, RequestError::Denied);
    assert_eq!(ask("ok", SHORT).await, RequestError::TimedOut);
    let mut state = guarded.bus.watch_state();
    assert!(soon(state.wait_for(|state| state.denied == 1)).await.is_ok());
    let _silent = guarded.bus.subscribe("forbidden".to_owned()).await.unwrap();
    assert!(soon(state.wait_for(|state| state.denied == 2)).await.is_ok());
}

#[tokio::test]
async fn an_inbox_prefix_of_its_own_is_enough() {
    let mut guarded = Guarded::start("publish: [\"_INBOX.mine.>\"], subscribe: [\"_INBOX.mine.>\"]").await;
    guarded.settings.inbox_prefix = Some("_INBOX.mine".to_owned());
    let bus = Bus::connect(&guarded.settings, "test").await.unwrap();
    assert!(bus.new_inbox().starts_with("_INBOX.mine."));
    bus.round_trip(WITHIN).await.unwrap();
    assert_eq!(bus.state().denied, 0);
}

#[tokio::test]
async fn tls_is_spoken_with_a_server_of_the_given_authority_and_no_other() {
    let guarded = Guarded::with_tls().await;
    guarded.bus.round_trip(WITHIN).await.unwrap();
    let stranger = BusSettings { ca: None, ..guarded.settings.clone() };
    let error = Bus::connect(&stranger, "test").await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

/// Headers that the library's parser panics on, and some that it refuses.
const DEADLY: &[u8] = b"NATS/1.0\r\nA: a\rb\r\n\r\n";
const MALFORMED: &[u8] = b"NATS/1.0\r\nA: \xff\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_messages_that_the_library_cannot_read() {
    let world = World::start().await;
    let mut alone = world.bus.subscribe("a".to_owned()).await.unwrap();
    let mut shared = world.bus.subscribe_shared("b".to_owned(), "group").await.unwrap();
    world.bus.round_trip(WITHIN).await.unwrap();
    let mut generation = world.bus.state().generation;
    for (subject, headers) in [("a", DEADLY), ("b", DEADLY), ("a", MALFORMED), ("b", DEADLY), ("a", DEADLY)] {
        world.raw_publish(subject, headers).await;
        let mut state = world.bus.watch_state();
        let state = *soon(state.wait_for(|state| state.generation > generation && state.connected)).await.unwrap();
        assert_eq!((world.bus.state(), state.closed), (state, false));
        generation = state.generation;
        world.bus.round_trip(WITHIN).await.unwrap();
        // The subscriptions come to stand on the new client one by one, as they are read.
        let hears = async |subscription: &mut Subscription, subject: &str| {
            eventually("it hears again", async || {
                world.bus.send(subject.to_owned(), Headers::new(), Bytes::new()).await.unwrap();
                tokio::time::timeout(SHORT, subscription.next()).await.is_ok_and(|message| message.is_some())
            })
            .await;
        };
        hears(&mut alone, "a").await;
        hears(&mut shared, "b").await;
    }
    world.bus.close().await;
    let rest = soon(async { while alone.next().await.is_some() {} });
    rest.await;
    assert!(world.bus.state().closed, "closed is closed");
    let sent = world.bus.send("a".to_owned(), Headers::new(), Bytes::new()).await;
    assert_eq!(sent.unwrap_err(), SendError::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_while_the_library_is_dead_waits_for_the_next_client() {
    let mut world = World::start().await;
    let _deadly = world.bus.subscribe("deadly".to_owned()).await.unwrap();
    world.bus.round_trip(WITHIN).await.unwrap();
    world.raw_publish("deadly", DEADLY).await;
    world.server.kill().await.unwrap();
    eventually("the loss is noticed", async || !world.bus.state().connected).await;
    let mut sending = Box::pin(world.bus.send("a".to_owned(), Headers::new(), Bytes::new()));
    // It waits if there was no other client yet before the server was killed.
    let sent = tokio::time::timeout(SHORT, &mut sending).await;
    world.server.restart().await.unwrap();
    match sent {
        Ok(sent) => sent.unwrap(),
        Err(_) => soon(sending).await.unwrap(),
    }
    world.bus.round_trip(WITHIN).await.unwrap();
    assert!(world.bus.state().connected);
}
