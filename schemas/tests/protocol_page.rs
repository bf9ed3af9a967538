//! `docs/protocol.md`: its examples are golden messages, and it names every kind, subject, header and limit as the code does.

use std::{collections::BTreeSet, fs};

use crate::support::{KINDS, cases, fenced, in_workspace};
use roam_schemas::{
    Encoding, Shard, headers, limits,
    subjects::{self, SubjectError, Verb},
};
use serde_json::Value;

fn page() -> String {
    fs::read_to_string(in_workspace("docs/protocol.md")).unwrap()
}

#[test]
fn every_example_is_a_golden_message_and_every_kind_for_clients_has_one() {
    let page = page();
    let goldens: Vec<(&str, Value)> =
        cases::all().into_iter().map(|case| (case.key, serde_json::from_slice(&case.spelling.json).unwrap())).collect();
    let mut shown = BTreeSet::new();
    for example in fenced(&page, "json") {
        let value: Value = serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}"));
        let golden = goldens.iter().find(|(_, golden)| *golden == value);
        shown.insert(golden.unwrap_or_else(|| panic!("no golden message: {example}")).0);
    }
    let mut expected: BTreeSet<_> = KINDS.iter().map(|(key, _)| *key).collect();
    // What services tell each other, which no client sees.
    expected.retain(|key| !["journal_batch_v1", "control_entry_v1", "terms_entry_v1"].contains(key));
    assert_eq!(shown, expected);
}

#[test]
fn the_first_byte_and_the_key_of_every_kind_are_listed() {
    let page = page();
    for (key, _) in KINDS {
        let case = cases::all().into_iter().find(|case| case.key == key).unwrap();
        let row = format!("| `{key}` | `{:#04x}` |", case.spelling.postcard[0]);
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn every_header_and_content_type_is_named() {
    let page = page();
    for name in [
        headers::CONTENT_TYPE,
        headers::BATCH,
        headers::BY,
        headers::REVISION,
        headers::CODE,
        headers::REASON,
        headers::SUBJECT,
        headers::SEQUENCE,
        headers::HASH,
        headers::SIZE,
        headers::CHUNK,
        headers::CONTROL,
        headers::CHUNKS,
        headers::SEEN,
        headers::SHARD,
        Encoding::Postcard.content_type(),
        Encoding::Json.content_type(),
    ] {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_subject_of_a_client_is_named() {
    let page = page();
    let nowhere = "nowhere";
    for error in [
        subjects::parse_change(Shard::ONLY, nowhere).unwrap_err(),
        subjects::parse_receipt(nowhere).unwrap_err(),
        subjects::parse_bulk(Shard::ONLY, nowhere).unwrap_err(),
        subjects::parse_notice(nowhere).unwrap_err(),
        subjects::parse_upload(Shard::ONLY, nowhere).unwrap_err(),
    ] {
        let SubjectError::Shape(shape) = error else { panic!("{error}") };
        assert!(page.contains(&format!("| `{shape}` |")), "{shape}");
    }
    for verb in Verb::ALL {
        let shape = verb.wildcard().replacen("*.*.*", "<tenant>.<user>.<app>", 1);
        assert!(page.contains(&format!("| `{shape}` |")), "{shape}");
    }
}

#[test]
fn every_limit_of_a_client_stands_in_the_table() {
    let page = page();
    let table = page.split("\n## Limits\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for (what, limit) in [
        ("tenant, user, app, device", limits::NAME_BYTES),
        ("key", limits::KEY_BYTES),
        ("value", limits::VALUE_BYTES),
        ("content type", limits::CONTENT_TYPE_BYTES),
        ("operations in a change", limits::CHANGE_OPERATIONS),
        ("a change as encoded", limits::CHANGE_BYTES),
        ("changes in a bulk", limits::BULK_CHANGES),
        ("receipts of a bulk in one message", limits::BULK_RECEIPTS_BYTES),
        ("time to live", limits::TTL_SECONDS as usize),
        ("keys in a `latest` request", limits::REQUEST_KEYS),
        ("records in a page", limits::PAGE_RECORDS as usize),
        ("`wait_ms`", limits::WAIT_MS as usize),
        ("un-acked changes on one subject", limits::CLIENT_WINDOW),
        ("large value", limits::LARGE_VALUE_BYTES),
        ("chunk", limits::CHUNK_BYTES),
        ("chunks of a large value", limits::MANIFEST_CHUNKS),
        ("hashes in a `have` request", limits::HAVE_HASHES),
    ] {
        let row =
            table.lines().find(|line| line.starts_with(&format!("| {what} |"))).unwrap_or_else(|| panic!("{what}"));
        assert!(row.contains(&with_commas(limit)), "{row}: {limit}");
    }
    for (what, bytes) in [("a notice with values", limits::NOTICE_BYTES), ("records in a page", limits::PAGE_BYTES)] {
        let row = table.lines().find(|line| line.starts_with(&format!("| {what} |"))).unwrap();
        assert!(row.contains(&format!("{} KiB", bytes / 1024)), "{row}: {bytes}");
    }
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let group = |(at, digit): (usize, char)| match at > 0 && (digits.len() - at).is_multiple_of(3) {
        true => format!(",{digit}"),
        false => digit.to_string(),
    };
    digits.chars().enumerate().map(group).collect()
}
