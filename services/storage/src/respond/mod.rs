//! Respond: answers `latest`, `changes` and `history` from the store, `have` and `chunk` from the stream of chunks. It only reads, over a connection of its own, and
//! answers only into the inboxes of the profile that it was asked for.

mod admit;
mod changes;
mod history;
mod latest;
mod page;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_nats::{Bus, EndpointSpec, Headers, Request, Requests, Service, ServiceError, ServiceSpec};
use roam_process::{Condition, Context, clock};
use roam_schemas::{Code, EncodeError, Encoding, Problem, Revision, Timestamp, encode, headers, subjects::Verb};
use tokio::time::timeout;

use crate::{
    chunks::Chunks,
    metrics::Metrics,
    progress::Progress,
    store::{Head, ProfileKey, Reader, Snapshot, StoreError},
};
use admit::{Ask, Asked, Dropped};
use changes::Since;

/// The name of the service and of the queue group that responders share.
const SERVICE: &str = "roam-storage";
const GROUP: &str = "latest";
/// How many requests may wait for a revision at once; further ones are told `busy`.
const MOST_WAITING: usize = 4_096;

/// Why responding cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RespondError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A reply cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The service cannot be started.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Why a request is not answered with what it asks for.
enum Refusal {
    Problem(Problem),
    Fatal(RespondError),
}

/// Answers until shutdown.
pub(crate) struct Responder {
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) progress: Progress,
    pub(crate) reader: Reader,
    pub(crate) chunks: Chunks,
    pub(crate) metrics: Metrics,
    pub(crate) condition: Condition,
    /// The sequence of the journal that must be applied before the first answer.
    pub(crate) catch_up_to: u64,
}

impl Responder {
    /// Joins the queue group once the replica has caught up, and answers until shutdown.
    pub(crate) async fn respond(self) -> Result<(), RespondError> {
        let shutdown = self.context.shutdown.clone();
        self.condition.set_not_ready(format!("catching up to {} of the journal", self.catch_up_to));
        if shutdown.run_until_cancelled(self.progress.reached(self.catch_up_to)).await.is_none() {
            return Ok(());
        }
        let (service, mut requests) = Service::start(&self.bus, specification()).await?;
        self.condition.set_ready();
        let stop = async {
            shutdown.cancelled().await;
            service.stop();
            std::future::pending::<RespondError>().await
        };
        tokio::select! {
            answered = self.answer_all(&mut requests) => answered,
            error = stop => Err(error),
        }
    }

