//! One connection to NATS: sending, asking, listening, and what is known of its state. A connection has one task for all
//! its input and output, so a service opens several; that is its choice, never made here.
//!
//! The connection is made again for ever after it was lost. What was sent shortly before may be gone then: NATS says
//! nothing of it, and neither does an `Ok` from here. Whoever must know compares [`BusState::generation`]. A message that
//! the library cannot read ends the connection too, see [`crate::Deliveries`] for what becomes of it.

mod acks;
mod credentials;
mod current;
mod error;
mod replies;
mod subscription;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::message::OutboundMessage;
use async_nats::{Client, ConnectOptions, StatusCode, Subject};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::message::{Headers, Message};
use crate::settings::BusSettings;
pub(crate) use acks::AckSender;
pub use credentials::CredentialsError;
use current::Current;
pub(crate) use current::Lasting;
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
/// How long [`Bus::ask_all`] waits for further answers once there are enough.
const STRAGGLERS: Duration = Duration::from_millis(50);
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
    current: Arc<Current>,
    replies: Arc<Replies>,
    watch: Arc<Watch>,
    acks: AckSender,
    /// What hands out answers and replaces a client that died, and what sends acks. Aborted with the last handle of the
    /// connection.
    _tasks: JoinSet<()>,
}

/// What it takes to make the connection, again and again.
struct Maker {
    settings: BusSettings,
    name: String,
    watch: Arc<Watch>,
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
        let maker = Maker { settings: settings.clone(), name: name.to_owned(), watch: Arc::clone(&watch) };
        let client = maker.connect().await?;
        let replies = Arc::new(Replies::new(&client.new_inbox()));
        watch.attach(&client, &replies);
        let answers = client.subscribe(replies.wildcard()).await.map_err(|_| ConnectError::Lost)?;
        let current = Arc::new(Current::new(client));
        let (acks, orders) = AckSender::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(attend(maker, answers, Arc::clone(&current), Arc::clone(&replies)));
        tasks.spawn(acks::send_acks(Arc::clone(&current), orders));
        Ok(Self { inner: Arc::new(Inner { current, replies, watch, acks, _tasks: tasks }) })
    }

    /// Publishes a message. `Ok` means that it was handed to the connection, nothing more: see [`Self::round_trip`].
    /// Waits while the connection is down and the queue before it is full.
    pub async fn send(&self, subject: String, headers: Headers, payload: Bytes) -> Result<(), SendError> {
        self.publish(Subject::from(subject), None, headers.into_map(), payload).await
    }

    /// As [`Self::send`], of a message that is kept: for whoever may have to send it again.
    pub async fn send_kept(&self, message: &Message) -> Result<(), SendError> {
        let (subject, headers) = (Subject::from(message.subject.as_str()), message.headers.to_map());
        self.publish(subject, None, headers, message.payload.clone()).await
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

    /// Asks all who listen, and gathers what they answer within that time, or until so many have answered and no more come.
    /// That nobody does is no error: nobody answered then.
    pub async fn ask_all(
        &self,
        subject: String,
        headers: Headers,
        payload: Bytes,
        (enough, within): (usize, Duration),
    ) -> Result<Vec<Message>, RequestError> {
        let inbox = Subject::from(self.new_inbox());
        let mut listening = self.listen(inbox.clone(), None).await.map_err(|error| match error {
            SubscribeError::Malformed => RequestError::Subject,
            SubscribeError::Closed => RequestError::Closed,
        })?;
        self.publish(Subject::from(subject), Some(inbox), headers.into_map(), payload).await?;
        let until = Instant::now() + within;
        let mut answers = Vec::new();
        loop {
            let more = if answers.len() < enough { until } else { until.min(Instant::now() + STRAGGLERS) };
            match timeout_at(more, listening.next()).await {
                Ok(Some(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => break,
                Ok(Some(answer)) => answers.push(Message::from(answer)),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    /// Listens on a subject. `Ok` does not mean that the server allows it: it says nothing when it does not, except by
    /// [`BusState::denied`].
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, SubscribeError> {
        self.listen(Subject::from(subject), None).await.map(Subscription::new)
    }

    /// As [`Self::subscribe`], sharing what comes with all others of the same queue group.
    pub async fn subscribe_shared(&self, subject: String, group: &str) -> Result<Subscription, SubscribeError> {
        self.listen(Subject::from(subject), Some(group.to_owned())).await.map(Subscription::new)
    }

    /// A subject that nobody else knows, below our inbox prefix.
    pub fn new_inbox(&self) -> String {
        self.client().new_inbox()
    }

    /// What is known of the connection now.
    pub fn state(&self) -> BusState {
        self.inner.watch.state(&self.client())
    }

    /// Tells of each change of [`Self::state`].
    pub fn watch_state(&self) -> tokio::sync::watch::Receiver<BusState> {
        self.inner.watch.subscribe()
    }

    /// How many answers are waited for: requests and publishes without one as yet.
    pub fn awaited_replies(&self) -> usize {
        self.inner.replies.awaited()
    }

    /// The server that we are connected to: its name and its version.
    pub fn server(&self) -> (String, String) {
        let info = self.client().server_info();
        (info.server_name, info.version)
    }

    /// Whether the server asks who comes. If not, everybody gets in.
    pub fn asks_who_comes(&self) -> bool {
        self.client().server_info().auth_required
    }

    /// The largest message that the server takes, in bytes, headers included.
    pub fn max_payload(&self) -> usize {
        self.client().max_payload()
    }

    /// Closes the connection for all clones: what was sent leaves first, for at most five seconds. What is called
    /// afterwards fails with `Closed`.
    pub async fn close(&self) {
        let mut state = self.watch_state();
        let closing = async {
            self.inner.acks.handed().await;
            // From here on a client that ends is not replaced.
            self.inner.current.close();
            let client = self.client();
            let flushed = client.flush().await;
            let draining = client.drain().await;
            if flushed.is_ok() && draining.is_ok() {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = state.wait_for(|state| state.closed).await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, closing).await;
        self.inner.current.end();
        self.inner.replies.close();
    }

    /// As [`BusState::connected`] of [`Self::state`], as far as the events tell: whoever waits for
    /// [`Self::watch_state`] and then asks this cannot miss a change.
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.watch.is_connected()
    }

    /// As [`BusState::generation`] of [`Self::state`].
    pub(crate) fn generation(&self) -> u64 {
        self.inner.watch.generation()
    }

    /// The client that stands for the connection now. It may be replaced at any time.
    pub(crate) fn client(&self) -> Arc<Client> {
        self.inner.current.client()
    }

    /// A subscription that outlives the client that it is made on.
    pub(crate) async fn listen(
        &self,
        subject: Subject,
        queue_group: Option<String>,
    ) -> Result<Lasting, SubscribeError> {
        Lasting::open(self.inner.current.watch(), subject, queue_group).await
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
        self.inner.current.publish(message).await
    }
}

impl Maker {
    async fn connect(&self) -> Result<Client, ConnectError> {
        let Self { settings, name, watch } = self;
        let options = watch.observe(configured(settings, name).await?);
        options.connect(settings.servers.as_slice()).await.map_err(|source| ConnectError::of(settings, source))
    }

    /// Connects, however often that takes, and listens for answers.
    async fn connect_again(&self, replies: &Replies) -> (Client, async_nats::Subscriber) {
        let delay = delays();
        for attempt in 1.. {
            sleep(delay(attempt)).await;
            let error = match self.connect().await {
                Ok(client) => match client.subscribe(replies.wildcard()).await {
                    Ok(answers) => return (client, answers),
                    Err(_) => ConnectError::Lost,
                },
                Err(error) => error,
            };
            tracing::warn!(error = &error as &dyn std::error::Error, "not connected again");
        }
        unreachable!("the attempts are not counted to their end")
    }
}

/// Hands out answers until the connection is closed by us, and replaces a client that died.
async fn attend(maker: Maker, mut answers: async_nats::Subscriber, current: Arc<Current>, replies: Arc<Replies>) {
    let mut standing = current.watch();
    loop {
        route(answers, &replies).await;
        if standing.borrow_and_update().closed {
            break;
        }
        maker.watch.died();
        let connecting = maker.connect_again(&replies);
        let client;
        tokio::select! {
            (next, next_answers) = connecting => (client, answers) = (next, next_answers),
            _ = standing.wait_for(|standing| standing.closed) => break,
        }
        // In this order: what is sent by whoever is told of the next client must not meet the dead one.
        current.replace(client.clone());
        maker.watch.revived(&client);
    }
    replies.close();
}

/// Hands out the answers while the client lives, and ends the waiting for those that are overdue.
async fn route(mut answers: async_nats::Subscriber, replies: &Replies) {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answer = futures_util::StreamExt::next(&mut answers) => match answer {
                Some(answer) => replies.deliver(answer),
                None => break,
            },
            now = sweep.tick() => replies.expire(now),
        }
    }
}

async fn configured(settings: &BusSettings, name: &str) -> Result<ConnectOptions, CredentialsError> {
    let mut options = credentials::options(settings)
        .await?
        .name(name)
        .require_tls(settings.tls)
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(delays());
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
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
