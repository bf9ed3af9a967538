//! Provisioning and the state of streams, against a real nats-server: what is made, what is refused, and that the server
//! does with these settings what the design expects of them.

use std::{collections::BTreeSet, net::SocketAddr, process::Stdio, time::Duration};

use bytes::Bytes;
use roam_nats::{
    Bus, BusSettings, Cluster, Deployment, Difference, Headers, Message, NatsServer, Overrides, ProvisionError,
    ServerSettings, StateError, consumer_state, durable_report, provision, purge_subject, stream_report, stream_state,
    subject_messages,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const ALL: [&str; 7] = [
    "stream ROAM_CHANGES",
    "consumer ROAM_CHANGES/access",
    "stream ROAM_JOURNAL",
    "consumer ROAM_JOURNAL/announce",
    "stream ROAM_REJECTED",
    "stream ROAM_CHUNKS",
    "stream OBJ_ROAM_BACKUPS",
];
const WITHIN: Duration = Duration::from_secs(10);

struct World {
    server: NatsServer,
    _dir: TempDir,
    bus: Bus,
}

impl World {
    async fn start() -> World {
        let dir = TempDir::new().unwrap();
        let server = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
        let bus = connect(vec![server.client_url()]).await;
        World { server, _dir: dir, bus }
    }

    async fn provisioned(deployment: &Deployment) -> World {
        let world = World::start().await;
        provision(&world.bus, deployment).await.unwrap();
        world
    }
}

async fn connect(servers: Vec<String>) -> Bus {
    Bus::connect(&BusSettings { servers, ..BusSettings::default() }, "test").await.unwrap()
}

/// Streams that fit on a small disk.
fn small(replicas_of_streams: usize) -> Deployment {
    let few = Some(16 * 1024 * 1024);
    let overrides = Overrides {
        changes_max_bytes: few,
        journal_max_bytes: few,
        rejected_max_bytes: few,
        backups_max_bytes: few,
        chunks_max_bytes: few,
        ..Overrides::default()
    };
    Deployment { overrides, ..Deployment::new(replicas_of_streams, 1) }
}

async fn ask(bus: &Bus, subject: &str, body: &Value) -> Value {
    let body = Bytes::from(serde_json::to_vec(body).unwrap());
    let answer = bus.request(format!("$JS.API.{subject}"), Headers::new(), body, WITHIN).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Asks for something that has to succeed.
async fn must(bus: &Bus, subject: &str, body: &Value) -> Value {
    let answer = ask(bus, subject, body).await;
    assert_eq!(answer["error"], Value::Null, "{subject} {body}");
    answer
}

async fn publish(bus: &Bus, subject: &str, payload: &'static [u8]) -> Value {
    let answer = bus.request(subject.to_owned(), Headers::new(), Bytes::from_static(payload), WITHIN).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

fn error_of(answer: &Value) -> (u64, u64, &str) {
    let error = &answer["error"];
    (error["code"].as_u64().unwrap(), error["err_code"].as_u64().unwrap(), error["description"].as_str().unwrap())
}

fn drift(error: ProvisionError) -> Vec<Difference> {
    match error {
        ProvisionError::Drift(differences) => differences,
        other => panic!("{other}"),
    }
}

/// The next delivery of the durable `access`.
async fn pull_one(bus: &Bus) -> Message {
    let inbox = bus.new_inbox();
    let mut deliveries = bus.subscribe(inbox.clone()).await.unwrap();
    let subject = "$JS.API.CONSUMER.MSG.NEXT.ROAM_CHANGES.access".to_owned();
    bus.send_with_reply(subject, inbox, Headers::new(), Bytes::from_static(b"1")).await.unwrap();
    timeout(WITHIN, deliveries.next()).await.unwrap().unwrap()
}

/// Acks a delivery, and waits until the server has taken the ack.
async fn ack(bus: &Bus, delivery: Message) {
    bus.request(delivery.reply.unwrap(), Headers::new(), Bytes::from_static(b"+ACK"), WITHIN).await.unwrap();
}

/// Publishes until one subject is full, then looks who is still taken.
async fn flood_one_subject(bus: &Bus) {
    for sequence in 1..=256 {
        let ack = publish(bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
        assert_eq!(ack["seq"], json!(sequence), "{ack}");
    }
    let refused = publish(bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    assert_eq!(error_of(&refused), (503, 10077, "maximum messages per subject exceeded"));
    let other = publish(bus, "roam.v1.change.acme.alice.notes.phone", b"x").await;
    assert_eq!(other["seq"], json!(257), "another device is still taken: {other}");
}

#[tokio::test]
async fn everything_is_made_once() {
    let world = World::start().await;
    let first = provision(&world.bus, &small(1)).await.unwrap();
    assert_eq!((first.created, first.unchanged), (ALL.map(str::to_owned).to_vec(), vec![]));
    let second = provision(&world.bus, &small(1)).await.unwrap();
    assert_eq!((second.created, second.unchanged), (vec![], ALL.map(str::to_owned).to_vec()));

    let journal = stream_state(&world.bus, "ROAM_JOURNAL").await.unwrap();
    assert_eq!(journal.metadata["roam.format"], "1");
    assert_eq!(journal.metadata["roam.storage_replicas"], "1");
}

#[tokio::test]
async fn only_what_is_missing_is_made() {
    let world = World::provisioned(&small(1)).await;
    must(&world.bus, "CONSUMER.DELETE.ROAM_JOURNAL.announce", &json!({})).await;
    must(&world.bus, "STREAM.DELETE.ROAM_REJECTED", &json!({})).await;
    let report = provision(&world.bus, &small(1)).await.unwrap();
    assert_eq!(report.created, ["consumer ROAM_JOURNAL/announce", "stream ROAM_REJECTED"]);
    let unchanged =
        ["stream ROAM_CHANGES", "consumer ROAM_CHANGES/access", "stream ROAM_JOURNAL", "stream ROAM_CHUNKS"];
    assert_eq!(report.unchanged, [&unchanged[..], &["stream OBJ_ROAM_BACKUPS"]].concat());
}

#[tokio::test]
async fn many_may_provision_at_once() {
    let world = World::start().await;
    let deployment = small(1);
    let buses = futures_util::future::join_all((0..4).map(|_| provision(&world.bus, &deployment))).await;
    for report in buses {
        let report = report.unwrap();
        assert_eq!(report.created.len() + report.unchanged.len(), ALL.len());
    }
}

/// Changes of one stream that the server takes, and the settings that have to be named then.
fn altered_streams() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        ("ROAM_CHANGES", json!({"subjects": ["roam.v1.change.acme.>"]}), &["subjects"]),
        ("ROAM_CHANGES", json!({"storage": "memory"}), &["storage"]),
        ("ROAM_CHANGES", json!({"retention": "limits"}), &["retention"]),
        ("ROAM_CHANGES", json!({"retention": "interest"}), &["retention"]),
        (
            "ROAM_CHANGES",
            json!({"discard": "old", "discard_new_per_subject": false}),
            &["discard", "discard_new_per_subject"],
        ),
        ("ROAM_CHANGES", json!({"discard_new_per_subject": false}), &["discard_new_per_subject"]),
        ("ROAM_CHANGES", json!({"max_msgs": 60_001}), &["max_msgs"]),
        ("ROAM_CHANGES", json!({"max_msgs_per_subject": 255}), &["max_msgs_per_subject"]),
        ("ROAM_CHANGES", json!({"max_bytes": -1}), &["max_bytes"]),
        ("ROAM_CHANGES", json!({"max_age": 1_000_000_000_u64}), &["max_age"]),
        ("ROAM_CHANGES", json!({"max_msg_size": 1000}), &["max_msg_size"]),
        ("ROAM_CHANGES", json!({"max_consumers": 3}), &["max_consumers"]),
        ("ROAM_CHANGES", json!({"compression": "s2"}), &["compression"]),
        ("ROAM_CHANGES", json!({"duplicate_window": 120_000_000_000_u64}), &["duplicate_window"]),
        ("ROAM_CHANGES", json!({"deny_delete": false}), &["deny_delete"]),
        ("ROAM_CHANGES", json!({"deny_purge": false}), &["deny_purge"]),
        ("ROAM_CHANGES", json!({"allow_direct": true}), &["allow_direct"]),
        ("ROAM_CHANGES", json!({"no_ack": true}), &["no_ack"]),
        ("ROAM_CHANGES", json!({"allow_atomic": true}), &["allow_atomic"]),
        ("ROAM_CHANGES", json!({"metadata": {"roam.format": "2"}}), &["metadata.roam.format"]),
        ("ROAM_CHANGES", json!({"metadata": {}}), &["metadata.roam.format"]),
        ("ROAM_JOURNAL", json!({"max_age": 86_400_000_000_000_u64}), &["max_age"]),
        ("ROAM_JOURNAL", json!({"discard": "new"}), &["discard"]),
        ("ROAM_JOURNAL", json!({"allow_rollup_hdrs": true, "deny_purge": false}), &["allow_rollup_hdrs", "deny_purge"]),
        ("ROAM_JOURNAL", json!({"allow_msg_ttl": true}), &["allow_msg_ttl"]),
        ("ROAM_JOURNAL", json!({"first_seq": 1000}), &["first_seq"]),
        ("ROAM_JOURNAL", json!({"republish": {"src": ">", "dest": "copy.>"}}), &["republish"]),
        ("ROAM_JOURNAL", json!({"sources": [{"name": "ROAM_REJECTED"}]}), &["sources"]),
        ("ROAM_JOURNAL", json!({"persist_mode": "async"}), &["persist_mode"]),
        ("ROAM_JOURNAL", json!({"subject_transform": {"src": ">", "dest": "x.>"}}), &["subject_transform"]),
        (
            "ROAM_JOURNAL",
            json!({"metadata": {"roam.format": "1", "roam.storage_replicas": "2"}}),
            &["metadata.roam.storage_replicas"],
        ),
        ("ROAM_REJECTED", json!({"allow_msg_counter": true}), &["allow_msg_counter"]),
        (
            "ROAM_REJECTED",
            json!({"allow_msg_schedules": true, "allow_rollup_hdrs": true, "deny_delete": false}),
            &["allow_msg_schedules", "allow_rollup_hdrs", "deny_delete"],
        ),
        ("ROAM_CHUNKS", json!({"allow_direct": true}), &["allow_direct"]),
        ("ROAM_CHUNKS", json!({"deny_delete": true}), &["deny_delete"]),
        ("ROAM_CHUNKS", json!({"max_msgs_per_subject": 100}), &["max_msgs_per_subject"]),
        (
            "ROAM_CHUNKS",
            json!({"metadata": {"roam.format": "1", "roam.chunk_grace_seconds": "1"}}),
            &["metadata.roam.chunk_grace_seconds"],
        ),
        // A setting that this program does not know.
        ("ROAM_REJECTED", json!({"allow_batched": true}), &["allow_batched"]),
        ("OBJ_ROAM_BACKUPS", json!({"discard": "old"}), &["discard"]),
        ("OBJ_ROAM_BACKUPS", json!({"max_age": 3_600_000_000_000_u64}), &["max_age"]),
    ]
}

/// Changes of one durable that the server takes.
fn altered_durables() -> Vec<(&'static str, &'static str, Value, &'static [&'static str])> {
    vec![
        ("ROAM_CHANGES", "access", json!({"ack_wait": 30_000_000_000_u64}), &["ack_wait"]),
        ("ROAM_CHANGES", "access", json!({"max_ack_pending": 1000}), &["max_ack_pending"]),
        ("ROAM_CHANGES", "access", json!({"max_deliver": 5}), &["max_deliver"]),
        ("ROAM_CHANGES", "access", json!({"max_waiting": 1}), &["max_waiting"]),
        ("ROAM_CHANGES", "access", json!({"filter_subject": "roam.v1.change.acme.>"}), &["filter_subject"]),
        ("ROAM_CHANGES", "access", json!({"inactive_threshold": 5_000_000_000_u64}), &["inactive_threshold"]),
        ("ROAM_CHANGES", "access", json!({"headers_only": true}), &["headers_only"]),
        ("ROAM_CHANGES", "access", json!({"max_batch": 10}), &["max_batch"]),
        ("ROAM_JOURNAL", "announce", json!({"headers_only": false}), &["headers_only"]),
        ("ROAM_JOURNAL", "announce", json!({"ack_policy": "none"}), &["ack_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"deliver_policy": "new"}), &["deliver_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"replay_policy": "original"}), &["replay_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"priority_timeout": 60_000_000_000_u64}), &["priority_timeout"]),
        ("ROAM_JOURNAL", "announce", json!({"priority_groups": ["other"]}), &["priority_groups"]),
        (
            "ROAM_JOURNAL",
            "announce",
            json!({"priority_policy": "none", "priority_groups": [], "priority_timeout": 0}),
            &["priority_groups", "priority_policy", "priority_timeout"],
        ),
        ("ROAM_JOURNAL", "announce", json!({"mem_storage": true}), &["mem_storage"]),
        ("ROAM_JOURNAL", "announce", json!({"num_replicas": 1}), &["num_replicas"]),
    ]
}

fn altered(settings: &Value, change: &Value) -> Value {
    let mut altered = settings.clone();
    altered.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    altered
}

/// Provisions, and expects to be refused for exactly these settings of this object.
async fn expect_drift(bus: &Bus, object: &str, change: &Value, settings: &[&str]) {
    let Err(error) = provision(bus, &small(1)).await else { panic!("not refused: {object} {change}") };
    let text = error.to_string();
    let differences = drift(error);
    let named: BTreeSet<_> = differences.iter().map(|difference| difference.setting.as_str()).collect();
    assert_eq!(named, settings.iter().copied().collect(), "{object} {change}: {text}");
    assert!(differences.iter().all(|difference| difference.object == object), "{object} {change}: {text}");
}

#[tokio::test]
async fn each_drift_of_a_stream_is_named() {
    let world = World::provisioned(&small(1)).await;
    for (stream, change, settings) in altered_streams() {
        let right = must(&world.bus, &format!("STREAM.INFO.{stream}"), &json!({})).await["config"].take();
        must(&world.bus, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
        must(&world.bus, &format!("STREAM.CREATE.{stream}"), &altered(&right, &change)).await;
        expect_drift(&world.bus, &format!("stream {stream}"), &change, settings).await;
        must(&world.bus, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
        provision(&world.bus, &small(1)).await.unwrap();
    }
}

#[tokio::test]
async fn each_drift_of_a_durable_is_named() {
    let world = World::provisioned(&small(1)).await;
    for (stream, durable, change, settings) in altered_durables() {
        let (info, create, delete) = (
            format!("CONSUMER.INFO.{stream}.{durable}"),
            format!("CONSUMER.CREATE.{stream}.{durable}"),
            format!("CONSUMER.DELETE.{stream}.{durable}"),
        );
        let right = must(&world.bus, &info, &json!({})).await["config"].take();
        must(&world.bus, &delete, &json!({})).await;
        let body = json!({"stream_name": stream, "action": "create", "config": altered(&right, &change)});
        // A filter is part of the subject on which a filtered consumer is made.
        let filter = change.get("filter_subject").and_then(Value::as_str);
        let create = filter.map_or(create.clone(), |filter| format!("{create}.{filter}"));
        must(&world.bus, &create, &body).await;
        expect_drift(&world.bus, &format!("consumer {stream}/{durable}"), &change, settings).await;
        must(&world.bus, &delete, &json!({})).await;
        provision(&world.bus, &small(1)).await.unwrap();
    }
}

#[tokio::test]
async fn all_drift_is_reported_at_once_and_nothing_is_made() {
    let world = World::provisioned(&small(1)).await;
    must(&world.bus, "STREAM.DELETE.ROAM_REJECTED", &json!({})).await;
    let wanted = Overrides { changes_max_messages: Some(10), journal_days: Some(1), ..small(1).overrides };
    let error = provision(&world.bus, &Deployment { overrides: wanted, ..Deployment::new(3, 2) }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "what is provisioned differs from what should be:\
         \n  stream ROAM_CHANGES: max_msgs should be 10, and is 60000\
         \n  stream ROAM_CHANGES: num_replicas should be 3, and is 1\
         \n  stream ROAM_JOURNAL: max_age should be 1d, and is 7d\
         \n  stream ROAM_JOURNAL: metadata.roam.storage_replicas should be 2, and is 1\
         \n  stream ROAM_JOURNAL: num_replicas should be 3, and is 1\
         \n  stream ROAM_CHUNKS: num_replicas should be 3, and is 1\
         \n  stream OBJ_ROAM_BACKUPS: num_replicas should be 3, and is 1"
    );
    let missing = stream_state(&world.bus, "ROAM_REJECTED").await.unwrap_err();
    assert!(matches!(missing, StateError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn what_operators_add_is_no_drift() {
    let world = World::provisioned(&small(1)).await;
    let mut settings = must(&world.bus, "STREAM.INFO.ROAM_CHANGES", &json!({})).await["config"].take();
    settings["description"] = json!("what devices publish");
    settings["metadata"]["team"] = json!("sync");
    must(&world.bus, "STREAM.UPDATE.ROAM_CHANGES", &settings).await;
    provision(&world.bus, &small(1)).await.unwrap();
}

#[tokio::test]
async fn a_deployment_that_makes_no_sense_is_refused() {
    let world = World::start().await;
    for (streams, storage, reason) in [
        (0, 1, "the number of replicas of streams is 0, and has to be 1 or 3"),
        (2, 1, "the number of replicas of streams is 2, and has to be 1 or 3"),
        (1, 0, "the number of storage replicas is 0, and has to be at least 1"),
    ] {
        let error = provision(&world.bus, &Deployment::new(streams, storage)).await.unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
    // Three replicas take three servers: here the server itself says so.
    let error = provision(&world.bus, &small(3)).await.unwrap_err();
    let ProvisionError::Refused { object, source } = &error else { panic!("{error}") };
    assert_eq!((object.as_str(), source.err_code), ("stream ROAM_CHANGES", 10074), "{source}");
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_told_with_the_stream_and_what_it_sets_aside() {
    let world = World::start().await;
    let overrides = Overrides { journal_max_bytes: Some(1 << 60), ..small(1).overrides };
    let error = provision(&world.bus, &Deployment { overrides, ..Deployment::new(1, 1) }).await.unwrap_err();
    let ProvisionError::NoRoom { stream, wanted, source } = &error else { panic!("{error}") };
    assert_eq!((stream.as_str(), *wanted, source.err_code), ("ROAM_JOURNAL", 1 << 60, 10047), "{source}");
    assert!(error.to_string().contains("insufficient storage"), "{error}");
}

/// A nats-server without our configuration, so with its own limit of 1 MiB a message.
async fn bare_server(dir: &TempDir) -> (Child, String) {
    let child = Command::new(NatsServer::find().unwrap().path())
        .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
        .arg(dir.path())
        .arg("--ports_file_dir")
        .arg(dir.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + WITHIN;
    let file = dir.path().join(format!("nats-server_{}.ports", child.id().unwrap()));
    loop {
        let ports: Option<Value> = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(ports) = ports {
            return (child, ports["nats"][0].as_str().unwrap().to_owned());
        }
        assert!(Instant::now() < deadline, "no server within {WITHIN:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_too_small_messages_is_refused() {
    let dir = TempDir::new().unwrap();
    let (_server, url) = bare_server(&dir).await;
    let bus = connect(vec![url]).await;
    let error = provision(&bus, &small(1)).await.unwrap_err();
    assert!(matches!(error, ProvisionError::MaxPayload { found: 1_048_576, needed: 4_194_304 }), "{error}");
    let missing = stream_state(&bus, "ROAM_CHANGES").await.unwrap_err();
    assert!(matches!(missing, StateError::NotFound { .. }), "nothing was made: {missing}");
}

/// Speaks just enough of the protocol to be connected to, and says that it is some version.
async fn pretend_to_be(version: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (input, mut output) = stream.into_split();
        let info = json!({"server_id": "x", "version": version, "max_payload": 4_194_304, "headers": true, "proto": 1});
        output.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(input).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "PING" {
                output.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let (address, _serving) = pretend_to_be("2.10.22").await;
    let bus = connect(vec![format!("nats://{address}")]).await;
    let error = provision(&bus, &small(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the server is nats-server 2.10.22, and has to be 2.12.0 or newer");
}

#[tokio::test]
async fn a_flooding_device_is_refused_alone() {
    let world = World::provisioned(&small(1)).await;
    flood_one_subject(&world.bus).await;
    // Its next change is taken as soon as one of its own was acked.
    let delivery = pull_one(&world.bus).await;
    ack(&world.bus, delivery).await;
    let taken = publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    assert_eq!(taken["seq"], json!(258));
}

#[tokio::test]
async fn a_full_stream_refuses_everybody() {
    let overrides = Overrides { changes_max_messages: Some(2), changes_max_bytes: Some(1_000), ..small(1).overrides };
    let world = World::provisioned(&Deployment { overrides, ..Deployment::new(1, 1) }).await;
    publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    let too_much = publish(&world.bus, "roam.v1.change.acme.alice.notes.phone", &[b'x'; 1_000]).await;
    assert_eq!(error_of(&too_much), (503, 10077, "maximum bytes exceeded"));
    publish(&world.bus, "roam.v1.change.acme.alice.notes.phone", b"x").await;
    let too_many = publish(&world.bus, "roam.v1.change.acme.bob.notes.laptop", b"x").await;
    assert_eq!(error_of(&too_many), (503, 10077, "maximum messages exceeded"));
}

#[tokio::test]
async fn nothing_leaves_a_stream_by_request() {
    let world = World::provisioned(&small(1)).await;
    publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    publish(&world.bus, "roam.v1.journal.0", b"x").await;
    publish(&world.bus, "roam.v1.rejected.acme.alice", b"x").await;
    for stream in ["ROAM_CHANGES", "ROAM_JOURNAL", "ROAM_REJECTED"] {
        // What was rejected of a user who is erased is purged by an operator.
        if stream != "ROAM_REJECTED" {
            let purged = ask(&world.bus, &format!("STREAM.PURGE.{stream}"), &json!({})).await;
            assert_eq!(error_of(&purged), (500, 10110, "stream purge not permitted"));
        }
        let deleted = ask(&world.bus, &format!("STREAM.MSG.DELETE.{stream}"), &json!({"seq": 1})).await;
        assert_eq!(error_of(&deleted), (500, 10057, "message delete not permitted"));
        assert_eq!(stream_state(&world.bus, stream).await.unwrap().messages, 1);
    }
}

#[tokio::test]
async fn what_was_rejected_of_one_user_is_counted_and_purged_up_to_a_sequence() {
    let world = World::provisioned(&small(1)).await;
    for user in ["alice", "bob", "alice", "alice"] {
        publish(&world.bus, &format!("roam.v1.rejected.acme.{user}"), b"x").await;
    }
    let count = async |user: &str| {
        subject_messages(&world.bus, "ROAM_REJECTED", &format!("roam.v1.rejected.acme.{user}")).await
    };
    assert_eq!((count("alice").await.unwrap(), count("bob").await.unwrap(), count("carol").await.unwrap()), (3, 1, 0));
    let purged = purge_subject(&world.bus, "ROAM_REJECTED", "roam.v1.rejected.acme.alice", 3).await;
    assert_eq!(purged.unwrap(), 2, "what came after that stays");
    assert_eq!((count("alice").await.unwrap(), count("bob").await.unwrap()), (1, 1));
    assert!(purge_subject(&world.bus, "ROAM_JOURNAL", "roam.v1.journal.0", 3).await.is_err());
    let report = stream_report(&world.bus, "ROAM_REJECTED").await.unwrap();
    assert_eq!((report.messages, report.last_sequence, report.max_messages), (2, 4, None));
    assert_eq!(report.max_age, Some(Duration::from_secs(30 * 86_400)));
    let durable = durable_report(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
    assert_eq!((durable.asking, durable.state.pending), (0, 0));
}

#[tokio::test]
async fn the_state_of_a_stream_and_its_durable_are_told() {
    let world = World::provisioned(&small(1)).await;
    let empty = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((empty.first_sequence, empty.last_sequence, empty.messages, empty.bytes), (0, 0, 0, 0));

    for _ in 0..3 {
        publish(&world.bus, "roam.v1.change.acme.alice.notes.laptop", b"x").await;
    }
    // The server counts what waits a moment after its PubAck.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let waiting = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
        if (waiting.delivered, waiting.ack_floor, waiting.pending, waiting.unacked) == (0, 0, 3, 0) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{waiting:?}");
        tokio::task::yield_now().await;
    }

    let first = pull_one(&world.bus).await;
    ack(&world.bus, first).await;
    pull_one(&world.bus).await;

    let working = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap();
    assert_eq!((working.delivered, working.ack_floor, working.pending, working.unacked), (2, 1, 1, 1));
    assert_eq!(working.backlog(), 2);
    let stream = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((stream.first_sequence, stream.last_sequence, stream.messages), (2, 3, 2));
    assert_eq!(stream.created, empty.created);

    // Deleted and made again, it is another incarnation.
    must(&world.bus, "STREAM.DELETE.ROAM_CHANGES", &json!({})).await;
    let gone = consumer_state(&world.bus, "ROAM_CHANGES", "access").await.unwrap_err();
    assert!(matches!(gone, StateError::NotFound { .. }), "{gone}");
    provision(&world.bus, &small(1)).await.unwrap();
    assert!(stream_state(&world.bus, "ROAM_CHANGES").await.unwrap().created > empty.created);
}

#[tokio::test]
async fn a_state_that_nobody_can_tell_is_unavailable() {
    let mut world = World::provisioned(&small(1)).await;
    world.server.kill().await.unwrap();
    let error = stream_state(&world.bus, "ROAM_CHANGES").await.unwrap_err();
    assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_keeps_three_replicas() {
    let dir = TempDir::new().unwrap();
    let mut cluster = Cluster::start(dir.path()).await.unwrap();
    let bus = connect(cluster.client_urls()).await;
    let first = provision(&bus, &small(3)).await.unwrap();
    assert_eq!(first.created, ALL);
    for stream in ["ROAM_CHANGES", "ROAM_JOURNAL", "ROAM_REJECTED", "ROAM_CHUNKS"] {
        let info = must(&bus, &format!("STREAM.INFO.{stream}"), &json!({})).await;
        assert_eq!(info["config"]["num_replicas"], json!(3));
        assert_eq!(info["cluster"]["replicas"].as_array().unwrap().len(), 2, "a leader and two more: {info}");
    }
    flood_one_subject(&bus).await;

    // One server of three may go at any time: nothing is lost, and the stream is the same one.
    let before = stream_state(&bus, "ROAM_CHANGES").await.unwrap();
    cluster.servers()[0].kill().await.unwrap();
    let bus = connect(cluster.client_urls()[1..].to_vec()).await;
    assert_eq!(provision(&bus, &small(3)).await.unwrap().unchanged, ALL);
    let after = stream_state(&bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((after.created, after.last_sequence, after.messages), (before.created, 257, 257));
    cluster.servers()[0].restart().await.unwrap();
    cluster.healthy().await.unwrap();
}
