//! Provisioning, against a real nats-server: what is made, and what is refused.

mod drift;
mod examined;
mod held;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use bytes::Bytes;
use roam_nats::{
    Bus, BusSettings, Deployment, Headers, NatsServer, Overrides, ProvisionError, ServerSettings, StateError,
    provision, stream_state,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::few_bytes;

const ALL: [&str; 8] = [
    "stream ROAM_CHANGES",
    "consumer ROAM_CHANGES/access",
    "stream ROAM_JOURNAL",
    "consumer ROAM_JOURNAL/announce",
    "stream ROAM_REJECTED",
    "stream ROAM_CHUNKS",
    "stream ROAM_TERMS",
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
    Deployment { overrides: few_bytes(), ..Deployment::new(replicas_of_streams, 1) }
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
    assert_eq!(report.unchanged, [&unchanged[..], &["stream ROAM_TERMS", "stream OBJ_ROAM_BACKUPS"]].concat());
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
