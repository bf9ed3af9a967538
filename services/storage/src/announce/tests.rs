//! The announcer on a real bus: who waits for what.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use futures_util::FutureExt;
use roam_nats::{ConsumerState, Headers, JOURNAL_STREAM, PublishSettings, Subscription, consumer_state};
use roam_schemas::{Change, Control, Encoding, Erase, JournalBatch, StampedChange, encode, subjects};

use super::*;
use crate::fixture::{Fixture, Provisioned, put, seconds};

/// How long anything may take before the test fails: less than [`UNDECIDED_FOR`].
const WITHIN: Duration = Duration::from_secs(20);
/// What a stream says of a message that it has stored, and of one that it has not.
const STORED: &str = r#"{"stream":"ROAM_REJECTED","seq":1}"#;
const REFUSED: &str = r#"{"error":{"code":400,"err_code":10060,"description":"not now"}}"#;

/// A replica that announces, whose applying side is the test.
struct World {
    fixture: Fixture,
    bus: Bus,
    progress: Progress,
    context: Context,
    running: JoinSet<Result<(), AnnounceError>>,
    _provisioned: Provisioned,
}

impl World {
    async fn start() -> Self {
        let provisioned = Provisioned::start(1).await;
        Self {
            fixture: Fixture::new(),
            bus: provisioned.bus.clone(),
            progress: Progress::default(),
            context: Context::new(Duration::from_secs(5)),
            running: JoinSet::new(),
            _provisioned: provisioned,
        }
    }

    /// Begins to announce.
    fn announce(&mut self) {
        // Nothing is published again because the test has not answered yet.
        let settings = PublishSettings { ack_timeout: WITHIN, retry_for: Duration::ZERO, ..PublishSettings::default() };
        let announcer = Announcer {
            shard: Shard::ONLY,
            bus: self.bus.clone(),
            sending: self.bus.clone(),
            filing: Publisher::new(&self.bus, settings),
            context: self.context.clone(),
            progress: self.progress.clone(),
            reader: self.fixture.reader.clone(),
            metrics: Metrics::new(&self.context.metrics),
            condition: self.context.health.condition("announce"),
            announces: Arc::default(),
            rereading: Mutex::default(),
        };
        self.running.spawn(announcer.announce());
    }

    /// Listens on a subject from here on.
    async fn listen(&self, subject: &str) -> Subscription {
        let subscription = self.bus.subscribe(subject.to_owned()).await.unwrap();
        self.bus.round_trip(WITHIN).await.unwrap();
        subscription
    }

    /// What is published into ROAM_REJECTED from here on: there is no such stream any more, and the test answers.
    async fn filings(&self) -> Subscription {
        let subject = "$JS.API.STREAM.DELETE.ROAM_REJECTED".to_owned();
        let answer = self.bus.request(subject, Headers::new(), Bytes::new(), WITHIN).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{answer:?}");
        self.listen("roam.v1.rejected.>").await
    }

    /// Answers what was published.
    async fn answer(&self, filing: &Message, with: &'static str) {
        self.bus.send(filing.reply.clone().unwrap(), Headers::new(), with.into()).await.unwrap();
    }

    /// Appends a batch to the journal.
    async fn append(&self, batch: &JournalBatch) -> u64 {
        let headers = Headers::new().with_batch(batch.id.to_string());
        let payload = encode(batch, Encoding::Postcard).unwrap();
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        let subject = subjects::journal(Shard::ONLY);
        publisher.publish(subject, headers, payload.into()).await.await.unwrap().sequence
    }

    /// Changes are in the journal, and applied.
    async fn apply(&mut self, changes: Vec<StampedChange>) {
        let applied = self.fixture.apply(changes);
        assert_eq!(self.append(&applied.batch).await, applied.sequence);
        self.progress.applied([applied].into_iter(), &Vec::new());
    }

    /// A change, and so many others under its id, which are rejected and filed.
    fn misused(&mut self, others: usize) -> Vec<StampedChange> {
        let mut changes = vec![self.fixture.change(None, vec![put("a", "first")])];
        let id = changes[0].change.id();
        for number in 0..others {
            let mut other = self.fixture.change(None, vec![put("a", format!("other {number}"))]);
            other.change = Change::new(id, None, other.change.into_ops()).unwrap();
            other.digest = other.change.digest();
            changes.push(other);
        }
        changes
    }

