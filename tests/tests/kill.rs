//! Processes are killed at any moment, under load: nothing with a receipt is missing afterwards, and every change with a
//! PubAck is answered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::TryStreamExt;
use rand::Rng;
use roam_client::{Change, ChangeId, Encoding, Operation, Profile, Record, Select, State};
use roam_nats::PublishError;
use roam_schemas::{Applied, Outcome, Receipt, Shard, encode, subjects};
use roam_tests::{Fate, Mailbox, Post, Side, World, app, device, dice, envelope, eventually, key, profile, text};
use tokio::{task::JoinSet, time::sleep};

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
/// How many devices write, each a profile of its own user.
const DEVICES: usize = 4;
/// How many changes of a device may be without a receipt.
const IN_FLIGHT: usize = 64;

/// All changes that were published, and what was said about them to whoever published them.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    sent: HashMap<ChangeId, Sent>,
    answered: usize,
    /// How many changes of each device were accepted and are not answered.
    in_flight: [usize; DEVICES],
}

struct Sent {
    writer: usize,
    change: Change,
    /// Whether there was a PubAck, or an answer, which shows that the stream had it.
    accepted: bool,
    /// What the first receipt said.
    answer: Option<Applied>,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    fn send(&self, writer: usize, change: &Change) {
        let sent = Sent { writer, change: change.clone(), accepted: false, answer: None };
        self.book().sent.insert(change.id(), sent);
    }

    fn accept(&self, id: ChangeId) {
        let book = &mut *self.book();
        let sent = book.sent.get_mut(&id).unwrap();
        if !sent.accepted {
            sent.accepted = true;
            book.in_flight[sent.writer] += 1;
        }
    }

    fn hear(&self, receipt: Receipt) {
        let Outcome::Applied(applied) = receipt.outcome else { panic!("{:?}", receipt.outcome) };
        let id = receipt.id.unwrap();
        // It may outrun the PubAck.
        self.accept(id);
        let book = &mut *self.book();
        let sent = book.sent.get_mut(&id).unwrap();
        if let Some(first) = &sent.answer {
            assert_eq!(*first, applied, "each receipt says the same");
            return;
        }
        sent.answer = Some(applied);
        book.answered += 1;
        book.in_flight[sent.writer] -= 1;
    }

    fn unanswered(&self) -> Vec<Change> {
        let book = self.book();
        let unanswered = book.sent.values().filter(|sent| sent.accepted && sent.answer.is_none());
        unanswered.map(|sent| sent.change.clone()).collect()
    }
}

fn profile_of(writer: usize) -> Profile {
    profile(&format!("acme/user-{writer}/editor"))
}

/// Publishes one change: until the stream took it, or until nobody knows.
async fn publish(post: &Post, writer: usize, change: &Change, ledger: &Ledger) {
    let subject = subjects::change(&profile_of(writer), &device("laptop"));
    loop {
        let payload = encode(change, Encoding::Postcard).unwrap();
        match post.try_publish(&subject, envelope(Encoding::Postcard), payload).await {
            Ok(_) => return ledger.accept(change.id()),
            // Full: it goes on once there is room.
            Err(PublishError::Busy { .. }) => sleep(Duration::from_millis(10)).await,
            Err(_) => return,
        }
    }
}

/// Publishes for ever, each time to another key.
async fn write(post: Post, writer: usize, ledger: Ledger) {
    for count in 0_u64.. {
        let op = Operation::put(key(&format!("{count:08}")), count.to_string(), text());
        let change = Change::new(ChangeId::random(), None, vec![op]).unwrap();
        ledger.send(writer, &change);
        publish(&post, writer, &change, &ledger).await;
        while ledger.book().in_flight[writer] >= IN_FLIGHT {
            sleep(Duration::from_millis(2)).await;
        }
        // A load that leaves the machine to others too.
        sleep(Duration::from_millis(1)).await;
    }
}

