//! Golden receipts and notices.

use roam_schemas::{
    Applied, BulkReceipt, BulkReceipts, Code, Conflict, Device, Notice, NoticeOperation, Outcome, Problem, Receipt,
    State, Superseded, User, Value,
};

use super::{
    BINARY, Case, case, directory_service, id, key, laptop, late_revision, live, odd_device, revision, text, time,
};

pub(super) fn all() -> Vec<Case> {
    vec![
        case("applied", applied()),
        case("applied_again", applied_again()),
        case("superseded_whole", superseded_whole()),
        case("rejected_as_conflict", rejected(Some(id(7)), conflict(), true)),
        case("rejected_as_exists", rejected(Some(id(8)), exists(), false)),
        case("rejected_undecodable", rejected(None, undecodable(), false)),
        case("of_two_users", of_two_users()),
        case("sent_again", sent_again()),
        case("one_value", one_value()),
        case("every_state", every_state()),
        case("keys_only", keys_only()),
    ]
}

fn receipt(again: bool, last: u8, applied: Applied) -> Receipt {
    Receipt { sequence: 1_300 + u64::from(last), id: Some(id(last)), again, outcome: Outcome::Applied(applied) }
}

fn applied() -> Receipt {
    receipt(
        false,
        1,
        Applied { revision: revision(42), time: time(42), conflicts: vec![], superseded: vec![], nearly_full: false },
    )
}

fn applied_again() -> Receipt {
    let conflicts = vec![
        Conflict { key: key("theme"), revision: revision(39), device: odd_device() },
        Conflict { key: key("avatar"), revision: revision(40), device: directory_service() },
    ];
    let superseded = vec![Superseded { key: key("Grüße/日本語"), revision: revision(41) }];
    receipt(true, 2, Applied { revision: late_revision(), time: time(50), conflicts, superseded, nearly_full: true })
}

fn superseded_whole() -> Receipt {
    let superseded = vec![Superseded { key: key("theme"), revision: revision(39) }];
    receipt(
        false,
        3,
        Applied { revision: revision(41), time: time(41), conflicts: vec![], superseded, nearly_full: false },
    )
}

fn rejected(id: Option<roam_schemas::ChangeId>, problem: Problem, again: bool) -> Receipt {
    Receipt { sequence: 70_000, id, again, outcome: Outcome::Rejected(problem) }
}

fn of_user(user: &str, receipt: Receipt) -> BulkReceipt {
    BulkReceipt { user: User::parse(user).unwrap(), receipt }
}

fn of_two_users() -> BulkReceipts {
    let refused = Receipt { sequence: 1_301, ..rejected(Some(id(3)), conflict(), false) };
    BulkReceipts { receipts: vec![of_user("alice@example.com", applied()), of_user("bob", refused)] }
}

fn sent_again() -> BulkReceipts {
    BulkReceipts { receipts: vec![of_user("*", applied_again()), of_user("*", applied_again())] }
}

fn conflict() -> Problem {
    Problem::new(Code::Conflict, "a record is not at the revision that was expected")
        .with_failed(key("theme"), Some(revision(39)))
}

fn exists() -> Problem {
    Problem::new(Code::Exists, "a record exists that was expected to be absent")
        .with_failed(key("Grüße/日本語"), Some(revision(41)))
}

fn undecodable() -> Problem {
    Problem::too_large("a change is too large, in bytes", 1_048_576, 1_048_577)
}

fn notice(number: u64, device: Device, ops: Vec<NoticeOperation>) -> Notice {
    Notice { revision: revision(number), time: time(number), device, change: id(1), ops }
}

fn op(name: &str, conflict: bool, state: Option<State>) -> NoticeOperation {
    NoticeOperation { key: key(name), conflict, state }
}

fn one_value() -> Notice {
    notice(42, laptop(), vec![op("theme", false, Some(live(text("dark"), "text/plain", None)))])
}

fn every_state() -> Notice {
    let binary = live(Value::new(BINARY), "application/octet-stream", Some(time(60_000)));
    let ops = vec![
        op("avatar", true, Some(binary)),
        op("bookmarks/7", false, Some(State::Deleted)),
        op("session", false, Some(State::Expired)),
    ];
    notice(43, odd_device(), ops)
}

fn keys_only() -> Notice {
    notice(44, directory_service(), vec![op("Grüße/日本語", true, None), op("avatar", false, None)])
}
