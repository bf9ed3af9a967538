//! Uploading: what is to be written is read once, cut, and asked for in groups; what is missing is published. The
//! manifest exists only once every chunk has its PubAck.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use roam_nats::{Headers, PendingAck, PublishError};
use roam_schemas::{
    Action, Chunk, Code, ContentHash, ContentHasher, ContentType, HaveReply, HaveRequest, Manifest, Operation, Problem,
    Put, Value, headers,
    limits::{HAVE_HASHES, LARGE_VALUE_BYTES, VALUE_BYTES},
    subjects::{self, Verb},
};
use tokio::io::AsyncRead;

use super::cut::Cutter;
use super::{Transferred, WINDOW};
use crate::read::Reader;
use crate::{ChangeError, ReadError};

/// How many chunks are asked for at once: about eight megabytes, which wait in memory for the answer.
const GROUP: usize = 64;

/// Makes operations fit: large values are uploaded, and their puts become puts of manifests. What is a manifest already
/// is looked after: its chunks are kept from now on, or it is refused.
pub(crate) async fn prepare(reader: &Reader<'_>, ops: Vec<Operation>) -> Result<Vec<Operation>, ChangeError> {
    let mut prepared = Vec::with_capacity(ops.len());
    for mut op in ops {
        if let Action::Put(put) = &mut op.action {
            if put.value.len() > VALUE_BYTES {
                let staged = stage(reader, &mut put.value.as_bytes(), put.content_type.clone(), |_| {}).await?;
                *put = Put { ttl: put.ttl, ..staged };
            } else if put.content_type.is_manifest() {
                confirm(reader, &Manifest::parse(put.value.as_bytes()).map_err(ChangeError::Invalid)?).await?;
            }
        }
        prepared.push(op);
    }
    Ok(prepared)
}

/// Reads a value to its end. A small one becomes a put as it is; a large one is uploaded, and becomes a put of its
/// manifest.
pub(crate) async fn stage(
    reader: &Reader<'_>,
    source: &mut (impl AsyncRead + Unpin),
    content_type: ContentType,
    progress: impl FnMut(Transferred),
) -> Result<Put, ChangeError> {
    if content_type.is_manifest() {
        return Err(ChangeError::Invalid(Problem::invalid("a manifest is of a manifest")));
    }
    let mut cutter = Cutter::default();
    cutter.fill(source, VALUE_BYTES + 1).await.map_err(unread)?;
    if cutter.waiting() <= VALUE_BYTES {
        return Ok(Put { value: Value::new(cutter.into_bytes()), content_type, ttl: None });
    }
    let mut upload = Upload::new(reader, progress);
    while let Some(chunk) = cutter.next(source).await.map_err(unread)? {
        upload.add(chunk).await?;
    }
    let manifest = upload.finish(content_type).await?;
    let (value, content_type) = manifest.to_value().map_err(ChangeError::Invalid)?;
    Ok(Put { value, content_type, ttl: None })
}

/// Makes sure that all chunks are there, and stay until the change can have been applied.
async fn confirm(reader: &Reader<'_>, manifest: &Manifest) -> Result<(), ChangeError> {
    let hashes: HashSet<_> = manifest.chunks.iter().map(|chunk| chunk.hash).collect();
    let hashes: Vec<_> = hashes.into_iter().collect();
    for hashes in hashes.chunks(HAVE_HASHES) {
        if !missing(reader, hashes.to_vec()).await?.is_empty() {
            let problem = Problem::new(Code::Missing, "a chunk of the manifest is not there");
            return Err(ChangeError::Chunks(ReadError::Missing(problem)));
        }
    }
    Ok(())
}

async fn missing(reader: &Reader<'_>, hashes: Vec<ContentHash>) -> Result<Vec<ContentHash>, ChangeError> {
    let reply: HaveReply = reader.of_chunks(Verb::Have, &HaveRequest { hashes }).await?;
    Ok(reply.missing)
}

/// A value on its way.
struct Upload<'a, P> {
    reader: &'a Reader<'a>,
    subject: String,
    progress: P,
    transferred: Transferred,
    hasher: ContentHasher,
    chunks: Vec<Chunk>,
    /// Chunks that nobody was asked about yet.
    group: Vec<(ContentHash, Bytes)>,
    /// What this upload knows to be there, or has sent.
    known: HashSet<ContentHash>,
    /// Chunks without a PubAck, oldest first.
    unacked: VecDeque<(u64, PendingAck)>,
}

