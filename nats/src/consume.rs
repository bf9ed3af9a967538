//! Reading a stream through a durable consumer: deliveries that are settled one by one. Outages, silence and lost pulls
//! are survived inside, and so are messages that the library cannot read; only what a person must mend comes out as an
//! error.

mod delivery;
mod lost;
pub(crate) mod place;
pub(crate) mod pull;
pub(crate) mod unreadable;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::bus::{Bus, SubscribeError};
use crate::streams::{ConsumerState, StateError, consumer_state};
pub use delivery::{AckDuty, Delivery};
pub use pull::PullSettings;
use pull::{Event, Group, Puller};
use unreadable::SearchError;

/// How long [`Deliveries::close`] waits for what is still on its way: a round trip, unless the connection is down.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long [`Deliveries::close`] waits until its pulls are fulfilled, where what is on its way would be lost otherwise. Under
/// load they are at once; where hardly anything comes, hardly anything is on its way either.
const RUN_DRY_WITHIN: Duration = Duration::from_millis(200);
/// How often what was lost is looked for, and the pause before another attempt: together longer than the election of a leader takes
/// (4 to 9 s, measured with nats-server 2.15).
const SEARCHES: u32 = 20;
const SEARCH_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a durable consumer delivers to us. Others may read from the same consumer.
#[derive(Debug)]
pub struct Deliveries {
    bus: Bus,
    puller: Puller,
    stream: String,
    durable: String,
    /// Taken from the queue, and too large for the last [`Self::next_ready`].
    held: Option<Delivery>,
    /// What the library could not read, to be delivered next.
    found: VecDeque<Delivery>,
    /// Looks for what the library could not read, and for what was lost on its way. Kept between calls, as the question.
    search: Option<Work<Result<Vec<Delivery>, SearchError>>>,
    /// How often it may fail before the next redelivery is left to find them.
    searches_left: u32,
    untrusted: bool,
    /// The newest that came here for the first time.
    newest: u64,
    /// Asks whether the consumer still exists. Kept between calls, so that it goes on if a call is cancelled.
    question: Option<Work<Result<ConsumerState, StateError>>>,
    silences: u64,
}

/// Work that goes on between calls.
struct Work<T>(Pin<Box<dyn Future<Output = T> + Send>>);

/// A consumer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The stream or the consumer does not exist: provision, or find out who deleted it.
    #[error("consumer {consumer} does not exist")]
    NotFound {
        /// `STREAM/NAME`.
        consumer: String,
    },
    /// The server refuses our way of pulling: the settings do not fit the consumer.
    #[error("pulling from consumer {consumer} is refused: {text}")]
    Refused {
        /// `STREAM/NAME`.
        consumer: String,
        /// What the server says.
        text: String,
    },
    /// The server does not say whether the consumer exists: try again later, or mend the credentials.
    #[error("consumer {consumer} cannot be asked for")]
    Unavailable {
        /// `STREAM/NAME`.
        consumer: String,
        /// Why.
        source: StateError,
    },
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

impl Deliveries {
    /// Begins to read from a durable pull consumer. Asks first whether it exists; never creates it.
    pub async fn open(bus: &Bus, stream: &str, durable: &str, settings: PullSettings) -> Result<Self, ConsumeError> {
        Self::open_in(bus, stream, durable, settings, None).await
    }

