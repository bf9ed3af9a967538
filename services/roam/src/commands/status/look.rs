//! Looking at a deployment: what servers, streams and replicas say of themselves, as it is.

use std::time::Duration;

use roam_nats::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, Bus, CHANGES_STREAM, CHUNKS_STREAM, DurableReport, Finding, JOURNAL_STREAM,
    REJECTED_STREAM, StateError, StreamReport, StreamServer, changes_stream, chunks_stream, durable_report,
    journal_stream, stream_report,
};
use roam_process::clock;
use roam_schemas::{StatusReply, Timestamp};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    failure::{Failure, chain},
    operator::{Operator, expected_replicas},
};

/// For how long it is looked whether anybody asks a durable for messages: between two requests nobody does.
const ASKS_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// What was seen of a deployment.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    /// When.
    pub(super) time: Timestamp,
    /// Of which shard, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shard: Option<u16>,
    pub(super) findings: Vec<Finding>,
    /// The server that we are connected to.
    pub(super) server: ServerSeen,
    /// The servers that keep the journal; none where there is only one.
    pub(super) servers: Vec<StreamServer>,
    pub(super) streams: Vec<StreamSeen>,
    /// The changes that wait for an access server.
    pub(super) changes: DurableSeen,
    /// The batches that wait for their announcement.
    pub(super) announcements: DurableSeen,
    /// How many storage replicas there should be.
    pub(super) expected_replicas: usize,
    pub(super) replicas: Vec<ReplicaSeen>,
    /// What replicas answered that cannot say how they stand.
    pub(super) troubles: Vec<String>,
    /// The names that more than one replica has.
    pub(super) shared_names: Vec<String>,
    /// The newest backup, where one was looked for.
    pub(super) backup: Option<BackupSeen>,
    /// Why none was found.
    pub(super) backup_trouble: Option<String>,
}

/// A server.
#[derive(Debug, Serialize)]
pub(super) struct ServerSeen {
    pub(super) name: String,
    pub(super) version: String,
}

/// A stream.
#[derive(Debug, Serialize)]
pub(super) struct StreamSeen {
    pub(super) name: String,
    /// The same in every shard.
    #[serde(skip)]
    pub(super) kind: &'static str,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) max_messages: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) max_age_seconds: Option<u64>,
    pub(super) last_sequence: u64,
    /// Why nothing is known of it.
    pub(super) trouble: Option<String>,
}

/// A durable, and how many wait for what it delivers.
#[derive(Debug, Default, Serialize)]
pub(super) struct DurableSeen {
    /// How many messages it has not delivered yet.
    pub(super) waiting: u64,
    /// How many it delivered that are not done.
    pub(super) in_hand: u64,
    /// The sequence that it delivered last.
    pub(super) delivered: u64,
    /// Whether anybody asks it for messages.
    pub(super) attended: bool,
    /// Why nothing is known of it.
    pub(super) trouble: Option<String>,
}

/// A storage replica.
#[derive(Debug, Serialize)]
pub(super) struct ReplicaSeen {
    pub(super) state: State,
    /// How many entries of the journal it has not applied.
    pub(super) behind: u64,
    #[serde(flatten)]
    pub(super) status: StatusReply,
}

/// The conditions that a replica lacks while it only catches up.
const OF_ONE_BEHIND: [&str; 2] = ["journal", "respond"];

/// What a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It answers devices.
    Serving,
    /// It applies what it missed, and answers then.
    CatchingUp,
    /// It lacks something.
    NotReady,
    /// It waits for a person.
    StandsStill,
}

/// The newest backup of a repository.
#[derive(Debug, Serialize)]
pub(super) struct BackupSeen {
    pub(super) id: String,
    pub(super) created: Timestamp,
    pub(super) replica: String,
    pub(super) place: String,
}

