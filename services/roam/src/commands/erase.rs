//! `roam erase`: orders in the journal that all of a user goes, has what streams keep of them go too, waits until every
//! replica has done it, and proves it by count.

mod proof;

use std::time::Duration;

use roam_nats::{
    ANNOUNCE_DURABLE, REJECTED_STREAM, changes_stream, chunks_stream, consumer_state, journal_stream, purge_subject,
    stream_report, subject_messages,
};
use roam_process::clock;
use roam_schemas::{
    Control, HoldingsReply, HoldingsRequest, ProfilesRequest, ReplicaName, Timestamp, subjects, subjects::OperatorVerb,
};
use tokio::time::{Instant, sleep};

use self::proof::{Proof, ReplicaProof, StreamProof};
use super::profiles::{best, each};
use crate::{
    cli::{Erase, Global},
    failure::{Exit, Failure},
    operator::{Operator, Replicas},
    output::Output,
    owner::UserName,
    show,
};

const WHAT: &str = "erase";
/// How long a replica is asked to wait for the order at a time.
const WAIT_MS: u32 = 2_000;
/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a replica may neither answer nor come further.
const STUCK_AFTER: Duration = Duration::from_secs(120);
/// How long streams may take to let go of what was on its way, and replicas of chunks.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn run(args: Erase, global: &Global, out: Output) -> Result<(), Failure> {
    let what = format!("{WHAT} {}", show::text(&args.user.to_string()));
    Operator::with(global, &what, async |operator| {
        let operator = &operator.of(&args.user.tenant, &args.user.user);
        let erasure = Erasure { operator, user: &args.user, what: &what, out };
        let replicas = operator.replicas().await?;
        erasure.ask(&replicas, args.yes).await?;
        let proof = erasure.done(&replicas).await?;
        proof.say(&what, out)
    })
    .await
}

/// One erasure.
struct Erasure<'a> {
    operator: &'a Operator,
    user: &'a UserName,
    what: &'a str,
    out: Output,
}

