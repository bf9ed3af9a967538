//! The streams and durables as the data files in `nats/streams/` define them, in the words of the JetStream API. Never
//! talks to a server.

use std::{collections::BTreeMap, time::Duration};

use roam_schemas::{Shard, Shards, subjects};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    CHUNK_GRACE_KEY, CHUNK_GRACE_SECONDS, Deployment, SHARDS_KEY, STORAGE_REPLICAS_KEY, STREAM_FORMAT,
    STREAM_FORMAT_KEY,
};
use crate::streams::in_shard;

/// The body of a configuration: settings by the names that the JetStream API gives them.
pub(crate) type Settings = Map<String, Value>;

const CHANGES: &str = include_str!("../../streams/changes.toml");
const JOURNAL: &str = include_str!("../../streams/journal.toml");
const CHUNKS: &str = include_str!("../../streams/chunks.toml");
const REJECTED: &str = include_str!("../../streams/rejected.toml");
const TERMS: &str = include_str!("../../streams/terms.toml");
const BACKUPS: &str = include_str!("../../streams/backups.toml");
const TOKENS: &str = include_str!("../../streams/tokens.toml");
const AUDIT: &str = include_str!("../../streams/audit.toml");

/// Settings that are durations: nanoseconds for the server, text in the files.
const DURATIONS: [&str; 5] = ["max_age", "duplicate_window", "ack_wait", "inactive_threshold", "priority_timeout"];
/// Units of durations in nanoseconds, the longest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("ns", 1),
];

/// A definition file is not as it has to be. No released program can meet this: the files are part of it, and tested.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is no TOML, or has other parts than `[stream]`, `[earlier]` and `[[consumer]]`.
    #[error("the definition is malformed")]
    Malformed(#[from] toml::de::Error),
    /// A duration cannot be read.
    #[error("{setting} is no duration: {value}")]
    Duration {
        /// Which setting.
        setting: String,
        /// What it is.
        value: String,
    },
    /// A stream or a durable has no name.
    #[error("{setting} is missing")]
    Nameless {
        /// The setting that holds the name.
        setting: &'static str,
    },
}

/// What earlier versions of this program gave some settings, by their names.
pub(crate) type Earlier = BTreeMap<String, Vec<Value>>;

/// One stream and the durables on it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StreamDefinition {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) earlier: Earlier,
    pub(crate) durables: Vec<DurableDefinition>,
}

/// One durable consumer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DurableDefinition {
    pub(crate) name: String,
    pub(crate) settings: Settings,
}

/// A definition file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stream: Settings,
    #[serde(default)]
    earlier: Earlier,
    #[serde(default)]
    consumer: Vec<Settings>,
}

/// What the account ROAM of a deployment has: all streams, in the order in which they are made.
pub(crate) fn definitions(deployment: &Deployment) -> Result<Vec<StreamDefinition>, DefinitionError> {
    let mut changes = StreamDefinition::parse(CHANGES)?;
    let mut journal = StreamDefinition::parse(JOURNAL)?;
    let mut rejected = StreamDefinition::parse(REJECTED)?;
    let mut terms = StreamDefinition::parse(TERMS)?;
    let mut backups = StreamDefinition::parse(BACKUPS)?;
    let mut chunks = StreamDefinition::parse(CHUNKS)?;

    let overrides = &deployment.overrides;
    let journal_age = overrides.journal_days.map(|days| u64::from(days).saturating_mul(UNITS[0].1));
    changes.replace("max_msgs", overrides.changes_max_messages);
    for (stream, bytes) in [
        (&mut changes, overrides.changes_max_bytes),
        (&mut journal, overrides.journal_max_bytes),
        (&mut chunks, overrides.chunks_max_bytes),
    ] {
        stream.share("max_bytes", deployment.shards);
        stream.replace("max_bytes", bytes);
    }
    journal.replace("max_age", journal_age);
    rejected.replace("max_bytes", overrides.rejected_max_bytes);
    backups.replace("max_bytes", overrides.backups_max_bytes);

    for stream in [&mut changes, &mut journal, &mut rejected, &mut chunks, &mut terms, &mut backups] {
        stream.belong_to(deployment);
    }
    rejected.say_shards(deployment);
    // Only the journal says how many replicas fold it: they are the ones who ask.
    journal.settings["metadata"][STORAGE_REPLICAS_KEY] = json!(deployment.storage_replicas.to_string());
    // All replicas must go by one grace: whoever promises that a chunk stays is another than who removes it.
    let grace = overrides.chunk_grace_seconds.unwrap_or(CHUNK_GRACE_SECONDS);
    chunks.settings["metadata"][CHUNK_GRACE_KEY] = json!(grace.to_string());
    let mut streams = Vec::new();
    for stream in [changes, journal] {
        streams.extend(deployment.shards.each().map(|shard| stream.in_shard(shard)));
    }
    streams.push(rejected);
    streams.extend(deployment.shards.each().map(|shard| chunks.in_shard(shard)));
    streams.push(terms);
    if overrides.backups_max_bytes != Some(0) {
        streams.push(backups);
    }
    Ok(streams)
}

