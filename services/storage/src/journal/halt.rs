//! Why a replica stands still. A person, or a newer build, has to help; nothing is lost meanwhile, since the journal keeps
//! what is not applied.

use roam_schemas::{BatchId, Halted, Origin, Remedy, ReplicaName, Resume, Skip};

use crate::{fold::Stuck, store::Position};

/// Why a replica must not go on. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    /// The journal does not hold what comes after the replica's position.
    #[error(
        "the journal goes on at {first}, but this replica needs {needed}: it takes the newest backup that the journal carries \
         forward, once there is one; where there is none, `roam storage resume` lets one replica go on without what is missing"
    )]
    Gap {
        /// The first sequence that the journal holds behind the gap.
        first: u64,
        /// The first that the replica needs.
        needed: u64,
    },
    /// The journal was rolled back or created anew, and other replicas have to agree on what is true.
    #[error(
        "the journal was rolled back or created anew at or before {position} (batch {batch}); {replicas} replicas have to \
         agree: `roam storage resume` says which of them counts"
    )]
    Forked {
        /// The replica's position.
        position: u64,
        /// The batch that it stored there.
        batch: BatchId,
        /// How many replicas the deployment has.
        replicas: usize,
    },
    /// Another replica counts, and this one has to take a backup of it.
    #[error("since line {line} of the journal replica {from} counts: this one takes a backup of it, once there is one")]
    Outdated {
        /// The line.
        line: u64,
        /// The replica that counts.
        from: ReplicaName,
    },
    /// An entry does not decode.
    #[error(
        "entry {sequence} of the journal (batch {batch}) does not decode: {reason}: a newer build may; if none does, \
         `roam storage skip`"
    )]
    Undecodable {
        /// Its sequence.
        sequence: u64,
        /// The id in its header.
        batch: String,
        /// Why not.
        reason: String,
    },
    /// A batch decodes and cannot be applied.
    #[error(
        "batch {sequence} of the journal cannot be applied: {reason}: a newer build may; if none does, `roam storage skip`"
    )]
    Inapplicable {
        /// Its sequence.
        sequence: u64,
        /// Its id.
        batch: BatchId,
        /// Why not.
        reason: String,
    },
}

impl Halt {
    /// Another replica counts than this one.
    pub(super) fn outdated(resume: &Resume) -> Self {
        Self::Outdated { line: resume.line, from: resume.from.clone() }
    }

    /// The same for operators and their programs. `incarnation` is that of the journal that it was found in.
    pub(super) fn told(&self, incarnation: u64) -> Halted {
        let skip = |sequence, batch| Remedy::Skip(Skip { origin: Origin { incarnation, sequence }, batch });
        let remedy = match self {
            Self::Gap { .. } => Remedy::BackupOrResume,
            Self::Forked { .. } => Remedy::Resume,
            Self::Outdated { from, .. } => Remedy::BackupOf(from.clone()),
            Self::Undecodable { sequence, batch, .. } => skip(*sequence, BatchId::parse(batch)),
            Self::Inapplicable { sequence, batch, .. } => skip(*sequence, Some(*batch)),
        };
        Halted { reason: self.to_string(), remedy }
    }
}

impl From<Stuck> for Halt {
    fn from(stuck: Stuck) -> Self {
        let Position { sequence, batch, .. } = stuck.position;
        Self::Inapplicable { sequence, batch, reason: stuck.reason }
    }
}
