//! Large values: they roam like any other, send only what is not there yet, and leave nothing behind; and nobody reaches
//! another user's.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use roam_client::{
    Action, ChangeError, Code, ContentType, Encoding, Expect, Lookup, Manifest, Operation, ProfileClient, Put,
    ReadError, Record, Revision, State, Transferred, Value,
};
use roam_nats::{CHUNKS_STREAM, Headers, PublishError};
use roam_schemas::{
    Change, ChangeId, Chunk, ChunkReply, ChunkRequest, ContentHash, HaveReply, HaveRequest, Message, Problem, Stored,
    Terms, decode, encode, headers,
    limits::{CHUNK_BYTES, LARGE_VALUE_BYTES},
    subjects::{self, Verb},
};
use roam_tests::{Post, World, app, device, envelope, eventually, key, noise, profile, tenant, user};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

const MIB: usize = 1024 * 1024;
/// The largest chunk.
const LARGEST: u32 = 256 * 1024;

fn pdf() -> ContentType {
    ContentType::parse("application/pdf").unwrap()
}

fn content(record: &Record) -> (&[u8], &ContentType) {
    let State::Value(Stored { value, content_type, .. }) = &record.state else { panic!("no value: {record:?}") };
    (value.as_bytes(), content_type)
}

async fn got(profile: &ProfileClient, name: &str) -> Record {
    match profile.get(key(name)).await.unwrap() {
        Lookup::Found(record) => record,
        other => panic!("not found: {other:?}"),
    }
}

/// What another device wrote, as soon as the replica that answers has it.
async fn got_at(profile: &ProfileClient, name: &str, revision: Revision) -> Record {
    eventually("the replica has the revision", async || match profile.get(key(name)).await.unwrap() {
        Lookup::Found(record) if record.revision >= revision => Some(record),
        _ => None,
    })
    .await
}

/// Puts what is read, and tells how much of it travelled and which revision it made.
async fn put_counted(profile: &ProfileClient, name: &str, mut value: &[u8]) -> (Transferred, Revision) {
    let mut last = Transferred::default();
    let saved = profile.put_from(key(name), &mut value, pdf(), |transferred| last = transferred).await.unwrap();
    (last, saved.revision)
}

/// Uploads without writing a record.
async fn staged(profile: &ProfileClient, mut value: &[u8]) -> Manifest {
    let put = profile.stage(&mut value, pdf(), |_| {}).await.unwrap();
    Manifest::parse(put.value.as_bytes()).unwrap()
}

async fn asked<Q: Message, A: Message>(post: &Post, verb: Verb, who: &str, request: &Q) -> Result<A, Code> {
    let subject = subjects::request(verb, &profile(who));
    let payload = encode(request, Encoding::Json).unwrap();
    let answer = post.ask(&subject, envelope(Encoding::Json), payload).await;
    decode(&answer.payload, Encoding::Json)
        .map_err(|_| decode::<Problem>(&answer.payload, Encoding::Json).unwrap().code)
}

