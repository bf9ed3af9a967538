//! The proof that a user is gone: what was counted after the order was done, and what nobody can count.

use std::collections::BTreeMap;

use roam_schemas::{HoldingsReply, ReplicaName, Timestamp};
use serde::Serialize;

use crate::{failure::Failure, output::Output, show};

/// What remains of a user.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    /// tenant/user.
    pub(super) user: String,
    /// The sequence of the order in the journal.
    pub(super) sequence: u64,
    pub(super) replicas: Vec<ReplicaProof>,
    /// How many replicas did not answer, or stand still: they do it when they come to it.
    pub(super) absent: usize,
    pub(super) streams: Vec<StreamProof>,
    /// Whether all that was on its way is through.
    pub(super) drained: bool,
    /// Until then the journal may hold changes of the user; none: until it is full.
    pub(super) journal_until: Option<Timestamp>,
    /// Backups that were made before that may hold the user.
    pub(super) backups_before: Timestamp,
}

/// What a replica holds of the user.
#[derive(Debug, Serialize)]
pub(super) struct ReplicaProof {
    name: ReplicaName,
    rows: u64,
    tables: BTreeMap<String, u64>,
    chunks: u64,
}

/// What a stream holds of the user.
#[derive(Debug, Serialize)]
pub(super) struct StreamProof {
    pub(super) stream: String,
    pub(super) subject: String,
    pub(super) purged: u64,
    pub(super) remain: u64,
}

impl ReplicaProof {
    /// What a replica said last.
    pub(super) fn of(held: HoldingsReply) -> Self {
        let tables: BTreeMap<_, _> = held.rows.into_iter().map(|counted| (counted.table, counted.rows)).collect();
        Self { name: held.name, rows: tables.values().sum(), tables, chunks: held.chunks }
    }
}

impl Proof {
    /// Says it. Whatever remains is a failure.
    pub(super) fn say(&self, what: &str, out: Output) -> Result<(), Failure> {
        out.object(self)?;
        for ReplicaProof { name, rows, chunks, .. } in &self.replicas {
            let name = show::text(name.as_str());
            out.row(format_args!("{name:<16}  {} remain, {}", show::of(*rows, "row"), show::of(*chunks, "chunk")))?;
        }
        for StreamProof { stream, subject, purged, remain } in &self.streams {
            let (remain, subject) = (show::of(*remain, "message"), show::text(subject));
            out.row(format_args!("{stream:<16}  {remain} remain on {subject}, {} purged", show::count(*purged)))?;
        }
        match self.journal_until {
            Some(until) => out.say(format_args!("ROAM_JOURNAL may hold changes of the user until {until}"))?,
            None => out.say("ROAM_JOURNAL holds changes of the user until it is full")?,
        }
        let before = self.backups_before;
        out.say(format_args!(
            "backups made before {before} may hold the user: `roam backup list`, and `roam backup prune` once there are newer"
        ))?;
        self.check(what)
    }

    fn check(&self, what: &str) -> Result<(), Failure> {
        if self.absent > 0 {
            let why = format!("{} did not answer, or stand still", show::of(self.absent as u64, "replica"));
            return Err(Failure::later(what, why)
                .hint("they do it when they come to it; run it again then, for the whole proof"));
        }
        if !self.drained {
            return Err(Failure::later(what, "changes that were on their way are not through yet")
                .hint("`roam status` says what holds them up; run it again then"));
        }
        let rows: u64 = self.replicas.iter().map(|replica| replica.rows + replica.chunks).sum();
        let messages: u64 = self.streams.iter().map(|stream| stream.remain).sum();
        match rows + messages {
            0 => Ok(()),
            _ => Err(Failure::new(what, "something remains, or came since the order").hint(
                "a device of the user goes on publishing: revoke its token, `roam token list`, and run it again",
            )),
        }
    }
}
