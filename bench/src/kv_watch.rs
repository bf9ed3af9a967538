//! Watching a bucket as its clients do (ADR-8): an ephemeral push consumer on the stream behind it.

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream::ReadyChunks};
use roam_nats::{Bus, Headers, Message, Subscription};

use crate::{
    PATIENCE,
    asking::connect,
    drive::{Answer, Driver},
    jetstream::{BUCKET, api, check_pub_ack, kv_subject},
    keys::{self, Keys, NAME},
};

/// How many messages are taken at once if so many are there.
const CHUNK: usize = 512;

/// What a consumer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// What comes from now on.
    New,
    /// The newest of each key.
    Last,
}

/// A consumer, and what it delivers.
struct Watch {
    name: String,
    /// How many messages were there when it was made.
    pending: u64,
    messages: Subscription,
}

/// Puts on one connection, and hears of it from a watcher on another.
pub(crate) struct KvRoam {
    publishing: Bus,
    inbox: String,
    acks: ReadyChunks<Subscription>,
    changes: ReadyChunks<Subscription>,
    keys: Keys,
    /// The connection of the watcher, which ends with it.
    _watching: Bus,
}

impl Watch {
    async fn open(bus: &Bus, filter: &str, from: From, keys_only: bool) -> anyhow::Result<Self> {
        let deliver = bus.new_inbox();
        let messages = bus.subscribe(deliver.clone()).await?;
        let name = deliver.rsplit('.').next().unwrap_or_default().to_owned();
        let config = serde_json::json!({
            "name": name, "deliver_subject": deliver, "filter_subject": filter, "ack_policy": "none", "max_deliver": 1,
            "deliver_policy": match from { From::New => "new", From::Last => "last_per_subject" },
            "replay_policy": "instant", "mem_storage": true, "num_replicas": 1, "headers_only": keys_only,
            "inactive_threshold": 60_000_000_000_u64,
        });
        let body = serde_json::json!({ "stream_name": BUCKET, "config": config });
        let made = api(bus, &format!("CONSUMER.CREATE.{BUCKET}.{name}.{filter}"), &body).await?;
        ensure!(made.get("error").is_none(), "a bucket cannot be watched: {}", made["error"]);
        let pending = made["num_pending"].as_u64().context("a consumer that does not say what is pending")?;
        Ok(Self { name, pending, messages })
    }

    async fn close(self, bus: &Bus) -> anyhow::Result<()> {
        api(bus, &format!("CONSUMER.DELETE.{BUCKET}.{}", self.name), &serde_json::json!({})).await?;
        Ok(())
    }
}

/// All values of a profile by a watch.
pub(crate) async fn read_by_watch(bus: &Bus, profile: u64, records: usize) -> anyhow::Result<()> {
    let values = held(bus, profile, false).await?;
    ensure!(values.len() == records && values.iter().all(|value| !value.payload.is_empty()), "a value is missing");
    Ok(())
}

/// All values of a profile by its keys, then a get of each, so many at a time.
pub(crate) async fn read_by_gets(bus: &Bus, profile: u64, records: usize, at_once: usize) -> anyhow::Result<()> {
    let found = held(bus, profile, true).await?;
    ensure!(found.len() == records, "a key is missing");
    let get = |key: Message| {
        bus.request(format!("$JS.API.DIRECT.GET.{BUCKET}.{}", key.subject), Headers::new(), Bytes::new(), PATIENCE)
    };
    let mut values = futures_util::stream::iter(found).map(get).buffered(at_once);
    while let Some(value) = values.next().await {
        ensure!(!value?.payload.is_empty(), "a value is missing");
    }
    Ok(())
}

/// All values of a profile by one request for the last message of each subject (ADR-31), which the clients' key-value
/// interfaces do not offer.
pub(crate) async fn read_by_batch(bus: &Bus, profile: u64, records: usize) -> anyhow::Result<()> {
    let inbox = bus.new_inbox();
    let mut answers = bus.subscribe(inbox.clone()).await?;
    let body = serde_json::to_vec(&serde_json::json!({ "multi_last": [filter(profile)] }))?;
    bus.send_with_reply(format!("$JS.API.DIRECT.GET.{BUCKET}"), inbox, Headers::new(), body.into()).await?;
    for _ in 0..records {
        let value = answers.next().await.context("the connection was lost for good")?;
        ensure!(!value.payload.is_empty(), "a value is missing");
    }
    Ok(())
}

/// The newest message of each key of a profile.
async fn held(bus: &Bus, profile: u64, keys_only: bool) -> anyhow::Result<Vec<Message>> {
    let mut watch = Watch::open(bus, &filter(profile), From::Last, keys_only).await?;
    let mut held = Vec::new();
    while (held.len() as u64) < watch.pending {
        held.push(watch.messages.next().await.context("the connection was lost for good")?);
    }
    watch.close(bus).await?;
    Ok(held)
}

fn filter(profile: u64) -> String {
    format!("$KV.bench.{}.{NAME}.>", keys::user(profile))
}

impl KvRoam {
    /// Connects and watches.
    pub(crate) async fn open(servers: &[String], keys: Keys) -> anyhow::Result<Self> {
        let (publishing, watching) = (connect(servers, None).await?, connect(servers, None).await?);
        let inbox = publishing.new_inbox();
        let acks = publishing.subscribe(format!("{inbox}.*")).await?.ready_chunks(CHUNK);
        let watch = Watch::open(&watching, "$KV.bench.>", From::New, false).await?;
        publishing.round_trip(PATIENCE).await?;
        Ok(Self { publishing, inbox, acks, changes: watch.messages.ready_chunks(CHUNK), keys, _watching: watching })
    }
}

impl Driver for KvRoam {
    async fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let mut value = self.keys.value();
        value[..8].copy_from_slice(&number.to_be_bytes());
        let subject = kv_subject(self.keys.spot(number));
        self.publishing
            .send_with_reply(subject, format!("{}.{number}", self.inbox), Headers::new(), value.into())
            .await?;
        Ok(())
    }

    async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
        tokio::select! {
            acks = self.acks.next() => {
                for ack in acks.context("the connection was lost for good")? {
                    ensure!(check_pub_ack(&ack)?, "the bucket is full");
                }
            }
            changes = self.changes.next() => {
                for change in changes.context("the connection was lost for good")? {
                    let number = change.payload.first_chunk::<8>().context("a value that is too short")?;
                    answers.push(Answer::Done(u64::from_be_bytes(*number)));
                }
            }
        }
        Ok(())
    }
}
