//! Looks at a deployment from outside, as an operator does, and says what is not as it should be and what to do about it.
//! Never changes anything: the only things that are sent are questions, and attempts that must be denied.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Bus, BusSettings, ConnectError, Deployment, OLDEST_SERVER, ServerVersion, StateError, changes_stream,
    consumer_standing, journal_stream,
    provision::{self, ProvisionError},
    provisioned_shards,
    streams::api,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most of an answer of the monitoring pages that is read, in bytes.
const ANSWER_BYTES: u64 = 1024 * 1024;
/// How far clocks may be apart before a record could seem to live longer or shorter than it does.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// From how full on a stream or a disk is worth a word, in percent.
const FULL: u64 = 80;
/// A subject that no operator may publish on.
const DENIED_SUBJECT: &str = "roam.v1.notice.$unknown.$unknown.$unknown";
/// Settings that an operator chooses; all others must be as they are defined.
const CHOSEN: [&str; 4] = ["max_bytes", "max_age", "max_msgs", "num_replicas"];

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How it is.
    pub state: Soundness,
    /// What was found.
    pub found: String,
    /// What to do about it; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Soundness {
    /// As it should be.
    Sound,
    /// It could not be looked at.
    Unknown,
    /// It works, and something may come of it.
    Warning,
    /// It must be mended.
    Problem,
}

use Soundness::{Problem, Sound, Unknown, Warning};

/// Looks at everything that can be seen over this connection, which is an operator's, and over the monitoring port of a
/// server, `host:port`, if there is one. `now` is the clock of this machine, in nanoseconds since 1970.
pub async fn examine(bus: &Bus, settings: &BusSettings, monitor: Option<&str>, now: impl Fn() -> u64) -> Vec<Finding> {
    let mut findings = vec![version(bus), payload(bus), encryption(bus, settings)];
    findings.push(strangers(settings).await);
    findings.push(permissions(bus).await);
    findings.extend(streams(bus).await);
    findings.extend(room(bus).await);
    findings.push(clock(bus, &now).await);
    match monitor {
        None => findings.push(finding(
            "server",
            Unknown,
            "sync_interval and disk are seen on the monitoring port alone",
            Some("name it with --monitor HOST:8222"),
        )),
        Some(monitor) => findings.extend(server(monitor).await),
    }
    findings
}

fn finding(check: &'static str, state: Soundness, found: impl Into<String>, remedy: Option<&str>) -> Finding {
    Finding { check, state, found: found.into(), remedy: remedy.map(str::to_owned) }
}

fn version(bus: &Bus) -> Finding {
    let found = bus.client().server_info().version;
    match ServerVersion::parse(&found) {
        Some(version) if version >= OLDEST_SERVER => finding("version", Sound, format!("nats-server {found}"), None),
        _ => {
            let remedy = format!("update nats-server to {OLDEST_SERVER} or newer");
            finding("version", Problem, format!("nats-server {found}"), Some(&remedy))
        }
    }
}

fn payload(bus: &Bus) -> Finding {
    let (found, needed) = (bus.max_payload(), roam_schemas::limits::MAX_PAYLOAD);
    let text = format!("the server takes messages of {found} bytes");
    match found < needed {
        false => finding("max_payload", Sound, text, None),
        true => finding("max_payload", Problem, text, Some(&format!("set max_payload to {needed} bytes or more"))),
    }
}

fn encryption(bus: &Bus, settings: &BusSettings) -> Finding {
    let local = settings.servers.iter().all(|server| server.contains("127.0.0.1") || server.contains("localhost"));
    match (bus.client().server_info().tls_required, local) {
        (true, _) => finding("tls", Sound, "connections are encrypted", None),
        (false, true) => {
            let remedy = "let nobody reach it from another machine, or use roam up --secure";
            finding("tls", Warning, "connections are not encrypted; this one is local", Some(remedy))
        }
        (false, false) => {
            finding("tls", Problem, "connections are not encrypted", Some("see docs/security.md, Switch it on"))
        }
    }
}

