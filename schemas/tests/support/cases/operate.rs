//! Golden messages between operators and replicas.

use roam_schemas::{
    BatchId, Halted, HoldingsReply, HoldingsRequest, JournalPosition, Missing, Origin, ProfileStanding, ProfilesReply,
    ProfilesRequest, Remedy, ReplicaName, Skip, StatusReply, TableRows,
};

use super::{Case, case, profile, revision, time};

pub(super) fn all() -> Vec<Case> {
    let name = || ReplicaName::parse("storage-1").unwrap();
    let position = JournalPosition {
        incarnation: time(0).as_nanos(),
        sequence: 4_711,
        batch: BatchId::from_bytes([0xB0; 16]),
        line: 1,
        published: time(7),
    };
    let ready = StatusReply {
        name: name(),
        version: "0.1.0".to_owned(),
        position: Some(position),
        halted: None,
        missing: Vec::new(),
        announces: true,
        epoch: 0,
        used_bytes: 1_048_576,
        free_bytes: Some(64_424_509_440),
    };
    let halted = "the journal goes on at 12, but this replica needs 9".to_owned();
    let missing = vec![Missing { condition: "journal".to_owned(), reason: halted.clone() }];
    let stopped = |remedy| StatusReply {
        halted: Some(Halted { reason: halted.clone(), remedy }),
        missing: missing.clone(),
        position: None,
        announces: false,
        epoch: 1,
        ..ready.clone()
    };
    let skip = Skip {
        origin: Origin { incarnation: time(0).as_nanos(), sequence: 4_712 },
        batch: Some(BatchId::from_bytes([0xB1; 16])),
    };
    let asked = ProfilesRequest {
        tenant: Some(profile().tenant),
        user: Some(profile().user),
        app: None,
        after: Some(profile()),
        limit: Some(100),
        digests_as_of: Some(time(7)),
        min_sequence: Some(4_711),
        wait_ms: Some(1_000),
    };
    let standing = ProfileStanding {
        profile: profile(),
        revision: revision(41),
        time: time(6),
        records: 12,
        bytes: 3_456,
        digest: Some("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".to_owned()),
    };
    let listed = ProfilesReply {
        name: name(),
        position: Some(position),
        profiles: vec![standing.clone(), ProfileStanding { digest: None, ..standing }],
        next: Some(profile()),
    };
    let of_user = HoldingsRequest {
        tenant: profile().tenant,
        user: profile().user,
        min_sequence: Some(4_711),
        wait_ms: Some(1_000),
    };
    let rows = |table: &str, rows| TableRows { table: table.to_owned(), rows };
    let held = HoldingsReply {
        name: name(),
        position: Some(position),
        rows: vec![rows("version", 12), rows("head", 1)],
        chunks: 3,
        leaving: 0,
    };
    vec![
        case("of_a_user", of_user.clone()),
        case("of_a_user_now", HoldingsRequest { min_sequence: None, wait_ms: None, ..of_user }),
        case("something", held.clone()),
        case("nothing_left", HoldingsReply { rows: Vec::new(), chunks: 0, leaving: 1, position: None, ..held }),
        case("ready", ready.clone()),
        case("stands_still", stopped(Remedy::BackupOrResume)),
        case("stands_still_before_another_journal", stopped(Remedy::Resume)),
        case("stands_still_behind_another_replica", stopped(Remedy::BackupOf(name()))),
        case("stands_still_before_an_entry", stopped(Remedy::Skip(skip))),
        case("all", ProfilesRequest::default()),
        case("of_a_user_with_digests", asked),
        case("a_page", listed),
        case("nothing", ProfilesReply { name: name(), position: None, profiles: Vec::new(), next: None }),
    ]
}
