//! Why a replica stands still. A person, or a newer build, has to help; nothing is lost meanwhile, since the journal keeps
//! what is not applied.

use roam_schemas::{BatchId, Resume};

use crate::fold::Stuck;

/// Why a replica must not go on. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    /// The journal does not hold what comes after the replica's position.
    #[error(
        "the journal goes on at {first}, but this replica needs {needed}: it takes the newest backup that the journal carries \
         forward, once there is one; where there is none, an order to resume lets one replica go on without what is missing"
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
         agree: an order to resume says which of them counts"
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
        from: String,
    },
    /// An entry does not decode.
    #[error(
        "entry {sequence} of the journal (batch {batch}) does not decode: {reason}: a newer build may, or an order to skip"
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
    #[error("batch {sequence} of the journal cannot be applied: {reason}: a newer build may, or an order to skip")]
    Inapplicable {
        /// Its sequence.
        sequence: u64,
        /// Why not.
        reason: String,
    },
}

impl Halt {
    /// Another replica counts than this one.
    pub(super) fn outdated(resume: &Resume) -> Self {
        Self::Outdated { line: resume.line, from: resume.from.to_string() }
    }
}

impl From<Stuck> for Halt {
    fn from(stuck: Stuck) -> Self {
        Self::Inapplicable { sequence: stuck.position.sequence, reason: stuck.reason }
    }
}
