//! Every case of the position check, and every kind of entry.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use roam_nats::{
    BusSettings, Deployment, Headers, NatsServer, Overrides, PublishSettings, Publisher, ServerSettings, SyncInterval,
    provision,
};
use roam_schemas::{RULES, Terms, encode};
use time::OffsetDateTime;

use super::*;

const CREATED: u64 = 1_700_000_000_000_000_123;
const RECREATED: u64 = CREATED + 1;
const PATIENCE: Duration = Duration::from_secs(20);
const BATCH: BatchId = BatchId::from_bytes([7; 16]);

fn at(sequence: u64) -> Position {
    Position { incarnation: CREATED, sequence, batch: BATCH, published: 0, line: 3, terms: Terms::default() }
}

/// A stream that holds `first..=last`; with `last + 1` for `first` it is empty.
fn stream(created: u64, first: u64, last: u64, replicas: &str) -> StreamState {
    StreamState {
        created: OffsetDateTime::from_unix_timestamp_nanos(created.into()).unwrap(),
        first_sequence: first,
        first_time: None,
        last_sequence: last,
        messages: last + 1 - first,
        bytes: 0,
        metadata: [(STORAGE_REPLICAS_KEY.to_owned(), replicas.to_owned())].into(),
    }
}

#[derive(Debug, PartialEq)]
enum Expected {
    /// Read from there, on that line, and demand that the first delivery is the stored batch.
    Check(u64),
    /// Read from there, on that line.
    Read(u64, u64),
    Gap(u64, u64),
    Forked,
}

