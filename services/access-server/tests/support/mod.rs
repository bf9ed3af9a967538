//! A world for the tests of the access server: a nats-server of its own, provisioned, with devices that publish, access
//! servers that run in this process, and readers of what comes out. Everything ends when it is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use roam_access_server::{Rate, RunError, Settings, run};
use roam_nats::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, Bus, BusSettings, CHANGES_STREAM, ConsumerState, Deployment, Entry, Headers,
    JOURNAL_STREAM, JournalReader, Message, NatsServer, Overrides, PinnedDeliveries, PublishSettings, Publisher,
    REJECTED_STREAM, ServerSettings, StreamState, Subscription, SyncInterval, consumer_state, provision, stream_state,
};
use roam_process::Context;
use roam_schemas::{
    App, Change, ChangeId, ContentType, Device, Encoding, JournalBatch, Key, Operation, Profile, Receipt, Shard,
    StampedChange, Tenant, User, decode, encode, subjects,
};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// How long anything may take that should happen.
pub const WITHIN: Duration = Duration::from_secs(20);

pub struct World {
    pub server: NatsServer,
    /// The connection of the test itself.
    pub bus: Bus,
    publisher: Publisher,
    _dir: TempDir,
}

/// An access server that runs in this process. Dropped, it is as good as killed.
pub struct AccessServer {
    pub context: Context,
    running: AbortOnDropHandle<Result<(), RunError>>,
}

/// A reader of the journal that unpacks its batches.
pub struct Journal {
    reader: JournalReader,
    batch: std::vec::IntoIter<StampedChange>,
    /// How many batches were read.
    pub batches: usize,
}

/// One of everything, without room for what these tests do not use.
pub fn deployment() -> Deployment {
    let overrides = Overrides { backups_max_bytes: Some(0), chunks_max_bytes: Some(64 << 20), ..Overrides::default() };
    Deployment { overrides, ..Deployment::new(1, 1) }
}

impl World {
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
        let server = NatsServer::start(settings).await.unwrap();
        let bus = connect(&server).await;
        provision(&bus, &deployment()).await.unwrap();
        let publisher = Publisher::new(&bus, PublishSettings::default());
        Self { server, bus, publisher, _dir: dir }
    }

    pub fn settings(&self) -> Settings {
        // All that these tests publish is one user's.
        let rate = Rate { changes_per_second: 1_000_000, burst: 1_000_000 };
        Settings { bus: BusSettings::at(self.server.client_url()), rate, ..Settings::default() }
    }

    /// An access server that is ready.
    pub async fn access_server(&self) -> AccessServer {
        self.access_server_with(self.settings()).await
    }

    pub async fn access_server_with(&self, settings: Settings) -> AccessServer {
        let server = AccessServer::start(settings);
        timeout(WITHIN, server.context.health.ready()).await.expect("it gets ready").unwrap();
        server
    }

    /// Acks what is in the journal, as the announcer of a storage replica does.
    pub async fn announcer(&self) -> AbortOnDropHandle<()> {
        let bus = connect(&self.server).await;
        let mut deliveries = PinnedDeliveries::open(&bus, JOURNAL_STREAM, ANNOUNCE_DURABLE, 256).await.unwrap();
        owned(async move {
            while let Ok(delivery) = deliveries.next().await {
                delivery.ack();
            }
        })
    }

    pub async fn journal(&self) -> Journal {
        let reader = JournalReader::open(&self.bus, JOURNAL_STREAM, None, 1).await.unwrap();
        Journal { reader, batch: Vec::new().into_iter(), batches: 0 }
    }

    pub async fn rejected(&self) -> JournalReader {
        JournalReader::open(&self.bus, REJECTED_STREAM, None, 1).await.unwrap()
    }

    /// The receipts of a device.
    pub async fn receipts(&self, profile: &Profile, device: &Device) -> Subscription {
        let subscription = self.bus.subscribe(subjects::receipt(profile, device)).await.unwrap();
        self.bus.round_trip(WITHIN).await.unwrap();
        subscription
    }

    /// Publishes into ROAM_CHANGES and returns the sequence.
    pub async fn publish(&self, subject: &str, encoding: Encoding, payload: impl Into<Bytes>) -> u64 {
        let headers = Headers::new().with_content_type(encoding);
        self.publish_with(subject, headers, payload).await
    }

    pub async fn publish_with(&self, subject: &str, headers: Headers, payload: impl Into<Bytes>) -> u64 {
        self.publisher.publish(subject.to_owned(), headers, payload.into()).await.await.unwrap().sequence
    }

    /// Publishes so many changes, of 128 devices, and returns their ids by sequence.
    pub async fn publish_many(&self, count: usize) -> BTreeMap<u64, ChangeId> {
        let mut pending = FuturesOrdered::new();
        let mut published = BTreeMap::new();
        for index in 0..count {
            let (change, subject) = (put(&format!("key {index}")), subject_of(&format!("device-{}", index % 128)));
            let headers = Headers::new().with_content_type(Encoding::Postcard);
            let payload = encode(&change, Encoding::Postcard).unwrap().into();
            let (id, ack) = (change.id(), self.publisher.publish(subject, headers, payload).await);
            pending.push_back(async move { (ack.await.unwrap().sequence, id) });
            if pending.len() >= 256 {
                published.extend(pending.next().await);
            }
        }
        published.extend(pending.collect::<Vec<_>>().await);
        published
    }

    pub async fn changes(&self) -> StreamState {
        stream_state(&self.bus, CHANGES_STREAM).await.unwrap()
    }

    pub async fn access(&self) -> ConsumerState {
        consumer_state(&self.bus, CHANGES_STREAM, ACCESS_DURABLE).await.unwrap()
    }

    /// Waits until ROAM_CHANGES is empty: all is acked or terminated.
    pub async fn settled(&self) {
        eventually("all changes are settled", async || self.changes().await.messages == 0).await;
    }
}

