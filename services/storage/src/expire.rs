//! Expire: a record whose time to live is over becomes a tombstone through the front door. A delete of it is published as
//! any change is, on condition that the record is still the one that expired; so it takes effect once, at the same
//! revision everywhere, and never hits a newer put. Readers hide the record from its end on, whether or not it was
//! deleted yet. **Architecture Invariant:** nothing is written to the store here.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use roam_nats::{Headers, Publisher};
use roam_process::clock;
use roam_schemas::{
    Change, ChangeId, Device, EncodeError, Encoding, Expect, Key, Profile, Revision, Shard, Timestamp, encode,
    limits::CLIENT_WINDOW, subjects,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    store::{Place, ProfileKey, Reader, RecordKey, StoreError},
};

/// How often it is looked for records that expired.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many deletes are published at a look at most.
const AT_ONCE: usize = 2_000;
/// How many expired records are looked at for that at most: some tens of milliseconds' work.
const LOOKED_AT: usize = 5 * AT_ONCE;
/// How long a replica that does not announce leaves it to the one that does.
const OTHERS_FIRST_SECONDS: u64 = 5;
/// How long until the delete of a record that is still there is published again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The part of time that an id is made of, in seconds: a delete that came too early for the stream's clock is decided for
/// good, and goes under another id later.
const ID_SECONDS: u64 = 600;

/// Publishes deletes of records that expired.
pub(crate) struct Expirer {
    pub(crate) shard: Shard,
    pub(crate) publisher: Publisher,
    pub(crate) reader: Reader,
    /// Whether this replica is the one that announces.
    pub(crate) announces: Arc<AtomicBool>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// What was published lately, and when.
    published: HashMap<(RecordKey, Revision), Instant>,
}

/// Why expiring cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpireError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A delete cannot be written. No key causes it.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A record that expired.
struct Expired {
    profile: Profile,
    key: Key,
    record: RecordKey,
    revision: Revision,
}

impl Expirer {
    pub(crate) fn new(
        shard: Shard,
        publisher: Publisher,
        reader: Reader,
        announces: Arc<AtomicBool>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self { shard, publisher, reader, announces, metrics, shutdown, published: HashMap::new() }
    }

    /// Publishes until shutdown.
    pub(crate) async fn run(mut self) -> Result<(), ExpireError> {
        let shutdown = self.shutdown.clone();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.published.retain(|_, at| at.elapsed() < AGAIN_AFTER);
            let now = Timestamp::from_nanos(clock::now_ns());
            let expired = self.expired(now)?;
            if shutdown.run_until_cancelled(self.publish(expired, now)).await.transpose()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// What expired, is still there, and is not under way; no more of a profile than one writer may have un-acked.
    fn expired(&self, now: Timestamp) -> Result<Vec<Expired>, StoreError> {
        let leave = if self.announces.load(Ordering::Relaxed) { 0 } else { OTHERS_FIRST_SECONDS };
        let snapshot = self.reader.snapshot();
        let mut lookup = snapshot.lookup()?;
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut of_profile: BTreeMap<Profile, usize> = BTreeMap::new();
        snapshot.expired(now.minus_seconds(leave), |_, profile, key| {
            let record = ProfileKey::new(&profile).record(&key);
            if let Some((Place { revision, .. }, _)) = lookup.record(&record)?
                && !self.published.contains_key(&(record.clone(), revision))
            {
                let here = of_profile.entry(profile.clone()).or_default();
                *here += 1;
                if *here <= CLIENT_WINDOW {
                    found.push(Expired { profile, key, record, revision });
                }
            }
            looked_at += 1;
            let go_on = found.len() < AT_ONCE && looked_at < LOOKED_AT;
            Ok(if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// Publishes a delete of each. One that is refused because the stream is full is tried again at the next look.
    async fn publish(&mut self, expired: Vec<Expired>, now: Timestamp) -> Result<(), ExpireError> {
        let publisher = &self.publisher;
        let mut publishing = Vec::with_capacity(expired.len());
        for expired in expired {
            let payload = encode(&delete(&expired, now), Encoding::Postcard)?;
            let subject = subjects::in_shard(self.shard, &subjects::change(&expired.profile, &Device::expiry()));
            let headers = Headers::new().with_content_type(Encoding::Postcard);
            // There may be more of them than the window holds, which makes room only as acks are waited for.
            publishing.push(async move {
                let ack = publisher.publish(subject, headers, Bytes::from(payload)).await;
                (expired, ack.await)
            });
        }
        let mut published = 0;
        for (Expired { record, revision, .. }, ack) in join_all(publishing).await {
            match ack {
                Ok(_) => {
                    published += 1;
                    self.published.insert((record, revision), Instant::now());
                }
                Err(error) => tracing::debug!(error = &error as &dyn Error, "an expired record is not deleted yet"),
            }
        }
        self.metrics.expired(published);
        Ok(())
    }
}

/// The delete of a record that expired. All replicas give it the same id, for ten minutes.
fn delete(expired: &Expired, now: Timestamp) -> Change {
    let mut hasher = blake3::Hasher::new();
    hasher.update(expired.record.as_bytes());
    hasher.update(&expired.revision.get().to_be_bytes());
    hasher.update(&(now.as_nanos() / (ID_SECONDS * 1_000_000_000)).to_be_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Change::of_delete(ChangeId::from_bytes(id), expired.key.clone(), Expect::At(expired.revision))
}

#[cfg(test)]
mod tests;
