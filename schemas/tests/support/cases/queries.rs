//! Golden requests and replies.

use roam_schemas::{
    ChangesReply, ChangesRequest, HistoryReply, HistoryRequest, LatestReply, LatestRequest, Select, State, Value,
    Version,
};

use super::{
    BINARY, Case, case, cursor, directory_service, gone, id, key, laptop, late_revision, live, odd_device, records,
    revision, text, time,
};

pub(super) fn all() -> Vec<Case> {
    [latest_requests(), latest_replies(), changes(), history()].into_iter().flatten().collect()
}

fn latest_requests() -> Vec<Case> {
    let prefix = LatestRequest {
        select: Select::Prefix("bookmarks/".to_owned()),
        limit: Some(1_000),
        after: Some(key("bookmarks/7")),
        ..LatestRequest::default()
    };
    let keys = LatestRequest {
        select: Select::Keys(vec![key("theme"), key("Grüße/日本語"), key("nobody")]),
        min_revision: Some(late_revision()),
        wait_ms: Some(5_000),
        ..LatestRequest::default()
    };
    vec![case("whole_profile", LatestRequest::default()), case("prefix", prefix), case("keys", keys)]
}

fn latest_replies() -> Vec<Case> {
    let page = LatestReply {
        head: revision(41),
        time: time(41),
        records: records(),
        unknown: vec![],
        next: Some(key("Grüße/日本語")),
    };
    let keys = LatestReply {
        head: late_revision(),
        time: time(60),
        records: gone(),
        unknown: vec![key("nobody"), key("never\u{0}written")],
        next: None,
    };
    vec![case("never_written", LatestReply::default()), case("page", page), case("keys", keys)]
}

fn changes() -> Vec<Case> {
    let since = ChangesRequest {
        cursor: Some(cursor(41)),
        limit: Some(100),
        min_revision: Some(revision(44)),
        wait_ms: Some(250),
    };
    let page = ChangesReply { head: revision(60), records: gone(), cursor: cursor(44), more: true };
    let nothing = ChangesReply { head: revision(41), records: vec![], cursor: cursor(41), more: false };
    vec![
        case("from_the_beginning", ChangesRequest::default()),
        case("since_a_cursor", since),
        case("page", page),
        case("nothing_new", nothing),
    ]
}

fn history() -> Vec<Case> {
    let limited = HistoryRequest { key: key("Grüße/日本語"), limit: Some(10) };
    let kept = HistoryReply { head: revision(44), versions: versions(), more: true, whole_since: time(40) };
    let unknown = HistoryReply { head: revision(44), whole_since: time(1), ..HistoryReply::default() };
    vec![
        case("all", HistoryRequest { key: key("theme"), limit: None }),
        case("limited", limited),
        case("unknown_key", unknown),
        case("versions", kept),
    ]
}

fn versions() -> Vec<Version> {
    let deleted = Version {
        revision: revision(44),
        rank: 0,
        time: time(44),
        device: laptop(),
        change: id(9),
        base: Some(revision(43)),
        conflict: true,
        state: State::Deleted,
    };
    let late = Version {
        rank: 1,
        time: time(12),
        device: odd_device(),
        change: id(10),
        base: None,
        conflict: false,
        state: live(text("light"), "text/plain", None),
        ..deleted
    };
    let service = Version {
        revision: revision(40),
        time: time(40),
        device: directory_service(),
        change: id(11),
        conflict: false,
        state: live(Value::new(BINARY), "application/octet-stream", Some(time(60_000))),
        ..deleted
    };
    vec![deleted, late, service]
}