/// Looks at everything of a shard.
///
/// # Errors
/// If not even the journal can be looked at.
pub(super) async fn look(operator: &Operator) -> Result<Seen, Failure> {
    let bus = &operator.bus;
    let journal = operator.journal().await?;
    let (name, version) = bus.server();
    let mut streams = Vec::new();
    let shard = operator.shard;
    for (kind, name) in [
        (CHANGES_STREAM, changes_stream(shard)),
        (JOURNAL_STREAM, journal_stream(shard)),
        (CHUNKS_STREAM, chunks_stream(shard)),
        (REJECTED_STREAM, REJECTED_STREAM.to_owned()),
    ] {
        let report = stream_report(bus, &name).await;
        streams.push(StreamSeen::of(kind, name, report));
    }
    let (changes, journal_of_shard) = (changes_stream(shard), journal_stream(shard));
    let (changes, announcements, replicas) = tokio::join!(
        attended(bus, &changes, ACCESS_DURABLE),
        attended(bus, &journal_of_shard, ANNOUNCE_DURABLE),
        operator.replicas(),
    );
    let replicas = replicas?;
    // Asked again: what replicas applied meanwhile is no lag.
    let end = operator.journal().await?.last_sequence;
    Ok(Seen {
        time: Timestamp::from_nanos(clock::now_ns()),
        shard: operator.number(),
        findings: Vec::new(),
        server: ServerSeen { name, version },
        expected_replicas: expected_replicas(&journal),
        servers: journal.servers,
        streams,
        changes,
        announcements,
        shared_names: replicas.shared_names().into_iter().map(ToString::to_string).collect(),
        replicas: replicas.standing.into_iter().map(|status| ReplicaSeen::of(status, end)).collect(),
        troubles: replicas.troubles,
        backup: None,
        backup_trouble: None,
    })
}

/// Looks at a durable until somebody is seen to work on it, for a while.
async fn attended(bus: &Bus, stream: &str, durable: &str) -> DurableSeen {
    let until = Instant::now() + ASKS_WITHIN;
    let mut first: Option<DurableReport> = None;
    loop {
        let report = match durable_report(bus, stream, durable).await {
            Ok(report) => report,
            Err(error) => return DurableSeen { trouble: Some(chain(&error)), ..DurableSeen::default() },
        };
        let moved = first.is_some_and(|first| first.state.delivered_count != report.state.delivered_count);
        let attended = report.asking > 0 || moved;
        if attended || Instant::now() > until {
            let state = report.state;
            let (waiting, in_hand, delivered) = (state.pending, state.unacked, state.delivered);
            return DurableSeen { waiting, in_hand, delivered, attended, trouble: None };
        }
        first.get_or_insert(report);
        sleep(PAUSE).await;
    }
}

impl StreamSeen {
    fn of(kind: &'static str, name: String, report: Result<StreamReport, StateError>) -> Self {
        match report {
            Ok(report) => Self {
                name,
                kind,
                messages: report.messages,
                bytes: report.bytes,
                max_messages: report.max_messages,
                max_bytes: report.max_bytes,
                max_age_seconds: report.max_age.map(|age| age.as_secs()),
                last_sequence: report.last_sequence,
                trouble: None,
            },
            Err(error) => Self {
                name,
                kind,
                messages: 0,
                bytes: 0,
                max_messages: None,
                max_bytes: None,
                max_age_seconds: None,
                last_sequence: 0,
                trouble: Some(chain(&error)),
            },
        }
    }
}

impl ReplicaSeen {
    pub(super) fn of(status: StatusReply, end: u64) -> Self {
        let behind = end.saturating_sub(status.position.map_or(0, |position| position.sequence));
        // A replica that is behind and lacks something else besides, such as room on its disk, does not get there by itself.
        let follows = status.missing.iter().all(|missing| OF_ONE_BEHIND.contains(&missing.condition.as_str()));
        let state = match (&status.halted, status.missing.is_empty(), behind) {
            (Some(_), _, _) => State::StandsStill,
            (None, true, _) => State::Serving,
            (None, false, 1..) if follows => State::CatchingUp,
            (None, false, _) => State::NotReady,
        };
        Self { state, behind, status }
    }
}
