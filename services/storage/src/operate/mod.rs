//! Operate: answers operators, for this replica alone: how it stands, also while it stands still, and what it holds. It only
//! reads, and answers only into inboxes of operators.

mod profiles;
mod status;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_nats::{Bus, EndpointSpec, Headers, Request, Service, ServiceError, ServiceSpec};
use roam_process::{Context, Health};
use roam_schemas::{
    Code, EncodeError, Encoding, Problem, ProfilesRequest, ReplicaName, StatusReply, Timestamp, decode, encode,
    headers,
    subjects::{self, OperatorVerb},
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    progress::Progress,
    store::{Position, Reader, StoreError},
};

/// The name of the service.
const SERVICE: &str = "roam-replica";
/// How many requests are worked on at once; further ones are told `busy`.
const AT_ONCE: usize = 4;

/// Why operators cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    /// The service cannot be started.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Answers operators until shutdown.
#[derive(Clone)]
pub(crate) struct Operated {
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) health: Health,
    pub(crate) name: ReplicaName,
    pub(crate) progress: Progress,
    pub(crate) reader: Reader,
    pub(crate) announces: Arc<AtomicBool>,
}

/// Why a request is refused.
enum Refusal {
    Problem(Problem),
    /// The store failed, or an answer cannot be written: whoever else reads the store ends the process.
    Failed(String),
}

impl Operated {
    /// Answers until shutdown.
    pub(crate) async fn operate(self) -> Result<(), OperateError> {
        let shutdown = self.context.shutdown.clone();
        let (service, mut requests) = Service::start(&self.bus, specification(&self.name)).await?;
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(()) = working.next(), if !working.is_empty() => {}
                request = requests.next() => {
                    let Some(request) = request else { break };
                    let busy = working.len() >= AT_ONCE;
                    working.push(self.answer(request, busy));
                }
            }
        }
        service.stop();
        Ok(())
    }

    async fn answer(&self, request: Request, busy: bool) {
        if !request.reply.as_deref().is_some_and(subjects::may_answer_operator) {
            return;
        }
        // Whoever says nothing of an encoding reads JSON: it is what people send by hand.
        let encoding = request.headers.content_type().map_or(Some(Encoding::Json), Encoding::from_content_type);
        let reply = match encoding {
            None => Err(Refusal::Problem(Problem::invalid("the Content-Type is not one of Roam's"))),
            Some(_) if busy => Err(Refusal::Problem(Problem::new(Code::Busy, "too many requests of operators"))),
            Some(encoding) => self.reply(&request, encoding).await,
        };
        let sent = respond(request, encoding.unwrap_or(Encoding::Json), reply).await;
        if let Err(error) = sent {
            tracing::warn!(error, "an operator was not answered");
        }
    }

    async fn reply(&self, request: &Request, encoding: Encoding) -> Result<Vec<u8>, Refusal> {
        match OperatorVerb::ALL.get(request.endpoint % OperatorVerb::ALL.len()) {
            Some(OperatorVerb::Profiles) => {
                let asked = match request.payload.is_empty() {
                    true => ProfilesRequest::default(),
                    false => decode(&request.payload, encoding).map_err(Problem::from)?,
                };
                asked.validate()?;
                self.wait(&asked).await;
                let (reader, name) = (self.reader.clone(), self.name.clone());
                let listed = spawn_blocking(move || profiles::list(&reader.snapshot(), name, &asked)).await;
                Ok(encode(&listed.map_err(|error| Refusal::Failed(error.to_string()))??, encoding)?)
            }
            _ => {
                let operated = self.clone();
                let status = spawn_blocking(move || operated.status()).await;
                let status: StatusReply = status.map_err(|error| Refusal::Failed(error.to_string()))??;
                Ok(encode(&status, encoding)?)
            }
        }
    }

    /// Waits until what is asked for is applied, or the time is over.
    async fn wait(&self, asked: &ProfilesRequest) {
        if let Some(sequence) = asked.min_sequence {
            let wait = Duration::from_millis(asked.wait_ms.unwrap_or_default().into());
            let reached = timeout(wait, self.progress.reached(sequence));
            let _ = self.context.shutdown.run_until_cancelled(reached).await;
        }
    }

    fn announces(&self) -> bool {
        self.announces.load(Ordering::Relaxed)
    }
}

fn specification(name: &ReplicaName) -> ServiceSpec {
    let endpoint = |replica: Option<&ReplicaName>, verb: OperatorVerb| EndpointSpec {
        name: format!("{}{}", verb.as_str(), if replica.is_some() { "" } else { "-all" }),
        subject: subjects::operate(replica, verb),
        // Each replica answers for itself, so no two are of one group.
        queue_group: format!("replica-{}", name.token()),
    };
    let of = |replica| OperatorVerb::ALL.map(|verb| endpoint(replica, verb));
    ServiceSpec {
        name: SERVICE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: format!("Answers operators for the replica {name}"),
        endpoints: [of(Some(name)), of(None)].concat(),
    }
}

async fn respond(request: Request, encoding: Encoding, reply: Result<Vec<u8>, Refusal>) -> Result<(), String> {
    let problem = match reply {
        Ok(payload) => {
            let headers = Headers::new().with_content_type(encoding);
            return request.respond(headers, payload.into()).await.map_err(|error| error.to_string());
        }
        Err(Refusal::Failed(error)) => return Err(error),
        Err(Refusal::Problem(problem)) => problem,
    };
    let headers = Headers::new().with_content_type(encoding).with(headers::CODE, problem.code.as_str());
    let payload = encode(&problem, encoding).map_err(|error| error.to_string())?;
    let status = if problem.retry { 503 } else { 400 };
    let sent = request.respond_error(status, problem.code.as_str(), headers, payload.into()).await;
    sent.map_err(|error| error.to_string())
}

fn place(position: Option<&Position>) -> Option<roam_schemas::JournalPosition> {
    position.map(|position| roam_schemas::JournalPosition {
        incarnation: position.incarnation,
        sequence: position.sequence,
        batch: position.batch,
        line: position.line,
        published: Timestamp::from_nanos(position.published),
    })
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<EncodeError> for Refusal {
    fn from(error: EncodeError) -> Self {
        Self::Failed(error.to_string())
    }
}