/// Whether somebody gets in who shows nothing.
async fn strangers(settings: &BusSettings) -> Finding {
    let nobody = BusSettings {
        credentials: None,
        nkey_seed: None,
        user: None,
        password: None,
        token: None,
        token_file: None,
        inbox_prefix: None,
        ..settings.clone()
    };
    let connecting = timeout(2 * ANSWER_WITHIN, Bus::connect(&nobody, "roam-doctor stranger"));
    match connecting.await {
        // The server may go on for a while with somebody about whom it has asked.
        Ok(Ok(stranger)) if stranger.round_trip(ANSWER_WITHIN).await.is_err() => undecided(),
        Ok(Ok(stranger)) => {
            stranger.close().await;
            let remedy = "see docs/security.md, Switch it on";
            finding("strangers", Problem, "whoever reaches the server gets in without a token", Some(remedy))
        }
        Ok(Err(ConnectError::Denied(_))) => {
            finding("strangers", Sound, "nobody gets in without a key or a token", None)
        }
        Ok(Err(error)) => finding("strangers", Unknown, format!("a connection without a token: {error}"), None),
        Err(_) => undecided(),
    }
}

fn undecided() -> Finding {
    let found = "the server does not say whether somebody without a token gets in";
    finding("strangers", Warning, found, Some("run an auth service: without one nobody new gets in"))
}

/// Whether an operator may do what only a service may.
async fn permissions(bus: &Bus) -> Finding {
    let before = bus.state().denied;
    let sent = bus.send(DENIED_SUBJECT.to_owned(), crate::Headers::new(), bytes::Bytes::new()).await;
    let tripped = bus.round_trip(ANSWER_WITHIN).await;
    if sent.is_err() || tripped.is_err() {
        return finding("permissions", Unknown, "the server did not answer", None);
    }
    // The refusal may be told a moment after what came behind it.
    let mut state = bus.watch_state();
    let denied = timeout(Duration::from_millis(500), state.wait_for(|state| state.denied > before)).await;
    match denied {
        Ok(_) => finding("permissions", Sound, "an operator cannot publish in the name of others", None),
        Err(_) => {
            let remedy = "give each role the permissions of nats/permissions.toml: roam keys writes them";
            finding("permissions", Problem, "this user may publish in the name of services", Some(remedy))
        }
    }
}

/// Whether streams and durables are as they are defined, and no durable stands ahead of its stream.
async fn streams(bus: &Bus) -> Vec<Finding> {
    // Where nothing is provisioned, all that one shard has is missing.
    let shards = provisioned_shards(bus).await.unwrap_or_default();
    let checked = provision::check(bus, &Deployment { shards, ..Deployment::new(1, 1) }).await;
    let (differences, missing) = match checked {
        Ok(found) => found,
        Err(error @ ProvisionError::Denied { .. }) => {
            return vec![finding("streams", Unknown, error.to_string(), Some("use the operator's key"))];
        }
        Err(error) => return vec![finding("streams", Problem, error.to_string(), Some("is JetStream enabled?"))],
    };
    // Whoever keeps backups in a directory has no bucket.
    let bucket = format!("stream OBJ_{}", crate::BACKUPS_BUCKET);
    let mut findings: Vec<_> = missing
        .into_iter()
        .filter(|object| *object != bucket)
        .map(|object| finding("streams", Problem, format!("{object} does not exist"), Some("roam provision")))
        .collect();
    let differs = |setting: &str| !CHOSEN.contains(&setting) && !setting.starts_with("metadata.");
    for difference in differences.into_iter().filter(|difference| differs(&difference.setting)) {
        let remedy = "set it with the tools of NATS, on purpose: nats stream edit";
        findings.push(finding("streams", Problem, difference.to_string(), Some(remedy)));
    }
    let of_shard =
        |shard| [(changes_stream(shard), crate::ACCESS_DURABLE), (journal_stream(shard), crate::ANNOUNCE_DURABLE)];
    for (stream, durable) in shards.each().flat_map(of_shard) {
        if let Ok(standing) = consumer_standing(bus, &stream, durable).await
            && standing.is_ahead()
        {
            let text = format!("consumer {stream}/{durable} stands at {} of {}", standing.delivered, standing.last);
            findings.push(finding("streams", Problem, text, Some("roam repair consumers")));
        }
    }
    if findings.is_empty() {
        findings.push(finding(
            "streams",
            Sound,
            "streams and durables are as they should be; what must be off is off",
            None,
        ));
    }
    findings
}

#[derive(Deserialize)]
struct StreamSize {
    config: SizeLimit,
    state: Size,
    #[serde(default)]
    ts: Option<String>,
}

#[derive(Deserialize)]
struct SizeLimit {
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    max_msgs: i64,
}

#[derive(Deserialize)]
struct Size {
    bytes: u64,
    messages: u64,
}

/// Whether each stream that refuses when it is full is far from it.
async fn room(bus: &Bus) -> Vec<Finding> {
    let mut findings = Vec::new();
    for shard in provisioned_shards(bus).await.unwrap_or_default().each() {
        let stream = changes_stream(shard);
        findings.extend(stream_size(bus, &stream).await.map(|size| room_in(&stream, &size)));
    }
    findings
}

