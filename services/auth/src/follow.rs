//! Following what is told in the journal's account, for the audit: again and again until the shutdown, each thing told once by
//! whichever auth service is first. What is followed is not known here.

use std::{convert::Infallible, error::Error, time::Duration};

use roam_nats::{AUDIT_STREAM, Bus, Entry, next_entry};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditEvent, Audited};

/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How much is kept of what somebody is called, in characters.
const LONGEST_NAME: usize = 128;

/// Why following ended.
pub(crate) type Lost = Box<dyn Error + Send + Sync>;

/// The two sides of what is followed.
#[derive(Clone)]
pub(crate) struct Sides {
    /// In the account of the journal.
    pub(crate) journal: Bus,
    /// In the account of the audit.
    pub(crate) audit: Bus,
}

/// Follows until the shutdown, from the beginning whenever it was lost.
pub(crate) async fn insist<F>(follow: impl Fn() -> F, shutdown: CancellationToken) -> Result<(), Infallible>
where
    F: Future<Output = Result<Infallible, Lost>>,
{
    let working = async {
        loop {
            let error = match follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::warn!(error = &*error as &dyn Error, "what was told for the audit is not in it yet");
            sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(working).await;
    Ok(())
}

/// The events of one kind that the audit has.
pub(crate) struct Told {
    subjects: &'static str,
    next: u64,
}

impl Told {
    /// Those on subjects that match.
    pub(crate) const fn on(subjects: &'static str) -> Self {
        Self { subjects, next: 1 }
    }

    /// Learns what was told since.
    pub(crate) async fn look(&mut self, bus: &Bus, mut learn: impl FnMut(AuditEvent)) -> Result<(), Lost> {
        while let Some(entry) = next_entry(bus, AUDIT_STREAM, self.subjects, self.next).await? {
            self.next = entry.sequence + 1;
            Audited::read(&entry).into_iter().for_each(|Audited { event, .. }| learn(event));
        }
        Ok(())
    }
}

/// Who says that they did it.
pub(crate) fn by(entry: &Entry) -> Option<String> {
    let by = entry.headers.get(roam_schemas::headers::BY)?;
    Some(by.chars().take(LONGEST_NAME).collect())
}
