//! Bad input as a table: what is sent, and the code that comes back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use roam_nats::Headers;
use roam_schemas::{
    Action, App, Code, ContentType, DraftOperation, Expect, Notice, Put, Revision, Tenant, Timestamp, User, Value,
    encode,
    limits::{CHANGE_OPERATIONS, KEY_BYTES, TTL_SECONDS, VALUE_BYTES},
};

use super::*;

const BOTH: [Encoding; 2] = [Encoding::Postcard, Encoding::Json];
const ID: ChangeId = ChangeId::from_bytes([7; 16]);
const SUBJECT: &str = "roam.v1.change.acme.alice%40example%2Ecom.mail.laptop";

fn message(subject: &str, encoding: Encoding, payload: impl Into<Bytes>) -> Message {
    let headers = Headers::new().with_content_type(encoding);
    Message { subject: subject.to_owned(), reply: None, headers, payload: payload.into() }
}

fn alice() -> Sender {
    let profile = Profile {
        tenant: Tenant::parse("acme").unwrap(),
        user: User::parse("alice@example.com").unwrap(),
        app: App::parse("mail").unwrap(),
    };
    Sender { profile, device: Device::parse("laptop").unwrap() }
}

fn put_of(key: &str, value: Vec<u8>, ttl: Option<u32>) -> DraftOperation {
    let put = Put { value: Value::new(value), content_type: ContentType::octets(), ttl };
    DraftOperation { key: key.to_owned(), action: Action::Put(put), expect: Expect::Any }
}

fn put(key: &str) -> DraftOperation {
    put_of(key, b"value".to_vec(), None)
}

fn draft(ops: Vec<DraftOperation>) -> Draft {
    Draft { id: ID, base: Some(Revision::new(3)), ops }
}

/// `count` operations on distinct keys.
fn puts(count: usize) -> Vec<DraftOperation> {
    (0..count).map(|index| put(&format!("key {index}"))).collect()
}

fn refusal(message: &Message) -> Refusal {
    match examine(Shard::ONLY, message) {
        Finding::Refused(refusal) => refusal,
        Finding::Valid { .. } => panic!("it is valid"),
        Finding::Foreign => panic!("it is foreign"),
    }
}

/// The operations are refused with a code, a limit and an actual value, in both encodings, and the publisher is told
/// which change it was.
fn refused(ops: Vec<DraftOperation>, code: Code, limits: Option<(usize, usize)>) {
    let draft = draft(ops);
    for encoding in BOTH {
        let refusal = refusal(&message(SUBJECT, encoding, encode(&draft, encoding).unwrap()));
        let problem = &refusal.problem;
        let found = problem.limit.zip(problem.actual);
        assert_eq!((problem.code, found), (code, limits.map(|(limit, actual)| (limit as u64, actual as u64))));
        assert_eq!((refusal.sender, refusal.id), (Some(alice()), Some(ID)), "{encoding:?}");
        assert_eq!(refusal.encoding, encoding);
        assert!(!problem.retry);
    }
}

#[test]
fn a_valid_change_keeps_its_sender_its_encoding_and_its_content() {
    let draft =
        draft(vec![put("a"), DraftOperation { key: "b".to_owned(), action: Action::Delete, expect: Expect::Absent }]);
    for encoding in BOTH {
        match examine(Shard::ONLY, &message(SUBJECT, encoding, encode(&draft, encoding).unwrap())) {
            Finding::Valid { sender, encoding: found, change } => {
                assert_eq!((sender, found), (alice(), encoding));
                assert_eq!((change.id(), change.base(), change.ops().len()), (ID, draft.base, 2));
            }
            _ => panic!("it is valid in {encoding:?}"),
        }
    }
}

#[test]
fn a_change_at_every_limit_is_valid() {
    let at_limits = [
        puts(CHANGE_OPERATIONS),
        vec![put(&"k".repeat(KEY_BYTES))],
        vec![put_of("a", vec![0xFF; VALUE_BYTES], Some(TTL_SECONDS))],
    ];
    for ops in at_limits {
        let payload = encode(&draft(ops), Encoding::Postcard).unwrap();
        let finding = examine(Shard::ONLY, &message(SUBJECT, Encoding::Postcard, payload));
        assert!(matches!(finding, Finding::Valid { .. }));
    }
}

