//! `docs/protocol.md`: its examples are golden messages, and it names every kind, subject, header and limit as the code does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::BTreeSet, fs};

use roam_schemas::{Encoding, headers};
use serde_json::Value;
use support::{KINDS, cases, fenced, in_workspace};

fn page() -> String {
    fs::read_to_string(in_workspace("docs/protocol.md")).unwrap()
}

#[test]
fn every_example_is_a_golden_message_and_every_kind_for_clients_has_one() {
    let page = page();
    let goldens: Vec<(&str, Value)> = cases::all()
        .into_iter()
        .map(|case| (case.key, serde_json::from_slice(&case.spelling.json).unwrap()))
        .collect();
    let mut shown = BTreeSet::new();
    for example in fenced(&page, "json") {
        let value: Value = serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}"));
        let golden = goldens.iter().find(|(_, golden)| *golden == value);
        shown.insert(golden.unwrap_or_else(|| panic!("no golden message: {example}")).0);
    }
    let mut expected: BTreeSet<_> = KINDS.iter().map(|(key, _)| *key).collect();
    expected.remove("journal_batch_v1");
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
        headers::REVISION,
        headers::CODE,
        headers::REASON,
        headers::SUBJECT,
        headers::SEQUENCE,
        headers::HASH,
        headers::SIZE,
        Encoding::Postcard.content_type(),
        Encoding::Json.content_type(),
    ] {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
