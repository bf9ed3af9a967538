//! A journal on a real bus, and a replica that follows it whose applying thread is the test.

use super::*;
use crate::{chunks::Chunks, fixture::Provisioned};

/// A journal on a real bus.
pub(super) struct World {
    pub(super) bus: Bus,
    _provisioned: Provisioned,
}

/// A replica that follows it, whose applying thread is the test.
pub(super) struct Following {
    pub(super) context: Context,
    pub(super) progress: Progress,
    pub(super) work: mpsc::Receiver<Work>,
    pub(super) stuck: watch::Sender<Option<Stuck>>,
    pub(super) running: tokio::task::JoinSet<Result<(), StoreError>>,
    /// Last, so that the store is closed before it goes.
    _store: tempfile::TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::of(1).await
    }

    pub(super) async fn of(storage_replicas: usize) -> Self {
        let provisioned = Provisioned::start(storage_replicas).await;
        Self { bus: provisioned.bus.clone(), _provisioned: provisioned }
    }

    pub(super) async fn append_to(&self, subject: &str, headers: Headers, payload: Vec<u8>) -> u64 {
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        publisher.publish(subject.to_owned(), headers, payload.into()).await.await.unwrap().sequence
    }

    pub(super) async fn append(&self, headers: Headers, payload: Vec<u8>) -> u64 {
        self.append_to(SUBJECT, headers, payload).await
    }

    pub(super) async fn append_batch(&self, number: u8) -> u64 {
        let batch = JournalBatch { id: BatchId::from_bytes([number; 16]), ..batch() };
        let payload = encode(&batch, Encoding::Postcard).unwrap();
        self.append(Headers::new().with_batch(batch.id.to_string()), payload).await
    }

    pub(super) async fn order(&self, control: Control) -> u64 {
        let id = BatchId::random();
        let payload = encode(&ControlEntry { id, control }, Encoding::Postcard).unwrap();
        self.append_to(CONTROL, Headers::new().with_batch(id.to_string()), payload).await
    }

    pub(super) fn follow(&self, position: Option<Position>) -> Following {
        self.follow_as(position, None, 0)
    }

    /// Follows with a directory that was restored, or is since an instant what it is.
    pub(super) fn follow_as(&self, position: Option<Position>, restored: Option<Restored>, since: u64) -> Following {
        let context = Context::new(Duration::from_secs(5));
        let (work, handed_over) = mpsc::channel(1);
        let (stuck, is_stuck) = watch::channel(None);
        let progress = Progress::default();
        let store = tempfile::tempdir().unwrap();
        let (_, reader) = crate::store::open(store.path(), &crate::store::StoreSettings::default()).unwrap();
        let metrics = Metrics::new(&context.metrics);
        let backups = BackupSettings { directory: Some(store.path().join("none")), ..BackupSettings::default() };
        let chunks = Chunks::new(Shard::ONLY, &self.bus, metrics.clone());
        let (name, bus) = (ReplicaName::default(), BusSettings::default());
        let keeper = Keeper::new(reader.clone(), chunks, name, backups, bus, metrics.clone());
        let follower = Follower {
            shard: Shard::ONLY,
            rescue: Rescue::new(keeper, restored, since, watch::Sender::new(false)),
            state: None,
            bus: self.bus.clone(),
            metrics,
            condition: context.health.condition("journal"),
            context: context.clone(),
            reader,
            progress: progress.clone(),
            position,
            passed: None,
            name: ReplicaName::default(),
            orders: Orders::default(),
            work,
            stuck: is_stuck,
        };
        let mut running = tokio::task::JoinSet::new();
        running.spawn(follower.follow());
        Following { context, progress, work: handed_over, stuck, running, _store: store }
    }

    /// What a follower that stands there hands over.
    pub(super) async fn handed_over(&self, position: Option<Position>, count: usize) -> Vec<Given> {
        let mut following = self.follow(position);
        let mut all = Vec::new();
        while all.len() < count {
            all.push(following.next().await);
        }
        following.end().await;
        all
    }

    pub(super) async fn api(&self, subject: &str, body: String) {
        let answer =
            self.bus.request(format!("$JS.API.{subject}"), Headers::new(), body.into(), PATIENCE).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(!answer.contains("\"error\""), "{answer}");
    }

    /// Makes the journal anew, so that entries may be removed: a provisioned one lets nobody do that.
    pub(super) async fn let_entries_be_removed(&self) {
        self.api("STREAM.DELETE.ROAM_JOURNAL", String::new()).await;
        let config = format!(r#"{{"name": "ROAM_JOURNAL", "subjects": ["{SUBJECT}"]}}"#);
        self.api("STREAM.CREATE.ROAM_JOURNAL", config).await;
    }

    /// Takes away what whoever follows the journal reads it by.
    pub(super) async fn remove_consumers(&self) {
        let subject = format!("$JS.API.CONSUMER.NAMES.{}", roam_nats::JOURNAL_STREAM);
        let answer = self.bus.request(subject, Headers::new(), Vec::new().into(), PATIENCE).await.unwrap();
        let names: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        // Whoever looked for orders may have left another one.
        for name in names["consumers"].as_array().unwrap().iter().filter_map(|name| name.as_str()) {
            self.api(&format!("CONSUMER.DELETE.{}.{name}", roam_nats::JOURNAL_STREAM), String::new()).await;
        }
    }

    /// The position of a replica that applied this batch of the journal as it is.
    pub(super) async fn stands_at(&self, sequence: u64, number: u8) -> Position {
        let incarnation = nanos(stream_state(&self.bus, roam_nats::JOURNAL_STREAM).await.unwrap().created);
        Position { incarnation, batch: BatchId::from_bytes([number; 16]), ..at(sequence) }
    }
}

/// What was handed over: the sequence, and the line that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    Epoch(u16),
    Begin,
    Batch(u64, u64),
    Skipped(u64, u64),
    Control(u64, u64),
    Passed(u64),
    PassedOver(u64, u64),
}

impl Following {
    pub(super) async fn next(&mut self) -> Given {
        match tokio::time::timeout(PATIENCE, self.work.recv()).await.unwrap().unwrap() {
            Work::Epoch(epoch) => Given::Epoch(epoch),
            Work::Begin => Given::Begin,
            Work::Batch(position, batch) => {
                assert_eq!(position.batch, batch.id);
                Given::Batch(position.sequence, position.line)
            }
            Work::Skipped(position, _) => Given::Skipped(position.sequence, position.line),
            Work::Control(position, _) => Given::Control(position.sequence, position.line),
            Work::Passed(sequence) => Given::Passed(sequence),
            Work::PassedOver(passed) => Given::PassedOver(passed.sequence, passed.line),
            Work::Clean => panic!("the follower cleans nothing"),
        }
    }

    pub(super) async fn stands_still(&self) {
        tokio::time::timeout(PATIENCE, self.progress.halted(true)).await.unwrap();
    }

    pub(super) async fn goes_on(&self) {
        tokio::time::timeout(PATIENCE, self.progress.halted(false)).await.unwrap();
    }

    /// Nothing is handed over for longer than it takes to read an entry.
    pub(super) async fn waits(&mut self) {
        let handed_over = tokio::time::timeout(Duration::from_millis(200), self.work.recv());
        assert!(handed_over.await.is_err(), "nothing is handed over before the applying thread is ready for it");
    }

    /// Ends it, when nothing more is to be handed over.
    pub(super) async fn end(mut self) {
        self.context.shutdown.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
        assert!(self.work.try_recv().is_err(), "nothing more was there");
    }
}
