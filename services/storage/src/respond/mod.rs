//! Respond: answers `latest`, `changes` and `history` from the store, `have` and `chunk` from the stream of chunks. It only reads, over a connection of its own, and
//! answers only into the inboxes of the profile that it was asked for.

mod admit;
mod answers;
mod changes;
mod history;
mod latest;
mod page;
mod places;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_nats::{Bus, EndpointSpec, Headers, Request, Requests, Service, ServiceError, ServiceSpec};
use roam_process::{Condition, Context, clock};
use roam_schemas::{
    Code, EncodeError, Encoding, Problem, Revision, Shard, Timestamp, encode, headers,
    subjects::{self, Verb},
};
use tokio::time::timeout;

use crate::{
    chunks::Chunks,
    metrics::Metrics,
    progress::Progress,
    store::{Head, ProfileKey, Reader, Snapshot, StoreError, UserKey},
};
use admit::{Ask, Asked, Dropped};
pub(crate) use answers::Answers;
use answers::{Answer, Question};
use changes::Since;
use places::Places;

/// The name of the service and of the queue group that responders share.
const SERVICE: &str = "roam-storage";
const GROUP: &str = "latest";
/// How many requests are answered from one state of the store, if so many are there: whoever asked before it was taken sees
/// what was applied before the question, and taking it once costs less than taking it for each. So many replies are
/// held at once, of at most a page each.
const AT_ONCE: usize = 32;

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

/// What there is to say to a request.
enum Found {
    /// This.
    Reply(Asked, Result<Bytes, Refusal>),
    /// What was said to the same question before.
    Given(Arc<Answer>),
    /// That it is not answered, and why.
    Refused(Problem, Encoding),
    /// Nothing yet: the profile has to reach a revision first.
    Later(Asked),
}

/// Answers until shutdown.
pub(crate) struct Responder {
    pub(crate) shard: Shard,
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) progress: Progress,
    pub(crate) reader: Reader,
    pub(crate) chunks: Chunks,
    pub(crate) answers: Answers,
    pub(crate) metrics: Metrics,
    pub(crate) condition: Condition,
}

impl Responder {
    /// Answers until shutdown, whenever the replica is able to.
    pub(crate) async fn respond(self) -> Result<(), RespondError> {
        let shutdown = self.context.shutdown.clone();
        while !shutdown.is_cancelled() {
            self.condition.set_not_ready(match self.progress.is_halted() {
                true => "the replica stands still",
                false => "the replica catches up with the journal",
            });
            if shutdown.run_until_cancelled(self.progress.current()).await.is_some() {
                self.serve().await?;
            }
        }
        Ok(())
    }

    /// Joins the queue group, and answers until shutdown, or until the replica stands still or no longer follows the journal:
    /// it would answer with what grows old.
    async fn serve(&self) -> Result<(), RespondError> {
        let (service, mut requests) = Service::start(&self.bus, specification(self.shard)).await?;
        self.condition.set_ready();
        let stop = async {
            self.context.shutdown.cancelled().await;
            service.stop();
            std::future::pending::<RespondError>().await
        };
        let outdated = async {
            self.progress.outdated().await;
            // Whoever is asked to stop follows no longer, and answers what has come.
            if self.context.shutdown.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answered = self.answer_all(&mut requests) => answered,
            error = stop => Err(error),
            // What has come is left unanswered, and asked again: the answer would be of what grows old. To take it first would
            // also mean to drain, which must not be done on a connection that goes on (`Requests`).
            () = outdated => Ok(()),
        }
    }

    async fn answer_all(&self, requests: &mut Requests) -> Result<(), RespondError> {
        let (mut waiting, mut places) = (FuturesUnordered::new(), Places::default());
        loop {
            tokio::select! {
                biased;
                Some((user, answered)) = waiting.next(), if !waiting.is_empty() => {
                    places.give_back(&user);
                    answered?;
                }
                request = requests.next() => {
                    let Some(request) = request else {
                        // Nobody's wait goes on beyond the shutdown.
                        while let Some((_, answered)) = waiting.next().await {
                            answered?;
                        }
                        return Ok(());
                    };
                    let others = std::iter::from_fn(|| requests.next_ready());
                    let requests = std::iter::once(request).chain(others).take(AT_ONCE).collect();
                    for (asked, request) in self.answer_at_once(requests).await? {
                        let user = UserKey::new(&asked.profile.tenant, &asked.profile.user);
                        if places.take(&user) {
                            waiting.push(async move { (user, self.answer_later(asked, request).await) });
                        } else {
                            self.refuse(request, asked.encoding, Problem::new(Code::Busy, "too many requests wait")).await?;
                        }
                    }
                }
            }
            self.metrics.waiting(waiting.len());
        }
    }

    /// Answers from one state of the store. Gives back those whose profile has to reach a revision first.
    async fn answer_at_once(&self, requests: Vec<Request>) -> Result<Vec<(Asked, Request)>, RespondError> {
        let mut later = Vec::new();
        for (request, found) in self.find(requests)? {
            match found {
                Found::Reply(asked, reply) => self.send(request, &asked, reply).await?,
                Found::Given(answer) => {
                    self.metrics.answered(true);
                    self.respond_with(request, Verb::Latest, answer.encoding, answer.payload.clone()).await;
                }
                Found::Refused(problem, encoding) => self.refuse(request, encoding, problem).await?,
                Found::Later(asked) => later.push((asked, request)),
            }
        }
        Ok(later)
    }

