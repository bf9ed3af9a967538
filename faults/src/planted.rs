//! Planted bugs: for each a short act in which the harness must find it. The services have them only in a build with the
//! feature `planted`, which `scripts/faults --planted` makes.

use crate::{fault::Hazard, site::Shape};

/// Tells a service which bug it has.
pub(crate) const VARIABLE: &str = "ROAM_PLANTED";
/// The bug that only one of two replicas has.
pub(crate) const REPLICA_DIFFERS: &str = "replica-differs";

/// A bug, and where it shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) hazard: Hazard,
    /// The faults in which it shows.
    pub(crate) faults: &'static [&'static str],
}

const fn bug(name: &'static str, shape: Shape, hazard: Hazard, faults: &'static [&'static str]) -> Planted {
    Planted { name, shape, hazard, faults }
}

const KILL_REPLICA: &[&str] = &["kill-replica"];
const AWAY: &[&str] = &["partition-access-server", "kill-access-server"];

/// All of them.
pub(crate) const ALL: &[Planted] = &[
    bug("receipt-before-fsync", Shape::Lazy, Hazard::BusLoses, &["power-cut-both"]),
    bug("position-before-batch", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("told-before-commit", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("damage-tolerated", Shape::Single, Hazard::StoreDamaged, &["flip-wal"]),
    bug("feed-row-forgotten", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("seen-forgotten", Shape::Single, Hazard::Nothing, &["duplicate-everything"]),
    bug("another-outcome-again", Shape::Single, Hazard::Nothing, &["duplicate-everything"]),
    bug("expectation-ignored", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("superseded-ignored", Shape::Single, Hazard::Nothing, AWAY),
    bug("revision-taken-twice", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("time-falls", Shape::Single, Hazard::Nothing, AWAY),
    bug("delete-ignored", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("half-a-change", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("receipt-to-another", Shape::Single, Hazard::Nothing, KILL_REPLICA),
    bug("min-revision-ignored", Shape::Cluster, Hazard::Nothing, &["slow-disk-store", "slow-replica"]),
    bug(REPLICA_DIFFERS, Shape::Cluster, Hazard::Nothing, KILL_REPLICA),
    bug("ack-before-append", Shape::Single, Hazard::Nothing, &["kill-access-server"]),
    bug("rejected-not-filed", Shape::Single, Hazard::Nothing, &["kill-access-server"]),
    bug("profile-mixed-up", Shape::Single, Hazard::Nothing, &["kill-access-server"]),
];
