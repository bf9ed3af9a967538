//! Objects of any size in a bucket, laid down as ADR-20 of NATS says, so that `nats object` shows them too. An object is
//! there once what is said of it is: what was put in part is nothing.
//!
//! The object store of async-nats 0.51 is not used: it waits for the PubAck of each piece before it reads the next, makes
//! a piece of whatever one read returned, leaves the pieces of a put that failed behind, and reads by a push consumer,
//! which drops what comes too fast. Here pieces go through the window of a [`Publisher`], and come one request each.

mod error;
mod info;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::SeekFrom,
    time::Duration,
};

use async_nats::Subject;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep},
};

use self::info::{CHUNK, Content, Meta, all_chunks, all_metas, chunk_subject, id_of, meta_subject, name_of, new_id};
pub use self::{error::ObjectError, info::ObjectInfo};
use crate::{
    Bus, Headers, PublishError, PublishSettings, Publisher, RequestError,
    streams::{
        api::{self, ApiError, code},
        rfc3339,
    },
};

/// How many pieces may be without a PubAck: 2 MiB.
const WINDOW: usize = 16;
/// How long a PubAck or an answer may take: a disk may be busy with other things.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// For how long what failed for a passing reason is begun again, and the pause before each time.
const AGAIN_FOR: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// `err_code` of JetStream: there is a message on the subject already.
const WRONG_LAST_SEQUENCE: u64 = 10_071;

/// A bucket.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    bus: Bus,
    bucket: String,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now.
    Stored,
    /// There was one of that name, which is as it was.
    Exists,
}

/// A message as the API tells it.
#[derive(Deserialize)]
struct Stored {
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(deserialize_with = "rfc3339")]
    time: OffsetDateTime,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    total: u64,
    state: Listed,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

impl ObjectStore {
    /// The bucket of that name. Nothing is asked yet.
    pub fn new(bus: &Bus, bucket: &str) -> Self {
        Self { bus: bus.clone(), bucket: bucket.to_owned() }
    }

    /// One for each put, with a window of its own. It tries nothing twice: a piece that came later than those behind it
    /// would be out of its place.
    fn publisher(&self) -> Publisher {
        let settings = PublishSettings { window: WINDOW, ack_timeout: ANSWER_WITHIN, retry_for: Duration::ZERO };
        Publisher::new(&self.bus, settings)
    }

    /// Puts an object, piece by piece; `sent` hears of each piece that the server has. Never replaces one.
    ///
    /// # Errors
    /// See [`ObjectError`]. Nothing is there then; pieces that could not be taken away again are left to
    /// [`Self::sweep`].
    pub async fn put<R>(&self, name: &str, source: &mut R, sent: impl Fn(u64) + Send) -> Result<Put, ObjectError>
    where
        R: AsyncRead + AsyncSeek + Unpin + Send,
    {
        let until = Instant::now() + AGAIN_FOR;
        loop {
            let id = new_id();
            let tried = self.try_put(name, &id, source, &sent).await;
            if !matches!(tried, Ok(Put::Stored)) {
                // Whoever finds the server gone cannot tidy up there either.
                let _ = self.purge(&chunk_subject(&self.bucket, &id)).await;
            }
            match tried {
                Err(ObjectError::Unavailable { .. }) if Instant::now() < until => sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    /// Puts an empty object in place of whatever has that name: a sign, whose time is what matters.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn touch(&self, name: &str) -> Result<(), ObjectError> {
        let meta = Content::default().meta(&self.bucket, name, &new_id());
        self.publish_meta(&meta, Headers::new().with("Nats-Rollup", "sub")).await.map(drop)
    }

    /// Writes an object into the sink, piece by piece; `got` hears of each.
    ///
    /// # Errors
    /// See [`ObjectError`]. What was written then is worth nothing.
    pub async fn get<W>(&self, name: &str, sink: &mut W, got: impl Fn(u64) + Send) -> Result<(), ObjectError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let missing = || ObjectError::NotFound { bucket: self.bucket.clone(), object: name.to_owned() };
        let damaged = |what: String| ObjectError::Damaged { object: name.to_owned(), what };
        let (_, meta) = self.meta(name).await?.ok_or_else(missing)?;
        let subject = chunk_subject(&self.bucket, &meta.nuid);
        let (mut content, mut next) = (Content::default(), 1);
        while content.chunks < meta.chunks {
            let question = json!({ "seq": next, "next_by_subj": subject });
            let Some(stored) = self.message(&question).await? else {
                return Err(damaged(format!("{} of its {} pieces are there", content.chunks, meta.chunks)));
            };
            let chunk = decode(&stored).ok_or_else(|| damaged("a piece of it does not read".to_owned()))?;
            sink.write_all(&chunk).await.map_err(ObjectError::Sink)?;
            content.add(&chunk);
            got(chunk.len() as u64);
            next = stored.seq + 1;
        }
        sink.flush().await.map_err(ObjectError::Sink)?;
        content.check(&meta).map_err(damaged)
    }

    /// What is known of an object; none if there is none.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn info(&self, name: &str) -> Result<Option<ObjectInfo>, ObjectError> {
        Ok(self.meta(name).await?.map(|(modified, meta)| ObjectInfo { name: meta.name, bytes: meta.size, modified }))
    }

