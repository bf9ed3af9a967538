//! A real nats-server for each test, and what the tests of this crate need to say to it. Never configures Roam's own
//! streams: that is provisioning's.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

pub mod link;
pub mod scripted;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use roam_nats::{Bus, BusSettings, Headers, NatsServer, Overrides, Secret, ServerSettings, SyncInterval};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before the test fails.
pub const WITHIN: Duration = Duration::from_secs(15);

/// A server and a connection to it.
pub struct World {
    pub server: NatsServer,
    pub bus: Bus,
    dir: TempDir,
}

impl World {
    pub async fn start() -> World {
        let dir = TempDir::new().unwrap();
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
        let server = NatsServer::start(settings).await.unwrap();
        let bus = connect(&server).await;
        World { server, bus, dir }
    }

    /// Another connection.
    pub async fn connect(&self) -> Bus {
        connect(&self.server).await
    }

    /// Asks the JetStream API and demands that it succeeds.
    pub async fn api(&self, subject: &str, body: Value) -> Value {
        let answer = self.ask(subject, body).await;
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    pub async fn ask(&self, subject: &str, body: Value) -> Value {
        let payload = Bytes::from(body.to_string());
        let answer = self.bus.request(format!("$JS.API.{subject}"), Headers::new(), payload, WITHIN).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Makes a stream of the subjects `<name>.>`, with more settings if given.
    pub async fn stream(&self, name: &str, settings: Value) {
        let mut config = json!({ "name": name, "subjects": [format!("{name}.>")], "storage": "file" });
        merge(&mut config, settings);
        self.api(&format!("STREAM.CREATE.{name}"), config).await;
    }

    /// Makes a durable consumer with explicit acks, with more settings if given.
    pub async fn durable(&self, stream: &str, name: &str, settings: Value) {
        let mut config = json!({ "durable_name": name, "ack_policy": "explicit", "ack_wait": 30_000_000_000_u64 });
        merge(&mut config, settings);
        let body = json!({ "stream_name": stream, "config": config });
        self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), body).await;
    }

    /// Says something in the words of the protocol, as any client may, and waits until the server has taken it.
    pub async fn raw(&self, operations: impl AsRef<[u8]>) {
        let address = self.server.client_url().trim_start_matches("nats://").to_owned();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let hello = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n";
        socket.write_all(&[hello, operations.as_ref(), b"PING\r\n"].concat()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"PONG\r\n") {
            assert_ne!(soon(socket.read_buf(&mut heard)).await.unwrap(), 0, "{}", heard.escape_ascii());
        }
    }

    /// Publishes an empty message with these bytes for headers.
    pub async fn raw_publish(&self, subject: impl AsRef<[u8]>, headers: impl AsRef<[u8]>) {
        let (subject, headers) = (subject.as_ref(), headers.as_ref());
        let sizes = format!(" {0} {0}\r\n", headers.len());
        self.raw([b"HPUB ", subject, sizes.as_bytes(), headers, b"\r\n"].concat()).await;
    }

    pub async fn consumer_info(&self, stream: &str, name: &str) -> Value {
        self.api(&format!("CONSUMER.INFO.{stream}.{name}"), json!({})).await
    }

    /// Stores one message and returns its sequence.
    pub async fn store(&self, subject: &str, payload: &str) -> u64 {
        let payload = Bytes::from(payload.to_owned());
        let ack = self.bus.request(subject.to_owned(), Headers::new(), payload, WITHIN).await.unwrap();
        let ack: Value = serde_json::from_slice(&ack.payload).unwrap();
        ack["seq"].as_u64().unwrap()
    }
}

/// A server that asks for a password, and a connection of a user with limited permissions.
pub struct Guarded {
    pub settings: BusSettings,
    pub bus: Bus,
    _server: Child,
    _dir: TempDir,
}

impl Guarded {
    /// `permissions` is the inside of that block in the configuration of nats-server.
    pub async fn start(permissions: &str) -> Guarded {
        let dir = TempDir::new().unwrap();
        let user = format!("{{ user: u, password: p, permissions: {{ {permissions} }} }}");
        Self::configured(dir, &format!("authorization: {{ users: [ {user} ] }}"), |_| {}).await
    }

    /// A server that speaks TLS under a certificate of an authority that only the settings know.
    pub async fn with_tls() -> Guarded {
        let dir = TempDir::new().unwrap();
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        std::fs::write(&cert_file, key.cert.pem()).unwrap();
        std::fs::write(&key_file, key.signing_key.serialize_pem()).unwrap();
        let tls = format!("tls: {{ cert_file: {cert_file:?}, key_file: {key_file:?} }}");
        let conf = format!("{tls}\nauthorization: {{ user: u, password: p }}");
        Self::configured(dir, &conf, |settings| (settings.tls, settings.ca) = (true, Some(cert_file))).await
    }

    async fn configured(dir: TempDir, conf: &str, adapt: impl FnOnce(&mut BusSettings)) -> Guarded {
        let file = dir.path().join("conf");
        std::fs::write(&file, format!("listen: \"127.0.0.1:-1\"\n{conf}\n")).unwrap();
        let server = Command::new(NatsServer::find().unwrap().path())
            .args(["-c".as_ref(), file.as_os_str(), "--ports_file_dir".as_ref(), dir.path().as_os_str()])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut url = None;
        eventually("the server says where it listens", async || {
            url = ports_file(dir.path());
            url.is_some()
        })
        .await;
        let (user, password) = (Some("u".to_owned()), Some(Secret::new("p")));
        let mut settings = BusSettings { user, password, ..BusSettings::at(url.unwrap()) };
        adapt(&mut settings);
        let bus = Bus::connect(&settings, "test").await.unwrap();
        Guarded { settings, bus, _server: server, _dir: dir }
    }
}

/// What the server writes once it listens: `{"nats": ["nats://127.0.0.1:PORT"]}`.
fn ports_file(dir: &Path) -> Option<String> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str().map(str::to_owned)
}

pub async fn connect(server: &NatsServer) -> Bus {
    Bus::connect(&BusSettings::at(server.client_url()), "test").await.unwrap()
}

/// Of streams that fit on a small disk.
pub fn few_bytes() -> Overrides {
    let few = Some(16 * 1024 * 1024);
    Overrides {
        changes_max_bytes: few,
        journal_max_bytes: few,
        rejected_max_bytes: few,
        backups_max_bytes: few,
        chunks_max_bytes: few,
        ..Overrides::default()
    }
}

/// Polls until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Fails the test if it takes too long.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(WITHIN, future).await.expect("in time")
}

fn merge(into: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        into.as_object_mut().unwrap().extend(more);
    }
}
