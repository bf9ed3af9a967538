//! The access server: takes what devices publish, validates it, stamps it and appends it to the journal. It keeps no
//! state, knows no other access server, and reads nothing that it wrote; scaling is starting another one.
//!
//! A change moves in a straight line: pull -> validate -> stamp -> batch -> append -> ack. The types carry the order: only
//! what was validated can be stamped, only what is stamped can be batched, and a delivery is acked by the code that holds
//! the PubAck of its batch. **Architecture Invariant:** nothing here applies a change or knows what a profile holds.

mod append;
mod backpressure;
mod busy;
mod connect;
mod metrics;
mod planted;
mod pull;
mod rate;
mod reject;
mod settings;
mod stamp;
mod terms;
mod validate;

use std::time::{Duration, Instant};

use roam_nats::ConnectError;
use roam_process::{Context, Tasks, TasksError};
use tokio::{sync::watch, time::timeout};

use crate::{
    append::{Appender, Batcher},
    backpressure::{Gate, Look},
    busy::throttle,
    connect::Connections,
    metrics::Metrics,
    pull::Line,
    rate::Rates,
    reject::rejecter,
    terms::Telling,
};
pub use rate::{Rate, TenantRate};
pub use settings::Settings;

/// How much of the time for stopping is kept for closing the connections.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Why an access server ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bus does not let us in, or the settings do not say how to get there: mend them.
    #[error("the bus cannot be connected to")]
    Connect(#[from] ConnectError),
    /// A part of it failed, or did not stop in time.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Runs an access server until the context's shutdown. Then it pulls nothing more, gives back what it pulled ahead, waits
/// for its appends, acks them, and closes its connections.
///
/// # Errors
/// See [`RunError`]. A bus that cannot be reached is none: it is waited for.
pub async fn run(settings: Settings, context: Context) -> Result<(), RunError> {
    let metrics = context.metrics.register(Metrics::register);
    let [bus, source, opening] = ["bus", "changes", "gate"].map(|name| context.health.condition(name));
    let connecting = Box::pin(Connections::open(&settings.bus, &bus));
    let Some(connections) = context.shutdown.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    let shard = settings.shard();
    let shutdown = || context.shutdown.clone();
    let (looking, looks) = watch::channel(Look::Unknown);
    let (refusals, rejecter) = rejecter(&connections.telling, &metrics);
    let rates = Rates::new(settings.rate, &settings.rates);
    let (throttle, teller) = throttle(shard, rates, &connections.telling, &metrics);
    let telling = Telling::new(&connections.telling, &settings);
    let line = Line {
        shard,
        bus: connections.consuming.clone(),
        prefetch: settings.prefetch,
        appends: settings.appends,
        throttle,
        refusals,
        batcher: Batcher::new(settings.rules, settings.terms, settings.quotas),
        appender: Appender::new(shard, &connections.appending, settings.appends, metrics.clone(), shutdown()),
        looks,
        gate: Gate::new(Instant::now()),
        source,
        opening,
        metrics: metrics.clone(),
    };
    let mut tasks = Tasks::new(&context);
    tasks.spawn("connections", connections.observe(bus, shutdown()));
    tasks.spawn("backlog", backpressure::watch(shard, connections.telling.clone(), looking, metrics, shutdown()));
    tasks.spawn("reject", rejecter.run(shutdown()));
    tasks.spawn("busy", teller.run());
    tasks.spawn("terms", telling.run(shutdown()));
    tasks.spawn("pull", line.run(shutdown()));
    let ended = tasks.join(context.grace.saturating_sub(CLOSE_WITHIN)).await;
    // A connection that is down has nothing to close, and would be waited for longer.
    let _ = timeout(CLOSE_WITHIN, connections.close()).await;
    Ok(ended?)
}
