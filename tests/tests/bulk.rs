//! Bulks: what a service submits at once goes to the journal together, and is no less safe for that. Each change has its own receipt,
//! whatever becomes of the others; what is wrong with one harms none of them for long.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{TryStreamExt, future::join_all};
use roam_client::{
    Change, ChangeError, ChangeId, Client, ClientSettings, Code, Encoding, Expect, Identity, Operation, ProfileClient,
    Record, Revision, Saved, Select, Shards, State,
};
use roam_nats::{CHANGES_STREAM, JOURNAL_STREAM, stream_state};
use roam_schemas::{
    Bulk, BulkChange, BulkReceipt, BulkReceipts, Draft, Outcome, Receipt, ServiceName, Shard, decode, encode, headers,
    subjects,
};
use roam_tests::{Part, Probe, World, app, envelope, eventually, key, tenant, text, user};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");

fn directory() -> ServiceName {
    ServiceName::parse("directory").unwrap()
}

fn change(name: &str, value: &str) -> Change {
    Change::new(ChangeId::random(), None, vec![Operation::put(key(name), value, text())]).unwrap()
}

/// The change of each of so many users, submitted at once.
async fn save(client: &Client, users: usize, name: &str, value: &str) -> Vec<Result<Saved, ChangeError>> {
    join_all((0..users).map(|number| {
        let editor = client.profile_of(user(&format!("user{number}")), app("editor"));
        async move { editor.submit(change(name, value)).await?.receipt().await }
    }))
    .await
}

async fn records(profile: &ProfileClient) -> Vec<Record> {
    profile.records(Select::All).try_collect().await.unwrap()
}

/// What each of so many users holds.
async fn held(client: &Client, users: usize) -> Vec<BTreeMap<String, String>> {
    join_all((0..users).map(|number| {
        let editor = client.profile_of(user(&format!("user{number}")), app("editor"));
        async move {
            let records = records(&editor).await;
            let text = |record: &Record| match &record.state {
                State::Value(stored) => stored.value.as_text().unwrap_or_default().to_owned(),
                _ => String::new(),
            };
            records.iter().map(|record| (record.key.to_string(), text(record))).collect()
        }
    }))
    .await
}

