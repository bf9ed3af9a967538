//! What is known of a connection: the events of the client library, folded into one small state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_nats::client::Statistics;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerError};
use roam_schemas::subjects;
use tokio::sync::watch;

use super::Replies;

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusState {
    /// Whether it stands.
    pub connected: bool,
    /// How often it was made. What was sent or awaited under another generation may be lost.
    pub generation: u64,
    /// How often a message was dropped because its subscription was not read fast enough. Any rise is an alarm.
    pub slow_consumers: u64,
    /// How often the server refused us a subject, to publish or to subscribe. Any rise is a fault of permissions.
    pub denied: u64,
    /// Whether it was closed by us, for good.
    pub closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    state: watch::Sender<BusState>,
    /// Set once the first connection stands.
    replies: OnceLock<Arc<Replies>>,
    connects: RwLock<Connects>,
    /// Whether the client of now is dead, which it does not say of itself.
    dead: AtomicBool,
}

/// How often the connection was made.
#[derive(Debug, Default)]
struct Connects {
    /// By clients that died since.
    before: u64,
    /// By the client of now. Holding the client itself would keep the connection alive for ever.
    now: Option<Arc<Statistics>>,
}

impl Watch {
    /// Has the connection that is made of these options tell us its events.
    pub(super) fn observe(self: &Arc<Self>, options: ConnectOptions) -> ConnectOptions {
        let watch = Arc::clone(self);
        options.event_callback(move |event| {
            watch.fold(&event);
            std::future::ready(())
        })
    }

    /// The first connection stands.
    pub(super) fn attach(&self, client: &Client, replies: &Arc<Replies>) {
        // Attached once, by the only caller.
        let _ = self.replies.set(Arc::clone(replies));
        self.revived(client);
    }

    /// The client is dead. The generation stays until there is another.
    pub(super) fn died(&self) {
        tracing::error!("the client of the connection died of a message that it cannot read");
        self.dead.store(true, Ordering::Relaxed);
        self.state.send_modify(|state| state.connected = false);
    }

    /// Another client stands for the connection.
    pub(super) fn revived(&self, client: &Client) {
        let mut connects = self.connects.write().unwrap_or_else(PoisonError::into_inner);
        *connects = Connects { before: connects.count(), now: Some(client.statistics()) };
        drop(connects);
        self.dead.store(false, Ordering::Relaxed);
        self.state.send_modify(|state| *state = self.refreshed(*state, client));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    /// The state now, which the events may not have told yet.
    pub(super) fn state(&self, client: &Client) -> BusState {
        self.refreshed(*self.state.borrow(), client)
    }

    pub(super) fn generation(&self) -> u64 {
        self.connects.read().unwrap_or_else(PoisonError::into_inner).count()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }

    fn fold(&self, event: &Event) {
        self.state.send_modify(|state| {
            // An event may be lost in a flood of others, so the connects are not counted from these.
            let generation = self.generation();
            state.connected |= generation != state.generation;
            state.generation = generation;
            match event {
                Event::Connected => state.connected = true,
                Event::Disconnected => state.connected = false,
                Event::Closed => (state.connected, state.closed) = (false, true),
                Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => state.slow_consumers += 1,
                Event::ServerError(ServerError::Other(text)) if is_denial(text) => state.denied += 1,
                _ => {}
            }
        });
        self.tell(event);
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::SlowConsumer(subscription) => tracing::warn!(subscription, "messages dropped: read too slowly"),
            Event::ServerError(ServerError::Other(text)) => {
                tracing::warn!(error = %text, "the server reports an error");
                if let (Some(subject), Some(replies)) = (denied_publish(text), self.replies.get()) {
                    replies.deny(subject);
                    // The server names the subject that ours was mapped to.
                    if let Some(published) = subjects::before_mapping(subject) {
                        replies.deny(&published);
                    }
                }
            }
            Event::ServerError(error) => tracing::warn!(%error, "the server reports an error"),
            Event::ClientError(error) => tracing::warn!(%error, "the connection reports an error"),
            event => tracing::debug!(%event, "the connection changed"),
        }
    }

    fn refreshed(&self, state: BusState, client: &Client) -> BusState {
        let alive = !state.closed && !self.dead.load(Ordering::Relaxed);
        let connected = alive && client.connection_state() == State::Connected;
        BusState { connected, generation: self.generation(), ..state }
    }
}

impl Connects {
    fn count(&self) -> u64 {
        self.before + self.now.as_ref().map_or(0, |now| now.connects.load(Ordering::Relaxed))
    }
}

/// The server's text is `Permissions Violation for Publish to "subject"`, or `... for Subscription to "subject"`.
fn is_denial(text: &str) -> bool {
    text.starts_with("Permissions Violation")
}

fn denied_publish(text: &str) -> Option<&str> {
    text.strip_prefix("Permissions Violation for Publish to \"")?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_denied_publish_is_found_in_the_servers_text() {
        assert_eq!(denied_publish("Permissions Violation for Publish to \"a.b\""), Some("a.b"));
        assert_eq!(denied_publish("Permissions Violation for Subscription to \"a.b\""), None);
        assert!(is_denial("Permissions Violation for Subscription to \"a.b\""));
    }
}
