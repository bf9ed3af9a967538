//! The journal is deleted, cut short or rolled back, as disks and people do it: what has a receipt is never lost, what has
//! none is sent again and saved, and a replica that cannot know what is true stops and says so.

mod copies;
mod load;

use copies::Kept;
use load::Load;
use roam_nats::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, Bus, CHANGES_STREAM, FoundConsumer, Headers, JOURNAL_STREAM, consumer_state,
    repair_consumers,
};
use roam_schemas::{Change, ChangeId, Control, Encoding, Operation, ReplicaName, Resume, encode, subjects};
use roam_tests::{PATIENCE, World, app, device, envelope, eventually, key, profile, text};

async fn make_journal_again(world: &World) {
    world.delete_stream(JOURNAL_STREAM).await;
    let report = world.provision().await;
    assert_eq!(report.created, ["stream ROAM_JOURNAL", "consumer ROAM_JOURNAL/announce"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_made_again_under_load_costs_nothing_that_was_saved() {
    let world = World::new().start().await;
    let load = Load::on(&world).await;
    for _ in 0..3 {
        load.goes_on(200).await;
        make_journal_again(&world).await;
    }
    load.goes_on(200).await;
    load.check(&world).await;
    world.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_made_again_while_the_replica_is_away_costs_nothing_that_was_saved() {
    let mut world = World::new().start().await;
    let load = Load::on(&world).await;
    for _ in 0..2 {
        load.goes_on(200).await;
        world.replicas[0].stop().await;
        make_journal_again(&world).await;
        world.replicas[0].start().await;
    }
    load.goes_on(200).await;
    load.check(&world).await;
    world.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_stop_at_a_journal_that_was_made_again_and_say_so() {
    let world = World::new().replicas(2).start().await;
    let load = Load::on(&world).await;
    load.goes_on(200).await;
    make_journal_again(&world).await;
    for replica in &world.replicas {
        replica.complains("rolled back or created anew").await;
        replica.complains("2 replicas have to agree: `roam storage resume`").await;
    }

    // One of them goes on once a person says that it counts; the other one takes a backup of what that one holds.
    let from = ReplicaName::parse("roam-storage-1").unwrap();
    world.order(Control::Resume(Resume { line: 2, from })).await;
    world.replicas[1].ready().await;
    load.goes_on(200).await;
    world.ready().await;
    load.goes_on(200).await;
    load.check(&world).await;
    for replica in &world.replicas {
        assert_eq!(replica.pages().metric("roam_storage_journal_line", &[]).await, 2.0);
    }
}

/// Saves a value of a size, in a batch of its own, and gives its revision.
async fn save(world: &World, bytes: usize) -> u64 {
    let profile = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    profile.put(key("large"), "x".repeat(bytes), text()).await.unwrap().revision.get()
}

/// Publishes a change of a size and waits until it is in the journal, in a batch of its own.
async fn journal_one(world: &World, bytes: usize) {
    let post = world.post("acme", "alice", "laptop").await;
    let last = world.stream(JOURNAL_STREAM).await.last_sequence;
    let put = Operation::put(key("large"), "x".repeat(bytes), text());
    let change = Change::new(ChangeId::random(), None, vec![put]).unwrap();
    let subject = subjects::change(&profile("acme/alice/editor"), &device("laptop"));
    post.publish(&subject, envelope(Encoding::Postcard), encode(&change, Encoding::Postcard).unwrap()).await;
    eventually("it is journaled", async || (world.stream(JOURNAL_STREAM).await.last_sequence > last).then_some(()))
        .await;
}

/// Adds to the journal until its first sequence is this one.
async fn age_out_to(world: &World, first: u64) {
    while world.stream(JOURNAL_STREAM).await.first_sequence < first {
        journal_one(world, LARGE).await;
    }
    assert_eq!(world.stream(JOURNAL_STREAM).await.first_sequence, first);
}

/// The size of a change of which a [small journal](SMALL_JOURNAL) holds five.
const LARGE: usize = 100_000;
const SMALL_JOURNAL: u64 = 550_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_on_if_only_its_own_batch_aged_out_and_stops_at_a_gap() {
    let mut world = World::new().journal_max_bytes(SMALL_JOURNAL).start().await;
    for revision in 1..=5 {
        assert_eq!(save(&world, LARGE).await, revision);
    }
    let position = world.stream(JOURNAL_STREAM).await.last_sequence;
    world.replicas[0].stop().await;
    age_out_to(&world, position + 1).await;
    world.replicas[0].start().await;
    world.ready().await;
    let aged_out = world.stream(JOURNAL_STREAM).await.last_sequence - position;
    assert_eq!(save(&world, LARGE).await, 5 + aged_out + 1);
    assert_eq!(world.replicas[0].pages().metric("roam_storage_journal_line", &[]).await, 1.0);

    let position = world.stream(JOURNAL_STREAM).await.last_sequence;
    world.replicas[0].stop().await;
    age_out_to(&world, position + 2).await;
    for _ in 0..2 {
        world.replicas[0].start().await;
        let expected = format!("goes on at {}, but this replica needs {}", position + 2, position + 1);
        world.replicas[0].complains(&expected).await;
        assert_eq!(world.replicas[0].pages().metric("roam_storage_batches_total", &[]).await, 0.0);
        world.replicas[0].stop().await;
    }

    // A person says that it may do without what is missing.
    world.replicas[0].start().await;
    let from = ReplicaName::parse("roam-storage-0").unwrap();
    world.order(Control::Resume(Resume { line: 2, from })).await;
    world.ready().await;
    assert_eq!(world.replicas[0].pages().metric("roam_storage_journal_line", &[]).await, 2.0);
    save(&world, LARGE).await;
}

/// Saves under load, rolls parts of the bus back in the middle of it, and shows that nothing that was saved is lost.
async fn roll_back_under_load(parts: &[&str], lines: f64) {
    let mut world = World::new().start().await;
    let load = Load::on(&world).await;
    load.goes_on(200).await;
    let kept = Kept::of(&mut world).await;
    load.goes_on(400).await;
    kept.put_back(&mut world, parts).await;
    load.goes_on(400).await;
    load.check(&world).await;
    world.ready().await;
    assert_eq!(world.replicas[0].pages().metric("roam_storage_journal_line", &[]).await, lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_rolled_back_whole_costs_nothing_that_was_saved() {
    roll_back_under_load(&[""], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_rolled_back_costs_nothing_that_was_saved() {
    roll_back_under_load(&["ROAM_JOURNAL"], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_changes_that_is_rolled_back_costs_nothing_that_was_saved() {
    roll_back_under_load(&["ROAM_CHANGES"], 1.0).await;
}

/// What a server makes of a durable that is ahead of its stream when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_sets_a_durable_back_into_a_stream_that_lost_its_end() {
    for (messages, stream, durable) in
        [("ROAM_JOURNAL/msgs", JOURNAL_STREAM, ANNOUNCE_DURABLE), ("ROAM_CHANGES/msgs", CHANGES_STREAM, ACCESS_DURABLE)]
    {
        let mut world = World::new().start().await;
        save(&world, 1).await;
        let kept = Kept::of(&mut world).await;
        for _ in 0..5 {
            save(&world, 1).await;
        }
        kept.put_back(&mut world, &[messages]).await;
        let bus = world.operator().await;
        let state = consumer_state(&bus, stream, durable).await.unwrap();
        assert_eq!((world.stream(stream).await.last_sequence, state.delivered, state.ack_floor), (1, 1, 1));
        assert_eq!(save(&world, 1).await, 7, "what comes next is journaled and announced");
        world.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_finds_another_batch_where_its_own_was_and_goes_on() {
    let mut world = World::new().start().await;
    save(&world, 1).await;
    let kept = Kept::of(&mut world).await;
    for _ in 0..3 {
        save(&world, 1).await;
    }
    world.replicas[0].stop().await;
    kept.put_back(&mut world, &[""]).await;
    // As many as the rolled back journal is short of, and one more.
    for _ in 0..4 {
        journal_one(&world, 1).await;
    }
    world.replicas[0].start().await;
    world.ready().await;
    assert_eq!(save(&world, 1).await, 4 + 4 + 1);
    let pages = world.replicas[0].pages();
    assert_eq!(pages.metric("roam_storage_journal_line", &[]).await, 2.0);
    assert!(pages.metric("roam_storage_changes_rolled_back_total", &[]).await > 0.0, "sequences came again");
}

/// Has the durable of the announcer stand ahead of the journal, as after a journal that lost its end under a running server.
async fn put_announce_ahead(bus: &Bus) {
    for (verb, body) in [
        ("DELETE", String::new()),
        (
            "CREATE",
            format!(
                r#"{{"stream_name": "{JOURNAL_STREAM}", "config": {{"durable_name": "{ANNOUNCE_DURABLE}",
                "deliver_policy": "by_start_sequence", "opt_start_seq": 1000, "ack_policy": "explicit",
                "headers_only": true, "priority_policy": "pinned_client", "priority_groups": ["announce"],
                "priority_timeout": 3000000000}}}}"#
            ),
        ),
    ] {
        let subject = format!("$JS.API.CONSUMER.{verb}.{JOURNAL_STREAM}.{ANNOUNCE_DURABLE}");
        let answer = bus.request(subject, Headers::new(), body.into(), PATIENCE).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!answer.contains("\"error\""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_ahead_of_its_stream_is_an_alarm_until_it_is_repaired() {
    let world = World::new().start().await;
    let load = Load::on(&world).await;
    load.goes_on(100).await;
    let bus = world.operator().await;
    put_announce_ahead(&bus).await;
    let (server, replica) = (world.access_servers[0].pages(), world.replicas[0].pages());
    for (pages, metric) in [(server, "roam_access_server_consumer_ahead"), (replica, "roam_storage_consumer_ahead")] {
        eventually("it is an alarm", async || {
            let (status, body) = pages.get("/readyz").await;
            let alarm = pages.metric(metric, &["announce"]).await > 0.0;
            (alarm && status == 503 && body.contains("roam repair consumers")).then_some(())
        })
        .await;
    }

    let ahead = repair_consumers(&bus).await.unwrap();
    assert_eq!(ahead.len(), 2);
    assert!(matches!(ahead[0].found, FoundConsumer::Within(_)), "{ahead:?}");
    assert!(matches!(ahead[1].found, FoundConsumer::Ahead(standing) if standing.delivered == 999), "{ahead:?}");
    world.ready().await;
    load.goes_on(100).await;
    load.check(&world).await;
    let again = repair_consumers(&bus).await.unwrap();
    assert!(again.iter().all(|consumer| matches!(consumer.found, FoundConsumer::Within(_))), "{again:?}");
    assert_eq!(world.provision().await.created, [""; 0], "they are as they were provisioned");
}