    /// What there is to say to each request that may be answered.
    fn find(&self, requests: Vec<Request>) -> Result<Vec<(Request, Found)>, StoreError> {
        let snapshot = self.reader.snapshot();
        let mut found = Vec::with_capacity(requests.len());
        for request in requests {
            if let Some(answer) = self.given(&snapshot, &request)? {
                found.push((request, Found::Given(answer)));
                continue;
            }
            match admit::admit(self.shard, &request) {
                Ok(asked) => {
                    let one = self.find_one(&snapshot, &request, asked)?;
                    found.push((request, one));
                }
                Err(Dropped::Unanswerable) => self.metrics.unanswered(),
                Err(Dropped::Refused(problem, encoding)) => found.push((request, Found::Refused(problem, encoding))),
            }
        }
        Ok(found)
    }

    /// What was answered to the same question before, if it still holds.
    fn given(&self, snapshot: &Snapshot<'_>, request: &Request) -> Result<Option<Arc<Answer>>, StoreError> {
        let Some(answer) = Question::of(request).and_then(|question| self.answers.given(&question, request.reply()))
        else {
            return Ok(None);
        };
        let head = snapshot.standing(&answer.key)?;
        Ok(answer.is_of(head).then_some(answer))
    }

    fn find_one(&self, snapshot: &Snapshot<'_>, request: &Request, asked: Asked) -> Result<Found, StoreError> {
        if asked.ask.is_of_chunks() {
            return Ok(Found::Later(asked));
        }
        let key = ProfileKey::new(&asked.profile);
        let head = snapshot.standing(&key)?;
        if asked.awaited().is_some_and(|revision| head.revision < revision) && asked.wait().is_some() {
            return Ok(Found::Later(asked));
        }
        let reply = self.reply(snapshot, request, &asked, &key, head);
        Ok(Found::Reply(asked, reply))
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
        let here = self.reader.snapshot().standing(&key)?.revision;
        if here < revision {
            let wait = Duration::from_millis(asked.wait().unwrap_or_default().into());
            // Whether it came or the time ran out: the store says what is there.
            let _ = self.context.shutdown.run_until_cancelled(timeout(wait, signal)).await;
        }
        let reply = {
            let snapshot = self.reader.snapshot();
            let head = snapshot.standing(&key)?;
            self.reply(&snapshot, &request, &asked, &key, head)
        };
        self.send(request, &asked, reply).await
    }

    async fn reply_of_chunks(&self, asked: &Asked) -> Result<Bytes, Refusal> {
        let Asked { profile, encoding, ask } = asked;
        let reply = match ask {
            Ask::Have(request) => encode(&self.chunks.have(profile, request).await?, *encoding)?,
            Ask::Chunk(request) => encode(&self.chunks.chunk(profile, *request).await?, *encoding)?,
            _ => return Err(Problem::invalid("the request is none of chunks").into()),
        };
        Ok(reply.into())
    }

    fn reply(
        &self,
        snapshot: &Snapshot<'_>,
        request: &Request,
        asked: &Asked,
        key: &ProfileKey,
        head: Head,
    ) -> Result<Bytes, Refusal> {
        if let Some(revision) = asked.awaited().filter(|revision| head.revision < *revision) {
            let problem = Problem::new(Code::Behind, "the profile has not reached that revision here");
            return Err(Refusal::Problem(problem.with_limit(revision.get(), head.revision.get())));
        }
        let now = Timestamp::from_nanos(clock::now_ns());
        let encoding = asked.encoding;
        let reply = match &asked.ask {
            Ask::Latest(latest) => {
                let reply = latest::latest(snapshot, key, head, latest, encoding, now)?;
                // Without the room that it was written into, which nobody counts.
                let payload = Bytes::from(encode(&reply, encoding)?.into_boxed_slice());
                if let Some(question) = Question::of(request) {
                    self.answers.keep(&question, (&asked.profile, key, head), &reply, &payload);
                }
                self.metrics.answered(false);
                return Ok(payload);
            }
            Ask::Changes { request, since } => {
                let (after, as_of) = since.unzip();
                let (after, limit) = (after.unwrap_or_default(), request.limit);
                let since = Since { profile: &asked.profile, after, as_of, limit, encoding };
                since.check(head, snapshot.floor(key)?, self.reader.horizon().tombstones)?;
                let applied = snapshot.position()?.map_or(0, |position| position.published);
                let applied = Timestamp::from_nanos(applied);
                encode(&changes::changes(snapshot, key, head, &since, applied, now)?, encoding)?
            }
            Ask::History(request) => {
                let of = history::Of { profile: key, head, request };
                encode(&history::history(&self.reader, snapshot, of, encoding, now)?, encoding)?
            }
            Ask::Have(_) | Ask::Chunk(_) => return Err(Problem::invalid("the request is of chunks").into()),
        };
        Ok(reply.into())
    }

    async fn send(&self, request: Request, asked: &Asked, reply: Result<Bytes, Refusal>) -> Result<(), RespondError> {
        match reply {
            Ok(payload) => {
                self.respond_with(request, asked.ask.verb(), asked.encoding, payload).await;
                Ok(())
            }
            Err(Refusal::Problem(problem)) => self.refuse(request, asked.encoding, problem).await,
            Err(Refusal::Fatal(error)) => Err(error),
        }
    }

    async fn respond_with(&self, request: Request, verb: Verb, encoding: Encoding, payload: Bytes) {
        self.metrics.requested(verb);
        note_failure(request.respond(Headers::new().with_content_type(encoding), payload).await);
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

fn specification(shard: Shard) -> ServiceSpec {
    let endpoint = |verb: Verb| EndpointSpec {
        name: verb.as_str().to_owned(),
        subject: subjects::in_shard(shard, verb.wildcard()),
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
