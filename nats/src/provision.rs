//! Makes the streams and durables that Roam works with, and checks those that are there. A step of its own, with rights
//! on `$JS.API.STREAM.*` and `$JS.API.CONSUMER.*` that no service has.
//!
//! It can be run any number of times. Provisioning deletes nothing, and changes what is there in one case only: a setting
//! is as an earlier version of this program made it, which the definition names, and all else is as it should be. If a
//! setting differs in any other way, nothing is made or changed at all, and every difference is named. An operator then
//! either names the setting in [`Overrides`], or changes the stream on purpose with the tools of NATS.

mod compare;
mod definition;
mod repair;

use std::{collections::BTreeSet, time::Duration};

use roam_schemas::{Shard, Shards, limits::MAX_PAYLOAD};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) use self::definition::moved;
pub use self::{
    compare::Difference,
    definition::DefinitionError,
    repair::{CheckedConsumer, FoundConsumer, repair_consumers},
};
use self::{
    compare::differences,
    definition::{DurableDefinition, Earlier, Settings, StreamDefinition, definitions, definitions_of_auth},
};
use crate::{
    Bus, JOURNAL_STREAM, OLDEST_SERVER, REJECTED_STREAM, RequestError, ServerVersion,
    streams::{
        api::{self, ApiError, Refusal, code},
        in_shard, shards_of,
    },
};

/// Metadata of all streams: the version of what these definitions and the messages in the streams mean.
pub const STREAM_FORMAT_KEY: &str = "roam.format";
/// The version that this program makes and works with.
pub const STREAM_FORMAT: &str = "1";
/// Metadata of the journal: how many storage replicas the deployment has, as a decimal number. With one, a replica that
/// finds the journal rolled back may go on by itself; with several, a person decides.
pub const STORAGE_REPLICAS_KEY: &str = "roam.storage_replicas";

/// Metadata of the streams of a deployment that is split, and of ROAM_REJECTED: over how many shards, as a decimal number.
/// Without it there is one. It never changes: users would be looked for elsewhere than where they are.
pub const SHARDS_KEY: &str = "roam.shards";

/// Metadata of the chunks: for how long a chunk stays that no record needs, in whole seconds as a decimal number.
pub const CHUNK_GRACE_KEY: &str = "roam.chunk_grace_seconds";
/// How long that is unless a deployment says otherwise: two days.
pub const CHUNK_GRACE_SECONDS: u64 = 2 * 24 * 3600;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a cluster may take to have a leader and all its servers.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be provisioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// On how many servers every stream is kept: 1 on one machine, 3 in a cluster.
    pub replicas_of_streams: usize,
    /// How many storage replicas fold the journal of each shard, at least 1. Kept in the journal's metadata.
    pub storage_replicas: usize,
    /// Over how many shards it is split: once it is provisioned, for ever.
    pub shards: Shards,
    /// Where this deployment differs from the definitions.
    pub overrides: Overrides,
}

/// Settings that depend on the machine instead of on the design. `None` leaves what the definitions say. Where there are
/// several shards, these are for the streams of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// How many changes may wait for an access server (60,000). About two seconds of what the machine can do.
    pub changes_max_messages: Option<u64>,
    /// How many bytes of changes may wait (1 GiB).
    pub changes_max_bytes: Option<u64>,
    /// For how many days the journal is kept (7).
    pub journal_days: Option<u32>,
    /// How many bytes of journal are kept at most (8 GiB). JetStream sets this much of the disk aside.
    pub journal_max_bytes: Option<u64>,
    /// How many bytes of rejected changes are kept at most (1 GiB).
    pub rejected_max_bytes: Option<u64>,
    /// How many bytes of backups the bucket takes (4 GiB), which are set aside too; 0: there is no bucket.
    pub backups_max_bytes: Option<u64>,
    /// How many bytes of audit are kept at most (1 GiB).
    pub audit_max_bytes: Option<u64>,
    /// How many bytes of tokens are kept at most (256 MiB). A full stream takes no new token.
    pub tokens_max_bytes: Option<u64>,
    /// How many bytes of chunks of large values are kept at most (2 GiB).
    pub chunks_max_bytes: Option<u64>,
    /// For how many seconds a chunk stays that no record needs (two days). A client has half of that from its upload to
    /// the change that needs it.
    pub chunk_grace_seconds: Option<u64>,
}