    pub(crate) async fn open_in(
        bus: &Bus,
        stream: &str,
        durable: &str,
        settings: PullSettings,
        group: Option<Group>,
    ) -> Result<Self, ConsumeError> {
        let consumer = || format!("{stream}/{durable}");
        match consumer_state(bus, stream, durable).await {
            Ok(_) => {}
            Err(StateError::NotFound { .. }) => return Err(ConsumeError::NotFound { consumer: consumer() }),
            Err(source) => return Err(ConsumeError::Unavailable { consumer: consumer(), source }),
        }
        let untrusted = settings.untrusted;
        let puller = Puller::open(bus, stream, durable, settings, group).await.map_err(|error| match error {
            SubscribeError::Closed => ConsumeError::Closed,
            SubscribeError::Malformed => ConsumeError::NotFound { consumer: consumer() },
        })?;
        Ok(Self {
            bus: bus.clone(),
            puller,
            stream: stream.to_owned(),
            durable: durable.to_owned(),
            held: None,
            found: VecDeque::new(),
            search: None,
            searches_left: 0,
            untrusted,
            newest: 0,
            question: None,
            silences: 0,
        })
    }

    /// The next delivery. Cancel-safe. Waits as long as it takes: through reconnects, elections and silence.
    pub async fn next(&mut self) -> Result<Delivery, ConsumeError> {
        loop {
            if let Some(delivery) = self.held.take().or_else(|| self.found.pop_front()) {
                return Ok(delivery);
            }
            let event = tokio::select! {
                answer = under_way(&mut self.question) => {
                    self.question = None;
                    if let Err(StateError::NotFound { .. }) = answer {
                        return Err(self.not_found());
                    }
                    continue;
                }
                found = under_way(&mut self.search) => {
                    self.search = None;
                    self.take_found(found);
                    continue;
                }
                event = self.puller.next() => event,
            };
            if let Some(delivery) = self.take(event)? {
                return Ok(delivery);
            }
        }
    }