async fn missing(post: &Post, who: &str, manifest: &Manifest) -> usize {
    let hashes = manifest.chunks.iter().map(|chunk| chunk.hash).collect();
    let reply: HaveReply = asked(post, Verb::Have, who, &HaveRequest { hashes }).await.unwrap();
    reply.missing.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_roams_and_an_edited_copy_sends_only_what_was_edited() {
    let world = World::new().replicas(2).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let mut value = noise(1, 30 * MIB);

    let (first, revision) = put_counted(&laptop, "book", &value).await;
    assert_eq!((first.bytes, first.sent_bytes), (value.len() as u64, value.len() as u64));
    let record = got_at(&phone, "book", revision).await;
    assert!(content(&record) == (&value[..], &pdf()), "another value came");
    assert_eq!(record.device, device("laptop"));

    let (again, _) = put_counted(&phone, "copy", &value).await;
    assert_eq!((again.chunks, again.sent_chunks), (first.chunks, 0));

    value.splice(15 * MIB..15 * MIB, *b"an edit in the middle");
    let (edited, revision) = put_counted(&phone, "book", &value).await;
    assert!((1..=3).contains(&edited.sent_chunks), "{edited:?}");
    assert!(content(&got_at(&laptop, "book", revision).await).0 == value, "another value came");

    // Whoever lists records is handed the manifest, and fetches what is wanted.
    let versions = laptop.history(key("book"), None).await.unwrap();
    let State::Value(before) = &versions[1].state else { panic!("no value") };
    let mut bytes = Vec::new();
    laptop.download(&before.manifest().unwrap().unwrap(), &mut bytes, |_| {}).await.unwrap();
    assert!(bytes == noise(1, 30 * MIB), "another version came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_mixes_large_and_small_values_and_empty_ones() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let (first, second) = (noise(1, MIB), noise(2, roam_schemas::limits::VALUE_BYTES));
    let ops = vec![
        Operation::put(key("large"), first.clone(), pdf()),
        Operation::put(key("small"), second.clone(), pdf()),
        Operation::put(key("empty"), "", pdf()),
    ];
    laptop.change(ops).await.unwrap();
    for (name, value) in [("large", first), ("small", second), ("empty", Vec::new())] {
        assert!(content(&got(&laptop, name).await) == (&value[..], &pdf()), "{name}");
    }
}

/// Gives what it has and then fails, as a file on a disk that is pulled out.
struct PulledOut<'a>(&'a [u8]);

impl AsyncRead for PulledOut<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(io::Error::other("pulled out")));
        }
        let (now, rest) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_goes_on_where_it_was() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let value = noise(3, 32 * MIB);
    let mut before = Transferred::default();
    let mut source = PulledOut(&value[..24 * MIB]);
    let failed = laptop.put_from(key("book"), &mut source, pdf(), |transferred| before = transferred).await;
    assert!(matches!(failed, Err(ChangeError::Source(_))), "{failed:?}");
    assert!(before.sent_bytes > 8 * MIB as u64, "{before:?}");
    assert_eq!(laptop.get(key("book")).await.unwrap(), Lookup::Unknown);

    let later = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let (after, _) = put_counted(&later, "book", &value).await;
    assert!(after.sent_chunks + before.sent_chunks <= after.chunks, "{before:?}, then {after:?}");
    assert!(after.sent_bytes < 16 * MIB as u64, "{after:?}");
    assert!(content(&got(&later, "book").await).0 == value, "another value came");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_go_a_grace_after_nothing_needs_them_and_stay_while_a_kept_version_does() {
    let terms = Terms { history_versions: 2, ..Terms::default() };
    let world = World::new().replicas(2).terms(terms).chunk_grace_seconds(3).start().await;
    let client = world.device("acme", "alice", "laptop").await;
    let laptop = client.profile(app("editor"));
    let post = world.post("acme", "alice", "phone").await;
    let who = "acme/alice/editor";

    let mut versions = Vec::new();
    for seed in 1..=3 {
        put_counted(&laptop, "book", &noise(seed, MIB)).await;
        versions.push(staged(&laptop, &noise(seed, MIB)).await);
    }
    let orphan = staged(&laptop, &noise(9, MIB)).await;
    assert_eq!(missing(&post, who, &orphan).await, 0);
    // Nobody asks meanwhile: that would keep them.
    eventually("the messages of two are deleted", async || {
        (world.stream(CHUNKS_STREAM).await.bytes < (2 * MIB + MIB / 2) as u64).then_some(())
    })
    .await;
    assert_eq!(missing(&post, who, &orphan).await, orphan.chunks.len(), "what no record needs is gone");
    assert_eq!(missing(&post, who, &versions[0]).await, versions[0].chunks.len(), "what is not kept any more too");
    assert_eq!(missing(&post, who, &versions[1]).await, 0, "the version before is kept");
    assert_eq!(missing(&post, who, &versions[2]).await, 0);

    // The version before is put back by its manifest alone.
    let (value, content_type) = versions[1].to_value().unwrap();
    let put = Put { value, content_type, ttl: None };
    let back = Operation { key: key("book"), action: Action::Put(put), expect: Expect::Any };
    laptop.change(vec![back]).await.unwrap();
    assert!(content(&got(&laptop, "book").await).0 == noise(2, MIB), "another value came");

    // A manifest of chunks that are gone is not published.
    let (value, content_type) = orphan.to_value().unwrap();
    let put = Put { value, content_type, ttl: None };
    let refused = laptop
        .change(vec![Operation { key: key("orphan"), action: Action::Put(put), expect: Expect::Any }])
        .await
        .unwrap_err();
    assert_eq!((refused.code(), refused.retry()), (Some(Code::Missing), false), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_again_and_again_stays() {
    let world = World::new().chunk_grace_seconds(2).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let post = world.post("acme", "alice", "phone").await;
    let (kept, gone) = (staged(&laptop, &noise(1, MIB)).await, staged(&laptop, &noise(2, MIB)).await);
    let times = AtomicUsize::new(0);
    eventually("what nobody asks for is deleted", async || {
        assert_eq!(missing(&post, "acme/alice/editor", &kept).await, 0, "at look {times:?}");
        times.fetch_add(1, Ordering::Relaxed);
        let state = world.stream(CHUNKS_STREAM).await;
        (state.bytes < (MIB + MIB / 2) as u64).then_some(())
    })
    .await;
    assert_eq!(missing(&post, "acme/alice/editor", &gone).await, gone.chunks.len());
    assert_eq!(missing(&post, "acme/alice/editor", &kept).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_the_chunks_of_another_user() {
    let world = World::new().start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let value = noise(1, MIB);
    put_counted(&alice, "book", &value).await;
    let manifest = staged(&alice, &value).await;
    let hash = manifest.chunks[0].hash;

    let bob = world.post("acme", "bob", "laptop").await;
    let theirs = asked::<_, ChunkReply>(&bob, Verb::Chunk, "acme/bob/editor", &ChunkRequest { hash }).await;
    assert_eq!(theirs, Err(Code::Missing));
    assert_eq!(missing(&bob, "acme/bob/editor", &manifest).await, manifest.chunks.len());
    // What bob has of the same bytes is his own.
    let subject = subjects::upload(&tenant("acme"), &user("bob"));
    bob.publish(&subject, Headers::new().with(headers::CHUNK, hash.to_string()), "squatted").await;
    assert!(content(&got(&alice, "book").await).0 == value, "another value came");

    // A PubAck that is steered onto alice's subject is no chunk, and does not stay.
    let before = world.stream(CHUNKS_STREAM).await;
    let mut socket = world.socket().await;
    for _ in 0..100 {
        let to = subjects::upload(&tenant("acme"), &user("alice"));
        socket.publish(b"roam.v1.rejected.acme.bob", Some(to.as_bytes()), &[], b"x").await;
    }
    // Neither does one that no connection survives.
    socket.publish(b"roam.v1.rejected.acme.bob", Some(b"roam.v1.upload.acme.\xff"), &[], b"x").await;
    let all = before.last_sequence + 101;
    eventually("they came", async || (world.stream(CHUNKS_STREAM).await.last_sequence >= all).then_some(())).await;
    eventually("they are gone", async || (world.stream(CHUNKS_STREAM).await.messages <= before.messages).then_some(()))
        .await;
    let other = noise(2, MIB);
    put_counted(&alice, "other", &other).await;
    assert!(content(&got(&alice, "other").await).0 == other, "another value came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_with_another_hash_is_missing_until_it_is_uploaded_again() {
    let world = World::new().replicas(2).start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let post = world.post("acme", "alice", "phone").await;
    let (value, who) = (noise(1, MIB), "acme/alice/editor");
    put_counted(&alice, "book", &value).await;
    let manifest = staged(&alice, &value).await;
    let hash = manifest.chunks[0].hash;
    let subject = subjects::upload(&tenant("acme"), &user("alice"));
    post.publish(&subject, Headers::new().with(headers::CHUNK, hash.to_string()), "something else").await;

    eventually("the other bytes are found out", async || {
        let asked = asked::<_, ChunkReply>(&post, Verb::Chunk, who, &ChunkRequest { hash }).await;
        (asked.map(|reply| reply.bytes.len()) == Err(Code::Missing)).then_some(())
    })
    .await;
    let error = alice.get(key("book")).await.unwrap_err();
    assert!(matches!(error, ReadError::Missing(_)) && error.code() == Some(Code::Missing), "{error:?}");
    eventually("every replica says that it is missing", async || {
        let looks = [missing(&post, who, &manifest).await, missing(&post, who, &manifest).await];
        (looks == [1, 1]).then_some(())
    })
    .await;
    let (again, _) = put_counted(&alice, "book", &value).await;
    assert_eq!(again.sent_chunks, 1);
    assert!(content(&got(&alice, "book").await).0 == value, "another value came");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_and_chunks_are_refused_by_their_code() {
    let world = World::new().start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let post = world.post("acme", "alice", "phone").await;

    let manifest = |length: u64, lengths: &[u32]| Manifest {
        length,
        hash: ContentHash::of(b"whole"),
        content_type: pdf(),
        chunks: lengths.iter().map(|length| Chunk { hash: ContentHash::of(b"part"), length: *length }).collect(),
    };
    let json = |manifest: &Manifest| encode(manifest, Encoding::Json).unwrap();
    // By hand, past all that the library checks.
    let mut receipts = post.receipts(&profile("acme/alice/editor"), &device("phone")).await;
    for (value, code) in [
        (b"rubbish".to_vec(), Code::Invalid),
        (json(&manifest(7, &[3, 3])), Code::Invalid),
        (json(&manifest(3, &[LARGEST + 1])), Code::TooLarge),
        (json(&manifest(LARGE_VALUE_BYTES as u64 + 1, &[1])), Code::TooLarge),
        (json(&manifest(2_049, &vec![1; 2_049])), Code::TooLarge),
    ] {
        let value = Value::new(value);
        let ops = serde_json::json!([{ "key": "k", "action": { "put": {
            "value": value.as_text().unwrap(), "content_type": "application/vnd.roam.manifest.v1+json"
        } } }]);
        let change = serde_json::json!({ "change_v1": { "id": ChangeId::random().to_string(), "ops": ops } });
        let subject = subjects::change(&profile("acme/alice/editor"), &device("phone"));
        post.publish(&subject, envelope(Encoding::Json), change.to_string()).await;
        let (receipt, _) = receipts.receipt().await;
        let roam_schemas::Outcome::Rejected(problem) = receipt.outcome else { panic!("applied: {value:?}") };
        assert_eq!(problem.code, code, "{problem}");
    }

    // A manifest that is right and of nothing is applied, and whoever reads it is told.
    let op = |manifest: &Manifest| {
        let (value, content_type) = manifest.to_value().unwrap();
        let put = Put { value, content_type, ttl: None };
        Operation { key: key("hollow"), action: Action::Put(put), expect: Expect::Any }
    };
    let hollow = Change::new(ChangeId::random(), None, vec![op(&manifest(6, &[3, 3]))]).unwrap();
    alice.submit(hollow).await.unwrap().receipt().await.unwrap();
    assert!(matches!(alice.get(key("hollow")).await, Err(ReadError::Missing(_))));

    let subject = subjects::upload(&tenant("acme"), &user("alice"));
    let large = post.try_publish(&subject, Headers::new(), vec![0; 2 * CHUNK_BYTES]).await;
    assert_eq!(large, Err(PublishError::TooLarge));

    let over = tokio::io::repeat(7).take(LARGE_VALUE_BYTES as u64 + 1);
    let refused = alice.put_from(key("over"), &mut Box::pin(over), pdf(), |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::TooLarge), "{refused}");
    for request in [0, 257] {
        let hashes = vec![ContentHash::of(b"x"); request];
        let answer = asked::<_, HaveReply>(&post, Verb::Have, "acme/alice/editor", &HaveRequest { hashes }).await;
        assert_eq!(answer, Err(if request == 0 { Code::Invalid } else { Code::TooLarge }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_is_told_and_what_is_there_still_read() {
    let world = World::new().chunks_max_bytes(4 * MIB as u64).start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    put_counted(&alice, "fits", &noise(1, 2 * MIB)).await;
    let refused = alice.put(key("too much"), noise(2, 8 * MIB), pdf()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry()), (Some(Code::StorageFull), true), "{refused}");
    assert!(content(&got(&alice, "fits").await).0 == noise(1, 2 * MIB), "another value came");
    alice.put(key("small"), "still taken", pdf()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_counts_for_all_its_bytes() {
    let terms = Terms { profile_bytes: 3 * MIB as u64, ..Terms::default() };
    let world = World::new().terms(terms).start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    alice.put(key("book"), noise(1, 2 * MIB), pdf()).await.unwrap();
    let refused = alice.put(key("more"), noise(2, 2 * MIB), pdf()).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::OverQuota), "{refused}");
    alice.delete(key("book")).await.unwrap();
    alice.put(key("more"), noise(2, 2 * MIB), pdf()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_purges_is_missing_and_comes_again() {
    let world = World::new().chunk_grace_seconds(8).start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let post = world.post("acme", "alice", "phone").await;
    let value = noise(1, MIB);
    put_counted(&alice, "book", &value).await;
    let manifest = staged(&alice, &value).await;
    let operator = world.operator().await;
    let purge = serde_json::json!({ "filter": subjects::upload(&tenant("acme"), &user("alice")) }).to_string();
    let subject = format!("$JS.API.STREAM.PURGE.{CHUNKS_STREAM}");
    let purged = operator.request(subject, Headers::new(), purge.into(), roam_tests::PATIENCE).await.unwrap();
    assert!(purged.payload.windows(14).any(|part| part == br#""success":true"#), "{purged:?}");
    eventually("it is noticed", async || {
        (missing(&post, "acme/alice/editor", &manifest).await == manifest.chunks.len()).then_some(())
    })
    .await;
    assert_eq!(put_counted(&alice, "book", &value).await.0.sent_bytes, value.len() as u64);
    assert!(content(&got(&alice, "book").await).0 == value, "another value came");
}