impl Erasure<'_> {
    /// Shows what is about to go, and asks.
    async fn ask(&self, replicas: &Replicas, yes: bool) -> Result<(), Failure> {
        let replica = best(replicas, self.what)?;
        let UserName { tenant, user } = self.user.clone();
        let request = ProfilesRequest { tenant: Some(tenant), user: Some(user), ..ProfilesRequest::default() };
        let (mut profiles, mut records, mut bytes) = (0, 0, 0);
        each(self.operator, &replica, request, |standing| {
            (profiles, records, bytes) = (profiles + 1, records + standing.records, bytes + standing.bytes);
            Ok(())
        })
        .await?;
        let (profiles, records) = (show::of(profiles, "profile"), show::of(records, "record"));
        let name = show::text(&self.user.to_string());
        let all = format!("{profiles} with {records} and {} of {name}", show::bytes(bytes));
        self.out.confirm(self.what, &format!("{all} will be removed everywhere, with all history"), &name, yes)
    }

    /// Orders it, waits until it is done, and counts what remains.
    async fn done(&self, replicas: &Replicas) -> Result<Proof, Failure> {
        let UserName { tenant, user } = self.user.clone();
        let waiting = self.last_of(&changes_stream(self.operator.shard)).await?;
        let sequence = self.operator.order(Control::Erase(roam_schemas::Erase { tenant, user })).await?;
        let mut held = Vec::new();
        let bar = self.out.bar(replicas.standing.len() as u64, "erasing");
        for standing in &replicas.standing {
            match &standing.halted {
                Some(_) => {}
                None => held.push(self.wait_for(&standing.name, sequence).await?),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let drained = self.drain(waiting).await?;
        let streams = self.purge().await?;
        let journal = self.operator.journal().await?;
        let now = Timestamp::from_nanos(clock::now_ns());
        Ok(Proof {
            user: self.user.to_string(),
            sequence,
            replicas: held.into_iter().map(ReplicaProof::of).collect(),
            absent: replicas.expected.saturating_sub(replicas.standing.iter().filter(|s| s.halted.is_none()).count()),
            streams,
            drained,
            journal_until: journal.max_age.map(|age| now.plus_seconds(age.as_secs())),
            backups_before: now,
        })
    }

    async fn last_of(&self, stream: &str) -> Result<u64, Failure> {
        let report = stream_report(&self.operator.bus, stream).await;
        Ok(report.map_err(|error| self.operator.not_told(&error))?.last_sequence)
    }

    /// Waits until a replica has done the order, the bytes have left its files, and chunks are given up.
    async fn wait_for(&self, replica: &ReplicaName, sequence: u64) -> Result<HoldingsReply, Failure> {
        let UserName { tenant, user } = self.user.clone();
        let asked = HoldingsRequest { tenant, user, min_sequence: Some(sequence), wait_ms: Some(WAIT_MS) };
        let waits = Duration::from_millis(WAIT_MS.into());
        let (mut moved, mut last, mut erased) = (Instant::now(), None, None);
        loop {
            match self.operator.ask::<_, HoldingsReply>(replica, OperatorVerb::Holdings, &asked, waits).await {
                Ok(held) => {
                    let is_past = held.position.is_some_and(|position| position.sequence >= sequence);
                    if is_past && held.leaving == 0 {
                        let since = *erased.get_or_insert_with(Instant::now);
                        if held.chunks == 0 || since.elapsed() > DRAINED_WITHIN {
                            return Ok(held);
                        }
                    }
                    let seen = (held.position, held.leaving, held.chunks);
                    if last.replace(seen) != Some(seen) {
                        moved = Instant::now();
                    }
                }
                Err(failure) if failure.exit != Exit::TryLater => return Err(failure),
                Err(_) => {}
            }
            if moved.elapsed() > STUCK_AFTER {
                let why = format!("{} does not come to the order", show::text(replica.as_str()));
                return Err(Failure::later(self.what, why).hint(
                    "the order stands in the journal, and will be done: `roam status` says what is wrong; then run it \
                     again for the proof",
                ));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until what was on its way when the order was given was refused and told, so that nothing of it is filed
    /// later. False if that takes long.
    async fn drain(&self, waiting: u64) -> Result<bool, Failure> {
        let (bus, shard) = (&self.operator.bus, self.operator.shard);
        let mut journal = None;
        let until = Instant::now() + DRAINED_WITHIN;
        while Instant::now() < until {
            let changes = stream_report(bus, &changes_stream(shard)).await;
            let changes = changes.map_err(|error| self.operator.not_told(&error))?;
            if changes.messages == 0 || changes.first_sequence > waiting {
                let end = match journal {
                    Some(end) => end,
                    None => *journal.insert(self.last_of(&journal_stream(shard)).await?),
                };
                let announced = consumer_state(bus, &journal_stream(shard), ANNOUNCE_DURABLE).await;
                if announced.map_err(|error| self.operator.not_told(&error))?.ack_floor >= end {
                    return Ok(true);
                }
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// Removes what streams keep of the user, and counts what remains.
    async fn purge(&self) -> Result<Vec<StreamProof>, Failure> {
        let UserName { tenant, user } = self.user;
        let rejected = subjects::rejected(tenant, user);
        let purged = self.purged(REJECTED_STREAM, &rejected).await?;
        let mut proofs = vec![self.count(REJECTED_STREAM, rejected, purged).await?];
        let shard = self.operator.shard;
        let [uploads, notes, of_changes] =
            [subjects::upload(tenant, user), subjects::kept(tenant, user), subjects::changes_of(tenant, user)]
                .map(|subject| subjects::in_shard(shard, &subject));
        let (chunks_stream, changes_stream) = (&chunks_stream(shard), &changes_stream(shard));
        let until = Instant::now() + DRAINED_WITHIN;
        while self.messages(chunks_stream, &uploads).await? > 0 && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        let chunks = self.count(chunks_stream, uploads, 0).await?;
        // Notes are of no use without chunks. With chunks, these are new ones of a user who is there again.
        let gone = if chunks.remain == 0 { self.purged(chunks_stream, &notes).await? } else { 0 };
        proofs.extend([chunks, self.count(chunks_stream, notes, gone).await?]);
        proofs.push(self.count(changes_stream, of_changes, 0).await?);
        Ok(proofs)
    }

    async fn purged(&self, stream: &str, subject: &str) -> Result<u64, Failure> {
        let through = self.last_of(stream).await?;
        let purged = purge_subject(&self.operator.bus, stream, subject, through).await;
        purged.map_err(|error| {
            self.operator.not_told(&error).hint("may the stream be purged? `roam provision` says how it should be")
        })
    }

    async fn count(&self, stream: &str, subject: String, purged: u64) -> Result<StreamProof, Failure> {
        let remain = self.messages(stream, &subject).await?;
        Ok(StreamProof { stream: stream.to_owned(), purged, remain, subject })
    }

    async fn messages(&self, stream: &str, subject: &str) -> Result<u64, Failure> {
        let counted = subject_messages(&self.operator.bus, stream, subject).await;
        counted.map_err(|error| self.operator.not_told(&error))
    }
}
