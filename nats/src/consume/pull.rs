//! Pulling from a consumer, and telling what comes: messages, silence, and what ends a pull. Two pulls are outstanding
//! at a time, so that there is no gap between one and the next. Decides nothing: whether silence matters is known to
//! whoever reads.

mod request;
mod status;

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::bus::{Bus, BusState, Lasting, SendError, SubscribeError};
pub(crate) use request::Group;
use request::PULLS;
pub use request::PullSettings;
use status::Status;

#[derive(Debug)]
pub(crate) struct Puller {
    bus: Bus,
    /// Where pulls are asked for.
    next_subject: Subject,
    /// Where the server answers to pulls. Known to nobody else, which is how its statuses are told from messages.
    inbox: Subject,
    incoming: Lasting,
    settings: PullSettings,
    group: Option<Group>,
    pulls: VecDeque<Pull>,
    state: watch::Receiver<BusState>,
    generation: u64,
    /// The generation in which the inbox was subscribed.
    opened_in: u64,
    /// When the server last gave a sign of life.
    heard: Instant,
    /// When nothing waited to be taken, last.
    empty: Instant,
    /// Whether what waits may belong to pulls that do not count any more.
    mixed: bool,
    /// No pull before this, after one was refused for a while.
    not_before: Option<Instant>,
    paused: bool,
}

/// A pull that stands at the server.
#[derive(Debug, Clone, Copy)]
struct Pull {
    batch: usize,
    /// How many messages it may still bring.
    left: usize,
    sent: Instant,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message, and an instant at which it had not reached this process yet, or just so.
    Message(Message, Instant),
    /// No sign of life for two heartbeats. The pulls are asked for again.
    Silent,
    /// The connection was made anew. The pulls are asked for again.
    Reconnected,
    /// Nobody takes pulls for this consumer: it does not exist, or has no leader now. Asked for again after a pause.
    Vacant,
    /// The consumer was deleted.
    Deleted,
    /// The server refuses such pulls.
    Refused(String),
    /// The connection was closed by us.
    Closed,
}