/// What provisioning did. Objects are named `stream NAME` and `consumer STREAM/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was made.
    pub created: Vec<String>,
    /// What was as an earlier version made it, and is now as it should be.
    pub updated: Vec<String>,
    /// What was there already, as it should be.
    pub unchanged: Vec<String>,
}

/// Nothing, or not everything, was provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A number of replicas makes no sense. Mend the deployment.
    #[error("{setting} is {found}, and has to be {allowed}")]
    Replicas {
        /// Which number.
        setting: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        allowed: &'static str,
    },
    /// The server takes too small messages. Mend its configuration.
    #[error("max_payload of the server is {found} bytes, and has to be at least {needed}: set it in its configuration")]
    MaxPayload {
        /// What the server has.
        found: usize,
        /// What it has to have.
        needed: usize,
    },
    /// The server is too old, or its version cannot be read.
    #[error("the server is nats-server {found}, and has to be {OLDEST_SERVER} or newer")]
    TooOld {
        /// What it says it is.
        found: String,
    },
    /// Something is there and differs. Nothing was made.
    #[error("what is provisioned differs from what should be:{}", lines(.0))]
    Drift(Vec<Difference>),
    /// The server has not so much disk left as a stream sets aside. Take less, or make room.
    #[error("{stream} sets {wanted} bytes of the server's disk aside, and it has not so much left: {}", .source.description)]
    NoRoom {
        /// The stream.
        stream: String,
        /// How many bytes it sets aside.
        wanted: u64,
        /// The server's words.
        source: Refusal,
    },
    /// The server refuses to tell about or to make an object. Its reason says what to mend.
    #[error("the server refuses {object}")]
    Refused {
        /// Which object.
        object: String,
        /// The server's words.
        source: Refusal,
    },
    /// We may not. Mend the credentials.
    #[error("provisioning {object} is denied: it takes rights on $JS.API.STREAM.* and $JS.API.CONSUMER.*")]
    Denied {
        /// Which object.
        object: String,
    },
    /// JetStream did not answer: it is off, has no leader, or denies without saying so. Try again.
    #[error("JetStream does not answer for {object}; is it enabled, and may this user provision?")]
    Unavailable {
        /// Which object.
        object: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This program is broken.
    #[error("a definition in this program is broken")]
    Definition(#[from] DefinitionError),
}

impl Deployment {
    /// A deployment of one shard, without overrides.
    pub fn new(replicas_of_streams: usize, storage_replicas: usize) -> Deployment {
        let (shards, overrides) = (Shards::ONE, Overrides::default());
        Deployment { replicas_of_streams, storage_replicas, shards, overrides }
    }

    fn check(&self) -> Result<(), ProvisionError> {
        let wrong = |setting, found, allowed| Err(ProvisionError::Replicas { setting, found, allowed });
        match (self.replicas_of_streams, self.storage_replicas) {
            (1 | 3, 1..) => Ok(()),
            (1 | 3, found) => wrong("the number of storage replicas", found, "at least 1"),
            (found, _) => wrong("the number of replicas of streams", found, "1 or 3"),
        }
    }
}

/// Makes what is missing, after making sure that what is there is as it should be, or as an earlier version made it.
pub async fn provision(bus: &Bus, deployment: &Deployment) -> Result<Report, ProvisionError> {
    deployment.check()?;
    check_server(bus)?;
    same_shards(bus, deployment).await?;
    make(bus, deployment, definitions(deployment)?).await
}

/// The same for what a deployment with an auth service has besides, in an account of its own: tokens and audit.
pub async fn provision_auth(bus: &Bus, deployment: &Deployment) -> Result<Report, ProvisionError> {
    make(bus, deployment, definitions_of_auth(deployment)?).await
}

/// Whether what is there, if anything is, is split over as many shards.
async fn same_shards(bus: &Bus, deployment: &Deployment) -> Result<(), ProvisionError> {
    // Of each deployment at least one of these is there, unless somebody deleted all of them.
    let names =
        [REJECTED_STREAM.to_owned(), JOURNAL_STREAM.to_owned(), in_shard(JOURNAL_STREAM, Shard::FIRST_OF_SEVERAL)];
    for name in names {
        let settings = Settings::from_iter([("name".to_owned(), json!(name))]);
        let object = Object::stream(StreamDefinition { name, settings, earlier: Earlier::new(), durables: Vec::new() });
        let Some(found) = patiently(&object, || object.read(bus)).await? else { continue };
        let metadata = found.get("metadata").cloned().unwrap_or_default();
        let metadata = serde_json::from_value(metadata).unwrap_or_default();
        let (expected, found) = (deployment.shards, shards_of(&metadata));
        if expected != found {
            let [expected, found] = [expected, found].map(|shards| shards.get().to_string());
            let setting = "the number of shards, which never changes,".to_owned();
            return Err(ProvisionError::Drift(vec![Difference { object: object.name, setting, expected, found }]));
        }
    }
    Ok(())
}

/// How what is there differs from what should be, and what is missing. Makes nothing.
pub(crate) async fn check(
    bus: &Bus,
    deployment: &Deployment,
) -> Result<(Vec<Difference>, BTreeSet<String>), ProvisionError> {
    let mut missing = BTreeSet::new();
    let mut drift = Vec::new();
    for object in objects(definitions(deployment)?) {
        match look(bus, &object).await? {
            Standing::Missing => drop(missing.insert(object.name)),
            Standing::Right => {}
            Standing::Earlier { differences, .. } | Standing::Differs(differences) => drift.extend(differences),
        }
    }
    Ok((drift, missing))
}

/// How an object is found.
enum Standing {
    Missing,
    Right,
    /// An earlier version made it: how it differs, and all settings as they should be.
    Earlier {
        differences: Vec<Difference>,
        mended: Settings,
    },
    Differs(Vec<Difference>),
}

async fn look(bus: &Bus, object: &Object) -> Result<Standing, ProvisionError> {
    let Some(found) = patiently(object, || object.read(bus)).await? else { return Ok(Standing::Missing) };
    let differences = differences(&object.name, &object.settings, &found);
    Ok(match object.mended(&differences, found) {
        _ if differences.is_empty() => Standing::Right,
        Some(mended) => Standing::Earlier { differences, mended },
        None => Standing::Differs(differences),
    })
}

async fn make(
    bus: &Bus,
    deployment: &Deployment,
    definitions: Vec<StreamDefinition>,
) -> Result<Report, ProvisionError> {
    deployment.check()?;
    check_server(bus)?;
    let objects = objects(definitions);
    let mut drift = Vec::new();
    let mut found = Vec::new();
    for object in objects {
        match look(bus, &object).await? {
            Standing::Differs(differences) => drift.extend(differences),
            standing => found.push((object, standing)),
        }
    }
    if !drift.is_empty() {
        return Err(ProvisionError::Drift(drift));
    }
    let mut report = Report::default();
    for (object, standing) in found {
        let (made, told) = match standing {
            Standing::Missing => (patiently(&object, || object.create(bus)).await?, &mut report.created),
            Standing::Earlier { mended, .. } => {
                (patiently(&object, || object.update(bus, &mended)).await?, &mut report.updated)
            }
            Standing::Right | Standing::Differs(_) => {
                report.unchanged.push(object.name);
                continue;
            }
        };
        drift.extend(differences(&object.name, &object.settings, &made));
        told.push(object.name);
    }
    // What was just made can differ too: if the server filled in something of its own.
    if drift.is_empty() { Ok(report) } else { Err(ProvisionError::Drift(drift)) }
}

fn check_server(bus: &Bus) -> Result<(), ProvisionError> {
    let server = bus.client().server_info();
    if server.max_payload < MAX_PAYLOAD {
        return Err(ProvisionError::MaxPayload { found: server.max_payload, needed: MAX_PAYLOAD });
    }
    match ServerVersion::parse(&server.version) {
        Some(version) if version >= OLDEST_SERVER => Ok(()),
        _ => Err(ProvisionError::TooOld { found: server.version }),
    }
}

/// A stream or a durable, with all that is needed to ask for it and to make it.
struct Object {
    name: String,
    settings: Settings,
    earlier: Earlier,
    read_subject: String,
    create_subject: String,
    create_body: Value,
    update_subject: String,
    not_found: u64,
}

/// Streams and their durables, each stream before its durables.
fn objects(streams: Vec<StreamDefinition>) -> Vec<Object> {
    let of_stream = |stream: StreamDefinition| {
        let durables: Vec<_> = stream.durables.iter().map(|durable| Object::durable(&stream.name, durable)).collect();
        [Object::stream(stream)].into_iter().chain(durables)
    };
    streams.into_iter().flat_map(of_stream).collect()
}

impl Object {
    fn stream(stream: StreamDefinition) -> Object {
        Object {
            name: format!("stream {}", stream.name),
            read_subject: format!("STREAM.INFO.{}", stream.name),
            create_subject: format!("STREAM.CREATE.{}", stream.name),
            create_body: Value::Object(stream.settings.clone()),
            update_subject: format!("STREAM.UPDATE.{}", stream.name),
            earlier: stream.earlier,
            settings: stream.settings,
            not_found: code::STREAM_NOT_FOUND,
        }
    }

    fn durable(stream: &str, durable: &DurableDefinition) -> Object {
        let DurableDefinition { name, settings } = durable;
        Object {
            name: format!("consumer {stream}/{name}"),
            read_subject: format!("CONSUMER.INFO.{stream}.{name}"),
            create_subject: format!("CONSUMER.CREATE.{stream}.{name}"),
            // `create` fails if there is one with other settings, instead of changing it.
            create_body: json!({ "stream_name": stream, "action": "create", "config": settings }),
            // Durables are as they always were.
            update_subject: String::new(),
            earlier: Earlier::new(),
            settings: settings.clone(),
            not_found: code::CONSUMER_NOT_FOUND,
        }
    }

    /// The settings that the server has, `None` if there is no such object. A durable of a stream that is not there
    /// itself is not there either.
    async fn read(&self, bus: &Bus) -> Result<Option<Settings>, ApiError> {
        let answer: Result<Described, _> = api::call(bus, &self.read_subject, &json!({}), ANSWER_WITHIN).await;
        match answer {
            Ok(described) => Ok(Some(described.config)),
            Err(ApiError::Refused(refusal)) if [self.not_found, code::STREAM_NOT_FOUND].contains(&refusal.err_code) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes it. Returns the settings that the server gave it.
    async fn create(&self, bus: &Bus) -> Result<Settings, ApiError> {
        let made: Described = api::call(bus, &self.create_subject, &self.create_body, ANSWER_WITHIN).await?;
        Ok(made.config)
    }

    /// Changes it. Returns the settings that it then has.
    async fn update(&self, bus: &Bus, settings: &Settings) -> Result<Settings, ApiError> {
        let updated: Described = api::call(bus, &self.update_subject, settings, ANSWER_WITHIN).await?;
        Ok(updated.config)
    }

    /// What was found with the settings put right, if it differs in nothing but what an earlier version made.
    fn mended(&self, differences: &[Difference], mut found: Settings) -> Option<Settings> {
        for Difference { setting, .. } in differences {
            let value = found.get_mut(setting)?;
            if !self.earlier.get(setting)?.contains(value) {
                return None;
            }
            *value = self.settings.get(setting)?.clone();
        }
        Some(found)
    }

    fn failed(&self, error: ApiError) -> ProvisionError {
        let object = self.name.clone();
        let room = self.settings.get("max_bytes").and_then(Value::as_u64);
        match (error, room) {
            (ApiError::Refused(source), Some(wanted))
                if [code::NO_RESOURCES, code::NO_STORAGE].contains(&source.err_code) =>
            {
                let stream = object.trim_start_matches("stream ").to_owned();
                ProvisionError::NoRoom { stream, wanted, source }
            }
            (error, _) => refused(object, error),
        }
    }
}

fn refused(object: String, error: ApiError) -> ProvisionError {
    match error {
        ApiError::Refused(source) => ProvisionError::Refused { object, source },
        ApiError::Request(RequestError::Denied) => ProvisionError::Denied { object },
        other => ProvisionError::Unavailable { object, source: other.into() },
    }
}

#[derive(Deserialize)]
struct Described {
    config: Settings,
}

/// Asks again while the answer is one that a cluster gives until it has settled.
async fn patiently<T>(object: &Object, ask: impl AsyncFn() -> Result<T, ApiError>) -> Result<T, ProvisionError> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if passes(&error) && Instant::now() < deadline => sleep(PAUSE).await,
            Err(error) => return Err(object.failed(error)),
        }
    }
}

fn passes(error: &ApiError) -> bool {
    match error {
        ApiError::Request(error) => matches!(error, RequestError::NoResponders | RequestError::TimedOut),
        ApiError::Refused(refusal) => {
            matches!(refusal.err_code, code::TEMPORARILY_UNAVAILABLE | code::NO_SUITABLE_PEERS)
        }
        ApiError::Malformed(_) => false,
    }
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}
