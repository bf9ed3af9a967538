//! Requests as they come, from all endpoints, and the answers to them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_nats::{Message, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use super::{ServiceError, Shared};
use crate::bus::{Lasting, SendError};
use crate::message::Headers;

/// The headers by which the services API marks an answer as an error.
const ERROR_TEXT: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";

/// The requests to all endpoints of a service. One loop takes them; each may be answered anywhere, in any order.
///
/// Dropping them leaves at once. Stopping the service takes first what has come, and is for the end of the connection: if that
/// breaks meanwhile and these are still held, the library subscribes on the next one to what is being drained, and then forgets
/// it. The server goes on sending requests there, which nobody takes (async-nats 0.51; seen under faults, seed 3629).
#[derive(Debug)]
pub struct Requests {
    shared: Arc<Shared>,
    /// One for each endpoint, in their order. `None` once it is exhausted.
    endpoints: Vec<Option<Lasting>>,
    /// The endpoint that is looked at first next time, so that none starves.
    turn: usize,
    leaving: CancellationToken,
    /// Whether the server was told that we take no more.
    left: bool,
}

/// A request. One that is dropped is not answered: the asker waits in vain.
#[derive(Debug)]
#[must_use = "a request that is dropped is not answered"]
pub struct Request {
    /// Which endpoint it is for, in the order of the specification.
    pub endpoint: usize,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// When it was taken from the queue.
    pub taken_at: Instant,
    subject: Subject,
    reply: Option<Subject>,
    shared: Arc<Shared>,
}

impl Requests {
    pub(super) async fn listen(shared: &Arc<Shared>, leaving: CancellationToken) -> Result<Self, ServiceError> {
        let mut endpoints = Vec::with_capacity(shared.spec.endpoints.len());
        for endpoint in &shared.spec.endpoints {
            let subject = Subject::from(endpoint.subject.as_str());
            let listening = shared.bus.listen(subject, Some(endpoint.queue_group.clone())).await;
            endpoints.push(Some(
                listening.map_err(|source| ServiceError::Subscribe { subject: endpoint.subject.clone(), source })?,
            ));
        }
        Ok(Self { shared: Arc::clone(shared), endpoints, turn: 0, leaving, left: false })
    }

    /// The next request; `None` after the service was stopped and all that had come is taken, or while the connection is
    /// down then: no more can come over it, and no answer could leave. Cancel-safe.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            if !self.left && self.leaving.is_cancelled() {
                self.leave().await;
            }
            let leaving = self.leaving.clone();
            let left = self.left.then(|| Arc::clone(&self.shared));
            tokio::select! {
                biased;
                request = poll_fn(|context| self.poll_next(context)) => return request,
                () = leaving.cancelled(), if !self.left => {}
                () = disconnected(left) => {
                    self.endpoints.clear();
                    return None;
                }
            }
        }
    }

    /// The next request if it is here already.
    pub fn next_ready(&mut self) -> Option<Request> {
        unconstrained(poll_fn(|context| self.poll_next(context))).now_or_never().flatten()
    }

    async fn leave(&mut self) {
        for subscriber in self.endpoints.iter_mut().flatten() {
            subscriber.drain().await;
        }
        self.left = true;
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Request>> {
        let count = self.endpoints.len();
        for index in (0..count).map(|offset| (self.turn + offset) % count) {
            let Some(subscriber) = &mut self.endpoints[index] else { continue };
            match subscriber.poll_next(context) {
                Poll::Ready(Some(message)) => {
                    self.turn = index + 1;
                    return Poll::Ready(Some(Request::new(index, message, &self.shared)));
                }
                Poll::Ready(None) => self.endpoints[index] = None,
                Poll::Pending => {}
            }
        }
        if self.endpoints.iter().all(Option::is_none) { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// Waits until the connection of a service that has left is down; for ever while it has not left.
async fn disconnected(left: Option<Arc<Shared>>) {
    let Some(shared) = left else { return std::future::pending().await };
    // The sender lives in the bus, so waiting cannot fail.
    let _ = shared.bus.watch_state().wait_for(|state| !state.connected).await;
}

impl Request {
    /// The subject that it was published on.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Where the answer is expected. The asker chose it, and NATS does not check that they may publish there.
    pub fn reply(&self) -> Option<&str> {
        self.reply.as_deref()
    }

    /// Answers. Without a reply subject nothing is sent. `Ok` means that the answer was handed to the connection.
    pub async fn respond(self, headers: Headers, payload: Bytes) -> Result<(), SendError> {
        self.send(headers, payload, None).await
    }

    /// Answers with an error, in the headers of the services API and in whatever the payload says.
    pub async fn respond_error(
        self,
        code: u16,
        text: &str,
        mut headers: Headers,
        payload: Bytes,
    ) -> Result<(), SendError> {
        headers.insert(ERROR_TEXT, text.to_owned());
        headers.insert(ERROR_CODE, code.to_string());
        let error = format!("{code}:{text}");
        self.send(headers, payload, Some(error)).await
    }

    fn new(endpoint: usize, message: Message, shared: &Arc<Shared>) -> Self {
        Self {
            endpoint,
            headers: Headers::received(message.headers),
            payload: message.payload,
            taken_at: Instant::now(),
            subject: message.subject,
            reply: message.reply,
            shared: Arc::clone(shared),
        }
    }

    async fn send(self, headers: Headers, payload: Bytes, error: Option<String>) -> Result<(), SendError> {
        let sent = match self.reply {
            Some(reply) => self.shared.bus.publish(reply, None, headers.into_map(), payload).await,
            None => Ok(()),
        };
        let error = error.or_else(|| sent.err().map(|error| format!("500:{error}")));
        self.shared.tallies[self.endpoint].count(self.taken_at.elapsed(), error);
        sent
    }
}