/// The mean pause after nobody took a pull, or one was over at once.
const PAUSE: Duration = Duration::from_millis(250);
/// A pull that was over sooner than this and brought nothing is not simply asked for again.
const AT_ONCE: Duration = Duration::from_millis(100);
/// More than the statuses that the server can have sent and we not read: it sends one for each pull, and signs of life.
const MOST_STATUSES: usize = 16;
/// How long to wait for the connection's events before looking at it again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Puller {
    pub(crate) async fn open(
        bus: &Bus,
        stream: &str,
        consumer: &str,
        settings: PullSettings,
        group: Option<Group>,
    ) -> Result<Self, SubscribeError> {
        let inbox = Subject::from(bus.new_inbox());
        let state = bus.watch_state();
        let generation = bus.generation();
        let incoming = bus.listen(inbox.clone(), None).await?;
        let now = Instant::now();
        Ok(Self {
            bus: bus.clone(),
            next_subject: Subject::from(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")),
            inbox,
            incoming,
            settings,
            group,
            pulls: VecDeque::with_capacity(PULLS),
            state,
            generation,
            opened_in: generation,
            heard: now,
            empty: now,
            mixed: false,
            not_before: None,
            paused: false,
        })
    }

    /// What comes next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event {
        // Taking what has come is outside of the scheduler's budget, so a reader that never has to wait yields here.
        tokio::task::consume_budget().await;
        loop {
            if let Some(event) = self.ready() {
                return event;
            }
            if self.top_up().await.is_err() {
                return Event::Closed;
            }
            self.empty = Instant::now();
            self.mixed = false;
            let look_again = self.deadline();
            tokio::select! {
                message = self.incoming.next() => {
                    let Some(message) = message else { return Event::Closed };
                    if let Some(event) = self.read(message) {
                        return event;
                    }
                }
                () = sleep_until(look_again) => {}
                // Whatever changed is looked at from the top.
                changed = self.state.changed() => if changed.is_err() { return Event::Closed },
            }
        }
    }

    /// What has come already. Asks for more where that is due and can be done without waiting.
    pub(crate) fn ready(&mut self) -> Option<Event> {
        loop {
            let generation = self.bus.generation();
            if generation != self.generation {
                self.generation = generation;
                self.pulls.clear();
                self.mixed = true;
                self.not_before = None;
                return Some(Event::Reconnected);
            }
            if let Some(Err(_)) = unconstrained(self.top_up()).now_or_never() {
                return Some(Event::Closed);
            }
            // The scheduler's budget of a task would hide what is there after 128 messages. Taking what has come cannot
            // starve other tasks for long: no more comes than was asked for.
            let Some(taken) = unconstrained(self.incoming.next()).now_or_never() else { break };
            let Some(message) = taken else { return Some(Event::Closed) };
            if let Some(event) = self.read(message) {
                return Some(event);
            }
        }
        let silent = self.is_silent();
        if silent {
            self.pulls.clear();
        }
        silent.then_some(Event::Silent)
    }

    /// Asks for nothing more. What was asked for still comes.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether we hold the pin of the group.
    pub(crate) fn is_pinned(&self) -> bool {
        self.group.as_ref().is_some_and(Group::is_pinned)
    }

    /// Whether nothing is asked for that may still come.
    pub(crate) fn is_dry(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Whether [`Self::stop`] loses nothing: the connection is the one that was subscribed on.
    pub(crate) fn stops_exactly(&self) -> bool {
        self.bus.generation() == self.opened_in
    }

    /// Asks for nothing more. [`Event::Closed`] comes a round trip later, behind all that is on its way; at once, and what is
    /// on its way is lost, unless it [stops exactly](Self::stops_exactly).
    pub(crate) async fn stop(&mut self) {
        self.paused = true;
        if !self.stops_exactly() {
            self.incoming.unsubscribe().await;
            return;
        }
        // No more than that can be on its way, and the server stops at the last of those that we send behind it.
        let more = self.pulls.iter().map(|pull| pull.left).sum::<usize>() + MOST_STATUSES;
        self.incoming.end_after(u64::try_from(more).unwrap_or(u64::MAX)).await;
        for _ in 0..more {
            // Fails only once the connection is closed, which is an end as well.
            let _ = self.bus.publish(self.inbox.clone(), None, None, Bytes::new()).await;
        }
    }

    /// Cancel-safe: a pull that was not sent does not count as standing.
    async fn top_up(&mut self) -> Result<(), SendError> {
        while self.pulls.len() < PULLS.min(self.settings.max_messages) && !self.paused {
            if self.not_before.is_some_and(|instant| Instant::now() < instant) || !self.bus.is_connected() {
                break;
            }
            self.pull().await?;
        }
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), SendError> {
        let batch = self.settings.batch();
        let body = self.settings.request(self.group.as_ref());
        self.bus.publish(self.next_subject.clone(), Some(self.inbox.clone()), None, body).await?;
        let sent = Instant::now();
        if self.pulls.is_empty() {
            self.heard = sent;
        }
        self.pulls.push_back(Pull { batch, left: batch, sent });
        self.not_before = None;
        Ok(())
    }

    fn read(&mut self, message: Message) -> Option<Event> {
        self.heard = Instant::now();
        if message.subject == self.inbox {
            return self.read_status(&message);
        }
        // It came after the queue was empty, and after what asked for it was sent.
        let asked = self.pulls.front().filter(|_| !self.mixed).map_or(self.empty, |pull| pull.sent);
        let received = asked.max(self.empty);
        self.fulfil(1);
        if let Some(group) = &mut self.group {
            group.read_pin(&message);
        }
        Some(Event::Message(message, received))
    }

    fn read_status(&mut self, message: &Message) -> Option<Event> {
        match Status::of(message) {
            Status::Alive => return None,
            Status::Ended { unfulfilled } => self.end_first(unfulfilled),
            Status::PinLost { unfulfilled } => {
                if let Some(group) = &mut self.group {
                    group.lose_pin();
                }
                self.end_first(unfulfilled);
            }
            Status::Vacant => {
                self.pulls.pop_front();
                self.pause_briefly();
                return Some(Event::Vacant);
            }
            Status::Deleted => return Some(Event::Deleted),
            Status::Refused(text) => {
                self.pulls.pop_front();
                self.pause_briefly();
                return Some(Event::Refused(text));
            }
        }
        None
    }

    fn end_first(&mut self, unfulfilled: Option<usize>) {
        let Some(&Pull { batch, left, sent }) = self.pulls.front() else { return };
        let unfulfilled = unfulfilled.unwrap_or(left);
        // A pull of which nothing is missing was counted to its end already; the first is another one then.
        if unfulfilled == batch && left == batch && sent.elapsed() < AT_ONCE {
            self.pause_briefly();
        }
        self.fulfil(unfulfilled);
    }

    fn pause_briefly(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE.mul_f64(rand::random_range(0.5..1.5)));
    }

    /// Pulls are served in the order in which they were sent, so what came, or never will, is that of the first.
    fn fulfil(&mut self, mut count: usize) {
        while let Some(pull) = self.pulls.front_mut() {
            if pull.left > count {
                pull.left -= count;
                return;
            }
            count -= pull.left;
            self.pulls.pop_front();
            if count == 0 {
                return;
            }
        }
    }

    fn is_silent(&self) -> bool {
        !self.pulls.is_empty() && Instant::now() >= self.heard + self.settings.heartbeat * 2
    }

    /// When to look again although nothing came.
    fn deadline(&self) -> Instant {
        match self.not_before {
            _ if self.pulls.is_empty() && !self.paused => self.not_before.unwrap_or(self.empty + LOOK_AGAIN),
            Some(instant) if !self.paused => instant.min(self.heard + self.settings.heartbeat * 2),
            _ if self.pulls.is_empty() => self.empty + LOOK_AGAIN,
            _ => self.heard + self.settings.heartbeat * 2,
        }
    }
}
