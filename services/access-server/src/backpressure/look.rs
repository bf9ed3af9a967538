//! Looking: asks JetStream how far the announcer is, five times a second, and whether a consumer stands ahead of its
//! stream, once a second. It decides nothing.

use std::{convert::Infallible, error::Error, time::Duration};

use roam_nats::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, Bus, ConsumerStanding, StateError, changes_stream, consumer_standing,
    consumer_state, journal_stream,
};
use roam_schemas::Shard;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_millis(200);
/// A look that takes longer has seen nothing, so what is known is never much older.
const WITHIN: Duration = Duration::from_secs(1);
/// Consumers are compared with their streams at each of so many looks: once a second.
const COMPARE_EACH: u32 = 5;

/// What was found at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing: nobody answered, or there is nothing to look at.
    Unknown,
    /// The announcer.
    Seen(Seen),
}

/// The announcer, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many batches wait to be announced: pending and un-acked.
    pub(crate) backlog: u64,
    /// The sequence in the journal up to which everything is announced.
    pub(crate) announced: u64,
    /// Whether a consumer stood ahead of its stream at the last comparison. It then receives nothing, and reports no
    /// backlog.
    pub(crate) ahead: bool,
}

/// Looks at a shard until the shutdown.
pub(crate) async fn watch(
    shard: Shard,
    bus: Bus,
    looks: watch::Sender<Look>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut watcher = Watcher {
        bus,
        metrics,
        access: Standing::new(changes_stream(shard), ACCESS_DURABLE),
        announce: Standing::new(journal_stream(shard), ANNOUNCE_DURABLE),
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        for round in (0..COMPARE_EACH).cycle() {
            ticks.tick().await;
            if round == 0 {
                watcher.compare().await;
            }
            let look = timeout(WITHIN, watcher.look()).await;
            // A receiver that is gone has stopped pulling.
            let _ = looks.send(look.unwrap_or(Look::Unknown));
        }
    };
    shutdown.run_until_cancelled(looking).await;
    Ok(())
}

struct Watcher {
    bus: Bus,
    metrics: Metrics,
    access: Standing,
    announce: Standing,
}

impl Watcher {
    async fn look(&self) -> Look {
        match consumer_state(&self.bus, &self.announce.stream, ANNOUNCE_DURABLE).await {
            Ok(state) => {
                self.metrics.saw_backlog(state.backlog());
                let ahead = self.access.ahead || self.announce.ahead;
                Look::Seen(Seen { backlog: state.backlog(), announced: state.ack_floor, ahead })
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn Error, "the announcer cannot be seen");
                Look::Unknown
            }
        }
    }

    async fn compare(&mut self) {
        for standing in [&mut self.access, &mut self.announce] {
            match timeout(WITHIN, standing.compare(&self.bus)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = &error as &dyn Error, "a consumer cannot be compared"),
                Err(late) => tracing::debug!(error = &late as &dyn Error, "a consumer cannot be compared"),
            }
            self.metrics.compared(standing.durable, standing.ahead);
        }
    }
}

/// Where a durable consumer stands in its stream.
struct Standing {
    stream: String,
    durable: &'static str,
    ahead: bool,
}

impl Standing {
    fn new(stream: String, durable: &'static str) -> Self {
        Self { stream, durable, ahead: false }
    }

    async fn compare(&mut self, bus: &Bus) -> Result<(), StateError> {
        self.judge(consumer_standing(bus, &self.stream, self.durable).await?);
        Ok(())
    }

    fn judge(&mut self, standing: ConsumerStanding) {
        let (ahead, ConsumerStanding { delivered, last }) = (standing.is_ahead(), standing);
        let (stream, consumer) = (self.stream.as_str(), self.durable);
        if ahead && !self.ahead {
            tracing::error!(stream, consumer, delivered, last, "a consumer stands ahead of its stream");
        } else if self.ahead && !ahead {
            tracing::info!(stream, consumer, delivered, last, "a consumer is within its stream again");
        }
        self.ahead = ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_ahead_once_it_delivered_what_its_stream_does_not_have() {
        let mut standing = Standing::new(changes_stream(Shard::ONLY), ACCESS_DURABLE);
        for (delivered, last, ahead) in [(0, 0, false), (5, 5, false), (5, 4, true), (5, 9, false)] {
            standing.judge(ConsumerStanding { delivered, last });
            assert_eq!(standing.ahead, ahead, "delivered {delivered} of {last}");
        }
    }
}
