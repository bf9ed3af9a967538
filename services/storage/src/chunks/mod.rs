//! Chunks: the parts of large values, in ROAM_CHUNKS. Every replica follows that stream, without payloads, and so knows
//! which chunks each user has; it answers `have` and `chunk` from that, and removes what nothing refers to any more.
//! Goes over a connection of its own: what clients put into this stream may end a connection, and must end no other.
//!
//! Clients publish chunks and never read the stream. **Architecture Invariant:** a chunk is found under its user only,
//! and its bytes are given out only if they have the hash that was asked for.

mod follow;
mod index;
mod put_back;
mod sweep;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use roam_nats::{
    Bus, CHUNK_GRACE_SECONDS, Headers, PublishError, PublishSettings, Publisher, StateError, chunks_stream,
    next_message, stored_message, stream_state,
};
use roam_process::clock;
use roam_schemas::{
    ChunkReply, ChunkRequest, Code, ContentHash, HaveReply, HaveRequest, Problem, Profile, Shard, Tenant, Timestamp,
    User, Value, headers, subjects,
};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::metrics::Metrics;
use index::{DROP, Index, KEEP, Owner};
pub(crate) use put_back::PutBack;
pub(crate) use sweep::Sweeper;

/// How many chunks are read from the stream at once, which is also what they take of memory: some megabytes each ten.
const READ_AT_ONCE: usize = 32;
/// How many requests about chunks may be under way; further ones are told `busy`.
const MOST_ASKED: usize = 512;
/// How long a request waits until the stream was read as far as it has to be.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(3);

/// The chunks, as one replica knows them. Clones share it.
#[derive(Clone)]
pub(crate) struct Chunks {
    shared: Arc<Shared>,
}

struct Shared {
    shard: Shard,
    /// The name of the stream.
    stream: String,
    bus: Bus,
    publisher: Publisher,
    metrics: Metrics,
    index: Mutex<Index>,
    /// How far the stream was read; none while it is not known how far it goes.
    read: watch::Sender<Option<u64>>,
    /// When the stream was created, in nanoseconds since the Unix epoch.
    incarnation: AtomicU64,
    grace_seconds: AtomicU64,
    reads: Semaphore,
    asked: AtomicUsize,
}