fn found(position: Option<&Position>, state: &StreamState, forked: bool) -> Expected {
    match start(position, state, forked) {
        Ok(Start { sequence, stored: Some(BATCH), line: 3, incarnation: CREATED, .. }) => Expected::Check(sequence),
        Ok(Start { sequence, stored: None, line, incarnation, .. }) => {
            assert_eq!(incarnation, nanos(state.created));
            Expected::Read(sequence, line)
        }
        Ok(other) => panic!("{other:?}"),
        Err(FollowError::Gap { first, needed }) => Expected::Gap(first, needed),
        Err(FollowError::Forked { position: at, batch: BATCH, replicas: 3 }) => {
            assert_eq!(Some(at), position.map(|position| position.sequence));
            Expected::Forked
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn where_to_read_from_follows_from_what_is_stored_and_what_the_stream_says() {
    use Expected::{Check, Forked, Gap, Read};
    let stands = Some(at(50));
    let table = [
        // An empty replica.
        ("a stream that nothing ever came into", None, (CREATED, 0, 0), false, Read(1, 1), Read(1, 1)),
        ("a stream that was just begun", None, (CREATED, 1, 9), false, Read(1, 1), Read(1, 1)),
        ("an empty replica and a journal whose beginning is gone", None, (CREATED, 2, 9), false, Gap(2, 1), Gap(2, 1)),
        ("the same with nothing left in it", None, (CREATED, 10, 9), false, Gap(10, 1), Gap(10, 1)),
        // The stream that the replica knows.
        ("the batch is the newest", stands.clone(), (CREATED, 1, 50), false, Check(50), Check(50)),
        ("there is more behind the batch", stands.clone(), (CREATED, 1, 90), false, Check(50), Check(50)),
        ("the batch is the oldest", stands.clone(), (CREATED, 50, 90), false, Check(50), Check(50)),
        ("the batch aged out", stands.clone(), (CREATED, 51, 90), false, Read(51, 3), Read(51, 3)),
        ("all aged out", stands.clone(), (CREATED, 51, 50), false, Read(51, 3), Read(51, 3)),
        ("more than the batch aged out", stands.clone(), (CREATED, 52, 90), false, Gap(52, 51), Gap(52, 51)),
        ("all and more aged out", stands.clone(), (CREATED, 91, 90), false, Gap(91, 51), Gap(91, 51)),
        // Rolled back.
        ("the stream ends before the batch", stands.clone(), (CREATED, 1, 49), false, Read(1, 4), Forked),
        ("what is left begins later", stands.clone(), (CREATED, 20, 49), false, Read(20, 4), Forked),
        ("nothing is left", stands.clone(), (CREATED, 0, 0), false, Read(1, 4), Forked),
        ("another batch is at the position", stands.clone(), (CREATED, 1, 90), true, Read(1, 4), Forked),
        ("another batch, and the beginning is gone", stands.clone(), (CREATED, 30, 90), true, Read(30, 4), Forked),
        // Created anew.
        ("a new stream with nothing in it", stands.clone(), (RECREATED, 0, 0), false, Read(1, 4), Forked),
        ("a new stream that is shorter", stands.clone(), (RECREATED, 1, 10), false, Read(1, 4), Forked),
        ("a new stream that is longer", stands.clone(), (RECREATED, 1, 90), false, Read(1, 4), Forked),
        ("a new stream whose beginning is gone", stands, (RECREATED, 5, 90), false, Gap(5, 1), Forked),
    ];
    for (name, position, (created, first, last), forked, alone, of_three) in table {
        for (replicas, expected) in [("1", alone), ("3", of_three)] {
            let state = stream(created, first, last, replicas);
            assert_eq!(found(position.as_ref(), &state, forked), expected, "{name}, {replicas} replicas");
        }
    }
}

#[test]
fn a_stream_that_does_not_say_how_many_replicas_there_are_has_one() {
    for metadata in ["", "many"] {
        let state = stream(RECREATED, 1, 9, metadata);
        assert_eq!(found(Some(&at(50)), &state, false), Expected::Read(1, 4));
    }
    let mut state = stream(RECREATED, 1, 9, "3");
    state.metadata.clear();
    assert_eq!(found(Some(&at(50)), &state, false), Expected::Read(1, 4));
}

fn entry(subject: &str, headers: Headers, payload: Vec<u8>) -> Entry {
    let published = OffsetDateTime::UNIX_EPOCH;
    Entry { subject: subject.to_owned(), headers, payload: payload.into(), sequence: 9, published }
}

fn batch() -> JournalBatch {
    JournalBatch { id: BATCH, rules: RULES, terms: Terms::default(), quotas: Vec::new(), changes: Vec::new() }
}

const SUBJECT: &str = "roam.v1.journal.0";

#[test]
fn an_entry_of_an_access_server_is_read() {
    let payload = encode(&batch(), Encoding::Postcard).unwrap();
    let read = read_entry(&entry(SUBJECT, Headers::new().with_batch(BATCH.to_string()), payload));
    assert_eq!(read.unwrap(), Some(batch()));
}

#[test]
fn an_entry_without_a_batch_id_is_none_of_ours_whatever_is_in_it() {
    let payload = encode(&batch(), Encoding::Postcard).unwrap();
    for subject in [SUBJECT, "roam.v1.journal.0.control"] {
        for payload in [payload.clone(), Vec::new(), b"{\"stream\":\"ROAM_CHANGES\",\"seq\":1}".to_vec()] {
            assert_eq!(read_entry(&entry(subject, Headers::new(), payload)).unwrap(), None);
        }
    }
}

#[test]
fn what_is_ours_and_not_understood_is_never_skipped() {
    let whole = encode(&batch(), Encoding::Postcard).unwrap();
    let ours = || Headers::new().with_batch(BATCH.to_string());
    let control = read_entry(&entry("roam.v1.journal.0.control", ours(), whole.clone()));
    assert!(matches!(control, Err(FollowError::UnknownKind { sequence: 9, .. })), "{control:?}");
    let mut newer = whole.clone();
    newer[0] += 1 << 5;
    for payload in [Vec::new(), whole[..whole.len() - 1].to_vec(), newer] {
        let read = read_entry(&entry(SUBJECT, ours(), payload));
        assert!(matches!(read, Err(FollowError::Undecodable { sequence: 9, .. })), "{read:?}");
    }
    for id in ["rubbish", &BatchId::from_bytes([8; 16]).to_string()] {
        let read = read_entry(&entry(SUBJECT, Headers::new().with_batch(id.to_owned()), whole.clone()));
        assert!(matches!(read, Err(FollowError::Undecodable { .. })), "{read:?}");
    }
}

/// A journal on a real bus.
struct World {
    bus: Bus,
    _server: NatsServer,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(directory.path()) };
        let server = NatsServer::start(settings).await.unwrap();
        let servers = vec![server.client_url()];
        let bus = Bus::connect(&BusSettings { servers, ..BusSettings::default() }, "a test").await.unwrap();
        let overrides = Overrides {
            changes_max_bytes: Some(64 << 20),
            journal_max_bytes: Some(64 << 20),
            rejected_max_bytes: Some(64 << 20),
            chunks_max_bytes: Some(64 << 20),
            ..Overrides::default()
        };
        provision(&bus, &Deployment { replicas_of_streams: 1, storage_replicas: 1, overrides }).await.unwrap();
        Self { bus, _server: server, _directory: directory }
    }

    async fn append(&self, headers: Headers, payload: Vec<u8>) -> u64 {
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        publisher.publish(SUBJECT.to_owned(), headers, payload.into()).await.await.unwrap().sequence
    }

    async fn append_batch(&self, number: u8) -> u64 {
        let batch = JournalBatch { id: BatchId::from_bytes([number; 16]), ..batch() };
        let payload = encode(&batch, Encoding::Postcard).unwrap();
        self.append(Headers::new().with_batch(batch.id.to_string()), payload).await
    }

    /// What a follower that stands there hands over, as (sequence, line) of a batch or as a sequence that is passed.
    async fn follow(&self, position: Option<Position>, count: usize) -> Vec<Result<(u64, u64), u64>> {
        let context = Context::new(Duration::from_secs(5));
        let (work, mut handed_over) = mpsc::channel(1);
        let follower = self.follower(&context, position, work);
        let mut running = tokio::task::JoinSet::new();
        running.spawn(follower.follow());
        let mut all = Vec::new();
        while all.len() < count {
            let next = tokio::time::timeout(PATIENCE, handed_over.recv()).await.unwrap();
            all.push(match next.unwrap() {
                Work::Batch(position, batch) => {
                    assert_eq!(position.batch, batch.id);
                    Ok((position.sequence, position.line))
                }
                Work::Passed(sequence) => Err(sequence),
                Work::Clean => panic!("the follower cleans nothing"),
            });
        }
        context.shutdown.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
        assert!(handed_over.try_recv().is_err(), "nothing more was there");
        all
    }

    fn follower(&self, context: &Context, position: Option<Position>, work: mpsc::Sender<Work>) -> Follower {
        let (context, metrics) = (context.clone(), Metrics::new(&context.metrics));
        let condition = context.health.condition("journal");
        Follower { bus: self.bus.clone(), context, metrics, position, work, condition }
    }

    async fn api(&self, subject: &str, body: String) {
        let answer =
            self.bus.request(format!("$JS.API.{subject}"), Headers::new(), body.into(), PATIENCE).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!answer.contains("\"error\""), "{answer}");
    }

    /// The position of a replica that applied this batch of the journal as it is.
    async fn stands_at(&self, sequence: u64, number: u8) -> Position {
        let incarnation = nanos(stream_state(&self.bus, JOURNAL_STREAM).await.unwrap().created);
        Position { incarnation, batch: BatchId::from_bytes([number; 16]), ..at(sequence) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_hands_over_what_comes_behind_its_position_and_says_what_is_applied_first() {
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    world.append(Headers::new(), b"{\"stream\":\"ROAM_CHANGES\",\"seq\":1}".to_vec()).await;
    world.append_batch(4).await;

    let empty = world.follow(None, 5).await;
    assert_eq!(empty, [Err(0), Ok((1, 1)), Ok((2, 1)), Err(3), Ok((4, 1))]);
    let stands = world.stands_at(2, 2).await;
    assert_eq!(world.follow(Some(stands), 3).await, [Err(2), Err(3), Ok((4, 3))]);
    let newest = world.stands_at(4, 4).await;
    assert_eq!(world.follow(Some(newest), 1).await, [Err(4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_reads_a_journal_that_is_another_one_from_its_beginning() {
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    let whole = [Err(0), Ok((1, 4)), Ok((2, 4))];
    let other_batch = world.stands_at(2, 9).await;
    assert_eq!(world.follow(Some(other_batch), 3).await, whole);
    let beyond = world.stands_at(7, 7).await;
    assert_eq!(world.follow(Some(beyond), 3).await, whole);
    let recreated = Position { incarnation: CREATED, ..world.stands_at(2, 2).await };
    assert_eq!(world.follow(Some(recreated), 3).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_stops_before_what_is_missing_in_the_middle_of_the_journal() {
    let world = World::start().await;
    // A damaged block of the server's leaves a hole such as this; a provisioned stream lets nobody make one.
    world.api("STREAM.DELETE.ROAM_JOURNAL", String::new()).await;
    world.api("STREAM.CREATE.ROAM_JOURNAL", format!(r#"{{"name": "ROAM_JOURNAL", "subjects": ["{SUBJECT}"]}}"#)).await;
    for number in 1..=4 {
        world.append_batch(number).await;
    }
    world.api("STREAM.MSG.DELETE.ROAM_JOURNAL", r#"{"seq": 3}"#.to_owned()).await;

    let context = Context::new(Duration::from_secs(5));
    let (work, mut handed_over) = mpsc::channel(8);
    let followed = world.follower(&context, None, work).follow();
    let ended = tokio::time::timeout(PATIENCE, followed).await.unwrap();
    assert!(matches!(ended, Err(FollowError::Gap { first: 4, needed: 3 })), "{ended:?}");
    let mut last = 0;
    while let Ok(handed_over) = handed_over.try_recv() {
        last = match handed_over {
            Work::Batch(position, _) => position.sequence,
            Work::Passed(sequence) => sequence,
            Work::Clean => panic!("the follower cleans nothing"),
        };
    }
    assert_eq!(last, 2, "nothing behind it was handed over");
}