    /// Waits for one delivery, then takes whatever is already there and never lingers: at most `max` deliveries, and no
    /// more than `max_bytes` of subjects and payloads unless the first alone exceeds that. Cancel-safe.
    pub async fn next_ready(&mut self, max: usize, max_bytes: usize) -> Result<Vec<Delivery>, ConsumeError> {
        let first = self.next().await?;
        let mut bytes = first.size();
        let mut taken = vec![first];
        // From here on nothing is waited for, so nothing taken can be lost by cancelling.
        while taken.len() < max {
            let Some(event) = self.puller.ready() else { break };
            match self.take(event) {
                Ok(None) => {}
                Ok(Some(delivery)) if bytes + delivery.size() > max_bytes => {
                    self.held = Some(delivery);
                    break;
                }
                Ok(Some(delivery)) => {
                    bytes += delivery.size();
                    taken.push(delivery);
                }
                // What is wrong now is still wrong at the next call.
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Asks for nothing more until [`Self::resume`]. What was asked for before still comes.
    pub fn pause(&mut self) {
        self.puller.pause(true);
    }

    /// Asks for more again.
    pub fn resume(&mut self) {
        self.puller.pause(false);
    }

    /// How often the server was silent for longer than two heartbeats.
    pub fn silences(&self) -> u64 {
        self.silences
    }

    /// Whether the consumer pinned us: see [`PinnedDeliveries`](crate::PinnedDeliveries).
    pub(crate) fn is_pinned(&self) -> bool {
        self.puller.is_pinned()
    }

    /// Stops reading, and naks what was delivered and not taken, so that others get it at once. Returns when the naks
    /// were handed to the connection, after a round trip, and little more than a second at most.
    pub async fn close(mut self) {
        // Nothing is nacked while we ask for more: it would come to us again.
        let mut rest: Vec<_> = self.held.take().into_iter().chain(self.found.drain(..)).collect();
        self.puller.pause(true);
        if !self.puller.stops_exactly() {
            let _ = timeout(RUN_DRY_WITHIN, self.collect(&mut rest, Puller::is_dry)).await;
        }
        let stopping = async {
            self.puller.stop().await;
            self.collect(&mut rest, |_| false).await;
        };
        let _ = timeout(CLOSE_WITHIN, stopping).await;
        drop(rest);
        self.bus.acks().handed().await;
    }

    /// Takes what still comes, until it is enough or nothing more can come.
    async fn collect(&mut self, rest: &mut Vec<Delivery>, enough: impl Fn(&Puller) -> bool) {
        while !enough(&self.puller) {
            match self.puller.next().await {
                Event::Message(message, received_at) => {
                    rest.extend(Delivery::new(message, received_at.into_std(), self.bus.acks()));
                }
                Event::Closed => break,
                _ => {}
            }
        }
    }

    /// What an event means to whoever waits for deliveries.
    fn take(&mut self, event: Event) -> Result<Option<Delivery>, ConsumeError> {
        match event {
            Event::Message(message, received_at) => {
                let delivery = Delivery::new(message, received_at.into_std(), self.bus.acks());
                if let Some(Delivery { stream_sequence, delivered: 1, .. }) = delivery {
                    self.newest = self.newest.max(stream_sequence);
                }
                if delivery.is_none() {
                    tracing::warn!(stream = %self.stream, "a delivery without a reply subject of JetStream is dropped");
                }
                return Ok(delivery);
            }
            Event::Silent => {
                self.silences += 1;
                tracing::warn!(stream = %self.stream, consumer = %self.durable, "the consumer is silent");
                self.ask();
                self.lost_some();
            }
            Event::Vacant => {
                self.ask();
                self.lost_some();
            }
            Event::Reconnected => {
                // Asked for anew if it is under way: it may be waiting for an answer that was lost.
                self.search = None;
                self.lost_some();
            }
            Event::Deleted => return Err(self.not_found()),
            Event::Refused(text) => return Err(ConsumeError::Refused { consumer: self.name(), text }),
            Event::Closed => return Err(ConsumeError::Closed),
        }
        Ok(None)
    }

    fn take_found(&mut self, found: Result<Vec<Delivery>, SearchError>) {
        match found {
            Ok(found) => {
                for delivery in &found {
                    let (stream, sequence) = (&self.stream, delivery.stream_sequence);
                    tracing::warn!(stream, sequence, "a message that cannot be read had ended the connection");
                }
                self.found.extend(found);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(stream = %self.stream, error, "what was lost on its way was not looked for");
                if let Some(left) = self.searches_left.checked_sub(1) {
                    self.searches_left = left;
                    self.search_after(SEARCH_AGAIN_AFTER);
                }
            }
        }
    }

    /// What was on its way over a connection that is gone, or from a leader of the consumer that is gone, is looked for.
    fn lost_some(&mut self) {
        // Who was given nothing has lost nothing.
        if (self.untrusted || self.newest > 0) && self.search.is_none() {
            self.searches_left = SEARCHES;
            self.search_after(Duration::ZERO);
        }
    }

    fn search_after(&mut self, pause: Duration) {
        let (bus, stream, durable) = (self.bus.clone(), self.stream.clone(), self.durable.clone());
        let (newest, untrusted) = (self.newest, self.untrusted);
        let search = async move {
            sleep(pause).await;
            if untrusted {
                return unreadable::search(&bus, &stream, &durable, newest).await;
            }
            lost::give_back(&bus, &stream, &durable, newest).await?;
            Ok(Vec::new())
        };
        self.search = Some(Work(Box::pin(search)));
    }

    /// Silence has many reasons; that the consumer is gone is the one that waiting does not mend.
    fn ask(&mut self) {
        if self.question.is_none() {
            let (bus, stream, durable) = (self.bus.clone(), self.stream.clone(), self.durable.clone());
            let question = async move { consumer_state(&bus, &stream, &durable).await };
            self.question = Some(Work(Box::pin(question)));
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.stream, self.durable)
    }

    fn not_found(&self) -> ConsumeError {
        ConsumeError::NotFound { consumer: self.name() }
    }
}

/// What comes of it once it is done; never, while there is nothing under way. Cancel-safe.
async fn under_way<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(Work(work)) => work.await,
        None => std::future::pending().await,
    }
}

impl<T> std::fmt::Debug for Work<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Work")
    }
}
