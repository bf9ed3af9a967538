//! What an operator sees and does: the pages of the services, readiness while the bus is down, and stopping without
//! anybody noticing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use roam_client::{Client, Encoding, Revision};
use roam_nats::RequestError;
use roam_schemas::{LatestReply, LatestRequest, decode, encode, headers, subjects, subjects::Verb};
use roam_tests::{Pages, Part, Post, World, app, envelope, eventually, key, profile, text};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
/// The default grace of a service.
const GRACE: Duration = Duration::from_secs(7);

fn parts(world: &World) -> impl Iterator<Item = &Part> {
    world.access_servers.iter().chain(&world.replicas)
}

async fn report(pages: &Pages, path: &str) -> (u16, Value) {
    let (status, body) = pages.get(path).await;
    (status, serde_json::from_str(&body).expect(&body))
}

async fn put(world: &World, value: &str) -> Revision {
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    laptop.put(key("theme"), value, text()).await.unwrap().revision
}

/// Every name that a page of metrics describes.
fn described(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_tells_that_it_lives_and_is_ready_and_what_it_counts() {
    let world = World::new().as_processes(BINARY).start().await;
    put(&world, "dark").await;
    for part in parts(&world) {
        let pages = part.pages();
        assert_eq!(report(&pages, "/livez").await, (200, json!({"state": "live"})));
        assert_eq!(report(&pages, "/readyz").await, (200, json!({"state": "ready"})));
        let (status, page) = pages.get("/metrics").await;
        assert_eq!(status, 200);
        assert!(page.ends_with("# EOF\n"), "OpenMetrics ends so");
        let names = described(&page);
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "each metric is described once: {names:?}");
        assert!(names.iter().any(|name| name.starts_with("process_")), "{names:?}");
    }
    let metric = async |part: &Part, name: &str| part.pages().metric(name, &[]).await;
    let (server, replica) = (&world.access_servers[0], &world.replicas[0]);
    assert_eq!(metric(server, "roam_access_server_changes_validated_total").await, 1.0);
    assert_eq!(metric(server, "roam_access_server_changes_appended_total").await, 1.0);
    assert_eq!(metric(replica, "roam_storage_batches_total").await, 1.0);
    assert_eq!(replica.pages().metric("roam_storage_changes_total", &["verdict=\"applied\""]).await, 1.0);
    eventually("a receipt and a notice are counted", async || {
        (metric(replica, "roam_storage_announced_total").await == 2.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_tells_where_it_stands_from_its_start_on() {
    let mut world = World::new().start().await;
    put(&world, "dark").await;
    let journal = world.stream("ROAM_JOURNAL").await.last_sequence as f64;
    world.replicas[0].stop().await;
    world.replicas[0].start().await;
    world.ready().await;
    assert_eq!(world.replicas[0].pages().metric("roam_storage_journal_sequence", &[]).await, journal);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_responders_are_found_by_the_services_api() {
    let world = World::new().start().await;
    put(&world, "dark").await;
    let post = world.post("acme", "operator", "desk").await;
    let ask = async |verb: &str| -> Value {
        let answer = post.ask(&format!("$SRV.{verb}.roam-storage"), roam_nats::Headers::new(), "").await;
        serde_json::from_slice(&answer.payload).unwrap()
    };
    assert_eq!(ask("PING").await["type"], "io.nats.micro.v1.ping_response");
    let info = ask("INFO").await;
    let endpoints: Vec<_> =
        info["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["name"].clone()).collect();
    assert_eq!(endpoints, ["latest", "changes", "history", "have", "chunk"]);
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    laptop.get(key("theme")).await.unwrap();
    let stats = ask("STATS").await;
    assert_eq!(stats["endpoints"][0]["num_requests"], 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_red_while_the_bus_is_down_and_green_again_after() {
    let mut world = World::new().start().await;
    assert_eq!(put(&world, "dark").await, Revision::new(1));
    for round in 2..4 {
        world.nats.kill().await.unwrap();
        for part in parts(&world) {
            let pages = part.pages();
            eventually("it is not ready, because of the bus", async || {
                pages.not_ready().await.contains(&"bus".to_owned()).then_some(())
            })
            .await;
            assert_eq!(pages.get("/livez").await.0, 200, "it is alive all the same");
        }
        world.nats.restart().await.unwrap();
        world.ready().await;
        assert_eq!(put(&world, "light").await, Revision::new(round));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_before_the_bus_waits_for_it() {
    let mut world = World::new().as_processes(BINARY).start().await;
    world.access_servers[0].stop().await;
    world.replicas[0].stop().await;
    world.nats.stop().await.unwrap();
    world.access_servers[0].start().await;
    world.replicas[0].start().await;
    for part in parts(&world) {
        let pages = part.pages();
        eventually("it waits for the bus", async || pages.not_ready().await.contains(&"bus".to_owned()).then_some(()))
            .await;
    }
    world.nats.restart().await.unwrap();
    world.ready().await;
    assert_eq!(put(&world, "dark").await, Revision::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_the_bus_stops_all_the_same() {
    let mut world = World::new().as_processes(BINARY).start().await;
    world.nats.kill().await.unwrap();
    for part in world.access_servers.iter_mut().chain(&mut world.replicas) {
        let took = part.stop().await;
        assert!(took < GRACE + Duration::from_secs(1), "it took {took:?}");
    }
}

/// Writes without a pause until it is told to stop. Gives the longest time that a write took.
async fn use_it(laptop: Client, stop: CancellationToken) -> Duration {
    let profile = laptop.profile(app("editor"));
    let (mut longest, mut count) = (Duration::ZERO, 0_u64);
    while !stop.is_cancelled() {
        let began = Instant::now();
        let saved = profile.put(key("counter"), count.to_string(), text()).await.unwrap();
        longest = longest.max(began.elapsed());
        count += 1;
        assert_eq!(saved.revision, Revision::new(count), "each once");
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_one_of_two_of_each_stops_within_its_grace_and_nobody_waits_for_it() {
    let mut world = World::new().access_servers(2).replicas(2).as_processes(BINARY).start().await;
    let stop = CancellationToken::new();
    let mut users = JoinSet::new();
    for number in 0..4 {
        let laptop = world.device("acme", &format!("user-{number}"), "laptop").await;
        users.spawn(use_it(laptop, stop.clone()));
    }
    for _ in 0..2 {
        for part in world.access_servers.iter_mut().chain(&mut world.replicas) {
            let took = part.stop().await;
            assert!(took < GRACE, "{} took {took:?}", part.log().display());
            part.start().await;
            part.ready().await;
        }
    }
    stop.cancel();
    let longest = users.join_all().await.into_iter().max().unwrap();
    // An announcer that leaves takes its pin along for three seconds; nothing waits for a redelivery, which is five.
    assert!(longest < Duration::from_millis(4_800), "a write took {longest:?}");
}

/// Asks without a pause. Gives how many questions there were, and how many had to be asked again.
async fn ask_on(post: Post, stop: CancellationToken) -> (usize, usize) {
    let subject = subjects::request(Verb::Latest, &profile("acme/alice/editor"));
    let (mut asked, mut again) = (0, 0);
    while !stop.is_cancelled() {
        let ask =
            || post.bus.request(subject.clone(), envelope(Encoding::Postcard), Bytes::new(), Duration::from_secs(1));
        let answer = match ask().await {
            Ok(answer) => answer,
            // It was on its way to a replica just as that one left.
            Err(RequestError::TimedOut) => {
                again += 1;
                ask().await.expect("the other replica answers")
            }
            Err(error) => panic!("{error}"),
        };
        let reply: LatestReply = decode(&answer.payload, Encoding::Postcard).unwrap();
        assert_eq!(reply.head, Revision::new(1));
        asked += 1;
    }
    (asked, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_is_answered_while_replicas_stop_and_start() {
    let mut world = World::new().replicas(2).start().await;
    put(&world, "dark").await;
    eventually("both replicas have it", async || {
        let mut applied = 0.0;
        for replica in &world.replicas {
            applied += replica.pages().metric("roam_storage_batches_total", &[]).await;
        }
        (applied == 2.0).then_some(())
    })
    .await;
    let stop = CancellationToken::new();
    let mut askers = JoinSet::new();
    for number in 0..4 {
        askers.spawn(ask_on(world.post("acme", "alice", &format!("device-{number}")).await, stop.clone()));
    }
    for round in 0..6 {
        let replica = &mut world.replicas[round % 2];
        let took = replica.stop().await;
        assert!(took < GRACE, "{took:?}");
        replica.start().await;
        replica.ready().await;
    }
    stop.cancel();
    let (asked, again): (Vec<usize>, Vec<usize>) = askers.join_all().await.into_iter().unzip();
    let (asked, again): (usize, usize) = (asked.iter().sum(), again.iter().sum());
    println!("{asked} questions, {again} asked again");
    // At most what each asker had on its way at each stop.
    assert!(asked > 1_000 && again <= 6 * 4, "{asked} questions, {again} asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_revision_is_answered_when_the_replica_stops() {
    let mut world = World::new().start().await;
    let post = world.post("acme", "alice", "laptop").await;
    let request = LatestRequest { min_revision: Some(Revision::new(1)), wait_ms: Some(5_000), ..Default::default() };
    let subject = subjects::request(Verb::Latest, &profile("acme/alice/editor"));
    let asking = post.ask(&subject, envelope(Encoding::Json), encode(&request, Encoding::Json).unwrap());
    let pages = world.replicas[0].pages();
    let stopping = async {
        eventually("it waits", async || (pages.metric("roam_storage_waiting", &[]).await == 1.0).then_some(())).await;
        world.replicas[0].stop().await
    };
    let (answer, took) = tokio::join!(asking, stopping);
    assert_eq!(answer.headers.get(headers::CODE), Some("behind"));
    assert!(took < Duration::from_secs(4), "{took:?}");
}
