//! What is written reads back as it was, and in postcard has no other spelling.

use std::fmt::Debug;

use crate::support::{ENCODINGS, KINDS, rewriter, strategies};
use proptest::{
    prelude::{Strategy, any},
    test_runner::{Config, TestRunner},
};
use roam_schemas::{Draft, Encoding, Message, decode, encode};

fn check<M: Message + PartialEq + Debug>(messages: impl Strategy<Value = M>) {
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&messages, |message| {
        for encoding in ENCODINGS {
            let payload = encode(&message, encoding).unwrap();
            let read: M = decode(&payload, encoding).unwrap();
            assert_eq!(read, message, "{encoding:?}");
            assert_eq!(encode(&read, encoding).unwrap(), payload, "{encoding:?}");
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn a_change_reads_back_as_it_was() {
    check(strategies::draft());
}

#[test]
fn a_valid_change_reads_back_as_it_was() {
    check(strategies::change());
}

#[test]
fn a_journal_batch_reads_back_as_it_was() {
    check(strategies::journal_batch());
}

#[test]
fn a_control_entry_reads_back_as_it_was() {
    check(strategies::control_entry());
}

#[test]
fn what_access_servers_go_by_reads_back_as_it_was() {
    check(strategies::terms_entry());
}

#[test]
fn what_operators_ask_and_hear_reads_back_as_it_was() {
    check(strategies::status_reply());
    check(strategies::profiles_request());
    check(strategies::profiles_reply());
    check(strategies::holdings_request());
    check(strategies::holdings_reply());
}

#[test]
fn a_receipt_reads_back_as_it_was() {
    check(strategies::receipt());
}

#[test]
fn a_notice_reads_back_as_it_was() {
    check(strategies::notice());
}

#[test]
fn a_latest_request_reads_back_as_it_was() {
    check(strategies::latest_request());
}

#[test]
fn a_latest_reply_reads_back_as_it_was() {
    check(strategies::latest_reply());
}

#[test]
fn a_changes_request_reads_back_as_it_was() {
    check(strategies::changes_request());
}

#[test]
fn a_changes_reply_reads_back_as_it_was() {
    check(strategies::changes_reply());
}

#[test]
fn a_bulk_reads_back_as_it_was() {
    check(strategies::bulk());
}

#[test]
fn a_history_request_reads_back_as_it_was() {
    check(strategies::history_request());
}

#[test]
fn a_history_reply_reads_back_as_it_was() {
    check(strategies::history_reply());
}

#[test]
fn a_problem_reads_back_as_it_was() {
    check(strategies::problem());
}

#[test]
fn a_manifest_reads_back_as_it_was() {
    check(strategies::manifest());
}

#[test]
fn a_request_for_chunks_and_its_reply_read_back_as_they_were() {
    check(strategies::have_request());
    check(strategies::have_reply());
    check(strategies::chunk_request());
    check(strategies::chunk_reply());
}

proptest::proptest! {
    #![proptest_config(Config { cases: 128, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_draft_of_a_valid_change_is_that_change_again(change in strategies::change()) {
        for encoding in ENCODINGS {
            let payload = encode(&change, encoding).unwrap();
            let draft: Draft = decode(&payload, encoding).unwrap();
            assert_eq!(Draft::from(change.clone()), draft);
            assert_eq!(draft.validate(payload.len()).unwrap(), change);
        }
    }

    #[test]
    fn whatever_postcard_decodes_is_the_one_spelling_of_it(
        (key, spelling) in strategies::any_message(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut payload = spelling.postcard;
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(read) = rewriter(key)(&payload, Encoding::Postcard) {
            assert_eq!(read.postcard, payload);
        }
    }

    #[test]
    fn whatever_json_decodes_means_the_same_when_written_again(
        (key, spelling) in strategies::any_message(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut payload = spelling.json;
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(read) = rewriter(key)(&payload, Encoding::Json) {
            assert_eq!(rewriter(key)(&read.json, Encoding::Json).unwrap(), read);
            assert_eq!(rewriter(key)(&read.postcard, Encoding::Postcard).unwrap(), read);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_have_one_spelling(
        mut payload in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0..KINDS.len(),
        with_tag in any::<bool>(),
    ) {
        let (key, rewrite) = KINDS[kind];
        if with_tag && let Some(first) = payload.first_mut() {
            let case = crate::support::cases::all().into_iter().find(|case| case.key == key).unwrap();
            *first = case.spelling.postcard[0];
        }
        if let Ok(read) = rewrite(&payload, Encoding::Postcard) {
            assert_eq!(read.postcard, payload);
        }
        let _ = rewrite(&payload, Encoding::Json);
    }
}
