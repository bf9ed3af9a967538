//! The two connections of a bench: one that publishes and hears PubAcks and receipts, one that hears notices as a
//! watching device does. What comes is read here, and told by the number of its change.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use roam_nats::{Bus, BusSettings, ConnectError, Headers, Message, SendError, SubscribeError};
use roam_schemas::{BulkReceipts, Change, Code, Kind, Notice, Outcome, Problem, Receipt, Shards, decode};
use serde::Deserialize;

use super::{
    bulks::{Bulks, Together, is_small},
    plan::{Plan, PlanError},
};

/// How long the server may take to have made the subscriptions.
const SETTLE: Duration = Duration::from_secs(5);
/// How many messages are taken at once if so many are there.
const CHUNK: usize = 512;
/// JetStream's "maximum messages exceeded", also for one subject: nothing was stored.
const FULL: u64 = 10_077;

/// Why a bench cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The system cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It cannot be listened to.
    #[error("notices and receipts cannot be listened for")]
    Subscribe(#[from] SubscribeError),
    /// A change cannot be sent.
    #[error("a change cannot be sent")]
    Send(#[from] SendError),
    /// A change cannot be made.
    #[error("a change cannot be made")]
    Plan(#[from] PlanError),
    /// A change was rejected.
    #[error("a change was rejected: {0}")]
    Rejected(Problem),
    /// The stream did not take a change, for another reason than being full.
    #[error("the stream refuses a change: {0}")]
    Refused(String),
    /// The connection was closed.
    #[error("the connection was lost for good")]
    Closed,
    /// The thread that keeps the rate could not be started.
    #[error("the rate cannot be kept")]
    Pace(#[source] std::io::Error),
    /// A histogram could not be made.
    #[error("the latencies cannot be counted")]
    Histogram(#[from] roam_measure::LatenciesError),
    /// Some of the records were not loaded.
    #[error("{changes} changes were not saved while loading")]
    NotLoaded {
        /// How many changes.
        changes: u64,
    },
    /// The profiles cannot hold so much.
    #[error("{records} records in {profiles} profiles are more than they may hold; take more profiles")]
    TooManyRecords {
        /// How many were asked for.
        records: u64,
        /// In how many profiles.
        profiles: u64,
    },
}

/// What was heard of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The stream is full; nothing was stored.
    Busy(u64),
    /// It is saved.
    Receipt(u64),
    /// A watcher was told.
    Notice(u64),
}

enum Raw {
    Ack(Message),
    Receipt(Message),
    Notice(Message),
}

/// The connections, and what comes over them.
pub(crate) struct Wire {
    publishing: Bus,
    watching: Bus,
    acks: String,
    /// What goes together; none for each change by itself.
    bulks: Option<Bulks>,
    coming: stream::BoxStream<'static, Vec<Raw>>,
}

impl Wire {
    /// Connects and listens. Without `watch` nobody listens for notices. With `bulks` changes go together, in a deployment of so many
    /// shards.
    pub(crate) async fn open(
        settings: &BusSettings,
        plan: &Plan,
        watch: bool,
        bulks: Option<Shards>,
    ) -> Result<Self, BenchError> {
        let settings = BusSettings { inbox_prefix: Some(plan.inbox_prefix()), ..settings.clone() };
        let publishing = Bus::connect(&settings, "roam-bench-publish").await?;
        let watching = Bus::connect(&settings, "roam-bench-watch").await?;
        let acks = publishing.new_inbox();
        let pub_acks = publishing.subscribe(format!("{acks}.*")).await?.map(Raw::Ack);
        let receipts = publishing.subscribe(plan.receipts()).await?.map(Raw::Receipt);
        let mut notices = stream::SelectAll::new();
        for subject in plan.notices().filter(|_| watch) {
            notices.push(watching.subscribe(subject).await?);
        }
        publishing.round_trip(SETTLE).await?;
        watching.round_trip(SETTLE).await?;
        // A set that listens to nothing would end at once, and with it everything.
        let notices = notices.map(Raw::Notice).chain(stream::pending());
        let coming = stream::select(stream::select(pub_acks, receipts), notices).ready_chunks(CHUNK).boxed();
        Ok(Self { publishing, watching, acks, bulks: bulks.map(Bulks::new), coming })
    }

    /// Publishes a change as JetStream clients do, asking for a PubAck; or keeps it until it goes together with others.
    pub(super) async fn send(
        &mut self,
        plan: &Plan,
        number: u64,
        profile: usize,
        change: Change,
    ) -> Result<(), BenchError> {
        if let Some(bulks) = &mut self.bulks
            && is_small(plan, &change)
        {
            bulks.add(plan, number, profile, change);
            return Ok(());
        }
        let (subject, payload) = plan.message(profile, &change)?;
        self.publish(plan, Together { first: number, subject, payload }).await
    }

    /// Publishes what waits and may go now.
    pub(super) async fn send_waiting(&mut self, plan: &Plan) -> Result<(), BenchError> {
        while let Some(bulks) = &mut self.bulks
            && let Some(together) = bulks.next(plan, Instant::now())?
        {
            self.publish(plan, together).await?;
        }
        Ok(())
    }

    /// Gives up on what waits, and on what has no PubAck yet.
    pub(super) fn give_up(&mut self) {
        if let Some(bulks) = &mut self.bulks {
            bulks.give_up();
        }
    }

    async fn publish(&self, plan: &Plan, together: Together) -> Result<(), BenchError> {
        let Together { first, subject, payload } = together;
        let headers = Headers::new().with_content_type(plan.encoding());
        self.publishing.send_with_reply(subject, format!("{}.{first}", self.acks), headers, payload).await?;
        Ok(())
    }

    /// Waits for something, then gives all that is there. Cancel-safe.
    pub(super) async fn hear(&mut self, plan: &Plan, heard: &mut Vec<Heard>) -> Result<(), BenchError> {
        let raw = self.coming.next().await.ok_or(BenchError::Closed)?;
        for message in raw {
            match message {
                Raw::Ack(message) => self.heard_ack(&message, heard)?,
                Raw::Receipt(message) => understand_receipts(plan, &message, heard)?,
                Raw::Notice(message) => heard.extend(understand_notice(plan, &message)),
            }
        }
        Ok(())
    }

    /// A PubAck says nothing that the receipts do not say better, unless it is a refusal; but it makes room for the next bulk.
    fn heard_ack(&mut self, message: &Message, heard: &mut Vec<Heard>) -> Result<(), BenchError> {
        let stored = understand_ack(message)?;
        let Some(first) = message.subject.rsplit('.').next().and_then(|number| number.parse().ok()) else {
            return Ok(());
        };
        let together = self.bulks.as_mut().and_then(|bulks| bulks.answered(first));
        if !stored {
            heard.extend(together.unwrap_or_else(|| vec![first]).into_iter().map(Heard::Busy));
        }
        Ok(())
    }

    /// Closes the connections.
    pub(crate) async fn close(self) {
        self.publishing.close().await;
        self.watching.close().await;
    }
}

/// The receipt of a change, or those of a bulk.
fn understand_receipts(plan: &Plan, message: &Message, heard: &mut Vec<Heard>) -> Result<(), BenchError> {
    let kind = message.headers.encoding().and_then(|encoding| Kind::peek(&message.payload, encoding));
    let receipts = match kind {
        Some(Kind::BulkReceipts) => {
            let all = read::<BulkReceipts>(message).map(|all| all.receipts).unwrap_or_default();
            all.into_iter().map(|one| one.receipt).collect()
        }
        _ => Vec::from_iter(read::<Receipt>(message)),
    };
    for Receipt { id, outcome, .. } in receipts {
        let number = id.and_then(|id| plan.number(id));
        if id.is_some() && number.is_none() {
            // It is of another run.
            continue;
        }
        match (outcome, number) {
            // A bulk that is refused as a whole names none of its changes.
            (Outcome::Rejected(problem), _) if problem.code != Code::Busy => return Err(BenchError::Rejected(problem)),
            (Outcome::Rejected(_), Some(number)) => heard.push(Heard::Busy(number)),
            (Outcome::Applied(_), Some(number)) => heard.push(Heard::Receipt(number)),
            (_, None) => {}
        }
    }
    Ok(())
}

fn understand_notice(plan: &Plan, message: &Message) -> Option<Heard> {
    read::<Notice>(message).and_then(|notice| plan.number(notice.change)).map(Heard::Notice)
}

fn read<M: roam_schemas::Message>(message: &Message) -> Option<M> {
    decode(&message.payload, message.headers.encoding()?).ok()
}

#[derive(Deserialize)]
struct PubAck {
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    err_code: u64,
    description: String,
}

/// Whether a message was stored, by its PubAck; not, if the stream is full.
fn understand_ack(message: &Message) -> Result<bool, BenchError> {
    const REFUSAL: &[u8] = b"{\"error\"";
    if message.payload.is_empty() {
        return Err(BenchError::Refused("there is none; is the system provisioned?".to_owned()));
    }
    if !message.payload.starts_with(REFUSAL) {
        return Ok(true);
    }
    let refusal = serde_json::from_slice(&message.payload).ok().and_then(|ack: PubAck| ack.error);
    match refusal {
        Some(ApiError { err_code: FULL, .. }) => Ok(false),
        Some(refusal) => Err(BenchError::Refused(refusal.description)),
        None => Err(BenchError::Refused(String::from_utf8_lossy(&message.payload).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use roam_schemas::{ChangeId, Encoding, Tenant, encode};

    use super::*;

    fn ack(payload: &str) -> Result<bool, BenchError> {
        let subject = "_INBOX.bench.$svc.bench.x.17".to_owned();
        let payload = Bytes::from(payload.to_owned());
        understand_ack(&Message { subject, reply: None, headers: Headers::new(), payload })
    }

    #[test]
    fn a_refusal_is_told_from_a_pub_ack() {
        assert!(ack(r#"{"stream":"ROAM_CHANGES","seq":4}"#).unwrap());
        let full =
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#;
        assert!(!ack(full).unwrap());
        let other =
            r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"},"stream":"S"}"#;
        assert!(ack(other).unwrap_err().to_string().contains("message size"));
        assert!(ack("").unwrap_err().to_string().contains("provisioned"));
    }

    #[test]
    fn a_bulk_that_is_refused_as_a_whole_ends_the_bench() {
        let plan = Plan::new(Tenant::parse("bench").unwrap(), 1, 0, 128, Encoding::Postcard).unwrap();
        let hear = |id, code| {
            let outcome = Outcome::Rejected(Problem::new(code, "no"));
            let payload =
                encode(&Receipt { sequence: 7, id, again: false, outcome }, Encoding::Postcard).unwrap().into();
            let (subject, headers) = (plan.receipts(), Headers::new().with_content_type(Encoding::Postcard));
            let mut heard = Vec::new();
            understand_receipts(&plan, &Message { subject, reply: None, headers, payload }, &mut heard).map(|()| heard)
        };
        let ours = Some(plan.change(3).unwrap().1.id());
        assert!(matches!(hear(None, Code::Denied), Err(BenchError::Rejected(_))));
        assert!(matches!(hear(ours, Code::Denied), Err(BenchError::Rejected(_))));
        assert_eq!(hear(ours, Code::Busy).unwrap(), [Heard::Busy(3)]);
        for (id, code) in [(None, Code::Busy), (Some(ChangeId::random()), Code::Denied)] {
            assert_eq!(hear(id, code).unwrap(), [], "{code}");
        }
    }
}
