//! Attacks from inside: Mallory has a good token of the same tenant, and does to others whatever NATS lets her. Meanwhile an
//! honest user works, and must not notice: every change is saved once and in order, every read finds it, the other device
//! is told each revision, and nothing takes long.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use roam_auth::{TokenRecord, revoke, store};
use roam_client::{Client, Event, Lookup, State, WatchFrom};
use roam_nats::{JOURNAL_STREAM, Role, TOKENS_STREAM, stream_state};
use roam_process::clock;
use roam_schemas::{
    Action, ChangeId, ContentType, Device, Draft, DraftOperation, Encoding, Expect, Grant, Notice, Outcome, Problem,
    Profile, Put, Receipt, Revision, Shard, Timestamp, Value, decode, encode,
    subjects::{self, Verb},
};
use roam_tests::{Post, Probe, World, app, device, envelope, eventually, key, profile, text};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

const JSON: Encoding = Encoding::Json;
/// The longest that anything of the honest user may take, on a machine that does other things too.
const NOTICED: Duration = Duration::from_secs(5);
/// How many read slowly.
const SLOW: usize = 10;
/// How many changes the honest user makes at least.
const AT_LEAST: u64 = 40;

/// What the honest user met with.
#[derive(Debug)]
struct Honest {
    changes: u64,
    longest: Duration,
}

