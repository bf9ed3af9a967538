//! What the storage service counts. Verb functions; names and helps stand here once.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use roam_schemas::{Code, subjects::Verb};

use crate::{apply::Verdict, backup::Created, store::Position};

/// The metrics of one replica. Clones are the same metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    batches: Counter,
    verdicts: Family<VerdictLabel, Counter>,
    write_changes: Histogram,
    decide_seconds: Histogram,
    commit_seconds: Histogram,
    sequence: Gauge,
    line: Gauge,
    rolled_back: Counter,
    not_ours: Counter,
    reopened: Counter,
    announced: Family<MessageLabel, Counter>,
    announced_again: Counter,
    expired: Counter,
    removed: Counter,
    ahead: Family<ConsumerLabel, Gauge>,
    requests: Family<VerbLabel, Counter>,
    answers: Family<AnswerLabel, Counter>,
    refused: Family<CodeLabel, Counter>,
    unanswered: Counter,
    waiting: Gauge,
    backups: Family<BackupLabel, Counter>,
    backup_new_bytes: Counter,
    backup_seconds: Gauge<f64, AtomicU64>,
    backup_created: Gauge<f64, AtomicU64>,
    chunks: Gauge,
    chunks_dropped: Counter,
    chunk_messages_deleted: Counter,
    chunks_damaged: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackupLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabel {
    message: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabel {
    consumer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabel {
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    from: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

impl Metrics {
    /// Registers everything, once a replica.
    pub(crate) fn new(metrics: &roam_process::Metrics) -> Self {
        let inner = Inner {
            batches: Counter::default(),
            verdicts: Family::default(),
            write_changes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            decide_seconds: Histogram::new(exponential_buckets(10e-6, 2.0, 16)),
            commit_seconds: Histogram::new(exponential_buckets(10e-6, 2.0, 16)),
            sequence: Gauge::default(),
            line: Gauge::default(),
            rolled_back: Counter::default(),
            not_ours: Counter::default(),
            reopened: Counter::default(),
            announced: Family::default(),
            announced_again: Counter::default(),
            expired: Counter::default(),
            removed: Counter::default(),
            ahead: Family::default(),
            requests: Family::default(),
            answers: Family::default(),
            refused: Family::default(),
            unanswered: Counter::default(),
            waiting: Gauge::default(),
            backups: Family::default(),
            backup_new_bytes: Counter::default(),
            backup_seconds: Gauge::default(),
            backup_created: Gauge::default(),
            chunks: Gauge::default(),
            chunks_dropped: Counter::default(),
            chunk_messages_deleted: Counter::default(),
            chunks_damaged: Counter::default(),
        };
        metrics.register(|registry| describe(registry, &inner));
        Self { inner: Arc::new(inner) }
    }

    /// Batches were applied and fsynced, in one write.
    pub(crate) fn applied(
        &self,
        last: &Position,
        batches: usize,
        verdicts: &[Verdict],
        decide: Duration,
        commit: Duration,
    ) {
        let inner = &self.inner;
        inner.batches.inc_by(batches as u64);
        #[expect(clippy::cast_precision_loss, reason = "a write holds at most some thousand changes")]
        inner.write_changes.observe(verdicts.len() as f64);
        inner.decide_seconds.observe(decide.as_secs_f64());
        inner.commit_seconds.observe(commit.as_secs_f64());
        self.stands_at(last);
        for (verdict, count) in count(verdicts) {
            inner.verdicts.get_or_create(&VerdictLabel { verdict }).inc_by(count);
        }
    }

    /// The journal is applied up to there.
    pub(crate) fn stands_at(&self, position: &Position) {
        self.inner.sequence.set(i64::try_from(position.sequence).unwrap_or(i64::MAX));
        self.inner.line.set(i64::try_from(position.line).unwrap_or(i64::MAX));
    }

    /// Operations were applied to records with an older time and a higher sequence: ROAM_CHANGES was rolled back.
    pub(crate) fn changes_rolled_back(&self, operations: u64) {
        self.inner.rolled_back.inc_by(operations);
    }

    /// An entry of the journal was dropped because no access server wrote it.
    pub(crate) fn not_ours(&self) {
        self.inner.not_ours.inc();
    }

    /// The journal was lost and is opened again.
    pub(crate) fn journal_reopened(&self) {
        self.inner.reopened.inc();
    }

    /// Receipts and notices were sent.
    pub(crate) fn announced(&self, receipts: u64, notices: u64) {
        self.inner.announced.get_or_create(&MessageLabel { message: "receipt" }).inc_by(receipts);
        self.inner.announced.get_or_create(&MessageLabel { message: "notice" }).inc_by(notices);
    }

    /// The publishing connection was replaced, so that what was sent on it is sent again.
    pub(crate) fn announced_again(&self) {
        self.inner.announced_again.inc();
    }

    /// Deletes of records that expired were published.
    pub(crate) fn expired(&self, records: usize) {
        self.inner.expired.inc_by(records as u64);
    }

    /// Tombstones whose stay was over were removed.
    pub(crate) fn removed(&self, tombstones: usize) {
        self.inner.removed.inc_by(tombstones as u64);
    }

    /// The durable of the announcer was compared with the journal.
    pub(crate) fn announce_ahead(&self, ahead: bool) {
        let label = ConsumerLabel { consumer: roam_nats::ANNOUNCE_DURABLE };
        self.inner.ahead.get_or_create(&label).set(i64::from(ahead));
    }

    /// A request is answered.
    pub(crate) fn requested(&self, verb: Verb) {
        self.inner.requests.get_or_create(&VerbLabel { verb: verb.as_str() }).inc();
    }

    /// An answer to `latest` was found: given before, or in the store.
    pub(crate) fn answered(&self, again: bool) {
        self.inner.answers.get_or_create(&AnswerLabel { from: if again { "answers" } else { "store" } }).inc();
    }

    /// A request is refused.
    pub(crate) fn refused(&self, code: Code) {
        self.inner.refused.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    /// A request named no inbox that it may be answered to.
    pub(crate) fn unanswered(&self) {
        self.inner.unanswered.inc();
    }

    /// A backup was made, or none.
    pub(crate) fn backup_made(&self, made: Option<&Created>) {
        let result = if made.is_some() { "made" } else { "failed" };
        self.inner.backups.get_or_create(&BackupLabel { result }).inc();
        if let Some(made) = made {
            self.inner.backup_new_bytes.inc_by(made.new_bytes);
            self.inner.backup_seconds.set(made.took.as_secs_f64());
            let created = Duration::from_nanos(made.manifest.created.as_nanos());
            self.inner.backup_created.set(created.as_secs_f64());
        }
    }

    /// So many requests wait for a revision.
    pub(crate) fn waiting(&self, requests: usize) {
        self.inner.waiting.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// So many chunks of large values are there.
    pub(crate) fn chunks(&self, chunks: usize) {
        self.inner.chunks.set(i64::try_from(chunks).unwrap_or(i64::MAX));
    }

    /// Chunks were given up that nothing needed.
    pub(crate) fn chunks_dropped(&self, chunks: usize) {
        self.inner.chunks_dropped.inc_by(chunks as u64);
    }

    /// A message of ROAM_CHUNKS was deleted that is of no use.
    pub(crate) fn chunk_message_deleted(&self) {
        self.inner.chunk_messages_deleted.inc();
    }

    /// A chunk had other bytes than its hash says.
    pub(crate) fn chunk_damaged(&self) {
        self.inner.chunks_damaged.inc();
    }
}

fn count(verdicts: &[Verdict]) -> impl Iterator<Item = (&'static str, u64)> {
    const NAMES: [&str; 4] = ["applied", "rejected", "again", "mismatch"];
    let mut counts = [0; 4];
    for verdict in verdicts {
        counts[match verdict {
            Verdict::Decided(roam_schemas::Outcome::Applied(_)) => 0,
            Verdict::Decided(roam_schemas::Outcome::Rejected(_)) => 1,
            Verdict::Again(_) => 2,
            Verdict::Mismatch(_) => 3,
        }] += 1;
    }
    NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0)
}

fn describe(registry: &mut Registry, inner: &Inner) {
    let registry = registry.sub_registry_with_prefix("roam_storage");
    registry.register("batches", "Journal batches applied and fsynced", inner.batches.clone());
    registry.register("changes", "Changes of applied batches, by verdict", inner.verdicts.clone());
    registry.register("write_changes", "Changes in a synced write", inner.write_changes.clone());
    let help = "Time to decide on all changes of a write";
    registry.register_with_unit("decide", help, Unit::Seconds, inner.decide_seconds.clone());
    let help = "Time to write and fsync";
    registry.register_with_unit("commit", help, Unit::Seconds, inner.commit_seconds.clone());
    registry.register("journal_sequence", "Sequence of the last entry applied", inner.sequence.clone());
    let help = "The unbroken run of the journal that it belongs to: one more after each rollback";
    registry.register("journal_line", help, inner.line.clone());
    let help = "Operations whose sequence was used before they came: ROAM_CHANGES was rolled back";
    registry.register("changes_rolled_back", help, inner.rolled_back.clone());
    registry.register("journal_not_ours", "Entries of the journal that no access server wrote", inner.not_ours.clone());
    registry.register("journal_reopened", "Times that the journal was lost", inner.reopened.clone());
    registry.register("announced", "Receipts and notices sent", inner.announced.clone());
    let help = "Times that a batch was announced again over a new connection";
    registry.register("announced_again", help, inner.announced_again.clone());
    registry.register("expired", "Deletes published for records that expired", inner.expired.clone());
    registry.register("tombstones_removed", "Tombstones whose stay was over", inner.removed.clone());
    let help = "1 while a consumer stands ahead of its stream, and so receives nothing";
    registry.register("consumer_ahead", help, inner.ahead.clone());
    registry.register("requests", "Requests answered, by verb", inner.requests.clone());
    let help = "Answers to latest, by where they were found: among those given before, or in the store";
    registry.register("answers", help, inner.answers.clone());
    registry.register("refused", "Requests refused, by code", inner.refused.clone());
    registry.register("unanswered", "Requests without an inbox that they may be answered to", inner.unanswered.clone());
    registry.register("waiting", "Requests that wait for a revision", inner.waiting.clone());
    registry.register("backups", "Backups, by result", inner.backups.clone());
    let help = "Bytes that were new to where backups are kept";
    registry.register("backup_new_bytes", help, inner.backup_new_bytes.clone());
    let help = "How long the last backup took";
    registry.register_with_unit("backup", help, Unit::Seconds, inner.backup_seconds.clone());
    let help = "When this process made its last backup, since 1970; 0 if it made none";
    registry.register_with_unit("backup_created", help, Unit::Seconds, inner.backup_created.clone());
    registry.register("chunks", "Chunks of large values that are there", inner.chunks.clone());
    registry.register("chunks_dropped", "Chunks given up that nothing needed", inner.chunks_dropped.clone());
    let help = "Messages of ROAM_CHUNKS deleted that are of no use";
    registry.register("chunk_messages_deleted", help, inner.chunk_messages_deleted.clone());
    let help = "Chunks that had other bytes than their hash says";
    registry.register("chunks_damaged", help, inner.chunks_damaged.clone());
}
