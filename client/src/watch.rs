//! Following a profile: listens to notices first, then fetches the delta, then applies the notices that come next; after
//! anything that may have lost a notice it fetches the delta again. This is the shell around `watch/state.rs`, which
//! decides what is delivered.

mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use roam_nats::{BusState, Message, Subscription};
use roam_schemas::{
    ChangeId, Cursor, Device, LatestRequest, Notice, Problem, Record, Revision, Select, Timestamp, decode, headers,
    subjects,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::client::Inner;
use crate::publish::Lane;
use crate::read::{Pages, Reader};
use crate::{Delta, ReadError};
use state::Follower;

/// How often the delta is fetched although nothing seems to be missing: the last notice of all may be lost without a trace.
const CHECK: Duration = Duration::from_secs(60);
/// The first check after the subscription was made, or made again: in a cluster of servers it may take a moment until all
/// of them know of it.
const FIRST_CHECK: Duration = Duration::from_secs(2);

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what is changed from now on.
    Now,
    /// With all there is.
    Beginning,
    /// With all that changed since the cursor of an earlier watch, or of [`crate::ProfileClient::changes`].
    Cursor(Cursor),
}

/// What happened to the profile. Every revision is delivered in order and once, or a state that includes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next revision.
    Revision {
        /// The revision.
        revision: Revision,
        /// Its time.
        time: Timestamp,
        /// Who wrote it.
        device: Device,
        /// The change that it is.
        change: Option<ChangeId>,
        /// The records that it wrote.
        records: Vec<Record>,
        /// Where to go on from after this.
        cursor: Cursor,
    },
    /// All that changed since the event before, in one go: at the beginning, and when notices were lost or too large.
    State {
        /// The records that changed, deleted ones included, in order of their revisions; each once, in its newest state.
        records: Vec<Record>,
        /// The revision that the profile has with them.
        head: Revision,
        /// Where to go on from after this.
        cursor: Cursor,
    },
    /// The watch stood too far back for a delta. Forget what you hold of the profile: the next event is a
    /// [`Event::State`] with all of it.
    Reset,
}

/// A watch cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WatchError {
    /// The delta cannot be fetched, and trying again does not help.
    #[error("the watch cannot go on: {0}")]
    Read(#[from] ReadError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Follows one profile. It survives lost connections and silent responders by itself: it waits, and then repairs.
/// Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    lane: Arc<Lane>,
    notices: Subscription,
    bus: watch::Receiver<BusState>,
    /// The connects and the losses that the watch has already answered.
    known: Trouble,
    follower: Follower,
    /// The delta that is being fetched.
    delta: Option<Fetch>,
    backoff: Backoff,
    /// When the delta may be asked for again, after it could not be had.
    fetch_at: Instant,
    check_at: Instant,
    /// Whether a check followed after the subscription was made.
    settled: bool,
    /// What is to be delivered next.
    ready: VecDeque<Event>,
    /// Where the events that were delivered lead to.
    delivered: Cursor,
}

/// What may have lost notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    generation: u64,
    slow_consumers: u64,
}

impl From<BusState> for Trouble {
    fn from(state: BusState) -> Self {
        Self { generation: state.generation, slow_consumers: state.slow_consumers }
    }
}

#[derive(Debug)]
struct Fetch {
    pages: Pages,
    /// Whether it fetches the whole profile because the cursor was too old.
    reset: bool,
}

impl Watch {
    pub(crate) async fn start(inner: Arc<Inner>, lane: Arc<Lane>, from: WatchFrom) -> Result<Self, ReadError> {
        let mut bus = inner.bus.watch_state();
        let known = Trouble::from(*bus.borrow_and_update());
        let notices = inner.bus.subscribe(subjects::notice(&lane.profile)).await?;
        let (revision, time) = beginning(&Reader { inner: &inner, lane: &lane }, from).await?;
        let follower = Follower::new(lane.profile.clone(), revision, time);
        let now = Instant::now();
        Ok(Self {
            notices,
            bus,
            known,
            delta: None,
            backoff: Backoff::default(),
            fetch_at: now,
            check_at: now,
            settled: false,
            ready: VecDeque::new(),
            delivered: follower.cursor(),
            follower,
            inner,
            lane,
        })
    }

