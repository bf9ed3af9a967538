//! What is published reaches the journal: validated, stamped, in batches, and once the journal has it, acked.

use std::collections::BTreeSet;

use crate::support::{AccessServer, WITHIN, World, alice, connect, deployment, eventually, laptop, put, subject_of};
use roam_nats::{BusSettings, Headers, NatsServer, ServerSettings, SyncInterval, provision};
use roam_process::Context;
use roam_schemas::{
    Change, ChangeId, ContentType, Encoding, Key, Operation, RULES, Terms, encode,
    limits::{self, BATCH_CHANGES},
};
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_journal_with_its_sender_its_time_and_its_origin() {
    let world = World::start().await;
    let _server = world.access_server().await;
    let mut journal = world.journal().await;
    let incarnation = u64::try_from(world.changes().await.created.unix_timestamp_nanos()).unwrap();
    for encoding in [Encoding::Json, Encoding::Postcard] {
        let change = put("greeting");
        let before = roam_process::clock::now_ns();
        let sequence = world.publish(&subject_of("laptop"), encoding, encode(&change, encoding).unwrap()).await;
        let stamped = journal.next().await;
        assert_eq!((&stamped.profile, &stamped.device, stamped.encoding), (&alice(), &laptop(), encoding));
        assert_eq!((stamped.stamp.origin.incarnation, stamped.stamp.origin.sequence), (incarnation, sequence));
        let taken_in = stamped.stamp.time.as_nanos();
        assert!((before..=roam_process::clock::now_ns()).contains(&taken_in), "{taken_in} is not after {before}");
        assert_eq!(stamped.digest, change.digest());
        assert_eq!(stamped.change, change);
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_journal_in_the_order_in_which_the_stream_took_them() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    // What is there is taken at once, so this also shows that batches do not exceed their limits.
    let published = world.publish_many(5_000).await;
    let server = world.access_server().await;
    let mut journal = world.journal().await;
    let mut found = Vec::new();
    while found.len() < published.len() {
        let batch = journal.next_batch().await;
        assert!((1..=BATCH_CHANGES).contains(&batch.changes.len()));
        assert_eq!((batch.rules, &batch.terms), (RULES, &Terms::default()));
        found.extend(batch.changes.into_iter().map(|change| (change.stamp.origin.sequence, change.change.id())));
    }
    assert_eq!(found, published.into_iter().collect::<Vec<_>>());
    assert!(journal.batches < 500, "{} batches", journal.batches);
    world.settled().await;
    assert_eq!(server.metric("changes_appended_total"), 5_000.0);
    assert_eq!(server.metric("changes_validated_total"), 5_000.0);
    assert_eq!(server.metric("batch_changes_sum"), 5_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_largest_size_pass() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let _server = world.access_server().await;
    let mut journal = world.journal().await;
    for _ in 0..10 {
        let ops = (0..4).map(|key: u8| {
            let value = vec![b'v'; limits::VALUE_BYTES - 100];
            Operation::put(Key::parse(key.to_string()).unwrap(), value, ContentType::octets())
        });
        let change = Change::new(ChangeId::random(), None, ops.collect()).unwrap();
        let payload = encode(&change, Encoding::Postcard).unwrap();
        for device in ["one", "two", "three", "four"] {
            world.publish(&subject_of(device), Encoding::Postcard, payload.clone()).await;
        }
        assert!(journal.take(4).await.iter().all(|stamped| stamped.change == change));
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_no_journal_changes_wait() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let server = world.access_server().await;
    let deleted = world.bus.request("$JS.API.STREAM.DELETE.ROAM_JOURNAL".to_owned(), Headers::new(), "".into(), WITHIN);
    deleted.await.unwrap();
    let published = world.publish_many(100).await;
    eventually("it is not ready", async || server.not_ready().contains_key("gate")).await;
    assert_eq!(world.changes().await.messages, 100);
    provision(&world.bus, &deployment()).await.unwrap();
    let mut missing: BTreeSet<_> = published.into_values().collect();
    let mut journal = world.journal().await;
    while !missing.is_empty() {
        missing.remove(&journal.next().await.change.id());
    }
    world.settled().await;
    timeout(WITHIN, server.context.health.ready()).await.expect("it gets ready again").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_another_incarnation() {
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let server = world.access_server().await;
    world.publish_many(3).await;
    world.settled().await;
    let deleted = world.bus.request("$JS.API.STREAM.DELETE.ROAM_CHANGES".to_owned(), Headers::new(), "".into(), WITHIN);
    deleted.await.unwrap();
    provision(&world.bus, &deployment()).await.unwrap();
    let incarnation = u64::try_from(world.changes().await.created.unix_timestamp_nanos()).unwrap();
    world.publish_many(1).await;
    let stamped = world.journal().await.take(4).await.pop().unwrap();
    assert_eq!((stamped.stamp.origin.incarnation, stamped.stamp.origin.sequence), (incarnation, 1));
    world.settled().await;
    timeout(WITHIN, server.context.health.ready()).await.expect("it is ready").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_and_terms_of_the_settings_travel_in_every_batch() {
    let world = World::start().await;
    let terms = Terms { history_versions: 3, ..Terms::default() };
    let settings = roam_access_server::Settings { terms: terms.clone(), ..world.settings() };
    let _server = world.access_server_with(settings).await;
    world.publish_many(1).await;
    assert_eq!(world.journal().await.next_batch().await.terms, terms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_ours_is_dropped_and_counted_and_nobody_hears_of_it() {
    let world = World::start().await;
    let server = world.access_server().await;
    let mut receipts = world.receipts(&alice(), &laptop()).await;
    // As a PubAck looks that was steered here.
    world.publish_with(&subject_of("laptop"), Headers::new(), r#"{"stream":"S","seq":1}"#).await;
    let change = encode(&put("a"), Encoding::Json).unwrap();
    world.publish_with(&subject_of("laptop"), Headers::new().with("Content-Type", "text/plain"), change).await;
    let change = put("b");
    world.publish(&subject_of("laptop"), Encoding::Json, encode(&change, Encoding::Json).unwrap()).await;
    assert_eq!(world.journal().await.next().await.change, change);
    world.settled().await;
    assert_eq!(server.metric("messages_foreign_total"), 2.0);
    world.bus.round_trip(WITHIN).await.unwrap();
    assert!(timeout(std::time::Duration::ZERO, receipts.next()).await.is_err(), "nobody is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_the_bus_is_restarted_reaches_the_journal() {
    let mut world = World::start().await;
    let _announcer = world.announcer().await;
    let server = world.access_server().await;
    let before = world.publish_many(100).await;
    world.server.kill().await.unwrap();
    eventually("it is not ready", async || server.not_ready().contains_key("bus")).await;
    world.server.restart().await.unwrap();
    let after = world.publish_many(100).await;
    let mut expected: BTreeSet<_> = before.into_values().chain(after.into_values()).collect();
    let mut journal = world.journal().await;
    while !expected.is_empty() {
        expected.remove(&journal.next().await.change.id());
    }
    timeout(WITHIN, server.context.health.ready()).await.expect("it gets ready again").unwrap();
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_server_waits_for_the_bus_and_for_its_streams() {
    let dir = TempDir::new().unwrap();
    let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
    let mut nats = NatsServer::start(settings).await.unwrap();
    let bus_settings = BusSettings::at(nats.client_url());
    nats.stop().await.unwrap();

    let server = AccessServer::start(roam_access_server::Settings { bus: bus_settings, ..Default::default() });
    eventually("it says that there is no server", async || {
        server.not_ready().get("bus").is_some_and(|reason| reason.contains("no server"))
    })
    .await;
    nats.restart().await.unwrap();
    eventually("it says that there is no stream", async || {
        server.not_ready().get("changes").is_some_and(|reason| reason.contains("ROAM_CHANGES"))
    })
    .await;
    provision(&connect(&nats).await, &deployment()).await.unwrap();
    timeout(WITHIN, server.context.health.ready()).await.expect("it gets ready").unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_server_that_waits_for_the_bus_stops_when_it_is_asked_to() {
    let bus = BusSettings::at("nats://127.0.0.1:1");
    let server = AccessServer::start(roam_access_server::Settings { bus, ..Default::default() });
    eventually("it waits", async || server.not_ready().get("bus").is_some_and(|reason| reason != "starting")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_the_bus_refuses_end_it_with_an_error() {
    let bus = BusSettings { servers: vec![], ..BusSettings::default() };
    let settings = roam_access_server::Settings { bus, ..Default::default() };
    let context = Context::new(WITHIN);
    assert!(roam_access_server::run(settings, context).await.is_err());
}
