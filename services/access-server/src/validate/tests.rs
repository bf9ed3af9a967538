//! Bad input as a table: what is sent, and the code that comes back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use roam_nats::Headers;
use roam_schemas::{
    Action, App, Code, ContentType, DraftOperation, Expect, Notice, Put, Revision, Tenant, Timestamp, User, Value,
    encode,
    limits::{BULK_CHANGES, CHANGE_OPERATIONS, KEY_BYTES, TTL_SECONDS, VALUE_BYTES},
};

use super::*;

const BOTH: [Encoding; 2] = [Encoding::Postcard, Encoding::Json];
const ID: ChangeId = ChangeId::from_bytes([7; 16]);
const SUBJECT: &str = "roam.v1.change.acme.alice%40example%2Ecom.mail.laptop";

fn message(subject: &str, encoding: Encoding, payload: impl Into<Bytes>) -> Message {
    let headers = Headers::new().with_content_type(encoding);
    Message { subject: subject.to_owned(), reply: None, headers, payload: payload.into() }
}

fn profile_of(user: &str) -> Profile {
    let (tenant, user, app) = (Tenant::parse("acme"), User::parse(user), App::parse("mail"));
    Profile { tenant: tenant.unwrap(), user: user.unwrap(), app: app.unwrap() }
}

fn alice() -> Sender {
    Sender::Of(profile_of("alice@example.com"), Device::parse("laptop").unwrap())
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
        Finding::Valid { .. } | Finding::Bulk { .. } => panic!("it is valid"),
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
            Finding::Valid { profile, device, encoding: found, change } => {
                assert_eq!((Sender::Of(profile, device), found), (alice(), encoding));
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
            Finding::Valid { device, .. } => assert_eq!(device.as_str(), text),
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
        match (found, shards.of_profile(&profile_of("alice@example.com")) == shard) {
            (Finding::Valid { profile, device, .. }, true) => assert_eq!(Sender::Of(profile, device), alice()),
            (Finding::Refused(refusal), false) => {
                assert_eq!((refusal.problem.code, refusal.id), (Code::Denied, Some(ID)));
                assert_eq!(refusal.sender, Some(alice()), "whoever published it is told");
            }
            _ => panic!("shard {shard}"),
        }
    }
}

const BULK: &str = "roam.v1.change.acme.$bulk-0.mail.$svc-hr";

fn part(user: &str, ops: Vec<DraftOperation>) -> BulkChange {
    BulkChange { user: user.to_owned(), change: draft(ops) }
}

fn mailer() -> Sender {
    let (tenant, app) = (Tenant::parse("acme").unwrap(), App::parse("mail").unwrap());
    Sender::OfBulk(tenant, app, Device::from_token("$svc-hr").unwrap())
}

#[test]
fn the_changes_of_a_bulk_keep_their_order_and_each_its_user() {
    let users = ["bob", "alice@example.com", "*", "bob"];
    let bulk = Bulk { changes: users.map(|user| part(user, vec![put(user)])).to_vec() };
    for encoding in BOTH {
        match examine(Shard::ONLY, &message(BULK, encoding, encode(&bulk, encoding).unwrap())) {
            Finding::Bulk { device, encoding: found, changes } => {
                assert_eq!((device.as_str(), found), ("$svc-hr", encoding));
                let expected = users.map(|user| (profile_of(user), user.to_owned()));
                let found =
                    changes.into_iter().map(|(profile, change)| (profile, change.ops()[0].key.as_str().to_owned()));
                assert!(found.eq(expected));
            }
            _ => panic!("it is a valid bulk in {encoding:?}"),
        }
    }
}

#[test]
fn a_bulk_is_refused_as_a_whole_and_its_service_told_what_is_wrong_with_which_change() {
    let good = || part("alice", vec![put("a")]);
    let of_another_shard = Shard::new(0, 2).unwrap();
    let users: Vec<_> = (0..).map(|number| format!("user{number}")).take(20).collect();
    let elsewhere = users.iter().find(|user| !of_another_shard.holds_profile(&profile_of(user))).unwrap();
    for (changes, code, words) in [
        (vec![], Code::Invalid, "a bulk has no change"),
        (vec![good(); BULK_CHANGES + 1], Code::TooLarge, "a bulk has too many changes"),
        (vec![good(), part("", vec![put("a")])], Code::Invalid, "change 2 of a bulk: "),
        (vec![good(), good(), part("bob", vec![])], Code::Invalid, "change 3 of a bulk: a change has no operation"),
        (vec![part("bob", puts(CHANGE_OPERATIONS + 1)), good()], Code::TooLarge, "change 1 of a bulk: "),
        (vec![part("bob", vec![put("a"), put("a")])], Code::Invalid, "change 1 of a bulk: a change names a key twice"),
    ] {
        for encoding in BOTH {
            let refusal =
                refusal(&message(BULK, encoding, encode(&Bulk { changes: changes.clone() }, encoding).unwrap()));
            assert_eq!((refusal.problem.code, refusal.id, &refusal.sender), (code, None, &Some(mailer())));
            assert!(refusal.problem.message.starts_with(words), "{}", refusal.problem.message);
        }
    }
    let bulk = Bulk { changes: vec![part(elsewhere, vec![put("a")])] };
    let subject = subjects::in_shard(of_another_shard, BULK);
    let payload = encode(&bulk, Encoding::Json).unwrap();
    match examine(of_another_shard, &message(&subject, Encoding::Json, payload)) {
        Finding::Refused(refusal) => assert_eq!(refusal.problem.code, Code::Denied),
        _ => panic!("{elsewhere} is in another shard"),
    }
}

#[test]
fn a_bulk_is_taken_from_a_service_alone_and_only_where_bulks_are_published() {
    let bulk = encode(&Bulk { changes: vec![part("alice", vec![put("a")])] }, Encoding::Json).unwrap();
    let change = encode(&draft(vec![put("a")]), Encoding::Json).unwrap();
    for subject in ["roam.v1.change.acme.$bulk-0.mail.laptop", "roam.v1.change.acme.$bulk.mail.$svc-hr"] {
        let refusal = refusal(&message(subject, Encoding::Json, bulk.clone()));
        assert_eq!((refusal.problem.code, refusal.sender), (Code::Invalid, None), "{subject}");
    }
    assert_eq!(refusal(&message(SUBJECT, Encoding::Json, bulk)).sender, Some(alice()));
    assert_eq!(refusal(&message(BULK, Encoding::Json, change)).sender, Some(mailer()));
    let large = refusal(&message(BULK, Encoding::Json, vec![b'x'; CHANGE_BYTES + 1])).problem;
    assert_eq!((large.code, large.limit), (Code::TooLarge, Some(CHANGE_BYTES as u64)));
}