impl AccessServer {
    /// Starts it without waiting for anything.
    pub fn start(settings: Settings) -> Self {
        let context = Context::new(Duration::from_secs(10));
        let running = owned(run(settings, context.clone()));
        Self { context, running }
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(self) {
        self.context.shutdown.cancel();
        timeout(WITHIN, self.running).await.expect("it stops").unwrap().unwrap();
    }

    /// Ends it between any two steps of its work.
    pub fn kill(self) {
        self.running.abort();
    }

    /// The value of a metric, 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.context.metrics.encode().unwrap();
        let name = format!("roam_access_server_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.parse().unwrap())
    }

    /// Why it is not ready, by condition.
    pub fn not_ready(&self) -> BTreeMap<String, String> {
        self.context.health.not_ready().into_iter().map(|missing| (missing.condition, missing.reason)).collect()
    }
}

impl Journal {
    /// The next change, in the order of the journal.
    pub async fn next(&mut self) -> StampedChange {
        loop {
            if let Some(change) = self.batch.next() {
                return change;
            }
            let batch = self.next_batch().await;
            self.batch = batch.changes.into_iter();
        }
    }

    pub async fn take(&mut self, count: usize) -> Vec<StampedChange> {
        let mut changes = Vec::with_capacity(count);
        while changes.len() < count {
            changes.push(self.next().await);
        }
        changes
    }

    pub async fn next_batch(&mut self) -> JournalBatch {
        let entry = next_entry(&mut self.reader).await;
        assert_eq!(entry.subject, subjects::journal(Shard::ONLY));
        assert_eq!(entry.headers.encoding(), Some(Encoding::Postcard));
        let batch: JournalBatch = decode(&entry.payload, Encoding::Postcard).unwrap();
        assert_eq!(entry.headers.batch(), Some(batch.id.to_string().as_str()));
        self.batches += 1;
        batch
    }
}

pub async fn next_entry(reader: &mut JournalReader) -> Entry {
    timeout(WITHIN, reader.next()).await.expect("an entry comes").unwrap()
}

pub async fn next_receipt(receipts: &mut Subscription, encoding: Encoding) -> Receipt {
    let Message { headers, payload, .. } = timeout(WITHIN, receipts.next()).await.expect("a receipt comes").unwrap();
    assert_eq!(headers.encoding(), Some(encoding));
    decode(&payload, encoding).unwrap()
}

pub async fn connect(server: &NatsServer) -> Bus {
    Bus::connect(&BusSettings::at(server.client_url()), "test").await.unwrap()
}

pub fn alice() -> Profile {
    let (tenant, user) = (Tenant::parse("acme").unwrap(), User::parse("alice@example.com").unwrap());
    Profile { tenant, user, app: App::parse("mail").unwrap() }
}

pub fn laptop() -> Device {
    Device::parse("laptop").unwrap()
}

/// Where a device of alice publishes.
pub fn subject_of(device: &str) -> String {
    subjects::change(&alice(), &Device::parse(device).unwrap())
}

pub fn put(key: &str) -> Change {
    let op = Operation::put(Key::parse(key).unwrap(), "value", ContentType::text());
    Change::new(ChangeId::random(), None, vec![op]).unwrap()
}

/// Waits until something holds, which it must do soon.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn owned<F>(task: F) -> AbortOnDropHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let handle: JoinHandle<_> = tokio::runtime::Handle::current().spawn(task);
    AbortOnDropHandle::new(handle)
}