/// One request about chunks. Counts as under way until it is dropped.
struct Asking<'a>(&'a AtomicUsize);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Chunks {
    pub(crate) fn new(shard: Shard, bus: &Bus, metrics: Metrics) -> Self {
        let settings = PublishSettings { window: 64, retry_for: Duration::from_secs(2), ..PublishSettings::default() };
        let shared = Shared {
            shard,
            stream: chunks_stream(shard),
            bus: bus.clone(),
            publisher: Publisher::new(bus, settings),
            metrics,
            index: Mutex::new(Index::new(shard)),
            read: watch::Sender::new(None),
            incarnation: AtomicU64::new(0),
            grace_seconds: AtomicU64::new(CHUNK_GRACE_SECONDS),
            reads: Semaphore::new(READ_AT_ONCE),
            asked: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The shard that they are of.
    pub(crate) fn shard(&self) -> Shard {
        self.shared.shard
    }

    /// Which of the chunks are not there. What is there stays for at least half the grace from now on: what is kept
    /// for no longer than that is noted to be kept, and that note stands in the stream before this returns.
    pub(crate) async fn have(&self, profile: &Profile, request: &HaveRequest) -> Result<HaveReply, Problem> {
        let _asking = self.ask()?;
        Ok(HaveReply { missing: self.promise(&owner(profile), &request.hashes).await? })
    }

    /// Promises the chunks of a user that are there, at most [`HAVE_HASHES`](roam_schemas::limits::HAVE_HASHES) of them,
    /// to stay for at least half the grace. Says which are not there.
    pub(crate) async fn promise(&self, owner: &Owner, hashes: &[ContentHash]) -> Result<Vec<ContentHash>, Problem> {
        self.is_read().await?;
        let fresh = now().minus_seconds(self.grace_seconds() / 2);
        let old: Vec<_> = {
            let index = self.index();
            let is_old = |hash: &&ContentHash| index.find(owner, hash).is_some_and(|held| held.kept < fresh);
            hashes.iter().filter(is_old).copied().collect()
        };
        if !old.is_empty() {
            let sequence = self.note(owner, KEEP, &old, 0).await.map_err(|error| unnoted(&error))?;
            self.reached(sequence).await?;
        }
        let missing = self.unknown(owner, hashes);
        if missing.is_empty() {
            return Ok(missing);
        }
        // What was acked before this was asked must not be uploaded again.
        self.caught_up().await?;
        Ok(self.unknown(owner, hashes))
    }

    /// How many chunks a user has, as far as the stream was read.
    pub(crate) fn count_of(&self, tenant: &Tenant, user: &User) -> u64 {
        self.index().chunks_of(&(tenant.clone(), user.clone())) as u64
    }

    fn unknown(&self, owner: &Owner, hashes: &[ContentHash]) -> Vec<ContentHash> {
        let index = self.index();
        hashes.iter().filter(|hash| index.find(owner, hash).is_none()).copied().collect()
    }

    /// The chunk. One that is not known is looked for again once all has been read that the stream holds by now.
    pub(crate) async fn chunk(&self, profile: &Profile, request: ChunkRequest) -> Result<ChunkReply, Problem> {
        let _asking = self.ask()?;
        let owner = owner(profile);
        if let Some(bytes) = self.read(&owner, request.hash).await? {
            return Ok(ChunkReply { bytes: Value::new(bytes) });
        }
        self.is_read().await?;
        self.caught_up().await?;
        let missing = || Problem::new(Code::Missing, "a chunk is not there");
        let bytes = self.read(&owner, request.hash).await?.ok_or_else(missing)?;
        Ok(ChunkReply { bytes: Value::new(bytes) })
    }

    /// The chunk, if it is there and is what it says it is.
    pub(crate) async fn read(&self, owner: &Owner, hash: ContentHash) -> Result<Option<Bytes>, Problem> {
        let Some(held) = self.index().find(owner, &hash) else { return Ok(None) };
        // The semaphore is never closed.
        let _permit = self.shared.reads.acquire().await.ok();
        let stored = stored_message(&self.shared.bus, &self.shared.stream, held.sequence).await;
        let Some(stored) = stored.map_err(|error| unread(&error))? else {
            self.index().forget(owner, &hash, held.sequence);
            return Ok(None);
        };
        let own = stored.subject == self.upload_subject(owner);
        if own && ContentHash::of(&stored.payload) == hash {
            return Ok(Some(stored.payload));
        }
        tracing::warn!(sequence = held.sequence, "a chunk does not have the hash that it was uploaded under");
        self.shared.metrics.chunk_damaged();
        // All replicas learn of it, so that it counts as missing, and may be uploaded again.
        let sequence = self.note(owner, DROP, &[hash], held.sequence).await.map_err(|error| unnoted(&error))?;
        self.reached(sequence).await?;
        self.index().forget(owner, &hash, held.sequence);
        Ok(None)
    }

    /// Writes into the stream which chunks stay or go. Says at which sequence.
    async fn note(
        &self,
        (tenant, user): &Owner,
        what: &'static str,
        hashes: &[ContentHash],
        read: u64,
    ) -> Result<u64, PublishError> {
        let hashes: Vec<_> = hashes.iter().map(ToString::to_string).collect();
        let headers = Headers::new()
            .with(headers::CONTROL, what)
            .with(headers::CHUNKS, hashes.join(","))
            .with(headers::SEEN, read.to_string());
        let subject = subjects::in_shard(self.shared.shard, &subjects::kept(tenant, user));
        let ack = self.shared.publisher.publish(subject, headers, Bytes::new()).await;
        Ok(ack.await?.sequence)
    }

    /// Where the chunks of a user are.
    fn upload_subject(&self, (tenant, user): &Owner) -> String {
        subjects::in_shard(self.shared.shard, &subjects::upload(tenant, user))
    }

    fn ask(&self) -> Result<Asking<'_>, Problem> {
        let asked = &self.shared.asked;
        let asking = Asking(asked);
        match asked.fetch_add(1, Ordering::Relaxed) < MOST_ASKED {
            true => Ok(asking),
            false => Err(Problem::new(Code::Busy, "too many requests for chunks")),
        }
    }

    /// Waits until all was read once.
    async fn is_read(&self) -> Result<(), Problem> {
        let mut read = self.shared.read.subscribe();
        let is_read = timeout(CATCH_UP_WITHIN, read.wait_for(Option::is_some)).await;
        is_read.map(drop).map_err(|_| Problem::new(Code::Busy, "what chunks there are is not read yet"))
    }

    /// Waits until all was read that the stream holds by now.
    async fn caught_up(&self) -> Result<(), Problem> {
        let state = stream_state(&self.shared.bus, &self.shared.stream).await.map_err(|error| unread(&error))?;
        self.reached(state.last_sequence).await
    }

    /// Waits until the stream was read up to a sequence, or to its end: the message of that sequence may be gone.
    async fn reached(&self, sequence: u64) -> Result<(), Problem> {
        let mut read = self.shared.read.subscribe();
        let reached = read.wait_for(|read| read.is_some_and(|read| read >= sequence));
        if timeout(CATCH_UP_WITHIN, reached).await.is_ok() {
            return Ok(());
        }
        let position = self.index().position();
        let next = next_message(&self.shared.bus, &self.shared.stream, position + 1).await;
        match next.map_err(|error| unread(&error))? {
            None => Ok(()),
            Some(_) => {
                let problem = Problem::new(Code::Behind, "the chunks are not read as far here");
                Err(problem.with_limit(sequence, position))
            }
        }
    }

    fn grace_seconds(&self) -> u64 {
        self.shared.grace_seconds.load(Ordering::Relaxed)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing panics while it holds the lock.
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owner(profile: &Profile) -> Owner {
    (profile.tenant.clone(), profile.user.clone())
}

fn now() -> Timestamp {
    Timestamp::from_nanos(clock::now_ns())
}

fn unread(error: &StateError) -> Problem {
    tracing::warn!(error = error as &dyn std::error::Error, "chunks cannot be read");
    Problem::new(Code::Busy, "the chunks cannot be read now")
}

fn unnoted(error: &PublishError) -> Problem {
    tracing::warn!(error = error as &dyn std::error::Error, "what becomes of chunks cannot be noted");
    Problem::new(Code::Busy, "the chunks cannot be kept now")
}
