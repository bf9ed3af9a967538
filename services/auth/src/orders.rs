//! What operators order, into the audit. Orders are read from the journal, where they take effect: none that a replica heeds is
//! missing, whatever tool gave it. Each is told once, by whichever auth service is first.

use std::{collections::HashSet, convert::Infallible, error::Error, time::Duration};

use roam_nats::{AUDIT_STREAM, Bus, Entry, JournalReader, PublishSettings, Publisher, journal_stream, next_entry};
use roam_schemas::{BatchId, ControlEntry, Encoding, Shard, decode, headers, subjects};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditEvent, Audited};

/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How much is kept of what an operator is called, in characters.
const LONGEST_NAME: usize = 128;

/// Tells of orders.
pub(crate) struct Orders {
    /// The shard whose journal is read.
    pub(crate) shard: Shard,
    /// In the account of the journal.
    pub(crate) journal: Bus,
    /// In the account of the audit.
    pub(crate) bus: Bus,
}

/// The orders that the audit knows.
struct Told {
    orders: HashSet<BatchId>,
    next: u64,
}

impl Orders {
    /// Works until the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let working = async {
            loop {
                let error = match self.follow().await {
                    Ok(never) => match never {},
                    Err(error) => error,
                };
                tracing::warn!(error = &*error as &dyn Error, "orders of operators are not in the audit yet");
                sleep(PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(working).await;
        Ok(())
    }

    async fn follow(&self) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        let mut told = Told { orders: HashSet::new(), next: 1 };
        // From the beginning: a journal that was made again begins there too, and orders are few.
        let filter = Some(subjects::ALL_CONTROL);
        let mut reader = JournalReader::open(&self.journal, &journal_stream(self.shard), filter, 1).await?;
        loop {
            let entry = reader.next().await?;
            let Some(event) = read(&entry) else { continue };
            told.look(&self.bus).await?;
            if let AuditEvent::Ordered { id, .. } = &event
                && !told.orders.contains(id)
            {
                event.store(&publisher).await?;
            }
        }
    }
}

impl Told {
    /// Learns what was told since.
    async fn look(&mut self, bus: &Bus) -> Result<(), Box<dyn Error + Send + Sync>> {
        while let Some(entry) = next_entry(bus, AUDIT_STREAM, subjects::ALL_ORDERED, self.next).await? {
            self.next = entry.sequence + 1;
            if let Some(Audited { event: AuditEvent::Ordered { id, .. }, .. }) = Audited::read(&entry) {
                self.orders.insert(id);
            }
        }
        Ok(())
    }
}

/// An order; none if it is not one. What has no header of ours was steered there, and not by an operator.
fn read(entry: &Entry) -> Option<AuditEvent> {
    let batch = entry.headers.get(headers::BATCH).and_then(BatchId::parse)?;
    let ControlEntry { id, control } = decode(&entry.payload, Encoding::Postcard).ok()?;
    let by = entry.headers.get(headers::BY).map(|by| by.chars().take(LONGEST_NAME).collect());
    (id == batch).then_some(AuditEvent::Ordered { id, order: control, by, sequence: entry.sequence })
}
