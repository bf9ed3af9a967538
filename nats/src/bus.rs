//! One connection to NATS: sending, asking, listening, and what is known of its state. A connection has one task for all
//! its input and output, so a service opens several; that is its choice, never made here.
//!
//! The connection is made again for ever after it was lost. What was sent shortly before may be gone then: NATS says
//! nothing of it, and neither does an `Ok` from here. Whoever must know compares [`BusState::generation`].

mod acks;
mod credentials;
mod error;
mod replies;
mod subscription;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::traits::Publisher as _;
use async_nats::header::HeaderMap;
use async_nats::message::OutboundMessage;
use async_nats::{PublishErrorKind, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::message::{Headers, Message};
use crate::settings::BusSettings;
pub(crate) use acks::AckSender;
pub use credentials::CredentialsError;
pub use error::{ConnectError, RequestError, SendError};
pub(crate) use replies::{Lost, Replies, Reply};
pub use subscription::{SubscribeError, Subscription};
pub use watch::BusState;
use watch::Watch;

/// How often the server is asked for a sign of life. The connection counts as lost after three without one.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How often overdue answers are looked for.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// How long [`Bus::close`] waits for what was sent to leave.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The mean of the first pause before connecting again, and of the longest.
const RECONNECT_DELAY_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_DELAY_LAST: Duration = Duration::from_secs(2);

/// A connection to NATS. Clones share it; it ends when the last one is dropped, or by [`Bus::close`].
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: async_nats::Client,
    replies: Arc<Replies>,
    watch: Arc<Watch>,
    acks: AckSender,
    /// What hands out answers, and what sends acks. Aborted with the last handle of the connection.
    _tasks: JoinSet<()>,
}

