//! A change takes effect once, however often it is sent, delivered, journaled or announced; and whoever sent it learns
//! its first outcome each time.

use std::collections::HashMap;

use roam_client::{Event, Watch, WatchFrom};
use roam_nats::{ACCESS_DURABLE, CHANGES_STREAM, Deliveries, PullSettings, stream_state};
use roam_schemas::{
    Applied, Change, ChangeId, Code, Encoding, Operation, Outcome, Profile, Receipt, Revision, Shard, encode, headers,
    subjects,
};
use roam_tests::{
    Fate, Frame, Mailbox, PATIENCE, Post, Side, World, app, device, envelope, eventually, key, profile, text,
};
use tokio::time::timeout;

const ENCODING: Encoding = Encoding::Postcard;

fn write(name: &str, value: &str) -> Change {
    Change::new(ChangeId::random(), None, vec![Operation::put(key(name), value, text())]).unwrap()
}

fn laptop() -> (Profile, roam_schemas::Device) {
    (profile("acme/alice/editor"), device("laptop"))
}

async fn publish(post: &Post, change: &Change) -> u64 {
    let (profile, device) = laptop();
    post.publish(&subjects::change(&profile, &device), envelope(ENCODING), encode(change, ENCODING).unwrap()).await
}

async fn mailbox(post: &Post) -> Mailbox {
    let (profile, device) = laptop();
    post.receipts(&profile, &device).await
}

fn applied(receipt: &Receipt) -> &Applied {
    match &receipt.outcome {
        Outcome::Applied(applied) => applied,
        Outcome::Rejected(problem) => panic!("{problem}"),
    }
}

async fn head(world: &World) -> Revision {
    let reader = world.device("acme", "alice", "reader").await;
    reader.profile(app("editor")).latest(roam_client::LatestRequest::default()).await.unwrap().head
}

/// Shows that a watch leads to a revision, and tells nothing twice on the way.
async fn told_once(watch: &mut Watch, until: Revision) {
    let mut at = Revision::ZERO;
    while at < until {
        let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        let (Event::Revision { revision, .. } | Event::State { head: revision, .. }) = event else {
            panic!("{event:?}")
        };
        assert!(revision > at, "{event:?} after {at}");
        at = revision;
    }
    assert_eq!(at, until);
}