/// Writes on one device, reads and listens on the other, until told to stop.
async fn work(laptop: Client, phone: Client, stop: watch::Receiver<bool>) -> Honest {
    let (writes, reads) = (laptop.profile(app("editor")), phone.profile(app("editor")));
    let mut told = reads.watch(WatchFrom::Now).await.unwrap();
    let (mut honest, mut expected) = (Honest { changes: 0, longest: Duration::ZERO }, 0);
    while honest.changes < AT_LEAST || !*stop.borrow() {
        let (name, value) = (key(&format!("k{}", honest.changes % 7)), format!("value {}", honest.changes));
        let began = Instant::now();
        let saved = writes.put(name.clone(), value.as_str(), text()).await.unwrap();
        expected += 1;
        assert_eq!((saved.revision, saved.again), (Revision::new(expected), false), "nobody else writes here");
        let Lookup::Found(record) = reads.get(name).await.unwrap() else { panic!("it was saved") };
        let State::Value(stored) = record.state else { panic!("it is a value") };
        assert_eq!(stored.value.as_text(), Some(value.as_str()));
        let mut heard = 0;
        while heard < expected {
            heard = match timeout(NOTICED, told.next()).await.expect("the other device is told").unwrap() {
                Event::Revision { revision, .. } | Event::State { head: revision, .. } => revision.get(),
                Event::Reset => panic!("nothing was reset"),
            };
        }
        assert_eq!(heard, expected);
        honest.changes += 1;
        honest.longest = honest.longest.max(began.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    laptop.close().await;
    phone.close().await;
    honest
}

/// Lets Bob work while Mallory does this.
async fn while_bob_works(world: &World, attack: impl AsyncFnOnce()) -> Honest {
    let (laptop, phone) = (world.device("acme", "bob", "laptop").await, world.device("acme", "bob", "phone").await);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(work(laptop, phone, stopped));
    attack().await;
    stop.send(true).unwrap();
    let honest = tasks.join_next().await.unwrap().unwrap();
    println!("{honest:?}");
    assert!(honest.longest < NOTICED, "{honest:?}");
    honest
}

async fn secure_world() -> (World, Post) {
    let world = World::new().secure(1).start().await;
    let mallory = world.post("acme", "mallory", "phone").await;
    (world, mallory)
}

fn bob() -> (Profile, Device) {
    (profile("acme/bob/editor"), device("laptop"))
}

/// What a token of somebody's phone says.
fn grant_of(user: &str) -> Grant {
    serde_json::from_value(json!({"tenant": "acme", "user": user, "device": "phone"})).unwrap()
}

fn own() -> String {
    subjects::change(&profile("acme/mallory/editor"), &device("phone"))
}

fn change() -> Vec<u8> {
    change_to("v".to_owned())
}

fn change_to(value: String) -> Vec<u8> {
    let put = Put { value: Value::new(value), content_type: ContentType::octets(), ttl: None };
    let op = DraftOperation { key: "k".to_owned(), action: Action::Put(put), expect: Expect::Any };
    encode(&Draft { id: ChangeId::random(), base: None, ops: vec![op] }, JSON).unwrap()
}

/// Whatever somebody else listens on, or a stream does.
fn others_subjects() -> Vec<String> {
    let (bob, laptop) = bob();
    let inbox = subjects::device_inbox(&bob.tenant, &bob.user, &laptop);
    vec![
        subjects::receipt(&bob, &laptop),
        subjects::notice(&bob),
        subjects::change(&bob, &laptop),
        subjects::request(Verb::Latest, &bob),
        format!("{inbox}.1.1"),
        subjects::journal(Shard::ONLY),
        subjects::journal_control(Shard::ONLY),
        subjects::TERMS.to_owned(),
        subjects::rejected(&bob.tenant, &bob.user),
        "roam.v1.token.acme.0190".to_owned(),
        "roam.v1.audit.acme.signed_in".to_owned(),
        "_ROAM.storage.1.1".to_owned(),
        "$SYS.REQ.SERVER.PING".to_owned(),
        "$JS.API.STREAM.DELETE.ROAM_JOURNAL".to_owned(),
        "$JS.API.STREAM.PURGE.ROAM_CHANGES".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn squatting_message_ids_suppresses_nothing() {
    let (world, mallory) = secure_world().await;
    while_bob_works(&world, async || {
        for number in 0..500 {
            let id = format!("id-{}", number % 5);
            let headers = envelope(JSON).with("Nats-Msg-Id", id);
            // One that the duplicate window takes for another is hers to lose.
            let _ = mallory.try_publish(&own(), headers, change()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steering_answers_onto_others_moves_nobody() {
    let (world, mallory) = secure_world().await;
    let registrar = world.bus_of(Role::Registrar).await;
    let tokens = stream_state(&registrar, TOKENS_STREAM).await.unwrap().last_sequence;
    while_bob_works(&world, async || {
        for _ in 0..20 {
            for target in others_subjects() {
                // A PubAck, and the answers of the responder.
                mallory.bus.send_with_reply(own(), target.clone(), envelope(JSON), change().into()).await.unwrap();
                for verb in Verb::ALL {
                    let subject = subjects::request(verb, &profile("acme/mallory/editor"));
                    mallory.bus.send_with_reply(subject, target.clone(), envelope(JSON), "".into()).await.unwrap();
                }
            }
        }
        sleep(Duration::from_millis(500)).await;
    })
    .await;
    assert_eq!(stream_state(&registrar, TOKENS_STREAM).await.unwrap().last_sequence, tokens, "tokens are out of reach");
    for part in world.replicas.iter().chain(&world.access_servers) {
        part.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_as_names_reach_nobody() {
    let (world, mallory) = secure_world().await;
    while_bob_works(&world, async || {
        for _ in 0..50 {
            for subject in ["roam.v1.change.acme.mallory.*.phone", "roam.v1.change.acme.mallory.>.phone"] {
                // The client library does not send some of these.
                let _ = mallory.bus.send(subject.to_owned(), envelope(JSON), change().into()).await;
            }
            sleep(Duration::from_millis(10)).await;
            for subject in ["roam.v1.latest.acme.mallory.*", "roam.v1.latest.acme.mallory.>"] {
                let _ = mallory.bus.send(subject.to_owned(), envelope(JSON), "".into()).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_would_purge_delay_or_expire_do_nothing() {
    let (world, mallory) = secure_world().await;
    while_bob_works(&world, async || {
        for _ in 0..30 {
            for (name, value) in [
                ("Nats-Rollup", "all"),
                ("Nats-Rollup", "sub"),
                ("Nats-TTL", "1s"),
                ("Nats-Schedule", "@every 1s"),
                ("Nats-Schedule-Target", "roam.v1.journal.0"),
                ("Nats-Incr", "+1"),
                ("Nats-Batch-Id", "b"),
                ("Nats-Expected-Stream", "ROAM_JOURNAL"),
                ("Nats-Expected-Last-Sequence", "0"),
                ("Roam-Batch", "0190a1b2-0000-7000-8000-000000000000"),
            ] {
                // Some of these the server answers with nothing at all.
                mallory.bus.send(own(), envelope(JSON).with(name, value), change().into()).await.unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let operator = world.operator().await;
    let journal = stream_state(&operator, JOURNAL_STREAM).await.unwrap();
    assert!(journal.first_sequence == 1 && journal.messages == journal.last_sequence, "nothing left the journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_delays_nobody_else() {
    let world = World::new().secure(1).start().await;
    let url = world.nats.client_url();
    let (_, token) = world.token(grant_of("mallory"), Duration::from_secs(600));
    let payload = change();
    let flood = |app: u32| {
        let head = "NATS/1.0\r\nContent-Type: application/json\r\n\r\n";
        let (headers, whole) = (head.len(), head.len() + payload.len());
        let line = format!("HPUB roam.v1.change.acme.mallory.app-{app}.phone {headers} {whole}\r\n{head}");
        [line.as_bytes(), &payload, b"\r\n"].concat()
    };
    while_bob_works(&world, async || {
        let mut probe = Probe::with_token(&url, token.expose()).await.unwrap();
        for round in 0..60 {
            // No one subject fills up, and the stream is not hers alone.
            let burst: Vec<u8> = (0..500).flat_map(|number| flood(round * 500 + number)).collect();
            if probe.send(&burst).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_slowly_is_cut_off_and_nobody_else_waits() {
    let (world, mallory) = secure_world().await;
    let url = world.nats.client_url();
    let (_, token) = world.token(grant_of("mallory"), Duration::from_secs(600));
    let mut slow = Vec::new();
    while_bob_works(&world, async || {
        for _ in 0..SLOW {
            let mut probe = Probe::with_token(&url, token.expose()).await.unwrap();
            // They listen to all that she is told, and never read it.
            let listen = b"SUB roam.v1.notice.acme.mallory.* 1\r\nSUB roam.v1.receipt.acme.mallory.*.phone 2\r\n";
            probe.send(listen).await.unwrap();
            slow.push(probe);
        }
        // More than the buffers between take, in notices that carry their values.
        for _ in 0..300 {
            mallory.try_publish(&own(), envelope(JSON), change_to("v".repeat(60_000))).await.unwrap();
        }
        eventually("they are cut off", async || {
            let log = fs::read_to_string(world.nats.log_path()).unwrap();
            (log.matches("Slow Consumer Detected").count() >= SLOW).then_some(())
        })
        .await;
    })
    .await;
    for probe in slow {
        probe.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_headers_end_their_own_connection_alone() {
    let (world, mallory) = secure_world().await;
    let url = world.nats.client_url();
    while_bob_works(&world, async || {
        for size in [10_000, 500_000, 1_500_000] {
            let headers = envelope(JSON).with("X-Large", "x".repeat(size));
            mallory.bus.send(own(), headers, change().into()).await.unwrap();
        }
        let (_, token) = world.token(grant_of("mallory"), Duration::from_secs(600));
        let mut probe = Probe::with_token(&url, token.expose()).await.unwrap();
        let size = 3_000_000;
        let mut message = format!("HPUB {} {size} {size}\r\n", own()).into_bytes();
        message.extend(std::iter::repeat_n(b'x', size));
        // The server hangs up before it has read all of it.
        let _ = probe.send(&message).await;
        probe.ended().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_notices_cannot_be_forged_and_no_device_is_another() {
    let (world, mallory) = secure_world().await;
    let (profile_of_bob, laptop) = bob();
    let mine = profile("acme/mallory/editor");
    let rejected = Outcome::Rejected(Problem::invalid("forged"));
    let receipt = Receipt { sequence: 1, id: Some(ChangeId::random()), again: false, outcome: rejected };
    let notice = Notice {
        revision: Revision::new(1_000_000),
        time: Timestamp::from_nanos(1),
        device: laptop.clone(),
        change: ChangeId::random(),
        ops: Vec::new(),
    };
    let (receipt, notice) = (encode(&receipt, JSON).unwrap(), encode(&notice, JSON).unwrap());
    let forged = [
        (subjects::receipt(&profile_of_bob, &laptop), &receipt),
        (subjects::notice(&profile_of_bob), &notice),
        // Of her own other devices, too.
        (subjects::receipt(&mine, &device("laptop")), &receipt),
        (subjects::notice(&mine), &notice),
        (subjects::change(&mine, &device("laptop")), &receipt),
        (subjects::change(&mine, &Device::expiry()), &receipt),
        (subjects::change(&profile_of_bob, &device("phone")), &receipt),
    ];
    while_bob_works(&world, async || {
        for _ in 0..30 {
            for (subject, payload) in &forged {
                mallory.bus.send(subject.clone(), envelope(JSON), payload.to_vec().into()).await.unwrap();
            }
        }
    })
    .await;
    let (_, token) = world.token(grant_of("mallory"), Duration::from_secs(600));
    let mut probe = Probe::with_token(&world.nats.client_url(), token.expose()).await.unwrap();
    for (subject, _) in &forged {
        assert!(!probe.may_publish(subject).await, "{subject}");
    }
    // What reaches ROAM_CHANGES by way of a PubAck has no header of ours, and replayed bytes have an id that was decided.
    let again = change();
    let mut receipts = mallory.bus.subscribe(subjects::receipt(&mine, &device("phone"))).await.unwrap();
    mallory.ask(&subjects::request(Verb::Latest, &mine), envelope(JSON), "").await;
    let mut told = Vec::new();
    for _ in 0..2 {
        mallory.publish(&own(), envelope(JSON), again.clone()).await;
        let message = timeout(NOTICED, receipts.next()).await.expect("a receipt comes").unwrap();
        told.push(decode::<Receipt>(&message.payload, JSON).unwrap());
    }
    let (first, second) = (&told[0], &told[1]);
    assert_eq!((first.again, second.again, first.outcome == second.outcome), (false, true, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn stolen_and_expired_tokens_are_put_out_and_stay_out() {
    let world = World::new().secure(2).start().await;
    let url = world.nats.client_url();
    let registrar = world.bus_of(Role::Registrar).await;
    let (stolen, text) = world.token(grant_of("bob"), Duration::from_secs(600));
    let (_, short) = world.token(grant_of("bob"), Duration::from_secs(3));
    store(&registrar, &TokenRecord::of(&stolen)).await.unwrap();
    while_bob_works(&world, async || {
        let expiring = Probe::with_token(&url, short.expose()).await.unwrap();
        // She holds as many connections as she can, and comes again whenever one ends.
        let mut thieves = Vec::new();
        for _ in 0..16 {
            thieves.push(Probe::with_token(&url, text.expose()).await.unwrap());
        }
        let began = Instant::now();
        revoke(&registrar, stolen.id, clock::now_ns() / 1_000_000_000).await.unwrap();
        join_all(thieves.into_iter().map(async |thief| {
            let mut thief = Some(thief);
            while let Some(inside) = thief {
                inside.ended().await;
                thief = Probe::with_token(&url, text.expose()).await.ok();
            }
        }))
        .await;
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
        expiring.ended().await;
        for gone in [&text, &short] {
            assert!(Probe::with_token(&url, gone.expose()).await.is_err());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_tokens_keeps_nobody_out() {
    let world = World::new().secure(1).start().await;
    let url = world.nats.client_url();
    let forged = roam_auth::sign(grant_of("bob"), 1, Duration::MAX, &roam_auth::SigningKey::generate()).unwrap().1;
    // The last is longer than any line that the server reads.
    let bad = [forged.expose().to_owned(), "rubbish".to_owned(), "x".repeat(12_000), "x".repeat(1_000_000)];
    let honest = while_bob_works(&world, async || {
        for _ in 0..2 {
            let guesses = (0..100).map(|number| Probe::with_token(&url, &bad[number % bad.len()]));
            let newcomer = async {
                let (_, token) = world.token(grant_of("carol"), Duration::from_secs(600));
                let began = Instant::now();
                Probe::with_token(&url, token.expose()).await.unwrap();
                began.elapsed()
            };
            let (guessed, took) = tokio::join!(join_all(guesses), newcomer);
            assert!(guessed.iter().all(Result::is_err));
            assert!(took < NOTICED, "{took:?}");
        }
    })
    .await;
    assert!(honest.changes >= AT_LEAST);
    for part in &world.auth_services {
        part.ready().await;
    }
}
