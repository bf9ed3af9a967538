//! Large values: what does not fit into a record is cut into chunks, which are uploaded before the change that needs them
//! is published, and fetched when the value is asked for. Only chunks that are not there yet are sent: so an upload that
//! was interrupted goes on where it was, and an edited copy sends what was edited.

mod cut;
mod download;
mod upload;

use std::time::Duration;

use roam_nats::{Bus, PublishSettings, Publisher};
use roam_schemas::{Manifest, Record, State, Stored, Value};

pub(crate) use download::download;
pub(crate) use upload::{prepare, stage};

use crate::ReadError;
use crate::read::Reader;

/// How many chunks are on their way at once: two megabytes in mean, so that a slow line need not hold each for long.
const WINDOW: usize = 16;
/// How long a chunk may be on its way, and for how long after the first attempt another one may begin.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_FOR: Duration = Duration::from_secs(60);

/// How far an upload or a download of a large value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// How many bytes of the value are done.
    pub bytes: u64,
    /// How many chunks that is.
    pub chunks: u64,
    /// How many chunks really travelled; the others were there already.
    pub sent_chunks: u64,
    /// How many bytes these have.
    pub sent_bytes: u64,
}

pub(crate) fn publisher(bus: &Bus) -> Publisher {
    Publisher::new(bus, PublishSettings { window: WINDOW, ack_timeout: ACK_TIMEOUT, retry_for: RETRY_FOR })
}

/// The record with its whole value: that of a large one is fetched, and is then of its own content type.
pub(crate) async fn whole(reader: &Reader<'_>, mut record: Record) -> Result<Record, ReadError> {
    if let State::Value(stored) = &mut record.state
        && let Some(manifest) = manifest_of(stored)?
    {
        // No more is set aside than a manifest may say.
        let mut bytes = Vec::with_capacity(usize::try_from(manifest.length).unwrap_or_default());
        download(reader, &manifest, &mut bytes, |_| {}).await?;
        (stored.value, stored.content_type) = (Value::new(bytes), manifest.content_type);
    }
    Ok(record)
}

fn manifest_of(stored: &Stored) -> Result<Option<Manifest>, ReadError> {
    stored.manifest().map_err(ReadError::Invalid)
}