impl<'a, P: FnMut(Transferred)> Upload<'a, P> {
    fn new(reader: &'a Reader<'a>, progress: P) -> Self {
        let profile = &reader.lane.profile;
        Self {
            reader,
            subject: subjects::upload(&profile.tenant, &profile.user),
            progress,
            transferred: Transferred::default(),
            hasher: ContentHasher::default(),
            chunks: Vec::new(),
            group: Vec::with_capacity(GROUP),
            known: HashSet::new(),
            unacked: VecDeque::with_capacity(WINDOW),
        }
    }

    async fn add(&mut self, bytes: Bytes) -> Result<(), ChangeError> {
        let before: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let length = before + bytes.len() as u64;
        if length > LARGE_VALUE_BYTES as u64 {
            let problem = Problem::new(Code::TooLarge, "a value is too large, in bytes (what follows is not counted)");
            return Err(ChangeError::Invalid(problem.with_limit(LARGE_VALUE_BYTES as u64, length)));
        }
        let hash = ContentHash::of(&bytes);
        self.hasher.update(&bytes);
        self.chunks.push(Chunk { hash, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) });
        self.group.push((hash, bytes));
        if self.group.len() >= GROUP { self.send().await } else { Ok(()) }
    }

    /// Publishes what is missing of the group.
    async fn send(&mut self) -> Result<(), ChangeError> {
        let group = std::mem::take(&mut self.group);
        let unknown: HashSet<_> =
            group.iter().map(|(hash, _)| *hash).filter(|hash| !self.known.contains(hash)).collect();
        let mut absent = HashSet::new();
        if !unknown.is_empty() {
            absent.extend(missing(self.reader, unknown.iter().copied().collect()).await?);
        }
        self.known.extend(unknown);
        for (hash, bytes) in group {
            let length = bytes.len() as u64;
            match absent.remove(&hash) {
                true => self.publish(hash, bytes).await?,
                false => self.done(length, false),
            }
        }
        Ok(())
    }

    async fn publish(&mut self, hash: ContentHash, bytes: Bytes) -> Result<(), ChangeError> {
        while self.unacked.len() >= WINDOW {
            self.land().await?;
        }
        let length = bytes.len() as u64;
        let headers = Headers::new().with(headers::CHUNK, hash.to_string());
        let pending = self.reader.inner.chunks.publish(self.subject.clone(), headers, bytes).await;
        self.unacked.push_back((length, pending));
        Ok(())
    }

    async fn land(&mut self) -> Result<(), ChangeError> {
        let Some((length, pending)) = self.unacked.pop_front() else { return Ok(()) };
        pending.await.map_err(not_uploaded)?;
        self.done(length, true);
        Ok(())
    }

    fn done(&mut self, length: u64, sent: bool) {
        let transferred = &mut self.transferred;
        transferred.bytes += length;
        transferred.chunks += 1;
        transferred.sent_chunks += u64::from(sent);
        transferred.sent_bytes += if sent { length } else { 0 };
        (self.progress)(*transferred);
    }

    async fn finish(mut self, content_type: ContentType) -> Result<Manifest, ChangeError> {
        self.send().await?;
        while !self.unacked.is_empty() {
            self.land().await?;
        }
        Ok(Manifest { length: self.transferred.bytes, hash: self.hasher.finish(), content_type, chunks: self.chunks })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn unread(error: std::io::Error) -> ChangeError {
    ChangeError::Source(error.kind())
}

fn not_uploaded(error: PublishError) -> ChangeError {
    match error {
        PublishError::Busy { .. } => {
            ChangeError::Full(Problem::new(Code::StorageFull, "there is no room for more chunks of large values"))
        }
        PublishError::Unavailable { .. } => ChangeError::Busy,
        PublishError::Denied => ChangeError::Denied,
        PublishError::Closed => ChangeError::Closed,
        PublishError::TooLarge | PublishError::Refused { .. } => ChangeError::Refused(error),
    }
}
