//! Four shards: users of each are served as in a deployment of one, by the access server and the replica of their shard alone;
//! what fails in one shard is not felt in the others; and whoever names the wrong shard is denied.

use std::{collections::BTreeMap, fs, time::Duration};

use roam_client::{Code, ContentType, Encoding, Event, Lookup, ProfileClient, Revision, State, WatchFrom};
use roam_nats::{RequestError, changes_stream, chunks_stream, journal_stream, stream_state};
use roam_process::Context;
use roam_schemas::{
    Action, BatchId, Change, ChangeId, Device, Draft, DraftOperation, Expect, Grant, JournalBatch, Operation, Origin,
    Outcome, Problem, Put, RULES, Receipt, ServiceName, Shard, Shards, Stamp, StampedChange, Terms, Timestamp, Value,
    decode, encode, headers,
    subjects::{self, Verb},
};
use roam_storage::{BackupSettings, RunError, store::StoreError};
use roam_tests::{
    Mailbox, PATIENCE, Post, Probe, World, app, device, envelope, eventually, key, profile, tenant, text, user,
};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
const SHARDS: u16 = 4;
const JSON: Encoding = Encoding::Json;

fn shards() -> Shards {
    Shards::new(SHARDS).unwrap()
}

/// A user of acme in each shard, in order of the shards.
fn users() -> Vec<String> {
    let in_shard = |shard: Shard| {
        let mut users = (0..).map(|number| format!("user{number}@example.com"));
        users.find(|name| shard.holds(&tenant("acme"), &user(name))).unwrap()
    };
    shards().each().map(in_shard).collect()
}

/// A shard that this user is not in.
fn another(name: &str) -> Shard {
    let own = shards().of(&tenant("acme"), &user(name));
    Shard::new((own.number() + 1) % SHARDS, SHARDS).unwrap()
}

async fn editor(world: &World, owner: &str, name: &str) -> ProfileClient {
    world.device("acme", owner, name).await.profile(app("editor"))
}

async fn value(profile: &ProfileClient, name: &str) -> Option<String> {
    match profile.get(key(name)).await.unwrap() {
        Lookup::Found(record) => match record.state {
            State::Value(stored) => stored.value.as_text().map(str::to_owned),
            State::Deleted | State::Expired => None,
        },
        _ => None,
    }
}

async fn put(profile: &ProfileClient, name: &str, value: &str) -> Revision {
    timeout(PATIENCE, profile.put(key(name), value, text())).await.expect("it is saved").unwrap().revision
}

async fn rejected(mailbox: &mut Mailbox) -> Problem {
    let (Receipt { outcome, .. }, _) = mailbox.receipt().await;
    match outcome {
        Outcome::Rejected(problem) => problem,
        Outcome::Applied(applied) => panic!("applied: {applied:?}"),
    }
}

fn change(name: &str) -> Vec<u8> {
    let put = Put { value: Value::new(b"dark".to_vec()), content_type: ContentType::text(), ttl: None };
    let ops = vec![DraftOperation { key: name.to_owned(), action: Action::Put(put), expect: Expect::Any }];
    encode(&Draft { id: ChangeId::random(), base: None, ops }, JSON).unwrap()
}

