//! A responder on a real bus: who waits, who is answered, and when nobody is.

use futures_util::FutureExt;
use roam_nats::{BusSettings, Message, NatsServer, ServerSettings, SyncInterval};
use tokio::task::JoinSet;

use super::{super::places::MOST_OF_A_USER, *};

/// How long an answer may take before the test fails.
const WITHIN: Duration = Duration::from_secs(20);

/// A responder on a real bus, and a device that asks.
struct World {
    fixture: Fixture,
    progress: Progress,
    device: Bus,
    context: Context,
    running: JoinSet<Result<(), RespondError>>,
    /// The responder's connection, which goes on when it ends, as in the service: what is on its way still leaves.
    answering: Bus,
    server: NatsServer,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(directory.path()) };
        let server = NatsServer::start(settings).await.unwrap();
        let connect = async |inbox: Option<&str>| {
            let servers = vec![server.client_url()];
            let inbox_prefix = inbox.map(str::to_owned);
            Bus::connect(&BusSettings { servers, inbox_prefix, ..BusSettings::default() }, "a test").await.unwrap()
        };
        let (bus, device) = (connect(None).await, connect(Some("_INBOX.acme.alice.laptop")).await);
        let (fixture, progress, context) = (Fixture::new(), Progress::default(), Context::new(Duration::from_secs(5)));
        let metrics = Metrics::new(&context.metrics);
        let answering = bus.clone();
        let responder = Responder {
            shard: roam_schemas::Shard::ONLY,
            chunks: crate::chunks::Chunks::new(roam_schemas::Shard::ONLY, &bus, metrics.clone()),
            answers: Answers::new(1),
            bus,
            context: context.clone(),
            progress: progress.clone(),
            reader: fixture.reader.clone(),
            metrics,
            condition: context.health.condition("respond"),
        };
        progress.follows(Some(0));
        let mut running = JoinSet::new();
        running.spawn(responder.respond());
        let mut world = Self { fixture, progress, device, context, running, answering, server, _directory: directory };
        world.until_ready().await;
        // The server knows by now what is listened on.
        world.answering.round_trip(WITHIN).await.unwrap();
        world
    }

    async fn until_ready(&mut self) {
        let deadline = tokio::time::Instant::now() + WITHIN;
        while !self.context.health.is_ready() {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", self.context.health.not_ready());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Applies a put, and says so to whoever waits.
    fn write(&mut self, name: &str) {
        let applied = self.fixture.write(vec![put(name, "value")]);
        let head = self.fixture.reader.snapshot().head(&self.fixture.key()).unwrap().unwrap();
        self.progress.applied([applied].into_iter(), &vec![(self.fixture.key(), head.revision)]);
    }

    fn ask<M: roam_schemas::Message>(&self, verb: Verb, request: &M) -> impl Future<Output = Message> + use<M> {
        let subject = roam_schemas::subjects::request(verb, &self.fixture.profile);
        let headers = Headers::new().with_content_type(Encoding::Json);
        let payload = encode(request, Encoding::Json).unwrap();
        let device = self.device.clone();
        async move { device.request(subject, headers, payload.into(), WITHIN).await.unwrap() }
    }
}

fn reply<M: roam_schemas::Message>(answer: &Message) -> M {
    decode(&answer.payload, Encoding::Json).unwrap()
}

fn problem(answer: &Message) -> Problem {
    let problem: Problem = decode(&answer.payload, Encoding::Json).unwrap();
    assert_eq!(answer.headers.get(headers::CODE), Some(problem.code.as_str()));
    problem
}

fn from_revision(revision: u64, wait_ms: Option<u32>) -> LatestRequest {
    LatestRequest { min_revision: Some(Revision::new(revision)), wait_ms, ..all() }
}

/// Polls a request for a while in which it must not be answered.
async fn still_waits(asking: &mut (impl Future<Output = Message> + Unpin)) {
    let early = timeout(Duration::from_millis(100), asking).await;
    assert!(early.is_err(), "answered before its revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_its_revision_and_is_told_if_it_does_not_come() {
    let mut world = World::start().await;
    world.write("a");
    let there: LatestReply = reply(&world.ask(Verb::Latest, &from_revision(1, None)).await);
    assert_eq!(there.head, Revision::new(1));

    let refused = problem(&world.ask(Verb::Latest, &from_revision(2, None)).await);
    assert_eq!((refused.code, refused.limit, refused.actual), (Code::Behind, Some(2), Some(1)));
    assert!(refused.retry);

    let began = std::time::Instant::now();
    assert_eq!(problem(&world.ask(Verb::Latest, &from_revision(2, Some(50))).await).code, Code::Behind);
    assert!(began.elapsed() >= Duration::from_millis(50));

    let mut asking = Box::pin(world.ask(Verb::Latest, &from_revision(2, Some(limits::WAIT_MS))));
    still_waits(&mut asking).await;
    world.write("b");
    let waited: LatestReply = reply(&asking.await);
    assert_eq!((waited.head, waited.records.len()), (Revision::new(2), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_waits_in_so_many_places_and_no_more_and_leaves_them_all() {
    let mut world = World::start().await;
    let waits = || Box::pin(world.ask(Verb::Latest, &from_revision(1, Some(limits::WAIT_MS))));
    let mut waiting: Vec<_> = (0..MOST_OF_A_USER).map(|_| waits()).collect();
    for asking in &mut waiting {
        assert!(asking.now_or_never().is_none());
    }
    let refused = problem(&waits().await);
    assert_eq!((refused.code, refused.retry), (Code::Busy, true));
    world.write("a");
    for answer in futures_util::future::join_all(waiting).await {
        assert_eq!(reply::<LatestReply>(&answer).head, Revision::new(1));
    }
    let mut later = Box::pin(world.ask(Verb::Latest, &from_revision(2, Some(limits::WAIT_MS))));
    still_waits(&mut later).await;
    world.write("b");
    assert_eq!(reply::<LatestReply>(&later.await).head, Revision::new(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_the_head_waits_like_a_revision() {
    let mut world = World::start().await;
    world.write("a");
    let cursor = Some(Cursor::new(&world.fixture.profile, Revision::new(2), seconds(2)));
    let since = |wait_ms| ChangesRequest { cursor, wait_ms, ..ChangesRequest::default() };
    assert_eq!(problem(&world.ask(Verb::Changes, &since(None)).await).code, Code::Behind);

    let mut asking = Box::pin(world.ask(Verb::Changes, &since(Some(limits::WAIT_MS))));
    still_waits(&mut asking).await;
    world.write("b");
    let waited: ChangesReply = reply(&asking.await);
    assert_eq!((waited.head, waited.records.len(), waited.more), (Revision::new(2), 0, false), "now at the head");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_at_the_shutdown_is_answered_before_it_ends() {
    let mut world = World::start().await;
    let mut asking = Box::pin(world.ask(Verb::Latest, &from_revision(1, Some(limits::WAIT_MS))));
    still_waits(&mut asking).await;
    let began = std::time::Instant::now();
    world.context.shutdown.cancel();
    world.running.join_next().await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(limits::WAIT_MS.into()));
    assert_eq!(problem(&asking.await).code, Code::Behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_must_not_be_answered_gets_nothing_and_holds_up_nobody() {
    let mut world = World::start().await;
    world.write("a");
    // Asked on behalf of another user: the answer would land in an inbox that is not his.
    let subject = "roam.v1.latest.acme.bob.mail".to_owned();
    let asked = world.device.request(subject, Headers::new(), Vec::new().into(), Duration::from_millis(300)).await;
    assert!(matches!(asked, Err(roam_nats::RequestError::TimedOut)), "{asked:?}");
    let there: LatestReply = reply(&world.ask(Verb::Latest, &all()).await);
    assert_eq!(there.records.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_together_each_get_their_own_answer() {
    let mut world = World::start().await;
    let name = |number: usize| format!("k-{number:03}");
    (0..100).for_each(|number| world.write(&name(number)));
    let point = |number: usize| LatestRequest { select: Select::Keys(vec![key(&name(number))]), ..all() };
    let points = (0..3 * AT_ONCE).map(|number| world.ask(Verb::Latest, &point(number)));
    let behind = world.ask(Verb::Latest, &from_revision(101, None));
    let unknown = world.ask(Verb::Latest, &point(500));
    let (points, behind, unknown) = tokio::join!(futures_util::future::join_all(points), behind, unknown);
    for (number, answer) in points.iter().enumerate() {
        let found: LatestReply = reply(answer);
        assert_eq!(found.records.iter().map(|record| record.key.clone()).collect::<Vec<_>>(), [key(&name(number))]);
    }
    assert_eq!(problem(&behind).code, Code::Behind);
    assert_eq!(reply::<LatestReply>(&unknown).unknown, [key(&name(500))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_follow_the_journal_answers_nobody_until_it_has_what_came_meanwhile() {
    let mut world = World::start().await;
    world.write("a");
    let device = world.device.clone();
    let subject = roam_schemas::subjects::request(Verb::Latest, &world.fixture.profile);
    // What comes while it leaves is answered by nobody.
    let asked =
        async || device.request(subject.clone(), Headers::new(), Vec::new().into(), Duration::from_secs(2)).await;
    assert!(asked().await.is_ok());
    world.progress.follows(None);
    while asked().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(asked().await, Err(roam_nats::RequestError::NoResponders)), "another replica would answer");
    let applied = world.progress.applied_to();
    world.progress.follows(Some(applied + 1));
    assert!(asked().await.is_err(), "what came meanwhile is not applied yet");
    world.progress.passed(applied + 1);
    world.until_ready().await;
    while asked().await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// What was seen under faults: the server is silent, so that what leaves does not arrive, and the connection is lost then.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_while_the_connection_is_lost_leaves_no_ghost_behind_that_takes_requests() {
    let mut world = World::start().await;
    world.write("a");
    // Somebody waits for a revision. Whoever finishes that first holds what it listens on beyond the end of the connection.
    let mut waits = Box::pin(world.ask(Verb::Latest, &from_revision(100, Some(5_000))));
    still_waits(&mut waits).await;
    let pid = world.server.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::STOP).unwrap();
    world.progress.follows(None);
    let out = async {
        while world.context.health.is_ready() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_millis(200), out).await.unwrap_or_default();
    world.server.kill().await.unwrap();
    world.server.restart().await.unwrap();
    world.progress.follows(Some(0));
    world.until_ready().await;
    let mut bus = world.device.watch_state();
    timeout(WITHIN, bus.wait_for(|state| state.connected && state.generation > 1)).await.unwrap().unwrap();
    let answered = async |within| {
        let subject = roam_schemas::subjects::request(Verb::Latest, &world.fixture.profile);
        world.device.request(subject, Headers::new(), Vec::new().into(), within).await
    };
    // The responder's own connection may come later than the device's.
    let deadline = tokio::time::Instant::now() + WITHIN;
    while answered(Duration::from_secs(2)).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
    }
    for _ in 0..64 {
        assert!(answered(Duration::from_secs(2)).await.is_ok(), "each request finds somebody");
    }
}
