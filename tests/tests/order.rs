//! The journal is the order, and an older value never wins over a newer one: not if two access servers work in parallel,
//! not if a redelivery comes late, and not if one of them dies again and again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use rand::Rng;
use roam_client::{Lookup, Pending, Saved};
use roam_nats::{CHANGES_STREAM, stream_state};
use roam_schemas::{
    Applied, BatchId, Change, ChangeId, Code, Device, Encoding, Expect, JournalBatch, Notice, Operation, Origin,
    Outcome, Profile, RULES, Revision, Shard, Stamp, StampedChange, State, Superseded, Terms, Timestamp, decode,
    encode, subjects,
};
use roam_tests::{Fate, Mailbox, Post, Side, World, app, device, dice, envelope, eventually, key, profile, text};
use tokio::{task::JoinSet, time::sleep};

fn alice() -> (Profile, Device) {
    (profile("acme/alice/editor"), device("laptop"))
}

/// An access server in the hands of the test.
struct Journal {
    post: Post,
    incarnation: u64,
}

impl Journal {
    async fn of(world: &World) -> Self {
        let post = world.post("acme", "alice", "laptop").await;
        let created = stream_state(&post.bus, CHANGES_STREAM).await.unwrap().created;
        Self { post, incarnation: u64::try_from(created.unix_timestamp_nanos()).unwrap() }
    }

    /// A change as it stood in the stream: at this sequence, taken in at this second.
    fn stamped(&self, sequence: u64, second: u64, ops: Vec<Operation>) -> StampedChange {
        let (profile, device) = alice();
        let change = Change::new(ChangeId::random(), None, ops).unwrap();
        let time = Timestamp::from_nanos(self.incarnation).plus_seconds(second);
        let stamp = Stamp { time, origin: Origin { incarnation: self.incarnation, sequence } };
        StampedChange { profile, device, encoding: Encoding::Json, stamp, digest: change.digest(), change }
    }

    /// Appends a change as a batch of its own.
    async fn append(&self, change: StampedChange) {
        let batch = JournalBatch {
            id: BatchId::random(),
            rules: RULES,
            terms: Terms::default(),
            quotas: Vec::new(),
            changes: vec![change],
        };
        let headers = envelope(Encoding::Postcard).with_batch(batch.id.to_string());
        self.post.publish(&subjects::journal(Shard::ONLY), headers, encode(&batch, Encoding::Postcard).unwrap()).await;
    }
}

fn put(name: &str, value: &str) -> Operation {
    Operation::put(key(name), value, text())
}

async fn outcome(mailbox: &mut Mailbox) -> Outcome {
    mailbox.receipt().await.0.outcome
}

async fn applied(mailbox: &mut Mailbox) -> Applied {
    match outcome(mailbox).await {
        Outcome::Applied(applied) => applied,
        Outcome::Rejected(problem) => panic!("{problem}"),
    }
}

fn beaten(name: &str, revision: u64) -> Superseded {
    Superseded { key: key(name), revision: Revision::new(revision) }
}

async fn value(world: &World, name: &str) -> Option<String> {
    let reader = world.device("acme", "alice", "reader").await;
    match reader.profile(app("editor")).get(key(name)).await.unwrap() {
        Lookup::Found(record) => Some(text_of(&record.state).to_owned()),
        _ => None,
    }
}

