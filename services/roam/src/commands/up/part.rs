//! A service mounted in this process, with a shutdown of its own, so that the parts can be stopped one after the other.

use std::{error::Error, future::Future, time::Duration};

use roam_process::{Context, Tasks};
use roam_schemas::Shard;
use tokio_util::sync::CancellationToken;

/// How long a part may take to stop.
const GRACE: Duration = Duration::from_secs(6);
/// How much longer it is waited for, so that it can say itself what hangs.
const MARGIN: Duration = Duration::from_secs(2);

/// A running service.
#[derive(Debug)]
pub(super) struct Part {
    name: &'static str,
    context: Context,
    tasks: Tasks,
}

impl Part {
    /// Starts it. Its health is that of the whole, under its name; its shutdown is not.
    pub(super) fn start<F, E>(name: &'static str, whole: &Context, run: impl FnOnce(Context) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::start_in(name, &whole.scoped(name), run)
    }

    /// Starts that of a shard. Where there are several, its health and its figures say which.
    pub(super) fn start_of<F, E>(
        shard: Shard,
        name: &'static str,
        whole: &Context,
        run: impl FnOnce(Context) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        if shard.is_only() {
            return Self::start(name, whole, run);
        }
        let scope = whole.scoped(&format!("{name}-{}", shard.number()));
        let metrics = scope.metrics.prefixed(&format!("shard_{}", shard.number()));
        Self::start_in(name, &Context { metrics, ..scope }, run)
    }

    fn start_in<F, E>(name: &'static str, scope: &Context, run: impl FnOnce(Context) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let context = Context { shutdown: CancellationToken::new(), grace: GRACE, ..scope.clone() };
        let mut tasks = Tasks::new(&context);
        tasks.spawn(name, run(context.clone()));
        Self { name, context, tasks }
    }

    /// Waits until it ends unasked, and says why. Cancel-safe.
    pub(super) async fn stopped(&self) -> String {
        self.context.shutdown.cancelled().await;
        self.context.health.failure().unwrap_or_else(|| format!("{} stopped", self.name))
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// Why it did not do so well.
    pub(super) async fn stop(self) -> Result<(), String> {
        self.context.shutdown.cancel();
        let stopped = self.tasks.join(GRACE + MARGIN).await;
        stopped.map_err(|error| crate::failure::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn parts_stop_one_by_one_and_only_when_asked() {
        let whole = Context::new(GRACE);
        let service = |context: Context| async move {
            context.shutdown.cancelled().await;
            Ok::<(), std::io::Error>(())
        };
        let (first, second) = (Part::start("first", &whole, service), Part::start("second", &whole, service));
        first.stop().await.unwrap();
        assert!(!second.context.shutdown.is_cancelled() && !whole.shutdown.is_cancelled());
        second.stop().await.unwrap();
        assert_eq!(whole.health.failure(), None);
    }

    #[tokio::test]
    async fn a_part_that_ends_unasked_says_why() {
        let whole = Context::new(GRACE);
        let part = Part::start("storage", &whole, |_| async { Err(std::io::Error::other("the disk is gone")) });
        assert_eq!(part.stopped().await, "task storage: failed: the disk is gone");
        assert!(part.stop().await.unwrap_err().contains("the disk is gone"));
        assert!(whole.health.failure().is_some());
    }
}