    /// The durable of the announcer.
    async fn durable(&self) -> ConsumerState {
        consumer_state(&self.bus, JOURNAL_STREAM, ANNOUNCE_DURABLE).await.unwrap()
    }

    /// Returns once the durable is so.
    async fn until(&self, is_so: impl Fn(ConsumerState) -> bool) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let durable = self.durable().await;
            if is_so(durable) {
                return;
            }
            assert!(Instant::now() < deadline, "{durable:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(&mut self) {
        self.context.shutdown.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// The next message.
async fn next(subscription: &mut Subscription) -> Message {
    timeout(WITHIN, subscription.next()).await.expect("a message comes").expect("the connection stands")
}

#[test]
fn what_comes_again_after_a_rollback_does_not_wait_for_entries_that_are_no_more() {
    let mut held = VecDeque::from([3_106, 3_107]);
    hold(&mut held, vec![3_075, 3_076, 3_106], |sequence| *sequence);
    assert_eq!(held, [3_075, 3_076, 3_106, 3_106, 3_107]);
    hold(&mut held, vec![3_108], |sequence| *sequence);
    assert_eq!(held.back(), Some(&3_108));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_what_is_filed_but_the_ack_of_its_batch() {
    const REJECTED: usize = 100;
    let mut world = World::start().await;
    let mut filings = world.filings().await;
    let mut receipts = world.listen(&subjects::receipt(&world.fixture.profile, &world.fixture.device)).await;
    world.announce();
    let misused = world.misused(REJECTED);
    world.apply(misused).await;
    for _ in 0..=REJECTED {
        next(&mut receipts).await;
    }
    let change = world.fixture.change(None, vec![put("b", "1")]);
    world.apply(vec![change]).await;
    next(&mut receipts).await;

    // All of it came, and nothing of it was answered so far.
    let mut filed = Vec::new();
    while filed.len() < REJECTED {
        filed.push(next(&mut filings).await);
    }
    world.until(|durable| durable.delivered == 2 && durable.unacked == 1).await;
    world.answer(&filed[0], REFUSED).await;
    for filed in &filed[1..] {
        world.answer(filed, STORED).await;
    }
    let again = next(&mut filings).await;
    assert_eq!(again.payload, filed[0].payload);
    assert_eq!(world.durable().await.ack_floor, 0, "one of them is missing");
    world.answer(&again, STORED).await;
    world.until(|durable| durable.ack_floor == 2).await;
    world.bus.round_trip(WITHIN).await.unwrap();
    assert!(filings.next().now_or_never().is_none(), "only what was refused was filed again");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_filed_at_the_shutdown_is_not_acked() {
    let mut world = World::start().await;
    let mut filings = world.filings().await;
    let misused = world.misused(1);
    world.apply(misused).await;
    world.announce();
    let filed = next(&mut filings).await;
    world.answer(&filed, REFUSED).await;
    world.end().await;
    assert_eq!(world.durable().await.ack_floor, 0, "whoever announces next files it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_of_a_user_who_is_erased_holds_up_nobody() {
    let mut world = World::start().await;
    let alices = world.fixture.write(vec![put("a", "1")]);
    let (tenant, user) = (world.fixture.profile.tenant.clone(), world.fixture.profile.user.clone());
    world.fixture.published = seconds(100).as_nanos();
    world.fixture.control(&Control::Erase(Erase { tenant, user }));
    world.fixture.profile = "acme/bob/mail".parse().unwrap();
    let bobs = world.fixture.write(vec![put("b", "1")]);
    for applied in [alices, bobs] {
        world.append(&applied.batch).await;
    }
    // Whoever takes over remembers neither.
    world.progress.passed(2);
    let mut receipts = world.listen("roam.v1.receipt.>").await;
    world.announce();
    assert_eq!(next(&mut receipts).await.subject, subjects::receipt(&world.fixture.profile, &world.fixture.device));
    world.until(|durable| durable.ack_floor == 2).await;
    world.end().await;
}
