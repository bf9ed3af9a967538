//! Operate: answers operators, for this replica alone: how it stands, also while it stands still, and what it holds. It only
//! reads, and answers only into inboxes of operators.

mod holdings;
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
    Code, DecodeError, EncodeError, Encoding, HoldingsRequest, Message, Problem, ProfilesRequest, ReplicaName, Shard,
    decode, encode, headers,
    subjects::{self, OperatorVerb},
};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    chunks::Chunks,
    erasure::Leaving,
    progress::Progress,
    store::{Reader, StoreError},
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
    pub(crate) shard: Shard,
    pub(crate) bus: Bus,
    pub(crate) context: Context,
    pub(crate) health: Health,
    pub(crate) name: ReplicaName,
    pub(crate) progress: Progress,
    pub(crate) reader: Reader,
    pub(crate) announces: Arc<AtomicBool>,
    pub(crate) chunks: Chunks,
    pub(crate) leaving: Leaving,
}

/// Why a request is refused.
enum Refusal {
    Problem(Problem),
    /// The store or its disk failed, or an answer cannot be written. Whoever else reads the store ends the process.
    Failed(String),
}

impl Operated {
    /// Answers until shutdown.
    pub(crate) async fn operate(self) -> Result<(), OperateError> {
        let shutdown = self.context.shutdown.clone();
        let (service, mut requests) = Service::start(&self.bus, specification(&self.name, &self.instance())).await?;
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

    /// Tells this process from any other, also from one to which somebody gave the same name.
    fn instance(&self) -> String {
        let inbox = self.bus.new_inbox();
        inbox.rsplit('.').next().unwrap_or_default().to_owned()
    }

    async fn answer(&self, request: Request, busy: bool) {
        if !request.reply().is_some_and(subjects::may_answer_operator) {
            return;
        }
        // Whoever says nothing of an encoding reads JSON: it is what people send by hand.
        let encoding = request.headers.content_type().map_or(Some(Encoding::Json), Encoding::from_content_type);
        let reply = match encoding {
            None => Err(Refusal::Problem(Problem::invalid("the Content-Type is not one of Roam's"))),
            Some(_) if busy => Err(Refusal::Problem(Problem::new(Code::Busy, "too many requests of operators"))),
            Some(encoding) => self.reply(&request, encoding).await,
        };
        let sent = respond(request, self.shard, encoding.unwrap_or(Encoding::Json), reply).await;
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
                self.wait(asked.min_sequence, asked.wait_ms).await;
                let operated = self.clone();
                let list = move || Ok(profiles::list(&operated.reader.snapshot(), operated.name.clone(), &asked)?);
                read(encoding, list).await
            }
            Some(OperatorVerb::Holdings) => {
                let asked: Result<HoldingsRequest, DecodeError> = decode(&request.payload, encoding);
                let asked = asked.map_err(Problem::from)?;
                asked.validate()?;
                self.wait(asked.min_sequence, asked.wait_ms).await;
                let operated = self.clone();
                read(encoding, move || operated.holdings(&asked)).await
            }
            Some(OperatorVerb::Status) | None => {
                let operated = self.clone();
                read(encoding, move || operated.status()).await
            }
        }
    }

    /// Waits until what is asked for is applied, or the time is over.
    async fn wait(&self, min_sequence: Option<u64>, wait_ms: Option<u32>) {
        if let Some(sequence) = min_sequence {
            let wait = Duration::from_millis(wait_ms.unwrap_or_default().into());
            let reached = timeout(wait, self.progress.reached(sequence));
            let _ = self.context.shutdown.run_until_cancelled(reached).await;
        }
    }

    fn announces(&self) -> bool {
        self.announces.load(Ordering::Relaxed)
    }
}

/// Reads the store or the disk where that holds up nobody else, and writes the answer.
async fn read<M: Message + Send + 'static>(
    encoding: Encoding,
    look: impl FnOnce() -> Result<M, Refusal> + Send + 'static,
) -> Result<Vec<u8>, Refusal> {
    let found = spawn_blocking(look).await.map_err(|error| Refusal::Failed(error.to_string()))??;
    Ok(encode(&found, encoding)?)
}

fn specification(name: &ReplicaName, instance: &str) -> ServiceSpec {
    let endpoint = |replica: Option<&ReplicaName>, verb: OperatorVerb| EndpointSpec {
        name: format!("{}{}", verb.as_str(), if replica.is_some() { "" } else { "-all" }),
        subject: subjects::operate(replica, verb),
        // Each replica answers for itself, so no two are of one group, whatever they are called.
        queue_group: format!("replica-{instance}"),
    };
    let of = |replica| OperatorVerb::ALL.map(|verb| endpoint(replica, verb));
    ServiceSpec {
        name: SERVICE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: format!("Answers operators for the replica {name}"),
        endpoints: [of(Some(name)), of(None)].concat(),
    }
}

async fn respond(
    request: Request,
    shard: Shard,
    encoding: Encoding,
    reply: Result<Vec<u8>, Refusal>,
) -> Result<(), String> {
    let headers = Headers::new().with_content_type(encoding).with(headers::SHARD, shard.to_string());
    let (status, problem) = match reply {
        Ok(payload) => {
            return request.respond(headers, payload.into()).await.map_err(|error| error.to_string());
        }
        Err(Refusal::Failed(error)) => {
            tracing::error!(error, "what an operator asks for cannot be read");
            (500, Problem::new(Code::Busy, format!("the replica cannot read what it holds: {error}")))
        }
        Err(Refusal::Problem(problem)) => (if problem.retry { 503 } else { 400 }, problem),
    };
    let headers = headers.with(headers::CODE, problem.code.as_str());
    let payload = encode(&problem, encoding).map_err(|error| error.to_string())?;
    let sent = request.respond_error(status, problem.code.as_str(), headers, payload.into()).await;
    sent.map_err(|error| error.to_string())
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
