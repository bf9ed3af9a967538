//! Publishing into streams: a bounded window of messages without a PubAck, and retries where a retry can help. Never sets
//! `Nats-Msg-Id`: whoever reads the stream tells repetitions apart by what is in the messages.

mod ack;
mod retry;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::bus::{Bus, Reply, SendError};
use crate::message::Headers;
pub use ack::{Failure, PubAck, PublishError};
use ack::{Verdict, judge, unsent};

/// How a [`Publisher`] publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishSettings {
    /// How many messages may be without a PubAck at a time, at least 1.
    pub window: usize,
    /// How long one attempt waits for its PubAck. It may take a tenth of a second longer.
    pub ack_timeout: Duration,
    /// How long after the first attempt another one may begin. Zero: there is only one.
    pub retry_for: Duration,
}

impl Default for PublishSettings {
    /// 512 messages; two seconds for an attempt; fifteen for all, which outlasts the election of a new leader.
    fn default() -> Self {
        Self { window: 512, ack_timeout: Duration::from_secs(2), retry_for: Duration::from_secs(15) }
    }
}

/// Publishes into whichever streams listen. Clones share the window.
#[derive(Debug, Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    settings: PublishSettings,
    window: Arc<Semaphore>,
}

impl Publisher {
    /// A publisher with a window of its own.
    pub fn new(bus: &Bus, settings: PublishSettings) -> Self {
        let window = Arc::new(Semaphore::new(settings.window.clamp(1, Semaphore::MAX_PERMITS)));
        Self { inner: Arc::new(Inner { bus: bus.clone(), settings, window }) }
    }

    /// Waits for room in the window and publishes. What became of it is known once the [`PendingAck`] is ready; it must
    /// be polled for retries to happen. Messages of one publisher are sent in order, but one that is tried again comes
    /// after those that were sent meanwhile.
    pub async fn publish(&self, subject: String, headers: Headers, payload: Bytes) -> PendingAck {
        // The window is never closed, so there is always a permit to come.
        let permit = Arc::clone(&self.inner.window).acquire_owned().await.ok();
        let attempt = Attempt { inner: Arc::clone(&self.inner), subject: subject.into(), headers, payload };
        let retry_until = Instant::now() + self.inner.settings.retry_for;
        if !self.inner.bus.is_connected() {
            return PendingAck { stage: Stage::again(attempt, retry_until, Failure::Disconnected), permit };
        }
        let stage = match attempt.begin().await {
            Ok(reply) => Stage::First { reply, attempt, retry_until },
            Err(error) => Stage::Failed(unsent(error)),
        };
        PendingAck { stage, permit }
    }

    /// How many messages are without a PubAck now.
    pub fn unacked(&self) -> usize {
        self.inner.settings.window.max(1) - self.inner.window.available_permits()
    }
}

/// A message that was sent, and what becomes of it. Holds its place in the window until it is ready or dropped. Dropping
/// it ends the retries; the message may be stored all the same.
#[must_use = "nothing is tried again unless this is polled"]
#[derive(Debug)]
pub struct PendingAck {
    stage: Stage,
    permit: Option<OwnedSemaphorePermit>,
}

enum Stage {
    First { reply: Reply, attempt: Attempt, retry_until: Instant },
    Again(Pin<Box<dyn Future<Output = Result<PubAck, PublishError>> + Send>>),
    Failed(PublishError),
    Over,
}

/// What is needed to send a message, again if need be.
#[derive(Debug)]
struct Attempt {
    inner: Arc<Inner>,
    subject: Subject,
    headers: Headers,
    payload: Bytes,
}

impl Attempt {
    async fn begin(&self) -> Result<Reply, SendError> {
        let until = Instant::now() + self.inner.settings.ack_timeout;
        let bus = &self.inner.bus;
        let (inbox, reply) = bus.replies().expect(&self.subject, Some(until));
        bus.publish(self.subject.clone(), Some(inbox), self.headers.to_map(), self.payload.clone()).await?;
        Ok(reply)
    }
}

impl Future for PendingAck {
    type Output = Result<PubAck, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let ready = match &mut self.stage {
                Stage::First { reply, .. } => match Pin::new(reply).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(answer) => judge(answer),
                },
                Stage::Again(retries) => match retries.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => Verdict::Final(result),
                },
                Stage::Failed(_) | Stage::Over => Verdict::Final(Err(PublishError::Closed)),
            };
            match (ready, std::mem::replace(&mut self.stage, Stage::Over)) {
                (Verdict::Again(why), Stage::First { attempt, retry_until, .. }) => {
                    self.stage = Stage::again(attempt, retry_until, why);
                }
                (_, Stage::Failed(error)) => return self.over(Err(error)),
                (Verdict::Final(result), _) => return self.over(result),
                (Verdict::Again(why), _) => return self.over(Err(PublishError::Unavailable { source: why })),
            }
        }
    }
}

impl Stage {
    fn again(attempt: Attempt, retry_until: Instant, why: Failure) -> Self {
        Self::Again(Box::pin(retry::until_final(attempt, retry_until, why)))
    }
}

impl PendingAck {
    fn over(&mut self, result: Result<PubAck, PublishError>) -> Poll<Result<PubAck, PublishError>> {
        self.permit = None;
        Poll::Ready(result)
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::First { .. } => "First",
            Self::Again(_) => "Again",
            Self::Failed(_) => "Failed",
            Self::Over => "Over",
        })
    }
}
