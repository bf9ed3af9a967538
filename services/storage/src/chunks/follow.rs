//! Following ROAM_CHUNKS, without payloads, from its beginning: what a replica knows of it is memory only.

use std::{convert::Infallible, error::Error, sync::atomic::Ordering, time::Duration};

use roam_nats::{
    CHUNK_GRACE_KEY, Entry, JournalError, JournalLost, JournalReader, StateError, StreamState, next_message,
    stream_state,
};
use roam_schemas::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Chunks,
    index::{Index, Seen},
};

/// The header by which a consumer without payloads tells their size.
const SIZE: &str = "Nats-Msg-Size";
/// How long to wait before following again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long nothing must come until it is asked whether that was all.
const QUIET: Duration = Duration::from_millis(500);
/// How many messages are looked at one by one, after a loss, to get past one that no connection survives.
const BY_HAND: usize = 64;

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Open(#[from] JournalError),
    #[error(transparent)]
    Lost(#[from] JournalLost),
    #[error("the stream is read anew")]
    Anew,
}

impl Chunks {
    /// Follows until shutdown. Whatever ends it is tried again.
    pub(crate) async fn follow(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let following = async {
            loop {
                let Err(error) = self.follow_on().await;
                tracing::debug!(error = &error as &dyn Error, "the stream of chunks is not followed now");
                sleep(AGAIN_AFTER).await;
                if let (FollowError::Lost(_), Err(error)) = (&error, self.step_by_hand().await) {
                    tracing::debug!(error = &error as &dyn Error, "the stream of chunks cannot be looked at now");
                }
            }
        };
        shutdown.run_until_cancelled(following).await;
        Ok(())
    }

    /// What is known of the stream is not true any more: it is read from its beginning.
    pub(super) fn read_anew(&self) {
        self.shared.incarnation.store(0, Ordering::Relaxed);
        self.shared.read.send_replace(None);
    }

    async fn follow_on(&self) -> Result<Infallible, FollowError> {
        let state = stream_state(&self.shared.bus, &self.shared.stream).await?;
        self.begin(&state);
        let next = self.index().position() + 1;
        let mut reader = JournalReader::open_headers(&self.shared.bus, &self.shared.stream, next).await?;
        self.publish_position(next > state.last_sequence);
        loop {
            if self.shared.incarnation.load(Ordering::Relaxed) == 0 {
                return Err(FollowError::Anew);
            }
            match timeout(QUIET, reader.next()).await {
                Ok(entry) => {
                    self.take(&entry?);
                    while let Some(entry) = reader.next_ready() {
                        self.take(&entry);
                    }
                    let position = self.index().position();
                    self.publish_position(position >= state.last_sequence);
                }
                // The last messages may be gone, and then never come.
                Err(_) if self.shared.read.borrow().is_none() => {
                    let next = self.index().position() + 1;
                    let further = next_message(&self.shared.bus, &self.shared.stream, next).await?;
                    self.publish_position(further.is_none());
                }
                Err(_) => {}
            }
        }
    }

    /// Begins anew if this is not the stream that was followed.
    fn begin(&self, state: &StreamState) {
        let created = u64::try_from(state.created.unix_timestamp_nanos()).unwrap_or(u64::MAX);
        let before = self.shared.incarnation.swap(created, Ordering::Relaxed);
        if before != created || state.last_sequence < self.index().position() {
            *self.index() = Index::new(self.shared.shard);
            self.shared.read.send_replace(None);
        }
        if let Some(seconds) = state.metadata.get(CHUNK_GRACE_KEY).and_then(|seconds| seconds.parse().ok()) {
            self.shared.grace_seconds.store(seconds, Ordering::Relaxed);
        }
    }

    fn take(&self, entry: &Entry) {
        let length = entry.headers.get(SIZE).and_then(|size| size.parse().ok());
        let seen = Seen {
            subject: &entry.subject,
            headers: Some(&entry.headers),
            length,
            sequence: entry.sequence,
            time: timestamp(entry.published),
        };
        self.index().take(&seen);
    }

    /// Takes some messages in by the JetStream API, up to one that a connection does not survive.
    async fn step_by_hand(&self) -> Result<(), StateError> {
        for _ in 0..BY_HAND {
            let next = self.index().position() + 1;
            let Some(message) = next_message(&self.shared.bus, &self.shared.stream, next).await? else { return Ok(()) };
            self.index().take(&Seen {
                subject: &message.subject,
                headers: message.headers.as_ref(),
                length: Some(message.payload.len()),
                sequence: message.sequence,
                time: timestamp(message.published),
            });
            if message.headers.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn publish_position(&self, whole: bool) {
        let (position, chunks) = {
            let index = self.index();
            (index.position(), index.chunks())
        };
        self.shared.metrics.chunks(chunks);
        self.shared.read.send_modify(|read| {
            if whole || read.is_some() {
                *read = Some(position);
            }
        });
    }
}

fn timestamp(time: time::OffsetDateTime) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0))
}
