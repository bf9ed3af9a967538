//! The golden messages in `golden/`: what was once written decodes to the same value for ever, and is still written so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Once,
};

use crate::support::{ENCODINGS, KINDS, bless, cases, files_below, in_crate};
use roam_schemas::{Action, Encoding, Expect, Outcome, Receipt, Select, State, decode};

fn extension(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Postcard => "postcard",
        Encoding::Json => "json",
    }
}

fn directory() -> PathBuf {
    in_crate("golden")
}

/// The path below `golden/` and the bytes of every file that the table asks for.
fn expected() -> BTreeMap<String, Vec<u8>> {
    let files = |case: &cases::Case| {
        ENCODINGS.map(|encoding| {
            let path = format!("{}/{}.{}", case.key, case.name, extension(encoding));
            (path, case.spelling.get(encoding).to_vec())
        })
    };
    let all: Vec<_> = cases::all().iter().flat_map(files).collect();
    let count = all.len();
    let expected = BTreeMap::from_iter(all);
    assert_eq!(expected.len(), count, "two rows have one name");
    expected
}

/// Adds what is missing if the run may, once and before any test of this file reads; never writes over a file.
fn bless_missing() {
    static BLESSED: Once = Once::new();
    BLESSED.call_once(|| {
        let missing = |path: &PathBuf| bless() && !path.exists();
        for (path, bytes) in expected().into_iter().map(|(path, bytes)| (directory().join(path), bytes)) {
            if missing(&path) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    });
}

#[test]
fn every_row_has_its_files_and_every_file_its_row() {
    bless_missing();
    let expected: BTreeSet<String> = expected().into_keys().collect();
    let found = files_below(&directory());
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "without a file (ROAM_BLESS=1 adds them): {missing:?}");
    let stray: Vec<_> = found.difference(&expected).collect();
    assert!(stray.is_empty(), "without a row in tests/support/cases: {stray:?}");
}

#[test]
fn every_golden_message_decodes_to_the_value_of_its_row() {
    bless_missing();
    for case in cases::all() {
        for encoding in ENCODINGS {
            let path = directory().join(case.key).join(format!("{}.{}", case.name, extension(encoding)));
            let payload = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if let Err(error) = (case.reads)(&payload, encoding) {
                panic!("{}: {error}", path.display());
            }
        }
    }
}

#[test]
fn the_value_of_every_row_is_written_as_its_golden_message() {
    bless_missing();
    for (path, bytes) in expected() {
        let golden = fs::read(directory().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let found = golden.escape_ascii().to_string();
        assert_eq!(bytes.escape_ascii().to_string(), found, "{path} is written otherwise");
    }
}

#[test]
fn every_kind_has_golden_messages() {
    let cases = cases::all();
    for (key, _) in KINDS {
        assert!(cases.iter().filter(|case| case.key == key).count() >= 2, "{key}");
    }
}

/// A name for each variant, which does not compile when one is added and forgotten here.
fn variants_of_operations(action: &Action, expect: Expect) -> [&'static str; 2] {
    let action = match action {
        Action::Put(_) => "put",
        Action::Delete => "delete",
    };
    let expect = match expect {
        Expect::Any => "any",
        Expect::Absent => "absent",
        Expect::At(_) => "at",
    };
    [action, expect]
}

fn variant_of_state(state: &State) -> &'static str {
    match state {
        State::Value(_) => "value",
        State::Deleted => "deleted",
        State::Expired => "expired",
    }
}

fn goldens<M: roam_schemas::Message>() -> Vec<M> {
    let of_this_kind = |case: &cases::Case| case.key == M::KIND.key();
    let read = |case: cases::Case| decode(&case.spelling.json, Encoding::Json).unwrap();
    cases::all().into_iter().filter(of_this_kind).map(read).collect()
}

#[test]
fn the_golden_messages_show_every_variant() {
    let mut seen = BTreeSet::new();
    for draft in goldens::<roam_schemas::Draft>() {
        seen.extend(draft.ops.iter().flat_map(|op| variants_of_operations(&op.action, op.expect)));
    }
    assert_eq!(seen, BTreeSet::from(["put", "delete", "any", "absent", "at"]));

    let outcome = |receipt: &Receipt| match receipt.outcome {
        Outcome::Applied(_) => "applied",
        Outcome::Rejected(_) => "rejected",
    };
    let seen: BTreeSet<_> = goldens::<Receipt>().iter().map(outcome).collect();
    assert_eq!(seen, BTreeSet::from(["applied", "rejected"]));

    let select = |request: &roam_schemas::LatestRequest| match request.select {
        Select::All => "all",
        Select::Prefix(_) => "prefix",
        Select::Keys(_) => "keys",
    };
    let seen: BTreeSet<_> = goldens::<roam_schemas::LatestRequest>().iter().map(select).collect();
    assert_eq!(seen, BTreeSet::from(["all", "prefix", "keys"]));

    let states = BTreeSet::from(["value", "deleted", "expired"]);
    let replies = goldens::<roam_schemas::LatestReply>();
    let seen: BTreeSet<_> =
        replies.iter().flat_map(|reply| &reply.records).map(|record| variant_of_state(&record.state)).collect();
    assert_eq!(seen, states);
    let notices = goldens::<roam_schemas::Notice>();
    let ops = || notices.iter().flat_map(|notice| &notice.ops);
    let seen: BTreeSet<_> = ops().filter_map(|op| op.state.as_ref()).map(variant_of_state).collect();
    assert_eq!(seen, states);
    assert!(ops().any(|op| op.state.is_none()));

    let encodings: BTreeSet<_> = goldens::<roam_schemas::JournalBatch>()
        .iter()
        .flat_map(|batch| &batch.changes)
        .map(|change| change.encoding.content_type())
        .collect();
    assert_eq!(encodings.len(), 2);
}