#[test]
fn the_number_of_operations_is_limited() {
    refused(vec![], Code::Invalid, None);
    refused(puts(CHANGE_OPERATIONS + 1), Code::TooLarge, Some((CHANGE_OPERATIONS, CHANGE_OPERATIONS + 1)));
}

#[test]
fn a_key_is_limited_and_named_once() {
    refused(vec![put("")], Code::Invalid, None);
    refused(vec![put(&"k".repeat(KEY_BYTES + 1))], Code::TooLarge, Some((KEY_BYTES, KEY_BYTES + 1)));
    refused(vec![put("a"), put("b"), put("a")], Code::Invalid, None);
}

#[test]
fn a_value_is_limited() {
    let value = vec![b'v'; VALUE_BYTES + 1];
    refused(vec![put_of("a", value, None)], Code::TooLarge, Some((VALUE_BYTES, VALUE_BYTES + 1)));
}

#[test]
fn a_time_to_live_is_limited() {
    let (longest, longer) = (TTL_SECONDS as usize, TTL_SECONDS + 1);
    refused(vec![put_of("a", vec![], Some(0))], Code::Invalid, None);
    refused(vec![put_of("a", vec![], Some(longer))], Code::TooLarge, Some((longest, longer as usize)));
}

#[test]
fn a_change_that_is_too_large_is_refused_before_it_is_decoded() {
    for encoding in BOTH {
        let refusal = refusal(&message(SUBJECT, encoding, vec![b'x'; CHANGE_BYTES + 1]));
        let Problem { code, limit, actual, .. } = refusal.problem;
        assert_eq!((code, limit, actual), (Code::TooLarge, Some(CHANGE_BYTES as u64), Some(CHANGE_BYTES as u64 + 1)));
        assert_eq!((refusal.sender, refusal.id), (Some(alice()), None));
    }
}

#[test]
fn a_large_change_of_many_small_parts_is_refused_in_both_encodings() {
    let ops = (0..5).map(|index| put_of(&format!("{index}"), vec![b'v'; VALUE_BYTES], None)).collect();
    let draft = draft(ops);
    for encoding in BOTH {
        let refusal = refusal(&message(SUBJECT, encoding, encode(&draft, encoding).unwrap()));
        assert_eq!((refusal.problem.code, refusal.problem.limit), (Code::TooLarge, Some(CHANGE_BYTES as u64)));
    }
}

