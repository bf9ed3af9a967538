//! Whether the durable `announce` stands ahead of the journal, which lost its end then: it receives nothing, and no receipt
//! leaves. Looked at once a second; an alarm, which a person answers with `roam repair consumers`. Never changes anything.

use std::{convert::Infallible, error::Error, time::Duration};

use roam_nats::{ANNOUNCE_DURABLE, Bus, ConsumerStanding, consumer_standing, journal_stream};
use roam_process::Condition;
use roam_schemas::Shard;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(1);

/// Looks at a shard until the shutdown.
pub(crate) async fn watch(
    shard: Shard,
    bus: Bus,
    condition: Condition,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ahead, stream) = (false, journal_stream(shard));
    let looking = async {
        loop {
            ticks.tick().await;
            match consumer_standing(&bus, &stream, ANNOUNCE_DURABLE).await {
                Ok(standing) => ahead = judge(standing, ahead, &condition, &metrics),
                // Who cannot see says nothing: the announcer does, if it cannot work.
                Err(error) => tracing::debug!(error = &error as &dyn Error, "the announcer's consumer cannot be seen"),
            }
        }
    };
    // Until something is seen that is not so, all is well.
    condition.set_ready();
    shutdown.run_until_cancelled(looking).await;
    Ok(())
}

fn judge(standing: ConsumerStanding, was_ahead: bool, condition: &Condition, metrics: &Metrics) -> bool {
    let (ahead, ConsumerStanding { delivered, last }) = (standing.is_ahead(), standing);
    metrics.announce_ahead(ahead);
    if ahead && !was_ahead {
        tracing::error!(delivered, last, "the consumer `announce` stands ahead of its stream");
        condition.set_not_ready(format!(
            "the consumer `announce` delivered up to {delivered}, and the journal ends at {last}: see `roam repair consumers`"
        ));
    } else if was_ahead && !ahead {
        tracing::info!(delivered, last, "the consumer `announce` is within its stream again");
        condition.set_ready();
    }
    ahead
}