/// Whether this is what an access server says of deliveries of ROAM_CHANGES.
fn is_ack_of_a_change(frame: &Frame) -> bool {
    frame.to == Side::Server && frame.subject.starts_with("$JS.ACK.ROAM_CHANGES.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_sent_five_times_over_two_access_servers_takes_effect_once() {
    let world = World::new().access_servers(2).start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let changes: Vec<_> = (0..20).map(|number| write(&number.to_string(), "1")).collect();
    let mut sequences = HashMap::<_, Vec<_>>::new();
    for _ in 0..5 {
        for change in &changes {
            sequences.entry(change.id()).or_default().push(publish(&post, change).await);
        }
    }

    let mut receipts = HashMap::<_, Vec<_>>::new();
    for _ in 0..5 * changes.len() {
        let (receipt, encoding) = mailbox.receipt().await;
        assert_eq!(encoding, ENCODING);
        receipts.entry(receipt.id.unwrap()).or_default().push(receipt);
    }
    for (id, receipts) in &mut receipts {
        let mut outcomes: Vec<_> = receipts.iter().map(|receipt| &receipt.outcome).collect();
        outcomes.dedup();
        assert_eq!(outcomes.len(), 1, "the first outcome, whole, each time: {receipts:?}");
        assert_eq!(receipts.iter().filter(|receipt| !receipt.again).count(), 1, "{receipts:?}");
        receipts.sort_by_key(|receipt| receipt.sequence);
        assert!(receipts.iter().map(|receipt| &receipt.sequence).eq(&sequences[id]), "each by its own sequence");
    }
    assert_eq!(head(&world).await, Revision::new(20));
    for server in &world.access_servers {
        let passed = server.pages().metric("roam_access_server_changes_validated_total", &[]).await;
        assert!(passed > 0.0, "both access servers had a part in it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_change_under_a_known_id_is_invalid_and_changes_nothing() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let first = write("theme", "dark");
    publish(&post, &first).await;
    assert_eq!(applied(&mailbox.receipt().await.0).revision, Revision::new(1));

    let other = Change::new(first.id(), None, vec![Operation::put(key("theme"), "light", text())]).unwrap();
    let sequence = publish(&post, &other).await;
    let (receipt, _) = mailbox.receipt().await;
    let Outcome::Rejected(problem) = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!((receipt.sequence, receipt.id, problem.code), (sequence, Some(first.id()), Code::Invalid));
    assert_eq!(post.filed(sequence).await.headers.get(headers::CODE), Some("invalid"));

    publish(&post, &first).await;
    let (receipt, _) = mailbox.receipt().await;
    assert_eq!((receipt.again, applied(&receipt).revision), (true, Revision::new(1)));
    assert_eq!(head(&world).await, Revision::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_too_is_decided_once() {
    let world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    publish(&post, &write("theme", "dark")).await;
    mailbox.receipt().await;
    let absent = Operation::put(key("theme"), "light", text()).expecting(roam_schemas::Expect::Absent);
    let refused = Change::new(ChangeId::random(), None, vec![absent]).unwrap();
    publish(&post, &refused).await;
    let (first, _) = mailbox.receipt().await;
    assert!(matches!(&first.outcome, Outcome::Rejected(problem) if problem.code == Code::Exists), "{first:?}");

    // What it stumbled over goes away; the decision stays.
    let gone = Change::new(ChangeId::random(), None, vec![Operation::delete(key("theme"))]).unwrap();
    publish(&post, &gone).await;
    mailbox.receipt().await;
    publish(&post, &refused).await;
    let (second, _) = mailbox.receipt().await;
    assert_eq!((second.again, second.outcome), (true, first.outcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_known_after_the_replica_was_started_again() {
    let mut world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let change = write("theme", "dark");
    publish(&post, &change).await;
    let (first, _) = mailbox.receipt().await;
    world.replicas[0].stop().await;
    world.replicas[0].start().await;
    publish(&post, &change).await;
    let (second, _) = mailbox.receipt().await;
    assert_eq!((second.again, second.outcome), (true, first.outcome));
    world.ready().await;
    assert_eq!(head(&world).await, Revision::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_given_back_keeps_the_time_at_which_the_stream_took_it_in() {
    let mut world = World::new().access_servers(1).start().await;
    world.access_servers[0].stop().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    publish(&post, &write("theme", "dark")).await;
    // Somebody pulls it, and gives it back three times.
    let mut deliveries =
        Deliveries::open(&post.bus, CHANGES_STREAM, ACCESS_DURABLE, PullSettings::default()).await.unwrap();
    let mut published = None;
    for delivered in 1..=3 {
        let delivery = timeout(PATIENCE, deliveries.next()).await.unwrap().unwrap();
        assert_eq!(delivery.delivered, delivered);
        published = Some(delivery.published);
        delivery.nak(None);
    }
    deliveries.close().await;
    world.access_servers[0].start().await;
    let (receipt, _) = mailbox.receipt().await;
    let time = i128::from(applied(&receipt).time.as_nanos());
    assert_eq!((receipt.again, Some(time)), (false, published.map(time::OffsetDateTime::unix_timestamp_nanos)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_ack_is_lost_is_journaled_twice_and_applied_once() {
    let world = World::new().with_wires().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let wire = world.access_servers[0].wire();
    wire.judge(|frame| if is_ack_of_a_change(frame) { Fate::Drop } else { Fate::Pass });
    let sequence = publish(&post, &write("theme", "dark")).await;
    let (first, _) = mailbox.receipt().await;
    eventually("the ack is lost", async || (wire.dropped() > 0).then_some(())).await;
    wire.pass_all();

    let (second, _) = mailbox.receipt().await;
    assert_eq!((first.again, second.again), (false, true));
    assert_eq!(first.outcome, second.outcome);
    assert_eq!((first.sequence, second.sequence), (sequence, sequence));
    assert_eq!(head(&world).await, Revision::new(1));
    eventually("the change has left the stream", async || {
        (stream_state(&post.bus, CHANGES_STREAM).await.unwrap().messages == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_pub_ack_is_lost_is_appended_twice_and_applied_once() {
    let world = World::new().with_wires().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
    let mut awaited = None;
    world.access_servers[0].wire().judge(move |frame| {
        if frame.to == Side::Server && frame.subject == subjects::journal(Shard::ONLY) {
            awaited.get_or_insert_with(|| frame.reply.clone().unwrap());
        }
        let is_pub_ack = frame.to == Side::Client && Some(&frame.subject) == awaited.as_ref();
        if is_pub_ack { Fate::Drop } else { Fate::Pass }
    });
    publish(&post, &write("theme", "dark")).await;
    let (first, second) = (mailbox.receipt().await.0, mailbox.receipt().await.0);
    assert_eq!((first.again, second.again), (false, true));
    assert_eq!(first.outcome, second.outcome);
    assert_eq!(world.access_servers[0].wire().dropped(), 1);

    publish(&post, &write("theme", "light")).await;
    told_once(&mut watch, Revision::new(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_announced_twice_says_the_same_twice_and_a_watch_tells_it_once() {
    let world = World::new().with_wires().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let mut mailbox = mailbox(&post).await;
    let mut notices = post.listen(subjects::notice(&laptop().0)).await;
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
    let wire = world.replicas[0].wire();
    wire.judge(
        |frame| if frame.subject.starts_with("$JS.ACK.ROAM_JOURNAL.announce.") { Fate::Drop } else { Fate::Pass },
    );
    publish(&post, &write("theme", "dark")).await;
    let (first, _) = mailbox.receipt().await;
    eventually("the ack is lost", async || (wire.dropped() > 0).then_some(())).await;
    wire.pass_all();

    let (second, _) = mailbox.receipt().await;
    assert_eq!(second, first, "the same batch, so it had not been decided before");
    assert_eq!(notices.next().await.payload, notices.next().await.payload);
    publish(&post, &write("theme", "light")).await;
    told_once(&mut watch, Revision::new(2)).await;
}