fn one(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_takes_one_place_in_the_stream_and_one_batch_and_each_change_its_receipt() {
    let world = World::new().start().await;
    let client = world.service("acme", "directory").await;
    let saved = save(&client, 500, "theme", "dark").await;
    for saved in &saved {
        let saved = saved.as_ref().unwrap();
        assert_eq!((saved.revision, saved.again), (Revision::new(1), false));
    }
    let taken = world.stream(CHANGES_STREAM).await.last_sequence;
    assert!(taken < 250, "500 changes took {taken} places in the stream");
    assert!(world.stream(JOURNAL_STREAM).await.last_sequence <= taken);
    assert!(held(&client, 500).await.iter().all(|held| *held == one("theme", "dark")));
    // A device of one of them is told like of any other change.
    let device = world.device("acme", "user7", "laptop").await.profile(app("editor"));
    let records = records(&device).await;
    assert_eq!(records[0].device.as_str(), "$svc-directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_one_profile_keep_their_order_and_each_is_decided_for_itself() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let receipts = subjects::receipts_of_service(&tenant("acme"), &directory());
    let mut mailbox = post.listen(receipts).await;
    let put = |user: &str, name: &str, value: &str, expect: Expect| {
        let op = Operation::put(key(name), value, text()).expecting(expect);
        let change = Change::new(ChangeId::random(), None, vec![op]).unwrap();
        BulkChange { user: user.to_owned(), change: Draft::from(change) }
    };
    let changes = vec![
        put("alice", "k", "first", Expect::Absent),
        put("bob", "k", "his", Expect::At(Revision::new(9))),
        put("alice", "k", "second", Expect::At(Revision::new(1))),
        put("alice", "k", "never", Expect::At(Revision::new(1))),
        put("alice", "l", "too", Expect::Any),
    ];
    let subject = subjects::bulk(Shard::ONLY, &tenant("acme"), &app("editor"), &directory());
    for (round, encoding) in [Encoding::Postcard, Encoding::Json, Encoding::Json].into_iter().enumerate() {
        let payload = encode(&Bulk { changes: changes.clone() }, encoding).unwrap();
        let sequence = post.publish(&subject, envelope(encoding), payload).await;
        let message = mailbox.next().await;
        assert_eq!(message.subject, "roam.v1.receipt.acme.$bulk.editor.$svc-directory");
        let BulkReceipts { receipts } = decode(&message.payload, message.headers.encoding().unwrap()).unwrap();
        let of: Vec<_> = receipts.iter().map(|one| (one.user.as_str(), one.receipt.id)).collect();
        let sent: Vec<_> = changes.iter().map(|part| (part.user.as_str(), Some(part.change.id))).collect();
        assert_eq!(of, sent);
        let outcome = |one: BulkReceipt| {
            let Receipt { sequence: of, again, outcome, .. } = one.receipt;
            assert_eq!((of, again), (sequence, round > 0), "the same bulk again changes nothing");
            match outcome {
                Outcome::Applied(applied) => Ok(applied.revision.get()),
                Outcome::Rejected(problem) => Err(problem.code),
            }
        };
        let found: Vec<_> = receipts.into_iter().map(outcome).collect();
        assert_eq!(found, [Ok(1), Err(Code::Conflict), Ok(2), Err(Code::Conflict), Ok(3)]);
    }
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    assert_eq!(records(&alice).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_with_a_bad_change_is_refused_whole_told_once_and_filed() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = post.listen(subjects::receipts_of_service(&tenant("acme"), &directory())).await;
    let subject = subjects::bulk(Shard::ONLY, &tenant("acme"), &app("editor"), &directory());
    let good = || BulkChange { user: "alice".to_owned(), change: Draft::from(change("k", "v")) };
    let bad = BulkChange { user: "b".repeat(129), ..good() };
    for encoding in [Encoding::Postcard, Encoding::Json] {
        let whole = encode(&Bulk { changes: vec![good(), bad.clone()] }, encoding).unwrap();
        for payload in [whole.clone(), whole[..whole.len() - 2].to_vec()] {
            let sequence = post.publish(&subject, envelope(encoding), payload.clone()).await;
            let message = mailbox.next().await;
            assert_eq!(message.subject, "roam.v1.receipt.acme.$bulk.editor.$svc-directory");
            let receipt: Receipt = decode(&message.payload, encoding).unwrap();
            assert_eq!((receipt.sequence, receipt.id), (sequence, None));
            let Outcome::Rejected(problem) = receipt.outcome else { panic!("it is refused") };
            let filed = post.filed(sequence).await;
            assert_eq!(filed.headers.get(headers::REASON), Some(problem.to_string().as_str()));
            assert_eq!(filed.payload, payload);
            assert_eq!(problem.code, Code::Invalid, "{problem}");
        }
    }
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    assert!(records(&alice).await.is_empty(), "nothing of them was decided");
    // The service goes on.
    let client = world.service("acme", "directory").await;
    assert!(save(&client, 100, "theme", "dark").await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_over_the_rate_holds_nobody_up_for_long_and_all_is_saved() {
    let rate = roam_access_server::Rate { changes_per_second: 20, burst: 20 };
    let world = World::new().rate(rate).start().await;
    let client = world.service("acme", "directory").await;
    let hot = client.profile_of(user("hot"), app("editor"));
    let flood = join_all((0..60).map(|number| {
        let hot = hot.clone();
        async move { hot.submit(change(&number.to_string(), "v")).await?.receipt().await }
    }));
    let (flood, others) = tokio::join!(flood, save(&client, 100, "theme", "dark"));
    assert!(flood.iter().chain(&others).all(Result::is_ok), "{flood:?} {others:?}");
    assert!(held(&client, 100).await.iter().all(|held| *held == one("theme", "dark")));
    let throttled = world.access_servers[0].pages().metric("roam_access_server_changes_throttled_total", &[]).await;
    assert!(throttled > 0.0);
}

/// Has the changes of 300 users saved again and again, while the part that is named is killed once a stream holds one more
/// message than in the round before, up to the `fewest` that the changes of a round take there.
async fn saved_while_killed(stream: &str, fewest: u64, part: impl Fn(&mut World) -> &mut Part) {
    const ROUNDS: u64 = 6;
    let mut world = World::new().as_processes(BINARY).access_servers(2).start().await;
    let settings = ClientSettings { receipt_timeout: Duration::from_secs(60), ..world.client_settings() };
    let identity = Identity::Service { tenant: tenant("acme"), name: directory() };
    let client = world.connect(settings, identity).await;
    let bus = world.operator().await;
    for round in 0..ROUNDS {
        let name = format!("k{round}");
        let before = stream_state(&bus, stream).await.unwrap().last_sequence;
        let (saved, ()) = tokio::join!(save(&client, 300, &name, "v"), async {
            while stream_state(&bus, stream).await.unwrap().last_sequence < before + round.min(fewest) {}
            let part = part(&mut world);
            part.kill().await;
            part.start().await;
        });
        for saved in saved {
            assert_eq!(saved.unwrap().revision, Revision::new(round + 1), "each took effect once");
        }
    }
    assert!(held(&client, 300).await.iter().all(|held| held.len() as u64 == ROUNDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_server_that_is_killed_with_bulks_in_hand_loses_nothing_and_repeats_nothing() {
    saved_while_killed(CHANGES_STREAM, 5, |world| &mut world.access_servers[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_with_receipts_of_bulks_under_way_loses_nothing_and_repeats_nothing() {
    // All that is there goes into one batch, up to 1,000 changes.
    saved_while_killed(JOURNAL_STREAM, 1, |world| &mut world.replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_a_bulk_that_do_not_read_are_counted_and_harm_nobody() {
    let world = World::new().start().await;
    let client = world.service("acme", "directory").await;
    let bus = world.operator().await;
    let subject = "roam.v1.receipt.acme.$bulk.editor.$svc-directory";
    let receipts = encode(&BulkReceipts { receipts: Vec::new() }, Encoding::Postcard).unwrap();
    let halved = receipts[..receipts.len() - 1].to_vec();
    for payload in [halved, b"rubbish".to_vec(), Vec::new()] {
        bus.send(subject.to_owned(), envelope(Encoding::Postcard), payload.into()).await.unwrap();
    }
    assert!(save(&client, 100, "theme", "dark").await.iter().all(Result::is_ok));
    eventually("all of them are counted", async || {
        let counts = client.receipt_counts();
        ((counts.undecodable, counts.matched, counts.foreign) == (3, 100, 0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulks_go_to_the_shards_of_their_users_and_a_wrong_number_of_shards_costs_speed_alone() {
    let world = World::new().shards(4).start().await;
    for (shards, in_bulks) in [(4, true), (1, false), (3, false)] {
        let settings = ClientSettings { bulk: Some(Shards::new(shards).unwrap()), ..world.client_settings() };
        let name = ServiceName::parse(format!("of{shards}")).unwrap();
        let client = world.connect(settings, Identity::Service { tenant: tenant("acme"), name }).await;
        let value = format!("of {shards}");
        let places = async || {
            let mut last = 0;
            for shard in Shards::new(4).unwrap().each() {
                last += world.stream(&roam_nats::changes_stream(shard)).await.last_sequence;
            }
            last
        };
        let before = places().await;
        for round in ["theme", "font"] {
            let saved = save(&client, 200, round, &value).await;
            assert!(saved.iter().all(Result::is_ok), "{saved:?}");
        }
        let took = places().await - before;
        assert_eq!(took < 300, in_bulks, "{took} places for 400 changes with {shards} shards");
        assert!(held(&client, 200).await.iter().all(|held| held.len() == 2 && held["theme"] == value));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_for_all_publishes_no_bulk() {
    let world = World::new().secure(1).start().await;
    let service = world.service("acme", "directory").await;
    assert!(save(&service, 100, "theme", "dark").await.iter().all(Result::is_ok));
    assert!(world.stream(CHANGES_STREAM).await.last_sequence < 80);
    let grant = serde_json::from_value(json!({"tenant": "acme", "user": "mallory", "device": "laptop"})).unwrap();
    let (_, token) = world.token(grant, Duration::from_secs(600));
    let mut mallory = Probe::with_token(&world.nats.client_url(), token.expose()).await.unwrap();
    for subject in [
        "roam.v1.change.acme.$bulk-0.editor.$svc-directory",
        "roam.v1.change.acme.$bulk-0.editor.$svc-mallory",
        "roam.v1.change.acme.$bulk-0.editor.laptop",
    ] {
        assert!(!mallory.may_publish(subject).await, "{subject}");
    }
}
