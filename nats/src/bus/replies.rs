//! The answers that a connection waits for. One wildcard subscription takes them all in; each waiting request has a
//! place in a table, named by the last token of its reply subject. A place is given back when its waiter is dropped,
//! so an answer that never comes costs nothing for longer than its time-out. (The client library's own table keeps such
//! a place for the life of the connection.)

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_nats::{Message, Subject};
use tokio::time::Instant;

/// The table of answers that are waited for on one connection.
#[derive(Debug)]
pub(crate) struct Replies {
    /// What all reply subjects begin with, its last dot included.
    prefix: String,
    table: Mutex<Table>,
}

/// Why an answer will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection was closed for good.
    Closed,
    /// The server refused to let us publish the request.
    Denied,
    /// It did not come in time.
    TimedOut,
}

/// A waiter for one answer. Dropping it gives its place back.
#[derive(Debug)]
#[must_use = "an answer is only taken in while somebody waits for it"]
pub(crate) struct Reply {
    replies: Arc<Replies>,
    place: Place,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    /// Counts the uses of the slot, so that a late answer is not taken for that of a later request.
    turn: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting { subject: Subject, until: Option<Instant>, waker: Option<Waker> },
    Answered(Message),
    Lost(Lost),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    index: u32,
    turn: u32,
}

impl Replies {
    /// `inbox` is the subject under which only we subscribe.
    pub(super) fn new(inbox: &str) -> Self {
        Self { prefix: format!("{inbox}."), table: Mutex::default() }
    }

    /// The subject to subscribe to.
    pub(super) fn wildcard(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// Makes room for the answer to a request on `subject`, and names the reply subject to send along. After `until` the
    /// waiting ends, up to [`super::SWEEP_INTERVAL`] late: cheaper than a timer for each of many.
    pub(crate) fn expect(self: &Arc<Self>, subject: &Subject, until: Option<Instant>) -> (Subject, Reply) {
        let place = self.table().take(subject.clone(), until);
        let mut name = String::with_capacity(self.prefix.len() + 16);
        name.push_str(&self.prefix);
        // Writing to a String cannot fail.
        let _ = write!(name, "{:x}", place.to_token());
        (Subject::from(name), Reply { replies: Arc::clone(self), place })
    }

    /// How many answers are waited for.
    pub(super) fn awaited(&self) -> usize {
        let table = self.table();
        table.slots.len() - table.free.len()
    }

    /// Hands a message to whoever waits for it; a message that nobody waits for is dropped.
    pub(super) fn deliver(&self, message: Message) {
        let token = message.subject.strip_prefix(self.prefix.as_str());
        let Some(place) = token.and_then(|token| u64::from_str_radix(token, 16).ok()).map(Place::from_token) else {
            return;
        };
        let mut table = self.table();
        let waker = table.waiting(place).map(|slot| slot.settle(State::Answered(message)));
        drop(table);
        wake(waker.flatten());
    }

    /// Ends the waiting of all requests on a subject that we may not publish to.
    pub(super) fn deny(&self, subject: &str) {
        self.lose(Lost::Denied, |asked, _| asked.as_str() == subject);
    }

    /// Ends all waiting, now and from now on.
    pub(super) fn close(&self) {
        self.table().closed = true;
        self.lose(Lost::Closed, |_, _| true);
    }

    /// Ends the waiting of all requests whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        self.lose(Lost::TimedOut, |_, until| until.is_some_and(|until| until <= now));
    }

    fn lose(&self, why: Lost, which: impl Fn(&Subject, Option<Instant>) -> bool) {
        let mut table = self.table();
        let wakers: Vec<_> = table
            .slots
            .iter_mut()
            .filter(|slot| matches!(&slot.state, State::Waiting { subject, until, .. } if which(subject, *until)))
            .filter_map(|slot| slot.settle(State::Lost(why)))
            .collect();
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and the table would still be whole if something did.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take(&mut self, subject: Subject, until: Option<Instant>) -> Place {
        let state =
            if self.closed { State::Lost(Lost::Closed) } else { State::Waiting { subject, until, waker: None } };
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.turn = slot.turn.wrapping_add(1);
            slot.state = state;
            return Place { index, turn: slot.turn };
        }
        // More than 2^32 requests at once do not fit into memory.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { turn: 0, state });
        Place { index, turn: 0 }
    }

    fn waiting(&mut self, place: Place) -> Option<&mut Slot> {
        self.slots
            .get_mut(place.index as usize)
            .filter(|slot| slot.turn == place.turn && matches!(slot.state, State::Waiting { .. }))
    }

    fn give_back(&mut self, place: Place) -> State {
        self.free.push(place.index);
        std::mem::replace(&mut self.slots[place.index as usize].state, State::Free)
    }
}

impl Slot {
    fn settle(&mut self, state: State) -> Option<Waker> {
        match std::mem::replace(&mut self.state, state) {
            State::Waiting { waker, .. } => waker,
            _ => None,
        }
    }
}

impl Place {
    fn to_token(self) -> u64 {
        (u64::from(self.turn) << 32) | u64::from(self.index)
    }

    fn from_token(token: u64) -> Self {
        let index = u32::try_from(token & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let turn = u32::try_from(token >> 32).unwrap_or(u32::MAX);
        Self { index, turn }
    }
}

impl Future for Reply {
    type Output = Result<Message, Lost>;

    /// Ready once; a waiter that was ready must not be polled again.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut table = self.replies.table();
        let slot = &mut table.slots[self.place.index as usize];
        match &mut slot.state {
            State::Waiting { waker, .. } => {
                match waker {
                    Some(old) => old.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Lost(why) => Poll::Ready(Err(*why)),
            State::Answered(_) => match std::mem::replace(&mut slot.state, State::Lost(Lost::Closed)) {
                State::Answered(message) => Poll::Ready(Ok(message)),
                _ => Poll::Pending,
            },
            State::Free => Poll::Pending,
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let state = self.replies.table().give_back(self.place);
        // Freed outside the lock.
        drop(state);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