fn text_of(state: &State) -> &str {
    let State::Value(stored) = state else { panic!("{state:?}") };
    stored.value.as_text().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_reaches_the_journal_after_a_later_one_goes_to_the_history() {
    let world = World::new().access_servers(0).start().await;
    let journal = Journal::of(&world).await;
    let (profile, laptop) = alice();
    let mut mailbox = journal.post.receipts(&profile, &laptop).await;
    let mut notices = journal.post.listen(subjects::notice(&profile)).await;

    let (late, in_time) =
        (journal.stamped(1, 1, vec![put("theme", "old")]), journal.stamped(2, 2, vec![put("theme", "new")]));
    let late_time = late.stamp.time;
    journal.append(in_time).await;
    journal.append(late).await;

    let first = applied(&mut mailbox).await;
    assert_eq!((first.revision, first.superseded.as_slice()), (Revision::new(1), [].as_slice()));
    let second = applied(&mut mailbox).await;
    assert_eq!(second, Applied { superseded: vec![beaten("theme", 1)], ..first.clone() }, "it takes no revision");

    let reader = world.device("acme", "alice", "reader").await.profile(app("editor"));
    let Lookup::Found(record) = reader.get(key("theme")).await.unwrap() else { panic!("it is there") };
    assert_eq!((text_of(&record.state), record.revision, record.time), ("new", first.revision, first.time));
    let history = reader.history(key("theme"), None).await.unwrap();
    let versions: Vec<_> = history
        .iter()
        .map(|version| (text_of(&version.state), version.revision.get(), version.rank, version.time))
        .collect();
    assert_eq!(versions, [("new", 1, 0, first.time), ("old", 1, 1, late_time)]);

    let notices = notices.all_so_far().await;
    assert_eq!(notices.len(), 1, "nobody is told of a change that took no revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_came_too_late_of_a_change_is_held_back() {
    let world = World::new().access_servers(0).start().await;
    let journal = Journal::of(&world).await;
    let (profile, laptop) = alice();
    let mut mailbox = journal.post.receipts(&profile, &laptop).await;
    let mut notices = journal.post.listen(subjects::notice(&profile)).await;

    journal.append(journal.stamped(2, 2, vec![put("theme", "new")])).await;
    applied(&mut mailbox).await;
    journal.append(journal.stamped(1, 1, vec![put("theme", "old"), put("font", "mono")])).await;
    let partly = applied(&mut mailbox).await;
    assert_eq!((partly.revision, partly.superseded), (Revision::new(2), vec![beaten("theme", 1)]));
    assert_eq!(value(&world, "theme").await.as_deref(), Some("new"));
    assert_eq!(value(&world, "font").await.as_deref(), Some("mono"));

    let told = notices.all_so_far().await;
    let told: Notice = decode(&told[1].payload, Encoding::Json).unwrap();
    assert_eq!(told.ops.iter().map(|op| &op.key).collect::<Vec<_>>(), [&key("font")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_put_does_not_bring_back_what_was_deleted() {
    let world = World::new().access_servers(0).start().await;
    let journal = Journal::of(&world).await;
    let (profile, laptop) = alice();
    let mut mailbox = journal.post.receipts(&profile, &laptop).await;
    // The delete of a key that nobody has written yet, because its put comes late.
    journal.append(journal.stamped(2, 2, vec![Operation::delete(key("theme"))])).await;
    assert_eq!(applied(&mut mailbox).await.revision, Revision::new(1));
    journal.append(journal.stamped(1, 1, vec![put("theme", "old")])).await;
    assert_eq!(applied(&mut mailbox).await.superseded, [beaten("theme", 1)]);
    assert_eq!(value(&world, "theme").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_change_that_expects_something_is_refused() {
    let world = World::new().access_servers(0).start().await;
    let journal = Journal::of(&world).await;
    let (profile, laptop) = alice();
    let mut mailbox = journal.post.receipts(&profile, &laptop).await;
    journal.append(journal.stamped(2, 2, vec![put("theme", "new")])).await;
    applied(&mut mailbox).await;
    // What it expects is so, but not because it was in time.
    let late = put("theme", "old").expecting(Expect::At(Revision::new(1)));
    journal.append(journal.stamped(1, 1, vec![late])).await;
    let outcome = outcome(&mut mailbox).await;
    assert!(matches!(&outcome, Outcome::Rejected(problem) if problem.code == Code::Conflict), "{outcome:?}");
    assert_eq!(value(&world, "theme").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stream_that_was_rolled_back_is_applied() {
    let world = World::new().access_servers(0).start().await;
    let journal = Journal::of(&world).await;
    let (profile, laptop) = alice();
    let mut mailbox = journal.post.receipts(&profile, &laptop).await;
    journal.append(journal.stamped(900, 1, vec![put("theme", "before")])).await;
    applied(&mut mailbox).await;
    journal.append(journal.stamped(1, 2, vec![put("theme", "after")])).await;
    let after = applied(&mut mailbox).await;
    assert_eq!((after.revision, after.superseded.as_slice()), (Revision::new(2), [].as_slice()));
    assert_eq!(value(&world, "theme").await.as_deref(), Some("after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_access_server_appends_late_does_not_win_over_what_the_other_appended_meanwhile() {
    let world = World::new().access_servers(2).with_wires().start().await;
    let (profile, laptop) = alice();
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = post.receipts(&profile, &laptop).await;
    let slow = world.access_servers[0].wire();
    slow.judge(|frame| {
        let is_append = frame.to == Side::Server && frame.subject == subjects::journal(Shard::ONLY);
        if is_append { Fate::Hold } else { Fate::Pass }
    });

    // The durable gives to both in turn, so this goes on until the slow one holds some and the other has the newest.
    let mut values = HashMap::new();
    loop {
        let (sent, held) = (values.len().to_string(), slow.held());
        let change = Change::new(ChangeId::random(), None, vec![put("theme", &sent)]).unwrap();
        values.insert(change.id(), sent.clone());
        let payload = encode(&change, Encoding::Json).unwrap();
        post.publish(&subjects::change(&profile, &laptop), envelope(Encoding::Json), payload).await;
        let saved = eventually("the change is saved or held", async || {
            let saved = value(&world, "theme").await.as_ref() == Some(&sent);
            (saved || slow.held() > held).then_some(saved)
        });
        if saved.await && held > 0 {
            break;
        }
    }
    slow.pass_all();
    slow.release().await;

    let newest = (values.len() - 1).to_string();
    let mut late = 0;
    while !values.is_empty() {
        let (receipt, _) = mailbox.receipt().await;
        // An append that waited for long was tried again.
        let Some(value) = values.remove(&receipt.id.unwrap()) else { continue };
        let Outcome::Applied(applied) = receipt.outcome else { panic!("{receipt:?}") };
        late += usize::from(!applied.superseded.is_empty());
        assert!(value != newest || applied.superseded.is_empty(), "the newest is never late");
    }
    assert!(late > 0, "what was held came late");
    assert_eq!(value(&world, "theme").await, Some(newest));
}

/// What a writer of one key did.
struct Written {
    name: String,
    last: String,
    saved: Vec<Saved>,
}

/// Overwrites one key again and again, with several changes in flight.
async fn overwrite(client: roam_client::Client, name: String, times: usize) -> Written {
    let profile = client.profile(app("editor"));
    let mut pending = VecDeque::<Pending>::new();
    let mut saved = Vec::new();
    for number in 0..times {
        if pending.len() == 8 {
            saved.push(pending.pop_front().unwrap().receipt().await.unwrap());
        }
        let change = Change::new(ChangeId::random(), None, vec![put(&name, &number.to_string())]).unwrap();
        pending.push_back(profile.submit(change).await.unwrap());
    }
    for pending in pending {
        saved.push(pending.receipt().await.unwrap());
    }
    Written { name, last: (times - 1).to_string(), saved }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_stands_although_one_of_two_access_servers_dies_again_and_again() {
    let mut dice = dice();
    let mut world = World::new().access_servers(2).start().await;
    let post = world.post("acme", "alice", "observer").await;
    let mut mailbox = post.listen(subjects::notice(&alice().0)).await;
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let client = world.device("acme", "alice", &format!("device-{number}")).await;
        writers.spawn(overwrite(client, format!("key-{number}"), 400));
    }
    let mut deaths = 0;
    let mut written = Vec::new();
    while written.len() < 4 {
        tokio::select! {
            ended = writers.join_next() => written.push(ended.unwrap().unwrap()),
            () = sleep(Duration::from_millis(dice.random_range(5..100))) => {
                world.access_servers[0].kill().await;
                world.access_servers[0].start().await;
                deaths += 1;
            }
        }
    }
    assert!(deaths > 3, "it died only {deaths} times");

    let head = written.iter().flat_map(|written| &written.saved).map(|saved| saved.revision).max().unwrap();
    let mut notices = BTreeMap::new();
    while !notices.contains_key(&head) {
        let notice: Notice = decode(&mailbox.next().await.payload, Encoding::Postcard).unwrap();
        notices.insert(notice.revision, notice);
    }
    let revisions: Vec<u64> = notices.keys().copied().map(Revision::get).collect();
    assert_eq!(revisions, (1..=head.get()).collect::<Vec<_>>(), "every revision was announced");
    assert!(notices.values().zip(notices.values().skip(1)).all(|(one, next)| one.time < next.time));
    for Written { name, last, saved } in &written {
        assert_eq!(value(&world, name).await.as_ref(), Some(last), "{name}");
        for saved in saved {
            check(saved, &notices);
        }
    }
    let late = written.iter().flat_map(|written| &written.saved).filter(|saved| !saved.superseded.is_empty()).count();
    println!("{deaths} deaths, {} revisions, {late} changes came too late", notices.len());
}

/// A receipt is true if what it says of its change is what the others were told.
fn check(saved: &Saved, notices: &BTreeMap<Revision, Notice>) {
    let told = &notices[&saved.revision];
    assert_eq!(told.time, saved.time, "{saved:?}");
    match saved.superseded.as_slice() {
        [] => assert_eq!(told.change, saved.id),
        [late] => {
            assert!(notices.values().all(|notice| notice.change != saved.id), "{saved:?}");
            let winner = &notices[&late.revision];
            assert!(winner.ops.iter().any(|op| op.key == late.key) && late.revision <= saved.revision, "{saved:?}");
        }
        more => panic!("a change of one operation: {more:?}"),
    }
}
