//! What is refused before anything is ordered.
#![allow(clippy::unwrap_used)]

use roam_schemas::{BatchId, Origin, Timestamp};

use super::*;
use crate::failure::Exit;

fn standing(name: &str, sequence: u64, remedy: Option<Remedy>) -> StatusReply {
    let position = JournalPosition {
        incarnation: 7,
        sequence,
        batch: BatchId::from_bytes([1; 16]),
        line: 1,
        published: Timestamp::from_nanos(sequence),
    };
    StatusReply {
        name: ReplicaName::parse(name).unwrap(),
        version: "0.1.0".to_owned(),
        position: Some(position),
        halted: remedy.map(|remedy| Halted { reason: "it cannot".to_owned(), remedy }),
        missing: Vec::new(),
        announces: false,
        epoch: 0,
        used_bytes: 0,
        free_bytes: None,
    }
}

fn replicas(standing: Vec<StatusReply>, expected: usize) -> Replicas {
    Replicas { standing, troubles: Vec::new(), expected }
}

fn at_ten(incarnation: u64) -> Skip {
    Skip { origin: Origin { incarnation, sequence: 10 }, batch: None }
}

#[test]
fn an_entry_that_a_replica_has_applied_is_not_skipped() {
    let both = |other| replicas(vec![standing("a", 9, None), standing("b", other, None)], 2);
    assert!(check_skip(&at_ten(7), &both(9), false).is_ok());
    let refused = check_skip(&at_ten(7), &both(10), true).unwrap_err();
    assert_eq!((refused.exit, refused.why.contains("b has applied entry 10")), (Exit::Failed, true), "{refused}");
    assert!(check_skip(&at_ten(8), &both(10), false).is_ok(), "that was an entry of another journal");
}

#[test]
fn a_replica_that_is_away_may_have_applied_it() {
    let alone = replicas(vec![standing("a", 9, None)], 3);
    let refused = check_skip(&at_ten(7), &alone, false).unwrap_err();
    assert_eq!((refused.exit, refused.why.contains("2 replicas do not answer")), (Exit::TryLater, true), "{refused}");
    assert!(check_skip(&at_ten(7), &alone, true).is_ok());
}

#[test]
fn only_a_replica_that_an_order_helps_is_resumed() {
    let other = ReplicaName::parse("b").unwrap();
    for (remedy, helps) in [
        (Remedy::Resume, true),
        (Remedy::BackupOrResume, true),
        (Remedy::BackupOf(other), false),
        (Remedy::Skip(at_ten(7)), false),
    ] {
        let stopped = standing("a", 9, Some(remedy.clone()));
        let checked = check_resume(&stopped, stopped.halted.as_ref().unwrap());
        assert_eq!(checked.is_ok(), helps, "{remedy:?}");
        assert!(checked.is_ok() || checked.unwrap_err().hint.is_some(), "{remedy:?}");
    }
}

#[test]
fn a_name_that_two_have_is_nobodys() {
    let twice = replicas(vec![standing("a", 9, Some(Remedy::Resume)), standing("a", 9, None)], 2);
    let name = ReplicaName::parse("a").unwrap();
    assert!(stopped(RESUME, &twice, &name).unwrap_err().why.contains("two replicas"));
    let once = replicas(vec![standing("a", 9, None)], 1);
    assert!(stopped(RESUME, &once, &name).unwrap_err().why.contains("does not stand still"));
    let nobody = ReplicaName::parse("c").unwrap();
    assert_eq!(stopped(RESUME, &once, &nobody).unwrap_err().exit, Exit::TryLater);
}
