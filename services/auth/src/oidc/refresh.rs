//! Keeps the keys of a provider up to date: every so often, and sooner when somebody shows a token that is signed with a key that
//! is not known, but never more often than the settings say, whatever anybody shows.

use std::{convert::Infallible, error::Error, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Provider, Providers, fetch::Fetcher};
use crate::metrics::Metrics;

/// How long until a provider that could not be asked is asked again by itself.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Keeps the keys of one provider.
pub(crate) struct Refresher {
    pub(super) providers: Providers,
    pub(super) index: usize,
    pub(super) fetcher: Fetcher,
    pub(super) metrics: Metrics,
}

impl Refresher {
    /// Works until the shutdown. A provider that cannot be reached is no reason to end.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let Some(provider) = self.providers.all.get(self.index) else { return Ok(()) };
        let [refresh, refetch] =
            [provider.settings.refresh_seconds, provider.settings.refetch_seconds].map(Duration::from_secs);
        let working = async {
            loop {
                let learnt = self.refresh(provider).await;
                let idle = if learnt { refresh } else { refresh.min(AGAIN_AFTER) };
                sleep(refetch).await;
                let _ = timeout(idle.saturating_sub(refetch), provider.wanted.notified()).await;
            }
        };
        shutdown.run_until_cancelled(working).await;
        Ok(())
    }

    /// Asks once, and says whether that gave keys.
    async fn refresh(&self, provider: &Provider) -> bool {
        let issuer = &provider.settings.issuer;
        let fetched = self.fetcher.fetch().await;
        self.metrics.fetched(if fetched.is_ok() { "fetched" } else { "failed" });
        let learnt = match fetched {
            Ok(keys) => {
                tracing::debug!(issuer, keys = keys.len(), "the keys of a provider are known");
                provider.learn(keys);
                true
            }
            Err(error) => {
                let kept = provider.known().is_some();
                tracing::warn!(issuer, kept, error = &error as &dyn Error, "a provider does not give its keys");
                false
            }
        };
        self.providers.asked.send_modify(|asked| *asked += 1);
        learnt
    }
}
