//! What a service is given to live in. It is passed, never looked up: two contexts in one process
//! know nothing of each other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;

/// What `run(settings, context)` of a service receives. Clones are the same context.
#[derive(Clone, Debug)]
pub struct Context {
    /// Cancelled when the service is to stop: stop pulling, finish the work in hand, leave.
    pub shutdown: CancellationToken,
    /// Where the service says whether it is ready, and that it has failed.
    pub health: Health,
    /// Where the service registers its metrics.
    pub metrics: Metrics,
    /// How long the service may take to stop, from the cancelling of `shutdown`.
    pub grace: Duration,
}

impl Context {
    /// A context of its own, with nothing in it: for tests, and for whoever mounts services.
    pub fn new(grace: Duration) -> Context {
        Context { shutdown: CancellationToken::new(), health: Health::new(), metrics: Metrics::default(), grace }
    }

    /// The same context for one of several services in a process: its health conditions are called
    /// `scope.name`. Shutdown and failure stay shared, so that one service that fails stops all.
    pub fn scoped(&self, scope: &str) -> Context {
        Context { health: self.health.scoped(scope), ..self.clone() }
    }

    /// Stops everything because of a failure that nobody here can mend. The first reason wins and
    /// stays; the process leaves with a code other than zero.
    pub fn halt(&self, reason: impl Into<String>) {
        self.health.fail(reason);
        self.shutdown.cancel();
    }
}
