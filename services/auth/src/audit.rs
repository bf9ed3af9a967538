//! Who did what, into ROAM_AUDIT. It never holds anybody up: what does not fit into the queue is counted and lost. No
//! token and no payload is in it.

use std::convert::Infallible;

use roam_nats::{
    AUDIT_STREAM, Bus, Entry, Headers, JournalReader, PublishError, PublishSettings, Publisher, stream_state,
};
use roam_schemas::{BatchId, Control, Encoding, Grant, Tenant, TokenId, subjects};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::{RecordError, answer::Asker, metrics::Metrics};

/// How many events wait at most.
const QUEUE: usize = 4_096;
/// How many events are stored at once.
const GROUP: usize = 256;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum AuditEvent {
    /// Somebody was let in.
    SignedIn {
        /// With this token.
        token: TokenId,
        /// As this.
        grant: Grant,
        /// Until then, in seconds since 1970. Older entries do not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<u64>,
        /// From there.
        client: AuditClient,
    },
    /// Somebody was not let in.
    Refused {
        /// Why, in one word.
        reason: String,
        /// From there.
        client: AuditClient,
    },
    /// A connection was ended because its token is revoked.
    Ended {
        /// The token.
        token: TokenId,
    },
    /// A token was made.
    TokenCreated {
        /// The token.
        token: TokenId,
        /// For this.
        grant: Grant,
        /// Until then, in seconds since 1970.
        expires: u64,
        /// By whom, as the tool says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A token was revoked.
    TokenRevoked {
        /// The token.
        token: TokenId,
        /// Who was its bearer.
        grant: Grant,
        /// By whom, as the tool says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// An operator ordered something in the journal.
    Ordered {
        /// The order.
        id: BatchId,
        /// What.
        order: Control,
        /// By whom, as the tool says it. A replica that begins a line or an epoch by itself says nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The sequence of the order in the journal.
        sequence: u64,
    },
    /// An access server began to go by other terms, quotas or rates than those before.
    QuotaChanged {
        /// The entry of ROAM_TERMS that tells it.
        id: BatchId,
        /// For the users of this tenant alone; none for those of all tenants that have none of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant: Option<Tenant>,
        /// What changed.
        changes: Vec<QuotaChange>,
        /// The host of the access server, as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

/// A number that users are bound by, and was another one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaChange {
    /// What it is called in the settings of access servers.
    pub setting: String,
    /// What held before; none if that was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// What holds now; none if it is told no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Where somebody connects from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditClient {
    /// The address.
    pub host: String,
    /// The NATS server.
    pub server: String,
    /// The number of the connection on that server.
    pub connection: u64,
}

/// An event as it is stored. When it happened is when the stream took it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The event.
    pub audit_v1: AuditEvent,
}

/// Where events are handed in. Clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<AuditEvent>,
    metrics: Metrics,
}

/// Stores events.
pub(crate) struct Teller {
    queue: mpsc::Receiver<AuditEvent>,
    publisher: Publisher,
    metrics: Metrics,
}

/// A queue and the one who works it off.
pub(crate) fn auditor(bus: &Bus, metrics: Metrics) -> (Audit, Teller) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let publisher = Publisher::new(bus, PublishSettings::default());
    (Audit { queue: sender, metrics: metrics.clone() }, Teller { queue: receiver, publisher, metrics })
}

impl AuditEvent {
    /// The last token of its subject.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::SignedIn { .. } => "signed_in",
            Self::Refused { .. } => "refused",
            Self::Ended { .. } => "ended",
            Self::TokenCreated { .. } => "token_created",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::Ordered { .. } => "ordered",
            Self::QuotaChanged { .. } => "quota_changed",
        }
    }

    /// The tenant that it is about, if it is about one.
    pub const fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::SignedIn { grant, .. } | Self::TokenCreated { grant, .. } | Self::TokenRevoked { grant, .. } => {
                Some(&grant.tenant)
            }
            Self::Ordered { order: Control::Erase(erase), .. } => Some(&erase.tenant),
            Self::QuotaChanged { tenant, .. } => tenant.as_ref(),
            Self::Refused { .. } | Self::Ended { .. } | Self::Ordered { .. } => None,
        }
    }

    /// Stores the event, and returns once the stream has it.
    ///
    /// # Errors
    /// If it does not.
    pub async fn store(self, publisher: &Publisher) -> Result<(), PublishError> {
        let subject = subjects::audit(self.tenant(), self.as_str());
        let headers = Headers::new().with_content_type(Encoding::Json);
        let headers = match &self {
            // Two auth services that find it at once tell it once. Nobody in this account squats on an id.
            Self::Ordered { id, .. } => headers.with("Nats-Msg-Id", id.to_string()),
            Self::QuotaChanged { id, tenant, .. } => {
                let tenant = tenant.as_ref().map_or_else(String::new, Tenant::token);
                headers.with("Nats-Msg-Id", format!("{id}.{tenant}"))
            }
            _ => headers,
        };
        // Plain data always can be written.
        let payload = serde_json::to_vec(&AuditEntry { audit_v1: self }).unwrap_or_default();
        publisher.publish(subject, headers, payload.into()).await.await.map(drop)
    }
}

impl From<Asker> for AuditClient {
    fn from(asker: Asker) -> Self {
        Self { host: asker.host, server: asker.server, connection: asker.id }
    }
}

/// An event as the stream holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Its place in the stream.
    pub sequence: u64,
    /// When it happened.
    pub published: OffsetDateTime,
    /// What.
    pub event: AuditEvent,
}

impl Audited {
    /// Reads an entry of the stream; none if it is not one that this version knows.
    pub fn read(entry: &Entry) -> Option<Self> {
        let AuditEntry { audit_v1: event } = serde_json::from_slice(&entry.payload).ok()?;
        Some(Self { sequence: entry.sequence, published: entry.published, event })
    }
}

/// Reads the audit from a sequence on to where it ends now. Gives the sequence that comes next.
///
/// # Errors
/// If it cannot be read.
pub async fn read_audit(bus: &Bus, from: u64, mut tell: impl FnMut(Audited)) -> Result<u64, RecordError> {
    let end = stream_state(bus, AUDIT_STREAM).await?;
    if end.messages == 0 || end.last_sequence < from {
        return Ok(from);
    }
    let mut reader = JournalReader::open(bus, AUDIT_STREAM, None, from).await?;
    loop {
        let entry = reader.next().await?;
        Audited::read(&entry).into_iter().for_each(&mut tell);
        if entry.sequence >= end.last_sequence {
            return Ok(entry.sequence + 1);
        }
    }
}

impl Audit {
    /// Hands in an event; never waits.
    pub(crate) fn tell(&self, event: AuditEvent) {
        if self.queue.try_send(event).is_err() {
            self.metrics.audit_lost(1);
        }
    }
}

impl Teller {
    /// Works until nobody hands in anything any more.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let mut group = Vec::new();
        while self.queue.recv_many(&mut group, GROUP).await > 0 {
            let storing = group.drain(..).map(|event| event.store(&self.publisher));
            let stored = futures_util::future::join_all(storing).await;
            let lost = stored.iter().filter_map(|stored| stored.as_ref().err());
            if let Some(error) = lost.clone().next() {
                tracing::warn!(%error, "events are not in the audit");
                self.metrics.audit_lost(lost.count() as u64);
            }
        }
        Ok(())
    }
}
