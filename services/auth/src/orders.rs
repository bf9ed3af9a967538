//! What operators order, into the audit. Orders are read from the journal, where they take effect: none that a replica heeds is
//! missing, whatever tool gave it.

use std::{collections::HashSet, convert::Infallible};

use roam_nats::{Entry, JournalReader, PublishSettings, Publisher, journal_stream};
use roam_schemas::{BatchId, ControlEntry, Encoding, Shard, decode, subjects};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::AuditEvent,
    follow::{Lost, Sides, Told, by, insist},
};

/// Tells of the orders in a shard's journal until the shutdown.
pub(crate) async fn tell_orders(shard: Shard, sides: Sides, shutdown: CancellationToken) -> Result<(), Infallible> {
    insist(|| follow(shard, &sides), shutdown).await
}

async fn follow(shard: Shard, Sides { journal, audit }: &Sides) -> Result<Infallible, Lost> {
    let publisher = Publisher::new(audit, PublishSettings::default());
    let (mut told, mut orders) = (Told::on(subjects::ALL_ORDERED), HashSet::new());
    // From the beginning: a journal that was made again begins there too, and orders are few.
    let mut reader = JournalReader::open(journal, &journal_stream(shard), Some(subjects::ALL_CONTROL), 1).await?;
    loop {
        let entry = reader.next().await?;
        let Some((order, event)) = read(&entry) else { continue };
        told.look(audit, |event| {
            if let AuditEvent::Ordered { id, .. } = event {
                orders.insert(id);
            }
        })
        .await?;
        if !orders.contains(&order) {
            event.store(&publisher).await?;
        }
    }
}

/// An order; none if it is not one. What has no header of ours was steered there, and not by an operator.
fn read(entry: &Entry) -> Option<(BatchId, AuditEvent)> {
    let batch = entry.headers.batch().and_then(BatchId::parse)?;
    let ControlEntry { id, control } = decode(&entry.payload, Encoding::Postcard).ok()?;
    let event = AuditEvent::Ordered { id, order: control, by: by(entry), sequence: entry.sequence };
    (id == batch).then_some((id, event))
}
