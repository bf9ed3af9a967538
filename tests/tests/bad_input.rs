//! Bad input over the wire: each gets its coded answer where there is somebody to answer, and the pipeline goes on.

use roam_client::{
    Action, Code, ContentType, Cursor, Encoding, Expect, Key, LatestReply, LatestRequest, Lookup, Profile, Put,
    Revision, Select, Timestamp, Value,
};
use roam_nats::{Headers, JOURNAL_STREAM, stream_state};
use roam_schemas::{
    ChangeId, ChangesReply, ChangesRequest, Device, Draft, DraftOperation, HistoryReply, HistoryRequest, Kind, Message,
    Outcome, Problem, Receipt, Shard, decode, encode, headers, limits, subjects, subjects::Verb,
};
use roam_tests::{Mailbox, Post, World, app, device, envelope, eventually, key, profile, text};

const BOTH: [Encoding; 2] = [Encoding::Postcard, Encoding::Json];

/// What a problem says that a program can act on: its code, the limit, and the actual value.
type Answer = (Code, Option<u64>, Option<u64>);

fn answer(problem: &Problem) -> Answer {
    (problem.code, problem.limit, problem.actual)
}

fn sized(code: Code, limit: usize, actual: usize) -> Answer {
    (code, Some(limit as u64), Some(actual as u64))
}

fn alice() -> (Profile, Device) {
    (profile("acme/alice/editor"), device("laptop"))
}

fn put(name: impl Into<String>, value: Vec<u8>) -> DraftOperation {
    let put = Put { value: Value::new(value), content_type: ContentType::octets(), ttl: None };
    DraftOperation { key: name.into(), action: Action::Put(put), expect: Expect::Any }
}

fn draft(ops: Vec<DraftOperation>) -> Draft {
    Draft { id: ChangeId::random(), base: None, ops }
}

/// The same message, as the version after this one would begin.
fn of_version_two(message: &[u8], kind: Kind, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Postcard => [&[2 << 5 | kind as u8], &message[1..]].concat(),
        Encoding::Json => String::from_utf8(message.to_vec()).unwrap().replacen("_v1\"", "_v2\"", 1).into_bytes(),
    }
}

/// A change that is refused.
struct Bad {
    name: &'static str,
    payload: Vec<u8>,
    /// None if so much cannot be decoded.
    id: Option<ChangeId>,
    answer: Answer,
}

fn bad_changes(encoding: Encoding) -> Vec<Bad> {
    let write = |draft: &Draft| encode(draft, encoding).unwrap();
    let decodable = |name, ops, answer| {
        let draft = draft(ops);
        Bad { name, payload: write(&draft), id: Some(draft.id), answer }
    };
    let undecodable = |name, payload, answer| Bad { name, payload, id: None, answer };
    let invalid = (Code::Invalid, None, None);
    let good = write(&draft(vec![put("k", vec![1])]));
    let receipt = Receipt { sequence: 1, id: None, again: false, outcome: Outcome::Rejected(Problem::invalid("no")) };
    let version_two = of_version_two(&good, Kind::Change, encoding);
    // Five values that pass one by one, and not together.
    let too_large =
        write(&draft((0..5).map(|number| put(format!("{number}"), vec![b'x'; limits::VALUE_BYTES])).collect()));
    let size = too_large.len();
    let expiring = |ttl| {
        let put = Put { value: Value::new("v"), content_type: ContentType::octets(), ttl: Some(ttl) };
        vec![DraftOperation { key: "k".to_owned(), action: Action::Put(put), expect: Expect::Any }]
    };
    let many = || (0..=limits::CHANGE_OPERATIONS).map(|number| put(number.to_string(), Vec::new())).collect();
    let key_of = |bytes| vec![put("k".repeat(bytes), Vec::new())];
    vec![
        undecodable("nothing", Vec::new(), invalid),
        undecodable("rubbish", b"\xffrubbish".to_vec(), invalid),
        undecodable("half a change", good[..good.len() / 2].to_vec(), invalid),
        undecodable("a change and more", [&good[..], b"!"].concat(), invalid),
        undecodable("another kind", encode(&receipt, encoding).unwrap(), invalid),
        undecodable("version 2", version_two, sized(Code::UnsupportedVersion, 1, 2)),
        undecodable("over 1 MiB", too_large, sized(Code::TooLarge, limits::CHANGE_BYTES, size)),
        decodable("0 operations", Vec::new(), invalid),
        decodable("1,001 operations", many(), sized(Code::TooLarge, 1_000, 1_001)),
        decodable("a key twice", vec![put("k", vec![1]), put("k", vec![2])], invalid),
        decodable("an empty key", key_of(0), invalid),
        decodable("a key of 513 bytes", key_of(513), sized(Code::TooLarge, 512, 513)),
        decodable("a value over 256 KiB", vec![put("k", vec![0; 262_145])], sized(Code::TooLarge, 262_144, 262_145)),
        decodable("a time to live of 0", expiring(0), invalid),
        decodable("a time to live of 11 years", expiring(346_896_000), sized(Code::TooLarge, 315_360_000, 346_896_000)),
    ]
}