/// What the account AUTH of a deployment has.
pub(crate) fn definitions_of_auth(deployment: &Deployment) -> Result<Vec<StreamDefinition>, DefinitionError> {
    let mut tokens = StreamDefinition::parse(TOKENS)?;
    let mut audit = StreamDefinition::parse(AUDIT)?;
    tokens.replace("max_bytes", deployment.overrides.tokens_max_bytes);
    audit.replace("max_bytes", deployment.overrides.audit_max_bytes);
    for stream in [&mut tokens, &mut audit] {
        stream.belong_to(deployment);
    }
    Ok(vec![tokens, audit])
}

/// A value for people: durations in their longest whole unit, the rest as in JSON, `unset` for nothing.
pub(crate) fn shown(setting: &str, value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if DURATIONS.contains(&setting) => {
            number.as_u64().map_or(number.to_string(), write_duration)
        }
        other => other.to_string(),
    }
}

impl StreamDefinition {
    fn parse(text: &str) -> Result<StreamDefinition, DefinitionError> {
        let mut file: File = toml::from_str(text)?;
        read_durations(&mut file.stream)?;
        for (setting, values) in &mut file.earlier {
            values.iter_mut().try_for_each(|value| read_in_place(setting, value))?;
        }
        let name = name_in(&file.stream, "name")?;
        let durables = file.consumer.into_iter().map(DurableDefinition::new).collect::<Result<_, _>>()?;
        Ok(StreamDefinition { name, settings: file.stream, earlier: file.earlier, durables })
    }

    fn belong_to(&mut self, deployment: &Deployment) {
        self.settings.insert("num_replicas".to_owned(), json!(deployment.replicas_of_streams));
        self.settings.insert("metadata".to_owned(), json!({ STREAM_FORMAT_KEY: STREAM_FORMAT }));
    }

    /// Notes how many shards the deployment has, if there are several. One is what a stream without the note has.
    fn say_shards(&mut self, deployment: &Deployment) {
        if !deployment.shards.is_one() {
            self.settings["metadata"][SHARDS_KEY] = json!(deployment.shards.get().to_string());
        }
    }

    /// The same stream in a shard: the name and the subjects say which.
    fn in_shard(&self, shard: Shard) -> StreamDefinition {
        let mut stream = self.clone();
        if shard.is_only() {
            return stream;
        }
        stream.name = in_shard(&self.name, shard);
        stream.settings.insert("name".to_owned(), json!(stream.name));
        stream.settings["metadata"][SHARDS_KEY] = json!(shard.shards().get().to_string());
        if let Some(Value::Array(subjects)) = stream.settings.get_mut("subjects") {
            for subject in subjects {
                if let Value::String(text) = subject {
                    *text = moved(shard, text);
                }
            }
        }
        stream
    }

    /// The shards have that much together, unless another size is asked for each.
    fn share(&mut self, setting: &str, shards: Shards) {
        if let Some(whole) = self.settings.get(setting).and_then(Value::as_u64) {
            self.settings.insert(setting.to_owned(), json!(whole / u64::from(shards.get())));
        }
    }

    fn replace(&mut self, setting: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.settings.insert(setting.to_owned(), json!(value));
        }
    }
}

impl DurableDefinition {
    fn new(mut settings: Settings) -> Result<DurableDefinition, DefinitionError> {
        read_durations(&mut settings)?;
        let name = name_in(&settings, "durable_name")?;
        // The server wants the name twice, and gives it back twice.
        settings.insert("name".to_owned(), json!(name));
        Ok(DurableDefinition { name, settings })
    }
}

/// A subject of a stream, or one in permissions, as it stands in a shard.
pub(crate) fn moved(shard: Shard, subject: &str) -> String {
    match subject.strip_prefix(&subjects::journal(Shard::ONLY)) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => format!("{}{rest}", subjects::journal(shard)),
        _ => subjects::in_shard(shard, subject),
    }
}

