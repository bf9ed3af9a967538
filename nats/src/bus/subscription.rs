//! Listening on a subject.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::SubscribeErrorKind;
use futures_util::Stream;

use super::Lasting;
use crate::message::Message;

/// What comes on a subject. It ends only with the connection; messages that nobody takes are dropped beyond 65,536.
/// Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    lasting: Lasting,
}

/// A subject cannot be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The subject or the queue group is malformed. Never try again.
    #[error("the subject or the queue group is malformed")]
    Malformed,
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

impl Subscription {
    pub(super) fn new(lasting: Lasting) -> Self {
        Self { lasting }
    }

    /// The next message, or `None` once the connection is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Message> {
        self.lasting.next().await.map(Message::from)
    }

    /// Listens no longer. What has come, and what is on its way, can still be taken; then [`Self::next`] gives `None`. That
    /// holds if nothing else goes over the connection meanwhile, which has to be closed soon after.
    pub async fn drain(&mut self) {
        self.lasting.drain().await;
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.lasting.poll_next(context).map(|message| message.map(Message::from))
    }
}

impl From<async_nats::SubscribeError> for SubscribeError {
    fn from(error: async_nats::SubscribeError) -> Self {
        match error.kind() {
            SubscribeErrorKind::InvalidSubject | SubscribeErrorKind::InvalidQueueName => Self::Malformed,
            SubscribeErrorKind::Other => Self::Closed,
        }
    }
}