/// A change is saved, read, told to the other device, and looked back on, for a user of each shard.
async fn each_is_served(world: &World) {
    for owner in users() {
        let (laptop, phone) = (editor(world, &owner, "laptop").await, editor(world, &owner, "phone").await);
        let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
        assert_eq!(put(&laptop, "theme", &owner).await, Revision::new(1));
        let event = timeout(PATIENCE, watch.next()).await.expect("the other device is told").unwrap();
        let (Event::Revision { revision, .. } | Event::State { head: revision, .. }) = event else { panic!("reset") };
        assert_eq!(revision, Revision::new(1));
        assert_eq!(value(&phone, "theme").await, Some(owner.clone()));
        assert_eq!(phone.history(key("theme"), None).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_every_shard_are_served_and_each_shard_holds_its_own() {
    let world = World::new().shards(SHARDS).replicas(2).start().await;
    each_is_served(&world).await;
    for shard in shards().each() {
        let stream = changes_stream(shard);
        assert_eq!(world.stream(&stream).await.last_sequence, 1, "one change went through shard {shard}");
        eventually("it is acked", async || (world.stream(&stream).await.messages == 0).then_some(())).await;
        assert_eq!(world.stream(&journal_stream(shard)).await.last_sequence, 1);
        let listed = world.roam(BINARY, &format!("profiles --shard {} --json", shard.number())).await.with_code(0);
        assert_eq!(listed.object()["profile"], format!("acme/{}/editor", users()[usize::from(shard.number())]));
    }
    // A service writes for users of all shards over one connection, and hears of each.
    let mailer = world.service("acme", "mailer").await;
    for owner in users() {
        let editor = mailer.profile_of(user(&owner), app("editor"));
        assert_eq!(put(&editor, "font", "serif").await, Revision::new(2));
        assert_eq!(value(&editor, "theme").await, Some(owner));
    }
    let _ = world.roam(BINARY, "status").await.with_code(0).saying("shard 3 of 4").saying("ROAM_JOURNAL_3");
    let _ = world.roam(BINARY, "status --shard 4").await.with_code(64).saying("shard must be from 0 to 3, not 4");
    let verified = world.roam(BINARY, "verify --json").await.with_code(0);
    assert_eq!(verified.stdout.lines().count(), usize::from(SHARDS), "{}", verified.stdout);
    assert_eq!(world.roam(BINARY, "profiles --json").await.with_code(0).stdout.lines().count(), usize::from(SHARDS));
    let _ = world.roam(BINARY, "repair consumers").await.with_code(0).saying("ROAM_CHANGES_2/access");
    let _ = world.roam(BINARY, "provision --shards 2").await.with_code(1).saying("the number of shards");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_the_wrong_shard_is_denied_and_nothing_is_changed() {
    let world = World::new().shards(SHARDS).start().await;
    let (tablet, owners) = (device("tablet"), users());
    for owner in &owners {
        let (wrong, whose) = (another(owner), profile(&format!("acme/{owner}/editor")));
        let post = world.post("acme", owner, "tablet").await;
        let mut receipts = post.receipts(&whose, &tablet).await;
        let subject = subjects::in_shard(wrong, &subjects::change(&whose, &tablet));
        let sequence = post.publish(&subject, envelope(JSON), change("theme")).await;
        let problem = rejected(&mut receipts).await;
        assert_eq!((problem.code, problem.retry), (Code::Denied, false), "{problem}");
        let filed = post.filed(sequence).await;
        assert_eq!(filed.headers.get(headers::CODE), Some("denied"));
        for (verb, payload) in
            [(Verb::Latest, ""), (Verb::Changes, ""), (Verb::History, r#"{"history_request_v1":{"key":"a"}}"#)]
        {
            let subject = subjects::in_shard(wrong, &subjects::request(verb, &whose));
            let answer = post.ask(&subject, envelope(JSON), payload).await;
            assert_eq!(decode::<Problem>(&answer.payload, JSON).unwrap().code, Code::Denied, "{subject}");
        }
        // A replica believes no access server either.
        journaled_in(&post, wrong, owner).await;
        assert_eq!(rejected(&mut receipts).await.code, Code::Denied);
        // The front door is open all the same.
        assert_eq!(put(&editor(&world, owner, "laptop").await, "theme", "dark").await, Revision::new(1));
    }
    assert_eq!(world.roam(BINARY, "profiles --json").await.with_code(0).stdout.lines().count(), owners.len());
}

/// Appends a change of a user to the journal of a shard, as an access server of it would that looks at nothing.
async fn journaled_in(post: &Post, shard: Shard, owner: &str) {
    let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("theme"), "dark", text())]).unwrap();
    let created = stream_state(&post.bus, &changes_stream(shard)).await.unwrap().created;
    let incarnation = u64::try_from(created.unix_timestamp_nanos()).unwrap();
    let stamp = Stamp { time: Timestamp::from_nanos(incarnation), origin: Origin { incarnation, sequence: 1_000 } };
    let stamped = StampedChange {
        profile: profile(&format!("acme/{owner}/editor")),
        device: device("tablet"),
        encoding: JSON,
        stamp,
        digest: change.digest(),
        change,
    };
    let (id, terms) = (BatchId::random(), Terms::default());
    let batch = JournalBatch { id, rules: RULES, terms, quotas: Vec::new(), changes: vec![stamped] };
    let headers = envelope(Encoding::Postcard).with_batch(id.to_string());
    post.publish(&subjects::journal(shard), headers, encode(&batch, Encoding::Postcard).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_gets_in_without_a_token_permissions_name_the_shard() {
    let world = World::new().shards(SHARDS).secure(1).start().await;
    each_is_served(&world).await;
    let (owner, url) = (users().remove(1), world.nats.client_url());
    let own = shards().of(&tenant("acme"), &user(&owner));
    let name = user(&owner).token();
    let grant = |grant: serde_json::Value| serde_json::from_value::<Grant>(grant).unwrap();
    let hour = Duration::from_secs(3_600);
    let (_, token) = world.token(grant(json!({"tenant": "acme", "user": owner, "device": "tablet"})), hour);
    let mut probe = Probe::with_token(&url, token.expose()).await.unwrap();
    for (rest, may) in [
        (format!("change.acme.{name}.editor.tablet"), true),
        (format!("change.acme.{name}.editor.laptop"), false),
        (format!("latest.acme.{name}.editor"), true),
        (format!("upload.acme.{name}"), true),
        (format!("kept.acme.{name}"), false),
        ("change.acme.bob.editor.tablet".to_owned(), false),
    ] {
        // What is mapped, and what it is mapped to; but no other shard.
        assert_eq!(probe.may_publish(&format!("roam.v1.{rest}")).await, may, "{rest}");
        for shard in shards().each() {
            let subject = subjects::in_shard(shard, &format!("roam.v1.{rest}"));
            assert_eq!(probe.may_publish(&subject).await, may && shard == own, "{subject}");
        }
    }
    let settings = roam_nats::BusSettings {
        inbox_prefix: Some(subjects::device_inbox(&tenant("acme"), &user(&owner), &device("tablet"))),
        ..world.settings_with(token).bus
    };
    let bus = roam_nats::Bus::connect(&settings, "a device").await.unwrap();
    let bobs = subjects::request(Verb::Latest, &profile("acme/bob/editor"));
    let refused = bus.request(bobs, envelope(JSON), "".into(), PATIENCE).await;
    assert!(matches!(refused, Err(RequestError::Denied)), "whoever is denied is told so at once: {refused:?}");
    for subject in ["roam.v1.s.*.change.>", "roam.v1.s.1.latest.>", "roam.v1.journal.1"] {
        assert!(!probe.may_subscribe(subject).await, "{subject}");
    }

    // A service may name any shard: it is told that it is the wrong one.
    let mailer = ServiceName::parse("mailer").unwrap();
    let (_, token) = world.token(grant(json!({"tenant": "acme", "service": "mailer", "access": "write"})), hour);
    let settings = roam_nats::BusSettings {
        inbox_prefix: Some(subjects::service_inbox(&tenant("acme"), &mailer)),
        ..world.settings_with(token).bus
    };
    let bus = roam_nats::Bus::connect(&settings, "a service").await.unwrap();
    let (whose, writer) = (profile(&format!("acme/{owner}/editor")), Device::service(&mailer));
    let mut receipts = bus.subscribe(subjects::receipts_of_service(&tenant("acme"), &mailer)).await.unwrap();
    // One connection: what it sends comes after what it subscribed to. A round trip of its own it may not make.
    let wrong = subjects::in_shard(another(&owner), &subjects::change(&whose, &writer));
    bus.send(wrong, envelope(JSON), change("theme").into()).await.unwrap();
    let told = timeout(PATIENCE, receipts.next()).await.expect("it is told").unwrap();
    let receipt: Receipt = decode(&told.payload, JSON).unwrap();
    assert!(matches!(&receipt.outcome, Outcome::Rejected(problem) if problem.code == Code::Denied), "{receipt:?}");
    let asked = subjects::in_shard(another(&owner), &subjects::request(Verb::Latest, &whose));
    let answer = bus.request(asked, envelope(JSON), "".into(), PATIENCE).await.unwrap();
    assert_eq!(decode::<Problem>(&answer.payload, JSON).unwrap().code, Code::Denied);

    // An operator's orders are told of, in whichever shard.
    let _ = world.roam(BINARY, &format!("erase acme/{owner} --yes")).await.with_code(0).saying("0 rows remain");
    let _ = world.roam(BINARY, "doctor").await.saying("streams and durables are as they should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_is_missed_in_its_shard_alone() {
    let mut world = World::new().shards(SHARDS).as_processes(BINARY).start().await;
    let owners = users();
    let mut clients = Vec::new();
    for owner in &owners {
        let client = editor(&world, owner, "laptop").await;
        put(&client, "theme", "before").await;
        clients.push(client);
    }
    world.replicas[2].kill().await;
    let missing = clients.remove(2);
    let mut waiting = JoinSet::new();
    let writer = missing.clone();
    waiting.spawn(async move { writer.put(key("theme"), "meanwhile", text()).await.unwrap().revision });
    let mut others = JoinSet::new();
    for client in clients {
        others.spawn(async move {
            for number in 0..100 {
                put(&client, "theme", &format!("value {number}")).await;
                assert_eq!(value(&client, "theme").await, Some(format!("value {number}")));
            }
        });
    }
    while let Some(done) = others.join_next().await {
        done.unwrap();
    }
    assert!(waiting.try_join_next().is_none(), "nobody saves what is in the third shard");
    let _ = world.roam(BINARY, "status").await.with_code(1).saying("PROBLEM");
    let _ = world.roam(BINARY, "status --shard 1").await.with_code(0);
    world.replicas[2].start().await;
    let saved = timeout(PATIENCE, waiting.join_next()).await.expect("it is saved").unwrap();
    assert_eq!(saved.unwrap(), Revision::new(2));
    assert_eq!(value(&missing, "theme").await.as_deref(), Some("meanwhile"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_of_its_shard_for_ever() {
    let mut world = World::new().shards(SHARDS).start().await;
    put(&editor(&world, &users()[1], "laptop").await, "theme", "dark").await;
    world.replicas[1].stop().await;
    let start = async |number: u16, count: u16| {
        let directory = world.dir().join("roam-storage-1");
        let bus = roam_nats::BusSettings::at(world.nats.client_url());
        let settings = roam_storage::Settings { directory, bus, shard: number, shards: count, ..Default::default() };
        timeout(PATIENCE, roam_storage::run(settings, Context::new(PATIENCE))).await.expect("it ends").unwrap_err()
    };
    for (number, count) in [(0, 4), (2, 4), (1, 2), (0, 1)] {
        let error = start(number, count).await;
        let RunError::Open { source: StoreError::Shard { found, expected }, .. } = &error else { panic!("{error:?}") };
        assert_eq!((found.to_string(), expected.to_string()), ("1/4".to_owned(), format!("{number}/{count}")));
    }
    // A new one of a deployment that is split otherwise does not begin.
    let empty = world.dir().join("empty");
    let bus = roam_nats::BusSettings::at(world.nats.client_url());
    let settings = roam_storage::Settings { directory: empty, bus, shard: 1, shards: 2, ..Default::default() };
    let ended = timeout(PATIENCE, roam_storage::run(settings, Context::new(PATIENCE))).await.expect("it ends");
    assert!(matches!(ended, Err(RunError::Shards(wrong)) if wrong.found == shards()), "{ended:?}");
    world.replicas[1].start().await;
    world.ready().await;
    assert_eq!(value(&editor(&world, &users()[1], "laptop").await, "theme").await.as_deref(), Some("dark"));
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_goes_through_its_shard_and_a_user_is_erased_in_theirs() {
    let world = World::new().shards(SHARDS).start().await;
    let (book, pdf) = (noise(1_500_000), ContentType::parse("application/pdf").unwrap());
    let mut clients = BTreeMap::new();
    for owner in users() {
        let client = editor(&world, &owner, "laptop").await;
        client.put(key("book"), book.clone(), pdf.clone()).await.unwrap();
        let Lookup::Found(record) = client.get(key("book")).await.unwrap() else { panic!("the book is gone") };
        assert!(matches!(&record.state, State::Value(stored) if stored.value.as_bytes() == book), "another value came");
        clients.insert(owner, client);
    }
    for shard in shards().each() {
        assert!(world.stream(&chunks_stream(shard)).await.messages >= 5, "shard {shard}");
    }
    let erased = users().remove(3);
    let proof = world.roam(BINARY, &format!("erase acme/{erased} --yes --json")).await.with_code(0).object();
    assert_eq!(proof["replicas"].as_array().unwrap().len(), 1, "{proof}");
    assert_eq!((&proof["replicas"][0]["name"], &proof["replicas"][0]["rows"]), (&"roam-storage-3".into(), &0.into()));
    let streams: Vec<_> = proof["streams"].as_array().unwrap().iter().map(|stream| stream["stream"].clone()).collect();
    assert_eq!(streams, ["ROAM_REJECTED", "ROAM_CHUNKS_3", "ROAM_CHUNKS_3", "ROAM_CHANGES_3"]);
    for (owner, client) in clients {
        let found = matches!(client.get(key("book")).await.unwrap(), Lookup::Found(_));
        assert_eq!(found, owner != erased, "{owner}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_is_backed_up_and_brought_back_by_itself() {
    let backup = BackupSettings { directory: Some("backups".into()), ..BackupSettings::default() };
    let mut world = World::new().shards(SHARDS).backups(backup).start().await;
    let owners = users();
    for owner in &owners {
        put(&editor(&world, owner, "laptop").await, "theme", "dark").await;
    }
    for to in ["directory", "bucket"] {
        let made = world.roam(BINARY, &format!("backup create --to {to} --json")).await.with_code(0);
        assert_eq!(made.stdout.lines().count(), usize::from(SHARDS), "one of each shard: {}", made.stdout);
        let from = if to == "bucket" { to.to_owned() } else { world.dir().join("backups").display().to_string() };
        for shard in 0..SHARDS {
            let listed = world.roam(BINARY, &format!("backup list --from {from} --shard {shard} --json")).await;
            assert_eq!(listed.with_code(0).object()["replica"], format!("roam-storage-{shard}"));
            let _ = world.roam(BINARY, &format!("backup verify --from {from} --shard {shard}")).await.with_code(0);
        }
    }
    put(&editor(&world, &owners[2], "laptop").await, "font", "serif").await;
    world.replicas[2].stop().await;
    let (place, from) = (world.dir().join("roam-storage-2"), world.dir().join("backups"));
    fs::remove_dir_all(&place).unwrap();
    let line = format!("backup restore --from {} --shard 2 --data {}", from.display(), place.display());
    let _ = world.roam(BINARY, &line).await.with_code(0).saying("nothing is lost");
    world.replicas[2].start().await;
    world.ready().await;
    for owner in &owners {
        assert_eq!(value(&editor(&world, owner, "laptop").await, "theme").await.as_deref(), Some("dark"), "{owner}");
    }
    let restored = editor(&world, &owners[2], "laptop").await;
    eventually("the rest of the journal is applied", async || value(&restored, "font").await).await;
    // A backup of another shard is not taken up.
    world.replicas[2].stop().await;
    fs::remove_dir_all(&place).unwrap();
    let line = format!("backup restore --from {} --shard 1 --data {}", from.display(), place.display());
    let _ = world.roam(BINARY, &line).await.with_code(0);
    let bus = roam_nats::BusSettings::at(world.nats.client_url());
    let settings = roam_storage::Settings { directory: place, bus, shard: 2, shards: SHARDS, ..Default::default() };
    let ended = timeout(PATIENCE, roam_storage::run(settings, Context::new(PATIENCE))).await.expect("it ends");
    assert!(matches!(ended, Err(RunError::Open { source: StoreError::Shard { .. }, .. })), "{ended:?}");
}