#[test]
fn what_does_not_decode_is_refused_and_its_publisher_told() {
    let valid = encode(&draft(vec![put("a")]), Encoding::Postcard).unwrap();
    let notice = Notice {
        revision: Revision::new(1),
        time: Timestamp::from_nanos(1),
        device: Device::expiry(),
        change: ID,
        ops: vec![],
    };
    let table: Vec<(&str, Encoding, Vec<u8>, Code)> = vec![
        ("nothing", Encoding::Postcard, vec![], Code::Invalid),
        ("nothing", Encoding::Json, vec![], Code::Invalid),
        ("rubbish", Encoding::Postcard, b"rubbish".to_vec(), Code::Invalid),
        ("rubbish", Encoding::Json, b"rubbish".to_vec(), Code::Invalid),
        ("cut off", Encoding::Postcard, valid[..valid.len() - 1].to_vec(), Code::Invalid),
        ("something after it", Encoding::Postcard, [&valid[..], b"x"].concat(), Code::Invalid),
        ("the other encoding", Encoding::Json, valid.clone(), Code::Invalid),
        ("another kind", Encoding::Postcard, encode(&notice, Encoding::Postcard).unwrap(), Code::Invalid),
        ("another kind", Encoding::Json, encode(&notice, Encoding::Json).unwrap(), Code::Invalid),
        ("another version", Encoding::Postcard, [&[2 << 5 | 1], &valid[1..]].concat(), Code::UnsupportedVersion),
        ("another version", Encoding::Json, br#"{"change_v2": {}}"#.to_vec(), Code::UnsupportedVersion),
        ("an unknown field", Encoding::Json, br#"{"change_v1": {"idd": 1}}"#.to_vec(), Code::Invalid),
    ];
    for (name, encoding, payload, code) in table {
        let refusal = refusal(&message(SUBJECT, encoding, payload));
        assert_eq!(refusal.problem.code, code, "{name} in {encoding:?}");
        assert_eq!((refusal.sender, refusal.id), (Some(alice()), None), "{name} in {encoding:?}");
        assert_eq!(refusal.encoding, encoding);
    }
}

#[test]
fn a_subject_that_names_nobody_is_refused_without_anybody_to_tell() {
    let payload = encode(&draft(vec![put("a")]), Encoding::Json).unwrap();
    let hostile = [
        "roam.v1.change.acme.*.mail.laptop",
        "roam.v1.change.acme.>.mail.laptop",
        "roam.v1.change.acme.%2a.mail.laptop",
        "roam.v1.change.acme.%zz.mail.laptop",
        "roam.v1.change.acme.%FF.mail.laptop",
        "roam.v1.change.acme.%41.mail.laptop",
        "roam.v1.change.acme.%4.mail.laptop",
        "roam.v1.change.acme..mail.laptop",
        "roam.v1.change.acme.alice.mail.$other",
        "roam.v1.change.acme.$svc.mail.laptop",
        "roam.v1.change.acme.alice.mail",
        "roam.v1.change.acme.alice.mail.laptop.more",
        "roam.v1.journal.acme.alice.mail.laptop",
    ];
    for subject in hostile {
        let refusal = refusal(&message(subject, Encoding::Json, payload.clone()));
        assert_eq!((refusal.problem.code, refusal.sender, refusal.id), (Code::Invalid, None, None), "{subject}");
    }
    let long = format!("roam.v1.change.acme.{}.mail.laptop", "a".repeat(129));
    assert_eq!(refusal(&message(&long, Encoding::Json, payload)).sender, None);
}

#[test]
fn the_writers_of_the_system_are_devices_too() {
    let payload = encode(&draft(vec![put("a")]), Encoding::Postcard).unwrap();
    for (token, text) in [("$expiry", "$expiry"), ("$svc-mail", "$svc-mail"), ("%24expiry", "$$expiry")] {
        let subject = format!("roam.v1.change.acme.alice.mail.{token}");
        match examine(Shard::ONLY, &message(&subject, Encoding::Postcard, payload.clone())) {
            Finding::Valid { sender, .. } => assert_eq!(sender.device.as_str(), text),
            _ => panic!("{token} is a device"),
        }
    }
}

#[test]
fn a_message_without_our_content_type_is_foreign_whatever_else_it_is() {
    let payload = encode(&draft(vec![put("a")]), Encoding::Json).unwrap();
    let mut message = message(SUBJECT, Encoding::Json, payload);
    for headers in [Headers::new(), Headers::new().with("Content-Type", "text/plain"), Headers::new().with("X", "y")] {
        message.headers = headers;
        assert!(matches!(examine(Shard::ONLY, &message), Finding::Foreign));
    }
}

#[test]
fn a_reason_fits_into_a_header_however_much_a_decoder_could_quote() {
    let payload = format!(r#"{{"change_v1": {{"{}\r\nX: y": 1}}}}"#, "é".repeat(100_000));
    let refusal = refusal(&message(SUBJECT, Encoding::Json, payload.into_bytes()));
    assert_eq!(refusal.problem.code, Code::Invalid);
    let reason = refusal.problem.message;
    assert!(reason.len() < 1_000 && !reason.contains(['\r', '\n']), "{} bytes", reason.len());
}

#[test]
fn a_change_in_another_shard_than_that_of_its_user_is_denied() {
    let shards = roam_schemas::Shards::new(4).unwrap();
    let payload = encode(&draft(vec![put("key")]), Encoding::Json).unwrap();
    for shard in shards.each() {
        let subject = subjects::in_shard(shard, SUBJECT);
        let found = examine(shard, &message(&subject, Encoding::Json, payload.clone()));
        match (found, shards.of_profile(&alice().profile) == shard) {
            (Finding::Valid { sender, .. }, true) => assert_eq!(sender, alice()),
            (Finding::Refused(refusal), false) => {
                assert_eq!((refusal.problem.code, refusal.id), (Code::Denied, Some(ID)));
                assert_eq!(refusal.sender, Some(alice()), "whoever published it is told");
            }
            _ => panic!("shard {shard}"),
        }
    }
}