async fn listen(mut mailbox: Mailbox, ledger: Ledger) {
    loop {
        ledger.hear(mailbox.receipt().await.0);
    }
}

/// The devices of a world, writing and listening.
struct Load {
    posts: Vec<Post>,
    writers: JoinSet<()>,
    listeners: JoinSet<()>,
    ledger: Ledger,
}

impl Load {
    async fn on(world: &World) -> Self {
        let (ledger, mut posts) = (Ledger::default(), Vec::new());
        let (mut writers, mut listeners) = (JoinSet::new(), JoinSet::new());
        for writer in 0..DEVICES {
            let post = world.post("acme", &format!("user-{writer}"), "laptop").await;
            let mailbox = post.receipts(&profile_of(writer), &device("laptop")).await;
            listeners.spawn(listen(mailbox, ledger.clone()));
            writers.spawn(write(post.clone(), writer, ledger.clone()));
            posts.push(post);
        }
        Self { posts, writers, listeners, ledger }
    }

    async fn goes_on(&self, more: usize) {
        let before = self.ledger.book().answered;
        eventually("changes are answered", async || (self.ledger.book().answered >= before + more).then_some(())).await;
    }

    /// Stops writing.
    async fn end(&mut self) {
        self.writers.shutdown().await;
        assert!(self.listeners.try_join_next().is_none(), "a listener has ended");
    }

    /// Shows that everything that was accepted is answered by itself, and that what the receipts said is so.
    async fn check(&mut self, world: &World) {
        self.end().await;
        eventually("every change with a PubAck is answered", async || {
            self.ledger.unanswered().is_empty().then_some(())
        })
        .await;
        check(world, &self.ledger).await;
    }

    /// The same, for when receipts may be lost on the way: each device sends once more what it has no receipt for.
    async fn check_after_sending_again(&mut self, world: &World) {
        self.end().await;
        let unanswered = self.ledger.unanswered();
        println!("{} changes are sent again", unanswered.len());
        for change in unanswered {
            let writer = self.ledger.book().sent[&change.id()].writer;
            publish(&self.posts[writer], writer, &change, &self.ledger).await;
        }
        self.check(world).await;
    }
}

