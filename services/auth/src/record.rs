//! What is known of a token besides itself: an entry of ROAM_TOKENS on the token's own subject, the newest of which counts.
//! The token is not in it, so whoever reads the stream cannot come in with what they find.

use std::collections::BTreeMap;

use roam_nats::{
    Bus, Entry, Headers, JournalError, JournalLost, JournalReader, PublishError, PublishSettings, Publisher,
    StateError, TOKENS_STREAM, stream_state,
};
use roam_schemas::{Encoding, Grant, Tenant, TokenId, subjects};
use serde::{Deserialize, Serialize};

use crate::{
    Token,
    audit::{AuditEvent, read_audit},
};

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// The token.
    pub id: TokenId,
    /// Who its bearer is.
    pub grant: Grant,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
    /// When it was revoked, in seconds since 1970, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}

/// The record of a token could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no such token.
    #[error("there is no token {0}")]
    NotFound(TokenId),
    /// The stream did not take it.
    #[error("the record was not stored")]
    Publish(#[from] PublishError),
    /// The stream cannot be looked at.
    #[error(transparent)]
    State(#[from] StateError),
    /// The stream cannot be read.
    #[error(transparent)]
    Open(#[from] JournalError),
    /// The stream could not be read to its end.
    #[error(transparent)]
    Lost(#[from] JournalLost),
    /// It cannot be written, which a released program does not meet.
    #[error("the record cannot be written")]
    Write(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    token_v1: TokenRecord,
}

impl TokenRecord {
    /// The record of a token that was just made.
    pub fn of(token: &Token) -> Self {
        let Token { id, grant, issued, expires } = token.clone();
        Self { id, grant, issued, expires, revoked: None }
    }

    /// Reads an entry of the stream; none if it is not one of ours, or not where it belongs.
    pub(crate) fn read(entry: &Entry) -> Option<Self> {
        if entry.headers.encoding() != Some(Encoding::Json) {
            return None;
        }
        let Envelope { token_v1: record } = serde_json::from_slice(&entry.payload).ok()?;
        (entry.subject == subjects::token(&record.grant.tenant, &record.id)).then_some(record)
    }
}

/// Stores the record of a token.
///
/// # Errors
/// If the stream does not have it.
pub async fn store(bus: &Bus, record: &TokenRecord) -> Result<(), RecordError> {
    let subject = subjects::token(&record.grant.tenant, &record.id);
    let payload = serde_json::to_vec(&Envelope { token_v1: record.clone() })?;
    let headers = Headers::new().with_content_type(Encoding::Json);
    let publisher = Publisher::new(bus, PublishSettings::default());
    publisher.publish(subject, headers, payload.into()).await.await?;
    Ok(())
}

/// Revokes a token at `now`, in seconds since 1970. One that was revoked before stays as it is. One that a provider made is
/// listed nowhere: the audit knows it, once somebody has signed in with it.
///
/// # Errors
/// See [`RecordError`].
pub async fn revoke(bus: &Bus, id: TokenId, now: u64) -> Result<TokenRecord, RecordError> {
    let listed = read_records(bus, None).await?.remove(&id);
    let mut record = match listed {
        Some(record) => record,
        None => signed_in_with(bus, id).await?.ok_or(RecordError::NotFound(id))?,
    };
    if record.revoked.is_none() {
        record.revoked = Some(now);
        store(bus, &record).await?;
    }
    Ok(record)
}

/// What the audit tells of a token that somebody signed in with.
async fn signed_in_with(bus: &Bus, id: TokenId) -> Result<Option<TokenRecord>, RecordError> {
    let mut found = None;
    read_audit(bus, 1, |entry| {
        if let AuditEvent::SignedIn { token, grant, expires: Some(expires), .. } = entry.event
            && token == id
        {
            let issued = u64::try_from(entry.published.unix_timestamp()).unwrap_or_default();
            found = Some(TokenRecord { id, grant, issued, expires, revoked: None });
        }
    })
    .await?;
    Ok(found)
}

/// What is known of all tokens, or of those of one tenant.
///
/// # Errors
/// See [`RecordError`].
pub async fn read_records(bus: &Bus, tenant: Option<&Tenant>) -> Result<BTreeMap<TokenId, TokenRecord>, RecordError> {
    let end = stream_state(bus, TOKENS_STREAM).await?;
    let mut records = BTreeMap::new();
    if end.messages == 0 {
        return Ok(records);
    }
    let mut reader = JournalReader::open(bus, TOKENS_STREAM, None, 1).await?;
    loop {
        let entry = reader.next().await?;
        records.extend(TokenRecord::read(&entry).map(|record| (record.id, record)));
        if entry.sequence >= end.last_sequence {
            break;
        }
    }
    records.retain(|_, record| tenant.is_none_or(|tenant| record.grant.tenant == *tenant));
    Ok(records)
}