    /// The names of all objects that begin so, in their order.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let subjects = self.subjects(&all_metas(&self.bucket)).await?;
        let names = subjects.iter().filter_map(|subject| name_of(&self.bucket, subject));
        let names: BTreeSet<String> = names.filter(|name| name.starts_with(prefix)).collect();
        Ok(names.into_iter().collect())
    }

    /// Removes an object; says whether there was one. First what is said of it, then its pieces: nobody finds half of one.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn delete(&self, name: &str) -> Result<bool, ObjectError> {
        let Some((_, meta)) = self.meta(name).await? else {
            return Ok(false);
        };
        self.purge(&meta_subject(&self.bucket, name)).await?;
        self.purge(&chunk_subject(&self.bucket, &meta.nuid)).await?;
        Ok(true)
    }

    /// Removes pieces that belong to no object and were put before that instant: of puts that never came to their end.
    /// Says of how many such puts.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn sweep(&self, before: OffsetDateTime) -> Result<usize, ObjectError> {
        // In this order: what becomes an object meanwhile is not taken for one that never did.
        let chunks = self.subjects(&all_chunks(&self.bucket)).await?;
        let mut owned = BTreeSet::new();
        for name in self.names("").await? {
            owned.extend(self.meta(&name).await?.map(|(_, meta)| meta.nuid));
        }
        let mut swept = 0;
        for subject in chunks {
            let lost = id_of(&self.bucket, &subject).is_some_and(|id| !owned.contains(id));
            if !lost {
                continue;
            }
            let newest = self.message(&json!({ "last_by_subj": subject })).await?;
            if newest.is_some_and(|newest| newest.time < before) {
                self.purge(&subject).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn try_put<R>(&self, name: &str, id: &str, source: &mut R, sent: &impl Fn(u64)) -> Result<Put, ObjectError>
    where
        R: AsyncRead + AsyncSeek + Unpin + Send,
    {
        if self.meta(name).await?.is_some() {
            return Ok(Put::Exists);
        }
        source.seek(SeekFrom::Start(0)).await.map_err(ObjectError::Source)?;
        let content = self.send_chunks(&chunk_subject(&self.bucket, id), source, sent).await?;
        let absent = Headers::new().with("Nats-Expected-Last-Subject-Sequence", "0");
        self.publish_meta(&content.meta(&self.bucket, name, id), absent).await
    }

    /// Sends all pieces. That they lie in the stream in their order is seen from their PubAcks.
    async fn send_chunks<R>(&self, subject: &str, source: &mut R, sent: &impl Fn(u64)) -> Result<Content, ObjectError>
    where
        R: AsyncRead + Unpin + Send,
    {
        let (publisher, mut acks) = (self.publisher(), FuturesOrdered::new());
        let (mut content, mut last) = (Content::default(), 0);
        let failed = loop {
            let chunk = match read_chunk(source).await {
                Ok(chunk) => chunk,
                Err(error) => break ObjectError::Source(error),
            };
            let most = if chunk.is_empty() { 0 } else { WINDOW - 1 };
            if let Err(error) = drain(&mut acks, most, &mut last, sent).await {
                break ObjectError::of_publish(&self.bucket, error);
            }
            if chunk.is_empty() {
                return Ok(content);
            }
            content.add(&chunk);
            let bytes = chunk.len() as u64;
            let ack = publisher.publish(subject.to_owned(), Headers::new(), chunk).await;
            acks.push_back(async move { ack.await.map(|ack| (ack.sequence, bytes)) });
        };
        // What is on its way arrives before it is taken away again, or it would stay.
        while acks.next().await.is_some() {}
        Err(failed)
    }

    /// The one message that makes an object. If nobody says what became of it, the bucket is asked.
    async fn publish_meta(&self, meta: &Meta, headers: Headers) -> Result<Put, ObjectError> {
        let malformed = |error: serde_json::Error| ObjectError::of_api(&self.bucket, error.into());
        let payload = Bytes::from(serde_json::to_vec(meta).map_err(malformed)?);
        let subject = meta_subject(&self.bucket, &meta.name);
        match self.publisher().publish(subject, headers, payload).await.await {
            Ok(_) => Ok(Put::Stored),
            Err(PublishError::Refused { code: WRONG_LAST_SEQUENCE, .. }) => Ok(Put::Exists),
            Err(error @ PublishError::Unavailable { .. }) => match self.meta(&meta.name).await? {
                Some((_, found)) if found.nuid == meta.nuid => Ok(Put::Stored),
                Some(_) | None => Err(ObjectError::of_publish(&self.bucket, error)),
            },
            Err(error) => Err(ObjectError::of_publish(&self.bucket, error)),
        }
    }

    async fn meta(&self, name: &str) -> Result<Option<(OffsetDateTime, Meta)>, ObjectError> {
        let question = json!({ "last_by_subj": meta_subject(&self.bucket, name) });
        let Some(stored) = self.message(&question).await? else {
            return Ok(None);
        };
        let meta = decode(&stored).and_then(|bytes| serde_json::from_slice::<Meta>(&bytes).ok());
        let damaged = || ObjectError::Damaged { object: name.to_owned(), what: "its entry does not read".to_owned() };
        let meta = meta.ok_or_else(damaged)?;
        Ok((!meta.deleted).then_some((stored.time, meta)))
    }

    async fn message(&self, question: &impl Serialize) -> Result<Option<Stored>, ObjectError> {
        match self.ask::<Answer>("STREAM.MSG.GET", question).await {
            Ok(answer) => Ok(Some(answer.message)),
            Err(ApiError::Refused(refusal)) if refusal.err_code == code::NO_MESSAGE => Ok(None),
            Err(error) => Err(ObjectError::of_api(&self.bucket, error)),
        }
    }

    async fn subjects(&self, filter: &str) -> Result<Vec<String>, ObjectError> {
        let mut subjects = Vec::new();
        loop {
            let question = json!({ "subjects_filter": filter, "offset": subjects.len() });
            let listing: Listing =
                self.ask("STREAM.INFO", &question).await.map_err(|error| ObjectError::of_api(&self.bucket, error))?;
            let page = listing.state.subjects.unwrap_or_default();
            let is_last = page.is_empty();
            subjects.extend(page.into_keys());
            if is_last || subjects.len() as u64 >= listing.total {
                return Ok(subjects);
            }
        }
    }

    async fn purge(&self, subject: &str) -> Result<(), ObjectError> {
        let purged: Result<serde_json::Value, _> = self.ask("STREAM.PURGE", &json!({ "filter": subject })).await;
        purged.map(drop).map_err(|error| ObjectError::of_api(&self.bucket, error))
    }

    /// Asks the API about the stream of the bucket, again while a server may be coming back.
    async fn ask<T: DeserializeOwned>(&self, verb: &str, question: &impl Serialize) -> Result<T, ApiError> {
        let until = Instant::now() + AGAIN_FOR;
        let subject = Subject::from(format!("{verb}.{}", info::stream(&self.bucket)));
        loop {
            match api::call(&self.bus, &subject, question, ANSWER_WITHIN).await {
                Err(error) if passes(&error) && Instant::now() < until => sleep(PAUSE).await,
                done => return done,
            }
        }
    }
}

fn passes(error: &ApiError) -> bool {
    match error {
        ApiError::Request(error) => matches!(error, RequestError::NoResponders | RequestError::TimedOut),
        ApiError::Refused(refusal) => refusal.err_code == code::TEMPORARILY_UNAVAILABLE,
        ApiError::Malformed(_) => false,
    }
}

fn decode(stored: &Stored) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(&stored.data).ok()
}

/// Waits until no more than `most` PubAcks are to come. Pieces whose sequences do not rise are out of their order.
async fn drain<F>(
    acks: &mut FuturesOrdered<F>,
    most: usize,
    last: &mut u64,
    sent: &impl Fn(u64),
) -> Result<(), PublishError>
where
    F: Future<Output = Result<(u64, u64), PublishError>>,
{
    while acks.len() > most {
        let Some(acked) = acks.next().await else { break };
        let (sequence, bytes) = acked?;
        if sequence <= *last {
            return Err(PublishError::Unavailable { source: crate::Failure::Malformed });
        }
        *last = sequence;
        sent(bytes);
    }
    Ok(())
}

/// The next piece, full unless it is the last; empty at the end.
async fn read_chunk(source: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(CHUNK);
    source.take(CHUNK as u64).read_to_end(&mut chunk).await?;
    Ok(chunk.into())
}
