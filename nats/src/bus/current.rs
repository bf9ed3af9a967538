//! The library's client that stands for the connection now. The library makes a lost connection again by itself; what it
//! does not survive is a message that its parser panics on (one with a carriage return within a header), after which the
//! client is dead for good. Then another one takes its place here. Decides nothing: who notices the death makes the next.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_nats::client::traits::Publisher as _;
use async_nats::message::OutboundMessage;
use async_nats::{Client, Message, PublishErrorKind, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use tokio::sync::watch;

use super::{SendError, SubscribeError};

/// The client of now, and a way to wait for the next one.
#[derive(Debug)]
pub(super) struct Current {
    standing: watch::Sender<Standing>,
}

/// What stands for the connection.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// Shared: a clone of it is as large as many a message.
    pub(super) client: Arc<Client>,
    /// Whether it is the last one: the connection is being closed by us, or was.
    pub(super) closed: bool,
    /// Whether nothing is sent any more: it was closed. The library may take a message for a moment longer, and lose it.
    over: bool,
}

impl Current {
    pub(super) fn new(client: Client) -> Self {
        Self { standing: watch::Sender::new(Standing { client: Arc::new(client), closed: false, over: false }) }
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.standing.borrow().client)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Hands a message to the client of now. One that meets a dead client is lost, as what was sent shortly before its
    /// death may be, and whoever sent it goes on with the next client.
    pub(super) async fn publish(&self, message: OutboundMessage) -> Result<(), SendError> {
        let client = {
            let now = self.standing.borrow();
            if now.over {
                return Err(SendError::Closed);
            }
            Arc::clone(&now.client)
        };
        let Err(error) = client.publish_message(message).await else { return Ok(()) };
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Err(SendError::TooLarge { limit: client.max_payload() }),
            PublishErrorKind::InvalidSubject => Err(SendError::Subject),
            PublishErrorKind::Send => {
                let mut standing = self.watch();
                {
                    let now = standing.borrow_and_update();
                    if now.closed {
                        return Err(SendError::Closed);
                    }
                    if !Arc::ptr_eq(&now.client, &client) {
                        return Ok(());
                    }
                }
                // Fails only if the connection is dropped meanwhile.
                standing.changed().await.map_err(|_| SendError::Closed)?;
                if standing.borrow().closed { Err(SendError::Closed) } else { Ok(()) }
            }
        }
    }

    /// A client has died, and this is the next one.
    pub(super) fn replace(&self, client: Client) {
        self.standing.send_modify(|standing| standing.client = Arc::new(client));
    }

    /// There will be no other client.
    pub(super) fn close(&self) {
        self.standing.send_modify(|standing| standing.closed = true);
    }

    /// Nothing is sent any more.
    pub(super) fn end(&self) {
        self.standing.send_modify(|standing| (standing.closed, standing.over) = (true, true));
    }
}

/// A subscription that outlives the client that it was made on. It keeps no connection open.
pub(crate) struct Lasting {
    subject: Subject,
    queue_group: Option<String>,
    standing: watch::Receiver<Standing>,
    subscriber: Subscriber,
    /// Under way while the client is dead. Ends with none if there will be no other.
    renewing: Option<BoxFuture<'static, Option<Renewed>>>,
    drained: bool,
    /// How many messages were taken from this subscriber.
    taken: u64,
}

type Renewed = (Subscriber, watch::Receiver<Standing>);

impl Lasting {
    pub(super) async fn open(
        mut standing: watch::Receiver<Standing>,
        subject: Subject,
        queue_group: Option<String>,
    ) -> Result<Self, SubscribeError> {
        let client = Arc::clone(&standing.borrow_and_update().client);
        let subscriber = subscribe(&client, subject.clone(), queue_group.clone()).await?;
        Ok(Self { subject, queue_group, standing, subscriber, renewing: None, drained: false, taken: 0 })
    }

    /// The next message, or `None` once the connection is closed by us, or after [`Self::drain`]. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if let Some(renewing) = &mut self.renewing {
                let renewed = ready!(renewing.poll_unpin(context));
                self.renewing = None;
                match renewed {
                    Some(renewed) => {
                        (self.subscriber, self.standing) = renewed;
                        self.taken = 0;
                    }
                    None => return Poll::Ready(None),
                }
            }
            let taken = ready!(self.subscriber.poll_next_unpin(context));
            self.taken += u64::from(taken.is_some());
            if taken.is_some() || self.drained {
                return Poll::Ready(taken);
            }
            let renewing = renew(self.standing.clone(), self.subject.clone(), self.queue_group.clone());
            self.renewing = Some(renewing.boxed());
        }
    }

    /// Tells the server that nobody listens any more. What has come can still be taken. The connection has to end soon: see
    /// [`crate::Requests`].
    pub(crate) async fn drain(&mut self) {
        self.drained = true;
        // Fails only if the client is gone, which ends the subscriber too.
        let _ = self.subscriber.drain().await;
    }

    /// Tells the server that nobody listens any more, whatever becomes of the connection. What has come can still be taken; what
    /// is on its way is lost.
    pub(crate) async fn unsubscribe(&mut self) {
        self.drained = true;
        // Fails only if the client is gone, which ends the subscriber too.
        let _ = self.subscriber.unsubscribe().await;
    }

    /// Ends the subscription with the message that comes as the `more`th from now, here and at the server. Whoever sends so
    /// many themselves, to where only they are heard, has by the end of it got all that was on its way: neither
    /// unsubscribing nor draining waits for that (async-nats 0.51). The server counts anew after a reconnect, so that it must
    /// not be used then.
    pub(crate) async fn end_after(&mut self, more: u64) {
        self.drained = true;
        // Fails only if the client is gone, which ends the subscriber too.
        let _ = self.subscriber.unsubscribe_after(self.taken + more).await;
    }
}

impl fmt::Debug for Lasting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lasting").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Subscribes again on the next client that lives.
async fn renew(
    mut standing: watch::Receiver<Standing>,
    subject: Subject,
    queue_group: Option<String>,
) -> Option<Renewed> {
    loop {
        if standing.borrow().closed {
            return None;
        }
        // Fails once the connection is dropped.
        standing.changed().await.ok()?;
        let client = Arc::clone(&standing.borrow_and_update().client);
        if let Ok(subscriber) = subscribe(&client, subject.clone(), queue_group.clone()).await {
            return Some((subscriber, standing));
        }
    }
}

async fn subscribe(
    client: &Client,
    subject: Subject,
    queue_group: Option<String>,
) -> Result<Subscriber, async_nats::SubscribeError> {
    match queue_group {
        None => client.subscribe(subject).await,
        Some(group) => client.queue_subscribe(subject, group).await,
    }
}