    async fn answer_all(&self, requests: &mut Requests) -> Result<(), RespondError> {
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(answered) = waiting.next(), if !waiting.is_empty() => answered?,
                request = requests.next() => {
                    let Some(request) = request else {
                        // Nobody's wait goes on beyond the shutdown.
                        while let Some(answered) = waiting.next().await {
                            answered?;
                        }
                        return Ok(());
                    };
                    if let Some((asked, request)) = self.answer_at_once(request).await? {
                        if waiting.len() < MOST_WAITING {
                            waiting.push(self.answer_later(asked, request));
                        } else {
                            self.refuse(request, asked.encoding, Problem::new(Code::Busy, "too many requests wait")).await?;
                        }
                    }
                }
            }
            self.metrics.waiting(waiting.len());
        }
    }

    /// Answers, unless the profile has to reach a revision first.
    async fn answer_at_once(&self, request: Request) -> Result<Option<(Asked, Request)>, RespondError> {
        let asked = match admit::admit(&request) {
            Ok(asked) => asked,
            Err(Dropped::Unanswerable) => {
                self.metrics.unanswered();
                return Ok(None);
            }
            Err(Dropped::Refused(problem, encoding)) => {
                self.refuse(request, encoding, problem).await?;
                return Ok(None);
            }
        };
        if asked.ask.is_of_chunks() {
            return Ok(Some((asked, request)));
        }
        let key = ProfileKey::new(&asked.profile);
        let snapshot = self.reader.snapshot();
        let head = snapshot.head(&key)?.unwrap_or_default();
        match asked.awaited() {
            Some(revision) if head.revision < revision && asked.wait().is_some() => Ok(Some((asked, request))),
            _ => {
                let reply = self.reply(&snapshot, &asked, &key, head);
                drop(snapshot);
                self.send(request, &asked, reply).await?;
                Ok(None)
            }
        }
    }

    /// Waits until the profile has reached the revision, for as long as the request allows and at most until shutdown, and
    /// answers.
    async fn answer_later(&self, asked: Asked, request: Request) -> Result<(), RespondError> {
        if asked.ask.is_of_chunks() {
            let reply = self.reply_of_chunks(&asked).await;
            return self.send(request, &asked, reply).await;
        }
        let key = ProfileKey::new(&asked.profile);
        let revision = asked.awaited().unwrap_or(Revision::ZERO);
        let signal = self.progress.revision(&key, revision);
        let here = self.reader.snapshot().head(&key)?.unwrap_or_default().revision;
        if here < revision {
            let wait = Duration::from_millis(asked.wait().unwrap_or_default().into());
            // Whether it came or the time ran out: the store says what is there.
            let _ = self.context.shutdown.run_until_cancelled(timeout(wait, signal)).await;
        }
        let reply = {
            let snapshot = self.reader.snapshot();
            let head = snapshot.head(&key)?.unwrap_or_default();
            self.reply(&snapshot, &asked, &key, head)
        };
        self.send(request, &asked, reply).await
    }

    async fn reply_of_chunks(&self, asked: &Asked) -> Result<Vec<u8>, Refusal> {
        let Asked { profile, encoding, ask } = asked;
        match ask {
            Ask::Have(request) => Ok(encode(&self.chunks.have(profile, request).await?, *encoding)?),
            Ask::Chunk(request) => Ok(encode(&self.chunks.chunk(profile, *request).await?, *encoding)?),
            _ => Err(Problem::invalid("the request is none of chunks").into()),
        }
    }

    fn reply(&self, snapshot: &Snapshot<'_>, asked: &Asked, key: &ProfileKey, head: Head) -> Result<Vec<u8>, Refusal> {
        if let Some(revision) = asked.awaited().filter(|revision| head.revision < *revision) {
            let problem = Problem::new(Code::Behind, "the profile has not reached that revision here");
            return Err(Refusal::Problem(problem.with_limit(revision.get(), head.revision.get())));
        }
        let now = Timestamp::from_nanos(clock::now_ns());
        let encoding = asked.encoding;
        Ok(match &asked.ask {
            Ask::Latest(request) => encode(&latest::latest(snapshot, key, head, request, encoding, now)?, encoding)?,
            Ask::Changes { request, since } => {
                let (after, as_of) = since.unzip();
                let (after, limit) = (after.unwrap_or_default(), request.limit);
                let since = Since { profile: &asked.profile, after, as_of, limit, encoding };
                since.check(head, self.reader.horizon().tombstones)?;
                let applied = snapshot.position()?.map_or(0, |position| position.published);
                let applied = Timestamp::from_nanos(applied);
                encode(&changes::changes(snapshot, key, head, &since, applied, now)?, encoding)?
            }
            Ask::History(request) => {
                let terms = snapshot.position()?.map(|position| position.terms).unwrap_or_default();
                let reply = history::history(snapshot, key, head, request, (encoding, terms.history_versions), now)?;
                encode(&reply, encoding)?
            }
            Ask::Have(_) | Ask::Chunk(_) => return Err(Problem::invalid("the request is of chunks").into()),
        })
    }

    async fn send(&self, request: Request, asked: &Asked, reply: Result<Vec<u8>, Refusal>) -> Result<(), RespondError> {
        match reply {
            Ok(payload) => {
                self.metrics.requested(asked.ask.verb());
                let headers = Headers::new().with_content_type(asked.encoding);
                note_failure(request.respond(headers, payload.into()).await);
                Ok(())
            }
            Err(Refusal::Problem(problem)) => self.refuse(request, asked.encoding, problem).await,
            Err(Refusal::Fatal(error)) => Err(error),
        }
    }

    async fn refuse(&self, request: Request, encoding: Encoding, problem: Problem) -> Result<(), RespondError> {
        self.metrics.refused(problem.code);
        let headers = Headers::new().with_content_type(encoding).with(headers::CODE, problem.code.as_str());
        let payload = encode(&problem, encoding)?;
        let status = if problem.retry { 503 } else { 400 };
        note_failure(request.respond_error(status, problem.code.as_str(), headers, payload.into()).await);
        Ok(())
    }
}

fn specification() -> ServiceSpec {
    let endpoint = |verb: Verb| EndpointSpec {
        name: verb.as_str().to_owned(),
        subject: verb.wildcard().to_owned(),
        queue_group: GROUP.to_owned(),
    };
    ServiceSpec {
        name: SERVICE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: "Answers latest, changes and history of profiles, and gives out the chunks of large values"
            .to_owned(),
        endpoints: Verb::ALL.map(endpoint).into(),
    }
}

/// An answer that does not leave is the asker's to miss: it asks again.
fn note_failure(sent: Result<(), roam_nats::SendError>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "an answer was not sent");
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<EncodeError> for Refusal {
    fn from(error: EncodeError) -> Self {
        Self::Fatal(error.into())
    }
}