    /// The next event. Cancel-safe: a request that is under way is made again by the next call.
    ///
    /// # Errors
    /// See [`WatchError`]; after one there is nothing more to come.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.step().await? {
                return Ok(event);
            }
        }
    }

    /// One step towards the next event, and that event once it is there. Cancel-safe.
    pub(crate) async fn step(&mut self) -> Result<Option<Event>, WatchError> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(Some(self.deliver(event)));
        }
        self.look_for_trouble();
        match self.follower.wanted() {
            Some(revision) => self.fetch(revision).await?,
            None => self.listen().await?,
        }
        Ok(None)
    }

    /// Whether it has given all that there was when it last looked, and nothing has made it doubt that since.
    #[cfg(feature = "durable")]
    pub(crate) fn is_current(&mut self) -> bool {
        self.ready.is_empty() && self.is_listening()
    }

    /// Whether it misses nothing, so that only revisions come next, one by one.
    #[cfg(feature = "durable")]
    pub(crate) fn is_listening(&mut self) -> bool {
        self.look_for_trouble();
        self.follower.wanted().is_none()
    }

    /// Where to go on from, after the events that [`Self::next`] has given.
    pub fn cursor(&self) -> Cursor {
        self.delivered
    }

    /// The events as a stream, which ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, WatchError>> + Send {
        stream::try_unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            Ok(Some((event, watch)))
        })
    }

    fn deliver(&mut self, event: Event) -> Event {
        match &event {
            Event::Revision { revision, cursor, .. } | Event::State { head: revision, cursor, .. } => {
                self.lane.saw(*revision);
                self.delivered = *cursor;
            }
            // What follows it leads somewhere.
            Event::Reset => {}
        }
        event
    }

    /// Waits for a notice, for trouble, or for the time to check. Takes whatever notices are there before it checks.
    async fn listen(&mut self) -> Result<(), WatchError> {
        tokio::select! {
            biased;
            message = self.notices.next() => {
                self.receive(&message.ok_or(WatchError::Closed)?);
                Ok(())
            }
            changed = self.bus.changed() => changed.map_err(|_| WatchError::Closed),
            () = sleep_until(self.check_at) => {
                self.follower.doubt();
                Ok(())
            }
        }
    }

    fn look_for_trouble(&mut self) {
        let now = Trouble::from(*self.bus.borrow_and_update());
        if now != self.known {
            self.known = now;
            self.settled = false;
            self.follower.doubt();
        }
    }

    fn receive(&mut self, message: &Message) {
        if message.headers.content_type().is_none() {
            tracing::debug!(subject = message.subject, "a notice without our header was dropped");
            return;
        }
        let decoded = message.headers.encoding().and_then(|encoding| decode::<Notice>(&message.payload, encoding).ok());
        if let Some(notice) = decoded {
            self.ready.extend(self.follower.notice(notice));
            return;
        }
        // Of an encoding or a version that is not read here: the header says how far the delta must reach.
        let revision = message.headers.get(headers::REVISION).and_then(|text| text.parse().ok());
        match revision {
            Some(revision) => self.follower.unreadable(Revision::new(revision)),
            None => self.follower.doubt(),
        }
    }

    /// Fetches one page of the delta.
    async fn fetch(&mut self, revision: Revision) -> Result<(), WatchError> {
        sleep_until(self.fetch_at).await;
        let reader = Reader { inner: &self.inner, lane: &self.lane };
        let delta = self.delta.get_or_insert_with(|| Fetch::since(self.follower.cursor()));
        match delta.pages.fetch(&reader, revision.max(self.lane.seen())).await {
            // There is another page.
            Ok(None) => Ok(()),
            Ok(Some(whole)) => {
                let reset = delta.reset;
                self.arrive(whole, reset).map_err(|problem| ReadError::Invalid(problem).into())
            }
            Err(ReadError::Reset) if delta.pages.has_cursor() => {
                self.delta = Some(Fetch::whole());
                Ok(())
            }
            Err(ReadError::Closed) => Err(WatchError::Closed),
            Err(error) if error.retry() => {
                self.retry_later(&error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A delta is complete.
    fn arrive(&mut self, delta: Delta, reset: bool) -> Result<(), Problem> {
        self.delta = None;
        let event = if reset { self.follower.whole(delta)? } else { self.follower.delta(delta)? };
        if reset && event.is_some() {
            self.ready.push_back(Event::Reset);
        }
        self.ready.extend(event);
        if self.follower.wanted().is_some() {
            // It was older than what is wanted, against the rule.
            self.fetch_at = Instant::now() + self.backoff.pause();
            return Ok(());
        }
        self.backoff = Backoff::default();
        let mean = if self.settled { CHECK } else { FIRST_CHECK };
        self.check_at = Instant::now() + mean.mul_f64(rand::random_range(0.75..1.25));
        self.settled = true;
        Ok(())
    }

    fn retry_later(&mut self, error: &ReadError) {
        tracing::debug!(%error, "the delta cannot be fetched yet");
        if matches!(error, ReadError::Behind(_)) {
            self.follower.behind();
            self.settled = false;
        }
        self.fetch_at = Instant::now() + self.backoff.pause();
    }
}

impl Fetch {
    fn since(cursor: Cursor) -> Self {
        Self { pages: Pages::since(Some(cursor)), reset: false }
    }

    fn whole() -> Self {
        Self { pages: Pages::since(None), reset: true }
    }
}

/// Where a watch stands at first.
async fn beginning(reader: &Reader<'_>, from: WatchFrom) -> Result<(Revision, Timestamp), ReadError> {
    match from {
        WatchFrom::Beginning => Ok((Revision::ZERO, Timestamp::default())),
        WatchFrom::Cursor(cursor) => cursor.open(&reader.lane.profile).map_err(ReadError::Invalid),
        WatchFrom::Now => {
            // No key, so no record: only the head is asked for.
            let request = LatestRequest { select: Select::Keys(Vec::new()), ..LatestRequest::default() };
            let reply = reader.latest(request).await?;
            Ok((reply.head, reply.time))
        }
    }
}