fn room_in(stream: &str, size: &StreamSize) -> Finding {
    let share = |held: u64, limit: i64| match u64::try_from(limit) {
        Ok(limit @ 1..) => held.saturating_mul(100) / limit,
        _ => 0,
    };
    let full = share(size.state.bytes, size.config.max_bytes).max(share(size.state.messages, size.config.max_msgs));
    let text = format!("{stream} waits for access servers with {full} % of what it may hold");
    match full {
        FULL.. => finding("backlog", Warning, text, Some("start another access server; look at its readyz")),
        _ => finding("backlog", Sound, text, None),
    }
}

/// How far the clock of the server is from ours. The journey of the answer is half of the time that it took.
async fn clock(bus: &Bus, now: &impl Fn() -> u64) -> Finding {
    let asked = now();
    let told = stream_size(bus, crate::REJECTED_STREAM).await.ok().and_then(|size| size.ts);
    let answered = now();
    let theirs = told.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
    let Some(theirs) = theirs.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok()) else {
        return finding("clock", Unknown, "the server does not tell its time", None);
    };
    let ours = asked.midpoint(answered);
    let apart = Duration::from_nanos(ours.abs_diff(theirs));
    let text = format!("the clock of the server and that of this machine are {:.3} s apart", apart.as_secs_f64());
    match apart > CLOCKS_APART {
        false => finding("clock", Sound, text, None),
        true => finding("clock", Problem, text, Some("set both by NTP: records expire by these clocks")),
    }
}

async fn stream_size(bus: &Bus, stream: &str) -> Result<StreamSize, StateError> {
    let asked = api::call(bus, &format!("STREAM.INFO.{stream}"), &serde_json::json!({}), ANSWER_WITHIN).await;
    asked.map_err(|error| StateError::Unavailable { object: format!("stream {stream}"), source: error.into() })
}

/// What the monitoring port of a server tells.
async fn server(monitor: &str) -> Vec<Finding> {
    let page = match timeout(ANSWER_WITHIN, get(monitor, "/varz")).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return vec![finding("server", Unknown, format!("{monitor} does not answer: {error}"), None)],
        Err(_) => return vec![finding("server", Unknown, format!("{monitor} does not answer"), None)],
    };
    let jetstream = &page["jetstream"];
    vec![syncs(&jetstream["config"]), disk(jetstream)]
}

fn syncs(config: &Value) -> Finding {
    let always = config["sync_always"].as_bool().unwrap_or(false);
    let interval = Duration::from_nanos(config["sync_interval"].as_u64().unwrap_or_default());
    match always {
        true => finding("sync_interval", Sound, "every change with a PubAck is on disk", None),
        false => {
            let text = format!("JetStream syncs every {} s; a power cut loses what has no receipt", interval.as_secs());
            let remedy =
                "with several servers set sync_interval: always; one server may stay as it is, see nats/README.md";
            finding("sync_interval", Warning, text, Some(remedy))
        }
    }
}

fn disk(jetstream: &Value) -> Finding {
    let most = jetstream["config"]["max_storage"].as_u64().unwrap_or_default();
    let held = jetstream["stats"]["storage"].as_u64().unwrap_or_default();
    let share = held.saturating_mul(100).checked_div(most).unwrap_or_default();
    let text = format!("JetStream holds {share} % of the {} MiB that it may", most / (1024 * 1024));
    match share {
        FULL.. => {
            finding("disk", Warning, text, Some("give it more disk: a full one stops JetStream until it is restarted"))
        }
        _ => finding("disk", Sound, text, None),
    }
}

/// A page as JSON. HTTP/1.0 without keep-alive: the answer is all that comes until the server closes.
async fn get(address: &str, path: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(serde_json::from_str(body)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_lost_in_a_power_cut_is_said() {
        assert_eq!(syncs(&json!({"sync_always": true})).state, Sound);
        let warned = syncs(&json!({"sync_interval": 120_000_000_000_u64}));
        assert_eq!(warned.state, Warning);
        assert!(warned.found.contains("every 120 s") && warned.remedy.is_some(), "{warned:?}");
    }

    #[test]
    fn a_disk_that_fills_up_is_said() {
        let of = |held| json!({"config": {"max_storage": 1_000}, "stats": {"storage": held}});
        assert_eq!(disk(&of(799)).state, Sound);
        assert_eq!(disk(&of(800)).state, Warning);
        assert_eq!(disk(&json!({})).state, Sound);
    }
}
