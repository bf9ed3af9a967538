//! What NATS can do by itself, asked as its own clients ask (ADR-8 and ADR-31 of nats-architecture-and-design): a plain
//! stream, which is the limit of whatever is built on one; a key-value bucket, which is the nearest peer; and a responder
//! that answers with what it was sent, which is the limit of whatever answers over NATS.

use std::thread::{self, JoinHandle};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use roam_nats::{Bus, BusSettings, Headers, Message};
use serde::Deserialize;
use tokio::{runtime::Builder, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    PATIENCE,
    asking::{Ask, Outgoing, connect_by},
    keys::{self, Keys, NAME, Spot},
};

/// The subject of the responder that echoes.
const ECHO: &str = "bench.echo";
/// The stream behind a bucket.
pub(crate) const BUCKET: &str = "KV_bench";

/// Puts into a bucket.
pub(crate) struct KvPut(pub(crate) Keys);
/// Gets from a bucket, straight from the stream, as clients do.
pub(crate) struct KvGet(pub(crate) Keys);
/// Publishes into a stream without an index of keys.
pub(crate) struct RawPublish(pub(crate) Keys);
/// Asks for its own payload.
pub(crate) struct Echo(pub(crate) Keys);

/// Makes a bucket with a history of one, on so many servers.
pub(crate) async fn make_bucket(bus: &Bus, replicas: usize) -> anyhow::Result<()> {
    // As ADR-8 says a bucket is, and as `nats kv add` makes it.
    let bucket = serde_json::json!({
        "name": BUCKET, "subjects": ["$KV.bench.>"], "storage": "file", "retention": "limits", "discard": "new",
        "max_msgs_per_subject": 1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1, "num_replicas": replicas,
        "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true, "duplicate_window": 120_000_000_000_u64,
    });
    make_stream(bus, BUCKET, &bucket).await
}

/// Makes a stream as Roam's own that takes changes is, but with nobody who consumes it.
pub(crate) async fn make_raw_stream(bus: &Bus) -> anyhow::Result<()> {
    let stream = serde_json::json!({
        "name": "RAW", "subjects": ["raw.>"], "storage": "file", "retention": "limits", "discard": "old",
        "max_bytes": 2_u64 << 30, "num_replicas": 1,
    });
    make_stream(bus, "RAW", &stream).await
}

async fn make_stream(bus: &Bus, name: &str, definition: &serde_json::Value) -> anyhow::Result<()> {
    let answer = api(bus, &format!("STREAM.CREATE.{name}"), definition).await?;
    ensure!(answer.get("error").is_none(), "{name} cannot be made: {}", answer["error"]);
    Ok(())
}

/// Calls the JetStream API.
pub(crate) async fn api(bus: &Bus, call: &str, body: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let answer = bus.request(format!("$JS.API.{call}"), Headers::new(), body, PATIENCE).await?;
    Ok(serde_json::from_slice(&answer.payload)?)
}

/// Answers whoever asks with what they sent, from a thread of its own, until it is dropped.
pub(crate) struct EchoServer {
    stop: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl EchoServer {
    /// Starts answering.
    pub(crate) async fn start(settings: BusSettings) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (stopped, (ready, is_ready)) = (stop.clone(), oneshot::channel());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let served = runtime.block_on(stopped.run_until_cancelled(echo(&settings, ready)));
            served.unwrap_or(Ok(()))
        })?;
        is_ready.await.context("the echo does not start")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // How it ended matters to nobody any more.
            let _ = thread.join();
        }
    }
}

async fn echo(settings: &BusSettings, ready: oneshot::Sender<()>) -> anyhow::Result<()> {
    let bus = connect_by(settings).await?;
    let mut asked = bus.subscribe(ECHO.to_owned()).await?;
    bus.round_trip(PATIENCE).await?;
    let _ = ready.send(());
    while let Some(Message { reply: Some(reply), payload, .. }) = asked.next().await {
        bus.send(reply, Headers::new(), payload).await?;
    }
    Ok(())
}

/// Where a record of a bucket is put.
pub(crate) fn kv_subject(spot: Spot) -> String {
    format!("$KV.bench.{}", kv_key(spot))
}

/// The key of a record of a bucket.
pub(crate) fn kv_key(Spot { profile, key }: Spot) -> String {
    format!("{}.{NAME}.{}", keys::user(profile), keys::key(key))
}

impl Ask for KvPut {
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing> {
        let payload = Bytes::from(self.0.value());
        Ok(Outgoing { subject: kv_subject(self.0.spot(number)), headers: Headers::new(), payload })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        check_pub_ack(answer)
    }
}

impl Ask for RawPublish {
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing> {
        let subject = format!("raw.{}", self.0.spot(number).profile);
        Ok(Outgoing { subject, headers: Headers::new(), payload: Bytes::from(self.0.value()) })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        check_pub_ack(answer)
    }
}

impl Ask for KvGet {
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing> {
        let subject = format!("$JS.API.DIRECT.GET.{BUCKET}.{}", kv_subject(self.0.spot(number)));
        Ok(Outgoing { subject, headers: Headers::new(), payload: Bytes::new() })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        // A key that is not there is answered with a status and no payload.
        ensure!(!answer.payload.is_empty(), "the bucket does not have a key");
        ensure!(answer.headers.get("Nats-Sequence").is_some(), "an answer without a sequence");
        Ok(true)
    }
}

impl Ask for Echo {
    fn request(&mut self, _: u64) -> anyhow::Result<Outgoing> {
        Ok(Outgoing { subject: ECHO.to_owned(), headers: Headers::new(), payload: Bytes::from(self.0.value()) })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        ensure!(!answer.payload.is_empty(), "an echo without a payload");
        Ok(true)
    }
}

/// Whether the stream took it; `false` if it is full.
pub(crate) fn check_pub_ack(answer: &Message) -> anyhow::Result<bool> {
    #[derive(Deserialize)]
    struct PubAck {
        seq: Option<u64>,
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        err_code: u64,
        description: String,
    }
    /// JetStream's "maximum messages exceeded", also for one subject.
    const FULL: u64 = 10_077;
    // What begins like this took it: a refusal begins with the error.
    if answer.payload.starts_with(b"{\"stream\"") {
        return Ok(true);
    }
    let ack: PubAck = serde_json::from_slice(&answer.payload).context("an answer that is no PubAck")?;
    match ack {
        PubAck { error: None, seq: Some(_) } => Ok(true),
        PubAck { error: Some(Refusal { err_code: FULL, .. }), .. } => Ok(false),
        PubAck { error: Some(refusal), .. } => bail!("the stream refuses: {}", refusal.description),
        PubAck { error: None, seq: None } => bail!("a PubAck without a sequence"),
    }
}