fn name_in(settings: &Settings, setting: &'static str) -> Result<String, DefinitionError> {
    let name = settings.get(setting).and_then(Value::as_str);
    name.map(str::to_owned).ok_or(DefinitionError::Nameless { setting })
}

/// Turns durations from text into nanoseconds.
fn read_durations(settings: &mut Settings) -> Result<(), DefinitionError> {
    settings.iter_mut().try_for_each(|(setting, value)| read_in_place(setting, value))
}

/// The same for one value.
fn read_in_place(setting: &str, value: &mut Value) -> Result<(), DefinitionError> {
    if let Value::String(text) = value
        && DURATIONS.contains(&setting)
    {
        let malformed = || DefinitionError::Duration { setting: setting.to_owned(), value: text.clone() };
        *value = json!(read_duration(text).ok_or_else(malformed)?);
    }
    Ok(())
}

/// Reads one number with one unit, such as `100ms`.
fn read_duration(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*nanoseconds)
}

fn write_duration(nanoseconds: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| nanoseconds.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) if nanoseconds > 0 => format!("{}{name}", nanoseconds / unit),
        _ => format!("{:?}", Duration::from_nanos(nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        ACCESS_DURABLE, ANNOUNCE_DURABLE, AUDIT_STREAM, BACKUPS_BUCKET, CHANGES_STREAM, CHUNKS_STREAM, JOURNAL_STREAM,
        REJECTED_STREAM, TERMS_STREAM, TOKENS_STREAM, provision::Overrides,
    };

    fn every(deployment: &Deployment) -> Vec<StreamDefinition> {
        [definitions(deployment).unwrap(), definitions_of_auth(deployment).unwrap()].concat()
    }

    #[test]
    fn the_files_define_streams_and_their_durables() {
        let streams = every(&Deployment::new(1, 2));
        let names: Vec<_> = streams
            .iter()
            .map(|stream| (stream.name.as_str(), stream.durables.iter().map(|durable| durable.name.as_str()).collect()))
            .collect();
        let expected: Vec<(&str, Vec<&str>)> = vec![
            (CHANGES_STREAM, vec![ACCESS_DURABLE]),
            (JOURNAL_STREAM, vec![ANNOUNCE_DURABLE]),
            (REJECTED_STREAM, vec![]),
            (CHUNKS_STREAM, vec![]),
            (TERMS_STREAM, vec![]),
            ("OBJ_ROAM_BACKUPS", vec![]),
            (TOKENS_STREAM, vec![]),
            (AUDIT_STREAM, vec![]),
        ];
        assert_eq!(names, expected);
        assert_eq!(streams[0].settings["metadata"], json!({"roam.format": "1"}));
        assert_eq!(streams[1].settings["metadata"], json!({"roam.format": "1", "roam.storage_replicas": "2"}));
        assert_eq!(streams[3].settings["metadata"], json!({"roam.chunk_grace_seconds": "172800", "roam.format": "1"}));
        assert_eq!(streams[1].durables[0].settings["priority_groups"], json!([ANNOUNCE_DURABLE]));
        assert_eq!(streams[1].settings["max_age"], json!(7 * 86_400_000_000_000_u64));
        assert_eq!(streams[0].durables[0].settings["ack_wait"], json!(5_000_000_000_u64));
    }

    #[test]
    fn each_stream_takes_the_subjects_that_are_published_into_it() {
        let streams = every(&Deployment::new(1, 1));
        let subjects: Vec<_> = streams.iter().map(|stream| &stream.settings["subjects"]).collect();
        let expected = [
            json!([subjects::ALL_CHANGES]),
            json!([subjects::journal(Shard::ONLY), subjects::journal_control(Shard::ONLY)]),
            json!([subjects::ALL_REJECTED]),
            json!([subjects::ALL_UPLOADS, subjects::ALL_KEPT]),
            json!([subjects::TERMS]),
            json!([format!("$O.{BACKUPS_BUCKET}.C.>"), format!("$O.{BACKUPS_BUCKET}.M.>")]),
            json!([subjects::ALL_TOKENS]),
            json!([subjects::ALL_AUDIT]),
        ];
        assert_eq!(subjects, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn overrides_replace_what_the_files_say() {
        let overrides = Overrides {
            changes_max_messages: Some(1),
            changes_max_bytes: Some(2),
            journal_days: Some(3),
            journal_max_bytes: Some(4),
            rejected_max_bytes: Some(5),
            chunks_max_bytes: Some(9),
            chunk_grace_seconds: Some(7),
            backups_max_bytes: Some(8),
            audit_max_bytes: Some(6),
            tokens_max_bytes: Some(7),
        };
        let streams = every(&Deployment { overrides, ..Deployment::new(3, 1) });
        assert_eq!(streams[0].settings["max_msgs"], json!(1));
        assert_eq!(streams[0].settings["max_bytes"], json!(2));
        assert_eq!(streams[1].settings["max_age"], json!(3 * 86_400_000_000_000_u64));
        assert_eq!(streams[1].settings["max_bytes"], json!(4));
        assert_eq!(streams[2].settings["max_bytes"], json!(5));
        assert_eq!(streams[3].settings["max_bytes"], json!(9));
        assert_eq!(streams[3].settings["metadata"]["roam.chunk_grace_seconds"], json!("7"));
        assert_eq!(streams[5].settings["max_bytes"], json!(8));
        assert_eq!(streams[6].settings["max_bytes"], json!(7));
        assert_eq!(streams[7].settings["max_bytes"], json!(6));
        assert!(streams.iter().all(|stream| stream.settings["num_replicas"] == json!(3)));
    }

    #[test]
    fn each_shard_has_streams_of_its_own() {
        let shards = Shards::new(2).unwrap();
        let streams = definitions(&Deployment { shards, ..Deployment::new(1, 2) }).unwrap();
        let found: Vec<_> = streams.iter().map(|stream| (stream.name.as_str(), &stream.settings["subjects"])).collect();
        let bucket = json!([format!("$O.{BACKUPS_BUCKET}.C.>"), format!("$O.{BACKUPS_BUCKET}.M.>")]);
        let expected = [
            ("ROAM_CHANGES_0", &json!(["roam.v1.s.0.change.>"])),
            ("ROAM_CHANGES_1", &json!(["roam.v1.s.1.change.>"])),
            ("ROAM_JOURNAL_0", &json!(["roam.v1.journal.0", "roam.v1.journal.0.control"])),
            ("ROAM_JOURNAL_1", &json!(["roam.v1.journal.1", "roam.v1.journal.1.control"])),
            (REJECTED_STREAM, &json!([subjects::ALL_REJECTED])),
            ("ROAM_CHUNKS_0", &json!(["roam.v1.s.0.upload.*.*", "roam.v1.s.0.kept.*.*"])),
            ("ROAM_CHUNKS_1", &json!(["roam.v1.s.1.upload.*.*", "roam.v1.s.1.kept.*.*"])),
            (TERMS_STREAM, &json!([subjects::TERMS])),
            ("OBJ_ROAM_BACKUPS", &bucket),
        ];
        assert_eq!(found, expected);
        for stream in &streams[..7] {
            assert_eq!(stream.settings["name"], json!(stream.name));
            assert_eq!(stream.settings["metadata"][SHARDS_KEY], json!("2"), "{}", stream.name);
        }
        assert_eq!(streams[3].settings["metadata"][STORAGE_REPLICAS_KEY], json!("2"));
        assert_eq!(streams[1].durables, streams[0].durables);
    }

    #[test]
    fn a_deployment_may_do_without_the_bucket() {
        let overrides = Overrides { backups_max_bytes: Some(0), ..Overrides::default() };
        assert_eq!(definitions(&Deployment { overrides, ..Deployment::new(1, 1) }).unwrap().len(), 5);
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, nanoseconds) in
            [("100ms", 100_000_000), ("5s", 5_000_000_000), ("7d", 604_800_000_000_000), ("17ns", 17)]
        {
            assert_eq!(read_duration(text), Some(nanoseconds), "{text}");
            assert_eq!(write_duration(nanoseconds), text);
        }
        for text in ["", "5", "s", "5 s", "-5s", "5w", "1s5ms", "99999999999999d"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
        assert_eq!(write_duration(90_000_000_000), "90s");
        assert_eq!(write_duration(0), "0ns");
    }

    #[test]
    fn a_file_with_anything_else_is_refused() {
        for (text, reason) in [
            ("[stream]\nname = 'A'\n[streams]", "malformed"),
            ("[stream]\nmax_age = '7d'", "name is missing"),
            ("[stream]\nname = 'A'\nmax_age = '7 days'", "max_age is no duration: 7 days"),
            ("[stream]\nname = 'A'\n[earlier]\nmax_age = ['7 days']", "max_age is no duration: 7 days"),
            ("[stream]\nname = 'A'\n[[consumer]]\nack_wait = '1s'", "durable_name is missing"),
        ] {
            let error = StreamDefinition::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