/// Shows that a change goes its way, and that it is told of next.
async fn goes_on(post: &Post, mailbox: &mut Mailbox) {
    let (profile, device) = alice();
    let good = draft(vec![put("good", vec![1])]);
    let payload = encode(&good, Encoding::Json).unwrap();
    let sequence = post.publish(&subjects::change(&profile, &device), envelope(Encoding::Json), payload).await;
    let mut receipt = mailbox.receipt().await.0;
    // What a lost connection may have held is delivered once more, and then receipted once more.
    while receipt.again {
        receipt = mailbox.receipt().await.0;
    }
    assert_eq!((receipt.sequence, receipt.id), (sequence, Some(good.id)), "no other receipt came before");
    assert!(matches!(receipt.outcome, Outcome::Applied(_)), "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_change_is_refused_by_its_code_and_filed() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut mailbox = post.receipts(&profile, &device).await;
    let subject = subjects::change(&profile, &device);
    for encoding in BOTH {
        for Bad { name, payload, id, answer: expected } in bad_changes(encoding) {
            let sequence = post.publish(&subject, envelope(encoding), payload.clone()).await;
            let (receipt, told_in) = mailbox.receipt().await;
            let Outcome::Rejected(problem) = &receipt.outcome else { panic!("{name}: {receipt:?}") };
            assert_eq!((receipt.sequence, receipt.id, told_in), (sequence, id, encoding), "{name}");
            assert_eq!((answer(problem), problem.retry), (expected, false), "{name}: {problem}");

            let filed = post.filed(sequence).await;
            let header = |name| filed.headers.get(name).unwrap_or_default().to_owned();
            assert_eq!(filed.subject, "roam.v1.rejected.acme.alice", "{name}");
            assert_eq!(header(headers::CODE), expected.0.as_str(), "{name}");
            assert_eq!(header(headers::REASON), problem.to_string(), "{name}");
            assert_eq!(header(headers::SUBJECT), subject, "{name}");
            assert_eq!(header(headers::SIZE), payload.len().to_string(), "{name}");
            assert_eq!(header(headers::HASH), blake3::hash(&payload).to_string(), "{name}");
            assert_eq!(filed.headers.encoding(), Some(encoding), "{name}");
            assert_eq!(filed.payload, payload[..payload.len().min(limits::REJECTED_BYTES)], "{name}");
        }
        goes_on(&post, &mut mailbox).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_changes_does_not_hold_up_the_good_ones() {
    let world = World::new().start().await;
    let mallory = world.post("acme", "mallory", "laptop").await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let subject = subjects::change(&profile("acme/mallory/editor"), &device("laptop"));
    let flood = (0..2_000).map(|_| mallory.bus.send(subject.clone(), envelope(Encoding::Json), b"rubbish"[..].into()));
    for sent in flood {
        sent.await.unwrap();
    }
    for number in 0..20 {
        laptop.put(key("k"), number.to_string(), text()).await.unwrap();
    }
    let pages = world.access_servers[0].pages();
    eventually("all that the stream took are refused", async || {
        let refused = pages.metric("roam_access_server_changes_rejected_total", &["code=\"invalid\""]).await;
        let waiting = stream_state(&mallory.bus, roam_nats::CHANGES_STREAM).await.unwrap().messages;
        (refused >= 256.0 && waiting == 0).then_some(())
    })
    .await;
}

/// Tokens that no name is written as.
const HOSTILE: [&str; 7] = ["*", ">", "%2a", "%zz", "%FF", "%", "$nobody"];

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_a_hostile_subject_is_filed_and_nobody_is_told() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut mailbox = post.receipts(&profile, &device).await;
    let mut all_receipts = post.listen("roam.v1.receipt.>".to_owned()).await;
    let payload = encode(&draft(vec![put("k", vec![1])]), Encoding::Json).unwrap();
    for token in HOSTILE {
        for place in 0..4 {
            let mut tokens = ["acme", "alice", "editor", "laptop"];
            tokens[place] = token;
            let subject = format!("roam.v1.change.{}", tokens.join("."));
            let sequence = post.publish(&subject, envelope(Encoding::Json), payload.clone()).await;
            let filed = post.filed(sequence).await;
            assert_eq!(filed.subject, subjects::rejected_of_nobody(), "{subject}");
            assert_eq!(filed.headers.get(headers::CODE), Some("invalid"), "{subject}");
            assert_eq!(filed.headers.get(headers::SUBJECT), Some(subject.as_str()));
        }
    }
    for subject in ["roam.v1.change.acme", "roam.v1.change.acme.alice.editor.laptop.more"] {
        let sequence = post.publish(subject, envelope(Encoding::Json), payload.clone()).await;
        assert_eq!(post.filed(sequence).await.subject, subjects::rejected_of_nobody(), "{subject}");
    }
    goes_on(&post, &mut mailbox).await;
    assert_eq!(all_receipts.all_so_far().await.len(), 1, "the one of the good change");
}

/// The sequence that JetStream names in a PubAck.
async fn acked(mailbox: &mut Mailbox) -> u64 {
    let ack: serde_json::Value = serde_json::from_slice(&mailbox.next().await.payload).unwrap();
    ack["seq"].as_u64().expect("a PubAck")
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_in_subjects_and_headers_hold_up_nobody() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut mailbox = post.receipts(&profile, &device).await;
    let inbox = post.bus.new_inbox();
    let mut acks = post.listen(inbox.clone()).await;
    let mut socket = world.socket().await;
    let payload = encode(&draft(vec![put("k", vec![1])]), Encoding::Json).unwrap();
    let json = ("Content-Type", b"application/json".as_slice());

    for subject in [&b"roam.v1.change.acme.alice.edi\xfftor.laptop"[..], b"roam.v1.change.\xc3\x28.alice.editor.laptop"]
    {
        socket.publish(subject, Some(inbox.as_bytes()), &[json], &payload).await;
        let sequence = acked(&mut acks).await;
        let filed = post.filed(sequence).await;
        assert_eq!(filed.subject, subjects::rejected_of_nobody());
        assert!(filed.headers.get(headers::SUBJECT).unwrap().contains('\u{fffd}'), "{filed:?}");
        goes_on(&post, &mut mailbox).await;
    }
    // A block of headers that cannot be read is none, so the message is not ours.
    let own = subjects::change(&profile, &device);
    for bad in [("Content-Type", &b"\xff"[..]), ("Other", b"\xfe\xff"), ("Other", b"a\rb")] {
        socket.publish(own.as_bytes(), Some(inbox.as_bytes()), &[bad], &payload).await;
        acked(&mut acks).await;
        goes_on(&post, &mut mailbox).await;
    }
    let foreign = world.access_servers[0].pages().metric("roam_access_server_messages_foreign_total", &[]).await;
    assert!(foreign >= 2.0, "{foreign}");

    // The same for requests: what cannot be answered is dropped, and whoever asks next is answered, at the second attempt
    // if need be.
    let reader = world.device("acme", "alice", "phone").await.profile(app("editor"));
    for (subject, reply, header) in [
        (&b"roam.v1.latest.acme.ali\xffce.editor"[..], inbox.as_bytes(), json),
        (b"roam.v1.latest.acme.alice.editor", b"_INBOX.acme.alice.\xff", json),
        (b"roam.v1.latest.acme.alice.editor", inbox.as_bytes(), ("Content-Type", b"\xff")),
    ] {
        socket.publish(subject, Some(reply), &[header], b"").await;
        assert!(matches!(reader.get(key("good")).await.unwrap(), Lookup::Found(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_ours_is_counted_and_dropped() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut mailbox = post.receipts(&profile, &device).await;
    let subject = subjects::change(&profile, &device);
    let payload = encode(&draft(vec![put("k", vec![1])]), Encoding::Json).unwrap();
    for headers in [Headers::new(), Headers::new().with(headers::CONTENT_TYPE, "text/plain")] {
        post.publish(&subject, headers, payload.clone()).await;
    }
    // A PubAck that is steered onto a change's subject.
    post.bus.send_with_reply(subject.clone(), subject, Headers::new(), b"x"[..].into()).await.unwrap();
    goes_on(&post, &mut mailbox).await;
    let pages = world.access_servers[0].pages();
    eventually("all four are dropped", async || {
        (pages.metric("roam_access_server_messages_foreign_total", &[]).await == 4.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pub_ack_that_is_steered_into_the_journal_halts_nobody() {
    let mut world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut mailbox = post.receipts(&profile, &device).await;
    let steer = async |to: String| {
        let before = stream_state(&post.bus, JOURNAL_STREAM).await.unwrap().last_sequence;
        let subject = "roam.v1.rejected.acme.alice".to_owned();
        post.bus.send_with_reply(subject, to, Headers::new(), b"x"[..].into()).await.unwrap();
        eventually("it stands in the journal", async || {
            (stream_state(&post.bus, JOURNAL_STREAM).await.unwrap().last_sequence > before).then_some(())
        })
        .await;
    };
    // As the very first entry, between batches, as a control entry, and as the last one before a start.
    steer(subjects::journal(Shard::ONLY)).await;
    goes_on(&post, &mut mailbox).await;
    steer(subjects::journal(Shard::ONLY)).await;
    steer(subjects::journal_control(Shard::ONLY)).await;
    goes_on(&post, &mut mailbox).await;
    steer(subjects::journal(Shard::ONLY)).await;
    let pages = world.replicas[0].pages();
    eventually("all four are counted", async || {
        (pages.metric("roam_storage_journal_not_ours_total", &[]).await == 4.0).then_some(())
    })
    .await;
    // An entry on a subject that is no text would be read by nobody, at each start again: it does not come to stand there.
    let before = stream_state(&post.bus, JOURNAL_STREAM).await.unwrap().last_sequence;
    let mut socket = world.socket().await;
    for to in [&b"roam.v1.journal.\xff"[..], b"roam.v1.journal.0.\xff", b"roam.v1.journal.0.control.\xff"] {
        socket.publish(b"roam.v1.rejected.acme.alice", Some(to), &[], b"x").await;
    }
    world.replicas[0].stop().await;
    assert_eq!(stream_state(&post.bus, JOURNAL_STREAM).await.unwrap().last_sequence, before);
    world.replicas[0].start().await;
    world.ready().await;
    goes_on(&post, &mut mailbox).await;
    assert_eq!(latest(&post, &profile, Encoding::Json, b"").await.head, Revision::new(3));
}

async fn latest(post: &Post, profile: &Profile, encoding: Encoding, payload: &[u8]) -> LatestReply {
    ask(post, &subjects::request(Verb::Latest, profile), envelope(encoding), payload).await
}

async fn ask<M: Message>(post: &Post, subject: &str, headers: Headers, payload: &[u8]) -> M {
    let message = post.ask(subject, headers, payload.to_vec()).await;
    decode(&message.payload, message.headers.encoding().expect("our header")).unwrap()
}

/// The problem that a request gets, which stands in the header too.
async fn refused(post: &Post, verb: Verb, encoding: Encoding, payload: Vec<u8>) -> Answer {
    let subject = subjects::request(verb, &alice().0);
    let message = post.ask(&subject, envelope(encoding), payload).await;
    let problem: Problem = decode(&message.payload, encoding).unwrap();
    assert_eq!(message.headers.encoding(), Some(encoding), "in the encoding of the request");
    assert_eq!(message.headers.get(headers::CODE), Some(problem.code.as_str()));
    assert!(message.headers.get("Nats-Service-Error").is_some(), "as the services API has it");
    answer(&problem)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_by_its_code() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let invalid = (Code::Invalid, None, None);
    let name = || Key::parse("k").unwrap();
    for encoding in BOTH {
        let other = Cursor::new(&profile("acme/bob/editor"), Revision::new(1), Timestamp::default());
        let latest = |request: LatestRequest| (Verb::Latest, encode(&request, encoding).unwrap());
        let changes = |request: ChangesRequest| (Verb::Changes, encode(&request, encoding).unwrap());
        let history = |request: HistoryRequest| (Verb::History, encode(&request, encoding).unwrap());
        let keys = Select::Keys((0..1_001).map(|number| key(&number.to_string())).collect());
        let after = LatestRequest { select: Select::Keys(vec![name()]), after: Some(name()), ..Default::default() };
        let cases = [
            (changes(ChangesRequest { cursor: Some(other), ..Default::default() }), invalid),
            (changes(ChangesRequest { limit: Some(0), ..Default::default() }), invalid),
            (
                changes(ChangesRequest { wait_ms: Some(5_001), ..Default::default() }),
                sized(Code::TooLarge, 5_000, 5_001),
            ),
            (latest(LatestRequest { select: keys, ..Default::default() }), sized(Code::TooLarge, 1_000, 1_001)),
            (latest(LatestRequest { limit: Some(1_001), ..Default::default() }), sized(Code::TooLarge, 1_000, 1_001)),
            (latest(after), invalid),
            (
                latest(LatestRequest { min_revision: Some(Revision::new(1)), ..Default::default() }),
                sized(Code::Behind, 1, 0),
            ),
            (history(HistoryRequest { key: name(), limit: Some(0) }), invalid),
            ((Verb::History, Vec::new()), invalid),
        ];
        for ((verb, payload), expected) in cases {
            assert_eq!(refused(&post, verb, encoding, payload).await, expected, "{verb:?} in {encoding:?}");
        }
        let requests = [
            (Verb::Latest, Kind::LatestRequest, encode(&LatestRequest::default(), encoding).unwrap()),
            (Verb::Changes, Kind::ChangesRequest, encode(&ChangesRequest::default(), encoding).unwrap()),
            (
                Verb::History,
                Kind::HistoryRequest,
                encode(&HistoryRequest { key: name(), limit: None }, encoding).unwrap(),
            ),
        ];
        for (verb, kind, good) in requests {
            let version_two = of_version_two(&good, kind, encoding);
            assert_eq!(refused(&post, verb, encoding, version_two).await, sized(Code::UnsupportedVersion, 1, 2));
            assert_eq!(refused(&post, verb, encoding, b"\xffrubbish".to_vec()).await, invalid);
            let notice = encode(&Problem::invalid("another kind"), encoding).unwrap();
            assert_eq!(refused(&post, verb, encoding, notice).await, invalid);
        }
    }
    let headers = Headers::new().with(headers::CONTENT_TYPE, "text/plain");
    let problem: Problem = ask(&post, &subjects::request(Verb::Latest, &alice().0), headers, b"").await;
    assert_eq!(answer(&problem), invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_was_never_written_is_empty_and_no_error() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, _) = alice();
    for encoding in BOTH {
        assert_eq!(latest(&post, &profile, encoding, b"").await, LatestReply::default());
        let some = LatestRequest { select: Select::Keys(vec![key("k")]), ..Default::default() };
        let some = latest(&post, &profile, encoding, &encode(&some, encoding).unwrap()).await;
        assert_eq!(some, LatestReply { unknown: vec![key("k")], ..LatestReply::default() });

        let changes: ChangesReply =
            ask(&post, &subjects::request(Verb::Changes, &profile), envelope(encoding), b"").await;
        let cursor = Cursor::new(&profile, Revision::ZERO, Timestamp::default());
        assert_eq!(changes, ChangesReply { head: Revision::ZERO, records: Vec::new(), cursor, more: false });
        let since = encode(&ChangesRequest { cursor: Some(cursor), ..Default::default() }, encoding).unwrap();
        let again: ChangesReply =
            ask(&post, &subjects::request(Verb::Changes, &profile), envelope(encoding), &since).await;
        assert_eq!(again, changes, "its cursor is good for the next time");

        let history = encode(&HistoryRequest { key: key("k"), limit: None }, encoding).unwrap();
        let history: HistoryReply =
            ask(&post, &subjects::request(Verb::History, &profile), envelope(encoding), &history).await;
        assert_eq!(history, HistoryReply { whole_since: history.whole_since, ..HistoryReply::default() });
        assert!(history.whole_since > Timestamp::default(), "of a key that was deleted long ago nothing is kept");
    }
    // Whoever says nothing of an encoding is answered in JSON.
    let message = post.ask(&subjects::request(Verb::Latest, &profile), Headers::new(), "").await;
    assert_eq!(message.headers.encoding(), Some(Encoding::Json));
}

/// Where answers about `acme/alice/editor` must never go.
const NOT_HERS: [&str; 10] = [
    "roam.v1.receipt.acme.bob.editor.phone",
    "roam.v1.receipt.acme.alice.editor.laptop",
    "roam.v1.notice.acme.alice.editor",
    "roam.v1.change.acme.bob.editor.phone",
    "roam.v1.journal.0",
    "_INBOX.acme.bob.phone.1",
    "_INBOX.acme.alicia.phone.1",
    "_INBOX.other.alice.phone.1",
    "_INBOX.other.$svc.backup.1",
    "_INBOX.1",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_never_lands_outside_the_inboxes_of_the_profile() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let (profile, device) = alice();
    let mut receipts = post.receipts(&profile, &device).await;
    goes_on(&post, &mut receipts).await;
    let mut everything = post.listen(">".to_owned()).await;
    for reply in NOT_HERS {
        for verb in Verb::ALL {
            let subject = subjects::request(verb, &profile);
            // One that would be answered, and one that would be refused.
            for payload in [&b""[..], b"rubbish"] {
                post.bus
                    .send_with_reply(subject.clone(), reply.to_owned(), envelope(Encoding::Json), payload.into())
                    .await
                    .unwrap();
            }
        }
    }
    // Whoever asks last is answered last.
    assert_eq!(latest(&post, &profile, Encoding::Json, b"").await.head, Revision::new(1));
    let heard = everything.all_so_far().await;
    for reply in NOT_HERS {
        assert!(heard.iter().all(|message| message.subject != reply), "something came to {reply}");
    }
    let dropped = world.replicas[0].pages().metric("roam_storage_unanswered_total", &[]).await;
    assert_eq!(dropped, 100.0, "ten reply subjects, five verbs, two payloads");
    goes_on(&post, &mut receipts).await;

    for reply in ["_INBOX.acme.alice.phone.1", "_INBOX.acme.$svc.backup.1"] {
        let mut inbox = post.listen(reply.to_owned()).await;
        let subject = subjects::request(Verb::Latest, &profile);
        post.bus.send_with_reply(subject, reply.to_owned(), envelope(Encoding::Json), b""[..].into()).await.unwrap();
        assert_eq!(inbox.next().await.headers.encoding(), Some(Encoding::Json), "{reply} is hers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_hostile_subject_is_not_answered() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let reply = post.bus.new_inbox();
    let mut answers = post.listen(reply.clone()).await;
    let mut asked = 0.0;
    for token in HOSTILE {
        for place in 0..3 {
            let mut tokens = ["acme", "alice", "editor"];
            tokens[place] = token;
            let subject = format!("roam.v1.latest.{}", tokens.join("."));
            post.bus.send_with_reply(subject, reply.clone(), envelope(Encoding::Json), b""[..].into()).await.unwrap();
            asked += 1.0;
        }
    }
    assert_eq!(latest(&post, &alice().0, Encoding::Json, b"").await, LatestReply::default());
    assert_eq!(answers.all_so_far().await.len(), 0);
    assert_eq!(world.replicas[0].pages().metric("roam_storage_unanswered_total", &[]).await, asked);
}
