//! What is wrong with what was seen, as a table.
#![allow(clippy::unwrap_used)]

use roam_nats::StreamServer;
use roam_schemas::{Halted, Missing, ReplicaName, Timestamp};

use super::{super::look::ServerSeen, *};

fn stream(name: &'static str) -> StreamSeen {
    StreamSeen {
        name: name.to_owned(),
        kind: name,
        messages: 10,
        bytes: 100,
        max_messages: Some(100),
        max_bytes: Some(1_000),
        max_age_seconds: None,
        last_sequence: 10,
        trouble: None,
    }
}

fn replica(name: &str) -> ReplicaSeen {
    let status = StatusReply {
        name: ReplicaName::parse(name).unwrap(),
        version: "0.1.0".to_owned(),
        position: None,
        halted: None,
        missing: Vec::new(),
        announces: false,
        epoch: 0,
        used_bytes: 1,
        free_bytes: Some(LITTLE_ROOM),
    };
    ReplicaSeen { state: State::Serving, behind: 0, status }
}

fn well() -> Seen {
    let durable = || DurableSeen { delivered: 10, attended: true, ..DurableSeen::default() };
    Seen {
        time: Timestamp::from_nanos(0),
        shard: None,
        findings: Vec::new(),
        server: ServerSeen { name: "n".to_owned(), version: "2.15.1".to_owned() },
        servers: vec![StreamServer { name: "n".to_owned(), leads: true, current: true, offline: false, behind: 0 }],
        streams: vec![stream(CHANGES_STREAM), stream(JOURNAL_STREAM), stream(CHUNKS_STREAM)],
        changes: durable(),
        announcements: durable(),
        expected_replicas: 2,
        replicas: vec![replica("a"), replica("b")],
        troubles: Vec::new(),
        shared_names: Vec::new(),
        backup: None,
        backup_trouble: None,
    }
}

#[test]
fn each_trouble_is_found_with_what_to_do_about_it() {
    assert_eq!(judge(&well()), []);
    let halted = || Halted { reason: "it cannot".to_owned(), remedy: Remedy::Resume };
    let missing = || Missing { condition: "store".to_owned(), reason: "the disk is full".to_owned() };
    type Spoil = Box<dyn Fn(&mut Seen)>;
    let cases: Vec<(&str, Soundness, Spoil)> = vec![
        ("n is not heard of", Soundness::Problem, Box::new(|seen| seen.servers[0].offline = true)),
        ("no leader", Soundness::Problem, Box::new(|seen| seen.servers[0].leads = false)),
        (
            "does not exist",
            Soundness::Problem,
            Box::new(|seen| seen.streams[0].trouble = Some("does not exist".into())),
        ),
        ("ROAM_CHANGES holds 80 %", Soundness::Warning, Box::new(|seen| seen.streams[0].messages = 80)),
        ("ROAM_CHUNKS holds 100 %", Soundness::Warning, Box::new(|seen| seen.streams[2].bytes = 1_000)),
        ("access stands at 11", Soundness::Problem, Box::new(|seen| seen.changes.delivered = 11)),
        ("announce stands at 11", Soundness::Problem, Box::new(|seen| seen.announcements.delivered = 11)),
        ("no access server", Soundness::Problem, Box::new(|seen| seen.changes.attended = false)),
        ("257 batches wait", Soundness::Warning, Box::new(|seen| seen.announcements.waiting = 257)),
        ("1 of 2 storage replicas", Soundness::Problem, Box::new(|seen| drop(seen.replicas.pop()))),
        ("2 storage replicas answer", Soundness::Warning, Box::new(|seen| seen.expected_replicas = 1)),
        ("it is on fire", Soundness::Problem, Box::new(|seen| seen.troubles = vec!["it is on fire".into()])),
        ("two replicas have the name a", Soundness::Problem, Box::new(|seen| seen.shared_names = vec!["a".into()])),
        (
            "a stands still: it cannot",
            Soundness::Problem,
            Box::new(move |seen| {
                (seen.replicas[0].state, seen.replicas[0].status.halted) = (State::StandsStill, Some(halted()));
            }),
        ),
        (
            "a catches up: it is 7 entries",
            Soundness::Warning,
            Box::new(|seen| (seen.replicas[0].state, seen.replicas[0].behind) = (State::CatchingUp, 7)),
        ),
        (
            "a is not ready: store: the disk is full",
            Soundness::Problem,
            Box::new(move |seen| {
                (seen.replicas[0].state, seen.replicas[0].status.missing) = (State::NotReady, vec![missing()]);
            }),
        ),
        ("the disk of a", Soundness::Warning, Box::new(|seen| seen.replicas[0].status.free_bytes = Some(0))),
        (
            "there is no backup",
            Soundness::Warning,
            Box::new(|seen| seen.backup_trouble = Some("there is no backup".into())),
        ),
    ];
    for (found, state, spoil) in cases {
        let mut seen = well();
        spoil(&mut seen);
        let findings = judge(&seen);
        let finding = findings.iter().find(|finding| finding.found.contains(found));
        let finding = finding.unwrap_or_else(|| panic!("{found}: {findings:?}"));
        assert_eq!((finding.state, finding.remedy.is_some()), (state, true), "{found}");
    }
}

#[test]
fn the_worst_comes_first() {
    let mut seen = well();
    seen.replicas[0].status.free_bytes = Some(0);
    seen.changes.attended = false;
    let states: Vec<_> = judge(&seen).iter().map(|finding| finding.state).collect();
    assert_eq!(states, [Soundness::Problem, Soundness::Warning]);
}

#[test]
fn a_replica_that_is_behind_and_has_no_room_does_not_catch_up() {
    let state = |conditions: &[&str], end| {
        let missing = |condition: &&str| Missing { condition: (*condition).to_owned(), reason: "why".to_owned() };
        let status = StatusReply { missing: conditions.iter().map(missing).collect(), ..replica("r").status };
        ReplicaSeen::of(status, end).state
    };
    assert_eq!(state(&[], 7), State::Serving);
    assert_eq!(state(&["respond"], 7), State::CatchingUp);
    assert_eq!(state(&["journal", "respond"], 7), State::CatchingUp);
    assert_eq!(state(&["room", "respond"], 7), State::NotReady);
    assert_eq!(state(&["respond"], 0), State::NotReady);
}