/// Everything with a receipt is there, as the receipt says; everything that is there was sent, and took effect once.
async fn check(world: &World, ledger: &Ledger) {
    let mut checked = 0;
    for writer in 0..DEVICES {
        let reader = world.device("acme", &format!("user-{writer}"), "reader").await.profile(app("editor"));
        let records: Vec<Record> = reader.records(Select::All).try_collect().await.unwrap();
        let held: BTreeMap<&str, &Record> = records.iter().map(|record| (record.key.as_str(), record)).collect();
        let book = ledger.book();
        let own: Vec<&Sent> = book.sent.values().filter(|sent| sent.writer == writer).collect();
        for sent in &own {
            let Some(applied) = &sent.answer else { continue };
            let name = sent.change.ops()[0].key.as_str();
            let record = held.get(name).unwrap_or_else(|| panic!("{name} of user-{writer} is missing: {applied:?}"));
            assert_eq!((record.revision, record.time), (applied.revision, applied.time), "{name}");
            let State::Value(stored) = &record.state else { panic!("{record:?}") };
            assert_eq!(stored.value.as_text().unwrap().parse::<u64>(), name.parse());
            checked += 1;
        }
        let mut revisions: Vec<u64> = records.iter().map(|record| record.revision.get()).collect();
        revisions.sort_unstable();
        assert_eq!(revisions, (1..=records.len() as u64).collect::<Vec<_>>(), "each change took one revision");
        assert!(records.len() <= own.len());
    }
    println!("{checked} changes with a receipt are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_twenty_times_loses_nothing_that_was_saved() {
    let mut dice = dice();
    let mut world = World::new().as_processes(BINARY).start().await;
    let mut load = Load::on(&world).await;
    for round in 0..20 {
        if round % 4 == 0 {
            // Until the new process has the announcing to itself.
            load.goes_on(100).await;
        } else {
            let pages = world.replicas[0].pages();
            eventually("the replica applies", async || {
                (pages.metric("roam_storage_batches_total", &[]).await > 0.0).then_some(())
            })
            .await;
        }
        sleep(Duration::from_millis(dice.random_range(0..200))).await;
        world.replicas[0].kill().await;
        world.replicas[0].start().await;
    }
    load.check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_is_killed_and_the_other_goes_on() {
    let mut world = World::new().replicas(2).as_processes(BINARY).start().await;
    let mut load = Load::on(&world).await;
    for round in 0..4 {
        load.goes_on(100).await;
        let replica = &mut world.replicas[round % 2];
        replica.kill().await;
        // Without the one that was killed.
        load.goes_on(100).await;
        replica.start().await;
        replica.ready().await;
    }
    load.check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_server_that_is_killed_with_changes_in_hand_loses_none() {
    let mut world = World::new().access_servers(2).as_processes(BINARY).start().await;
    let mut load = Load::on(&world).await;
    for round in 0..3 {
        load.goes_on(200).await;
        world.access_servers[round % 2].kill().await;
        load.goes_on(200).await;
        world.access_servers[round % 2].start().await;
    }
    load.check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_killed_loses_nothing_that_was_accepted() {
    let mut world = World::new().access_servers(2).replicas(2).start().await;
    let mut load = Load::on(&world).await;
    for _ in 0..3 {
        load.goes_on(200).await;
        world.nats.kill().await.unwrap();
        world.nats.restart().await.unwrap();
    }
    load.goes_on(200).await;
    // Receipts that were under way when the server died are lost.
    load.check_after_sending_again(&world).await;
}

/// Publishes one change, and gives its sequence.
async fn publish_one(world: &World) -> (Mailbox, u64) {
    let post = world.post("acme", "user-0", "laptop").await;
    let mailbox = post.receipts(&profile_of(0), &device("laptop")).await;
    let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("theme"), "dark", text())]).unwrap();
    let payload = encode(&change, Encoding::Postcard).unwrap();
    let subject = subjects::change(&profile_of(0), &device("laptop"));
    (mailbox, post.publish(&subject, envelope(Encoding::Postcard), payload).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_append_was_under_way_when_the_access_server_was_killed_is_appended_by_the_next() {
    let mut world = World::new().as_processes(BINARY).with_wires().start().await;
    let wire = world.access_servers[0].wire();
    wire.judge(|frame| if frame.subject == subjects::journal(Shard::ONLY) { Fate::Hold } else { Fate::Pass });
    let (mut mailbox, sequence) = publish_one(&world).await;
    eventually("the append is under way", async || (wire.held() > 0).then_some(())).await;
    wire.pass_all();
    world.access_servers[0].kill().await;
    world.access_servers[0].start().await;
    let (receipt, _) = mailbox.receipt().await;
    assert_eq!((receipt.sequence, receipt.again), (sequence, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_was_under_way_when_the_replica_was_killed_is_sent_by_the_next() {
    let mut world = World::new().as_processes(BINARY).with_wires().start().await;
    let wire = world.replicas[0].wire();
    // The connection that receipts leave on stalls with the first of them.
    let mut stalled = None;
    wire.judge(move |frame| {
        if frame.to == Side::Server && frame.subject.starts_with("roam.v1.receipt.") {
            stalled = Some(frame.connection);
        }
        let stalls = frame.to == Side::Server && stalled == Some(frame.connection);
        if stalls { Fate::Hold } else { Fate::Pass }
    });
    let (mut mailbox, sequence) = publish_one(&world).await;
    eventually("the receipt is under way", async || (wire.held() > 0).then_some(())).await;
    wire.pass_all();
    world.replicas[0].kill().await;
    world.replicas[0].start().await;
    let (receipt, _) = mailbox.receipt().await;
    assert_eq!((receipt.sequence, receipt.again), (sequence, false), "the same batch announces it");
}
