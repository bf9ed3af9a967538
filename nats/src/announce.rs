//! Reading a durable consumer of which the server pins one reader at a time (`pinned_client`, ADR-42): the others get
//! nothing until the pinned one has not pulled for the consumer's `priority_timeout`. A pin is not a fence: for a moment
//! two may hold deliveries.

use std::time::Duration;

use crate::bus::Bus;
use crate::consume::pull::Group;
use crate::consume::{ConsumeError, Deliveries, Delivery, PullSettings};

/// The priority group of such consumers.
pub const PRIORITY_GROUP: &str = "announce";

/// How long a pull stands. Each pull renews the pin, and pulls follow one another at this distance when nothing comes: so
/// it is well below a `priority_timeout` of three seconds.
const EXPIRES: Duration = Duration::from_millis(1_500);
const HEARTBEAT: Duration = Duration::from_millis(700);

/// What a consumer with pinned readers delivers to us while it is us that it pinned. It must be read without pause: a
/// reader that does not call [`Self::next`] loses the pin.
#[derive(Debug)]
pub struct PinnedDeliveries {
    deliveries: Deliveries,
}

impl PinnedDeliveries {
    /// Begins to read. `max_messages` bounds what is on its way to us or waits to be taken.
    pub async fn open(bus: &Bus, stream: &str, durable: &str, max_messages: usize) -> Result<Self, ConsumeError> {
        let settings = PullSettings { max_messages, expires: EXPIRES, heartbeat: HEARTBEAT, ..PullSettings::default() };
        let group = Some(Group::new(PRIORITY_GROUP));
        Ok(Self { deliveries: Deliveries::open_in(bus, stream, durable, settings, group).await? })
    }

    /// As [`Deliveries::next`].
    pub async fn next(&mut self) -> Result<Delivery, ConsumeError> {
        self.deliveries.next().await
    }

    /// As [`Deliveries::next_ready`].
    pub async fn next_ready(&mut self, max: usize, max_bytes: usize) -> Result<Vec<Delivery>, ConsumeError> {
        self.deliveries.next_ready(max, max_bytes).await
    }

    /// Whether we were pinned when the server last spoke of it.
    pub fn is_pinned(&self) -> bool {
        self.deliveries.is_pinned()
    }

    /// As [`Deliveries::close`]. Another reader is pinned once the `priority_timeout` is over.
    pub async fn close(self) {
        self.deliveries.close().await;
    }
}