impl Bus {
    /// Connects under a name that the server shows in its monitoring. Fails if the first attempt does; from then on the
    /// connection is made again for ever, after jittered pauses of up to three seconds.
    pub async fn connect(settings: &BusSettings, name: &str) -> Result<Self, ConnectError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(ConnectError::Settings(problems));
        }
        let watch = Arc::new(Watch::default());
        let options = watch.observe(configured(settings, name).await?);
        let client =
            options.connect(settings.servers.as_slice()).await.map_err(|source| ConnectError::of(settings, source))?;
        let replies = Arc::new(Replies::new(&client.new_inbox()));
        watch.attach(&client, &replies);
        let answers = client.subscribe(replies.wildcard()).await.map_err(|_| ConnectError::Lost)?;
        let (acks, orders) = AckSender::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(route(answers, Arc::clone(&replies)));
        tasks.spawn(acks::send_acks(client.clone(), orders));
        Ok(Self { inner: Arc::new(Inner { client, replies, watch, acks, _tasks: tasks }) })
    }

    /// Publishes a message. `Ok` means that it was handed to the connection, nothing more: see [`Self::round_trip`].
    /// Waits while the connection is down and the queue before it is full.
    pub async fn send(&self, subject: String, headers: Headers, payload: Bytes) -> Result<(), SendError> {
        self.publish(Subject::from(subject), None, headers.into_map(), payload).await
    }

    /// As [`Self::send`], naming where an answer is expected.
    pub async fn send_with_reply(
        &self,
        subject: String,
        reply: String,
        headers: Headers,
        payload: Bytes,
    ) -> Result<(), SendError> {
        self.publish(Subject::from(subject), Some(Subject::from(reply)), headers.into_map(), payload).await
    }

    /// Returns once the server has processed all that was sent before on this connection: sends a message to ourselves
    /// and waits for it. If [`BusState::generation`] is not afterwards what it was before the sends, the connection was
    /// made anew in between and some of them may be lost.
    pub async fn round_trip(&self, within: Duration) -> Result<(), SendError> {
        let (inbox, reply) = self.inner.replies.expect(&Subject::from_static(""), None);
        let trip = async {
            self.publish(inbox, None, None, Bytes::new()).await?;
            reply.await.map_err(SendError::from)
        };
        timeout(within, trip).await.map_err(|_| SendError::TimedOut)?.map(drop)
    }

    /// Sends a request and waits for its first answer.
    pub async fn request(
        &self,
        subject: String,
        headers: Headers,
        payload: Bytes,
        within: Duration,
    ) -> Result<Message, RequestError> {
        let subject = Subject::from(subject);
        let (inbox, reply) = self.inner.replies.expect(&subject, None);
        let exchange = async {
            self.publish(subject, Some(inbox), headers.into_map(), payload).await?;
            reply.await.map_err(SendError::from)
        };
        let answer = timeout(within, exchange).await.map_err(|_| RequestError::TimedOut)??;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(RequestError::NoResponders);
        }
        Ok(Message::from(answer))
    }

    /// Listens on a subject. `Ok` does not mean that the server allows it: it says nothing when it does not, except by
    /// [`BusState::denied`].
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, SubscribeError> {
        let subscriber = self.inner.client.subscribe(Subject::from(subject)).await?;
        Ok(Subscription::new(subscriber))
    }

    /// As [`Self::subscribe`], sharing what comes with all others of the same queue group.
    pub async fn subscribe_shared(&self, subject: String, group: &str) -> Result<Subscription, SubscribeError> {
        let subscriber = self.inner.client.queue_subscribe(Subject::from(subject), group.to_owned()).await?;
        Ok(Subscription::new(subscriber))
    }

    /// A subject that nobody else knows, below our inbox prefix.
    pub fn new_inbox(&self) -> String {
        self.inner.client.new_inbox()
    }

    /// What is known of the connection now.
    pub fn state(&self) -> BusState {
        self.inner.watch.state(&self.inner.client)
    }

    /// Tells of each change of [`Self::state`].
    pub fn watch_state(&self) -> tokio::sync::watch::Receiver<BusState> {
        self.inner.watch.subscribe()
    }

    /// How many answers are waited for: requests and publishes without one as yet.
    pub fn awaited_replies(&self) -> usize {
        self.inner.replies.awaited()
    }

    /// The largest message that the server takes, in bytes, headers included.
    pub fn max_payload(&self) -> usize {
        self.inner.client.max_payload()
    }

    /// Closes the connection for all clones: what was sent leaves first, for at most five seconds. What is called
    /// afterwards fails with `Closed`.
    pub async fn close(&self) {
        let mut state = self.watch_state();
        let closing = async {
            self.inner.acks.handed().await;
            let flushed = self.inner.client.flush().await;
            let draining = self.inner.client.drain().await;
            if flushed.is_ok() && draining.is_ok() {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = state.wait_for(|state| state.closed).await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, closing).await;
        self.inner.replies.close();
    }

    /// As [`BusState::connected`] of [`Self::state`], as far as the events tell: whoever waits for
    /// [`Self::watch_state`] and then asks this cannot miss a change.
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.watch.is_connected()
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.inner.client
    }

    pub(crate) fn acks(&self) -> &AckSender {
        &self.inner.acks
    }

    pub(crate) fn replies(&self) -> &Arc<Replies> {
        &self.inner.replies
    }

    pub(crate) async fn publish(
        &self,
        subject: Subject,
        reply: Option<Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), SendError> {
        let message = OutboundMessage { subject, reply, payload, headers };
        self.inner.client.publish_message(message).await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => SendError::TooLarge { limit: self.max_payload() },
            PublishErrorKind::InvalidSubject => SendError::Subject,
            PublishErrorKind::Send => SendError::Closed,
        })
    }
}

/// Hands out the answers until the connection is closed, and ends the waiting for those that are overdue.
async fn route(mut answers: async_nats::Subscriber, replies: Arc<Replies>) {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => replies.deliver(answer),
                None => break,
            },
            now = sweep.tick() => replies.expire(now),
        }
    }
    replies.close();
}

async fn configured(settings: &BusSettings, name: &str) -> Result<async_nats::ConnectOptions, CredentialsError> {
    let mut options = credentials::options(settings)
        .await?
        .name(name)
        .require_tls(settings.tls)
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(delays());
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

/// The pauses before the attempts to connect: none before the very first, then doubling, each between a half and three
/// halves of its mean, so that the clients of a server that died do not come back in step.
fn delays() -> impl Fn(usize) -> Duration + Send + Sync + 'static {
    let begun = AtomicBool::new(false);
    move |attempt| {
        if !begun.swap(true, Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        let mean = RECONNECT_DELAY_FIRST.saturating_mul(1 << doublings).min(RECONNECT_DELAY_LAST);
        mean.mul_f64(rand::random_range(0.5..1.5))
    }
}
