//! What is not exactly a message is refused: cut, followed by something, of another kind or version, or spelled in a
//! way that the schemas do not allow. Random bytes are in `round_trips.rs`.

use crate::support::{
    ENCODINGS, KINDS, cases,
    objects::{with_a_key_twice, with_an_unknown_field},
    rewriter,
};
use roam_schemas::{
    Code, DecodeError, Draft, Encoding, Kind, LatestRequest, Message, Problem, Select, VERSION, Value, decode, encode,
    limits,
};
use serde_json::json;

#[test]
fn a_message_cut_anywhere_never_decodes() {
    for case in cases::all() {
        for encoding in ENCODINGS {
            let payload = case.spelling.get(encoding);
            for end in 0..payload.len() {
                let read = rewriter(case.key)(&payload[..end], encoding);
                assert!(read.is_err(), "{}/{} in {encoding:?}, cut at {end}", case.key, case.name);
            }
        }
    }
}

#[test]
fn nothing_may_follow_a_message_but_white_space_in_json() {
    for case in cases::all() {
        for encoding in ENCODINGS {
            let followed_by = |tail: &[u8]| rewriter(case.key)(&[case.spelling.get(encoding), tail].concat(), encoding);
            for tail in [&b"\0"[..], b"{}", b"1", b"\xFF", case.spelling.get(encoding)] {
                assert!(followed_by(tail).is_err(), "{}/{} in {encoding:?}, then {tail:?}", case.key, case.name);
            }
            assert_eq!(followed_by(b" \n\t\r").is_ok(), encoding == Encoding::Json, "{}/{}", case.key, case.name);
        }
    }
}

#[test]
fn a_message_never_decodes_as_another_kind_nor_in_the_other_encoding() {
    for case in cases::all() {
        for (key, rewrite) in KINDS {
            for encoding in ENCODINGS {
                let payload = case.spelling.get(encoding);
                let read = rewrite(payload, encoding);
                let text = format!("{}/{} as {key} in {encoding:?}: {read:?}", case.key, case.name);
                match key == case.key {
                    true => assert!(read.is_ok(), "{text}"),
                    false => assert!(matches!(read, Err(DecodeError::Kind { .. })), "{text}"),
                }
                let other = if encoding == Encoding::Json { Encoding::Postcard } else { Encoding::Json };
                assert!(rewrite(payload, other).is_err(), "{}/{} as {key} in {other:?}", case.key, case.name);
            }
        }
    }
}

#[test]
fn the_kind_of_a_payload_can_be_seen_without_decoding_it() {
    for case in cases::all() {
        for encoding in ENCODINGS {
            let kind = Kind::peek(case.spelling.get(encoding), encoding).map(Kind::key);
            assert_eq!(kind, Some(case.key), "{}/{}", case.key, case.name);
        }
    }
    let peek = |payload: &[u8], encoding| Kind::peek(payload, encoding).map(Kind::key);
    assert_eq!(peek(b"", Encoding::Postcard), None);
    assert_eq!(peek(b"\x00", Encoding::Postcard), None);
    assert_eq!(peek(&[VERSION << 5 | 31], Encoding::Postcard), None);
    assert_eq!(peek(b"{\"change_v1\":", Encoding::Json), Some("change_v1"));
    assert_eq!(peek(b" { \"\\u0063hange_v1\" : 5", Encoding::Json), Some("change_v1"), "an escape is no other key");
    for nothing in [&b""[..], b"{", b"{}", b"{\"change_v1", b"[\"change_v1\"]", b"\"change_v1\"", b"{\"change_v2\":{}}"]
    {
        assert_eq!(peek(nothing, Encoding::Json), None, "{}", nothing.escape_ascii());
    }
}

fn check_version(payload: &[u8], encoding: Encoding, key: &str, found: u64) {
    let error = rewriter(key)(payload, encoding).unwrap_err();
    assert_eq!(error, DecodeError::Version { found }, "{key}");
    let problem = Problem::from(error);
    assert_eq!(problem.code, Code::UnsupportedVersion);
    assert_eq!((problem.limit, problem.actual), (Some(VERSION.into()), Some(found)));
    assert!(!problem.retry);
}

#[test]
fn a_message_of_another_version_is_told_apart_from_rubbish() {
    for case in cases::all() {
        for version in 2..8_u8 {
            let mut payload = case.spelling.postcard.clone();
            payload[0] = version << 5 | payload[0] & 0b1_1111;
            check_version(&payload, Encoding::Postcard, case.key, version.into());
        }
        let json = String::from_utf8(case.spelling.json.clone()).unwrap();
        for version in [2, 3, 10, u64::MAX] {
            let other = json.replacen("_v1", &format!("_v{version}"), 1);
            check_version(other.as_bytes(), Encoding::Json, case.key, version);
        }
        check_version(
            format!("{{\"{}2\": [anything", &case.key[..case.key.len() - 1]).as_bytes(),
            Encoding::Json,
            case.key,
            2,
        );
    }
}

#[test]
fn what_only_resembles_a_version_is_of_no_kind() {
    let kind = DecodeError::Kind { expected: "change" };
    for key in ["change", "change_v", "change_v0", "change_v01", "change_v+2", "change_v-1", "change_v2x", "Change_v1"]
    {
        let payload = format!("{{\"{key}\":{{}}}}");
        assert_eq!(decode::<Draft>(payload.as_bytes(), Encoding::Json), Err(kind.clone()), "{key}");
    }
    assert_eq!(decode::<Draft>(&[1], Encoding::Postcard), Err(kind.clone()), "version 0 was never used");
    let notice_of_version_2 = 2 << 5 | Kind::Notice as u8;
    assert_eq!(decode::<Draft>(&[notice_of_version_2], Encoding::Postcard), Err(kind.clone()));
    assert_eq!(decode::<Draft>(b"{\"notice_v2\":{}}", Encoding::Json), Err(kind));
    assert_eq!(decode::<Draft>(b"", Encoding::Json), Err(DecodeError::Empty));
    assert_eq!(decode::<Draft>(b"", Encoding::Postcard), Err(DecodeError::Empty));
}

fn check_refused_in_json(payload: &str, key: &str) {
    let error = rewriter(key)(payload.as_bytes(), Encoding::Json).expect_err(payload);
    assert_eq!(Problem::from(error).code, Code::Invalid, "{payload}");
}

#[test]
fn a_field_that_nobody_knows_is_refused_in_every_object() {
    for case in cases::all() {
        let value = serde_json::from_slice(&case.spelling.json).unwrap();
        let spoiled = with_an_unknown_field(&value);
        assert!(spoiled.len() >= 2, "the envelope and the message are objects");
        spoiled.iter().for_each(|payload| check_refused_in_json(payload, case.key));
    }
}

#[test]
fn a_key_that_stands_twice_is_refused_in_every_object() {
    for case in cases::all() {
        let value = serde_json::from_slice(&case.spelling.json).unwrap();
        let spoiled = with_a_key_twice(&value);
        assert!(!spoiled.is_empty());
        spoiled.iter().for_each(|payload| check_refused_in_json(payload, case.key));
    }
}

const ID: &str = "019ca85e-407b-7d3a-9f01-23456789abcd";

fn change_with(op: &serde_json::Value) -> String {
    json!({ "change_v1": { "id": ID, "ops": [op] } }).to_string()
}

#[test]
fn an_operation_has_the_spellings_of_the_schema_only() {
    let put = |value: serde_json::Value| {
        let put = json!({ "value": value, "content_type": "text/plain" });
        json!({ "key": "k", "action": { "put": put } })
    };
    for taken in [
        put(json!("text")),
        put(json!("")),
        put(json!({ "base64": "AP8=" })),
        json!({ "key": "k", "action": "delete" }),
        json!({ "key": "k", "action": "delete", "expect": { "at": 7 } }),
    ] {
        decode::<Draft>(change_with(&taken).as_bytes(), Encoding::Json).expect("it is of the schema");
    }
    for refused in [
        put(json!(null)),
        put(json!(5)),
        put(json!(true)),
        put(json!(["AP8="])),
        put(json!({})),
        put(json!({ "base64": "AP8" })),
        put(json!({ "base64": "AP9=" })),
        put(json!({ "base64": "AP8=", "text": "" })),
        put(json!({ "base64": ["AP8="] })),
        json!({ "key": "k" }),
        json!({ "key": 5, "action": "delete" }),
        json!({ "key": "k", "action": { "delete": null } }),
        json!({ "key": "k", "action": { "delete": {} } }),
        json!({ "key": "k", "action": "put" }),
        json!({ "key": "k", "action": ["delete"] }),
        json!({ "key": "k", "action": {} }),
        json!({ "key": "k", "action": null }),
        json!({ "key": "k", "action": "erase" }),
        json!({ "key": "k", "action": { "put": ["text", "text/plain", null] } }),
        json!({ "key": "k", "action": "delete", "expect": { "any": null } }),
        json!({ "key": "k", "action": "delete", "expect": "at" }),
        json!({ "key": "k", "action": "delete", "expect": { "at": "7" } }),
        json!({ "key": "k", "action": "delete", "expect": { "at": 7.0 } }),
        json!({ "key": "k", "action": "delete", "expect": { "at": -7 } }),
        json!(["k", "delete", "any"]),
        json!("delete"),
    ] {
        check_refused_in_json(&change_with(&refused), "change_v1");
    }
}

#[test]
fn a_list_never_stands_for_an_object() {
    for (key, body) in [
        ("change_v1", json!([ID, null, []])),
        ("latest_request_v1", json!([])),
        ("latest_request_v1", json!(["all", null, null, null, null])),
        ("latest_request_v1", json!({ "select": { "all": null } })),
        ("changes_request_v1", json!([])),
        ("history_request_v1", json!(["theme", null])),
        ("problem_v1", json!(["busy", "not now", true, null, null, null])),
        ("receipt_v1", json!([1, null, false, { "rejected": ["busy", "not now", true, null, null, null] }])),
    ] {
        check_refused_in_json(&json!({ key: body }).to_string(), key);
    }
}

#[test]
fn json_that_is_no_object_with_one_key_is_refused() {
    for payload in ["null", "[]", "{}", "\"latest_request_v1\"", "1", " ", "{\"latest_request_v1\":{}", "\u{feff}{}"] {
        check_refused_in_json(payload, "latest_request_v1");
    }
    check_refused_in_json(r#"{"latest_request_v1":{},"problem_v1":{}}"#, "latest_request_v1");
    check_refused_in_json(r#"{"problem_v1":{},"latest_request_v1":{}}"#, "latest_request_v1");
    check_refused_in_json(r#"{"latest_request_v1":{"select":{"prefix":"\ud800"}}}"#, "latest_request_v1");
    check_refused_in_json(&format!("{{\"latest_request_v1\":{}", "[".repeat(100_000)), "latest_request_v1");
    check_refused_in_json(&"{\"latest_request_v1\":".repeat(100_000), "latest_request_v1");
    let not_utf8 = b"{\"latest_request_v1\":{\"select\":{\"prefix\":\"\xFF\"}}}";
    assert!(decode::<LatestRequest>(not_utf8, Encoding::Json).is_err());
}

#[test]
fn what_has_a_default_may_be_left_out_in_json() {
    let short = format!(r#" {{ "change_v1" : {{"ops":[{{"action":"delete","key":"\u006b"}}], "id":"{ID}"}}}} "#);
    let long = format!(
        r#"{{"change_v1":{{"id":"{ID}","base":null,"ops":[{{"key":"k","action":"delete","expect":"any"}}]}}}}"#
    );
    let read = |text: &str| decode::<Draft>(text.as_bytes(), Encoding::Json).unwrap();
    assert_eq!(read(&short), read(&long));
    assert_eq!(encode(&read(&short), Encoding::Json).unwrap(), long.as_bytes());
    let whole = decode::<LatestRequest>(br#"{"latest_request_v1":{}}"#, Encoding::Json);
    assert_eq!(whole, Ok(LatestRequest::default()));
}

#[test]
fn a_padded_number_is_refused_in_postcard() {
    let plain = encode(&LatestRequest::default(), Encoding::Postcard).unwrap();
    assert_eq!(plain[1..], [0, 0, 0, 0, 0]);
    let padded = [plain[0], 0x80, 0x00, 0, 0, 0, 0];
    assert!(matches!(decode::<LatestRequest>(&padded, Encoding::Postcard), Err(DecodeError::Malformed(_))));
    // At every place of every message: either no number stands there, or the longer spelling of it is refused.
    for case in cases::all() {
        for at in 1..case.spelling.postcard.len() {
            let mut padded = case.spelling.postcard.clone();
            padded[at] |= 0x80;
            padded.insert(at + 1, 0);
            if let Ok(read) = rewriter(case.key)(&padded, Encoding::Postcard) {
                assert_eq!(read.postcard, padded, "{}/{} at {at}", case.key, case.name);
            }
        }
    }
}

#[test]
fn a_revision_that_json_could_not_hold_is_refused() {
    for (number, taken) in
        [(0, true), (limits::REVISION_END - 1, true), (limits::REVISION_END, false), (u64::MAX, false)]
    {
        let request = LatestRequest { min_revision: Some(roam_schemas::Revision::new(number)), ..Default::default() };
        for encoding in ENCODINGS {
            let payload = encode(&request, encoding).unwrap();
            assert_eq!(decode::<LatestRequest>(&payload, encoding).is_ok(), taken, "{number} in {encoding:?}");
        }
    }
    assert_eq!(roam_schemas::Revision::new(limits::REVISION_END - 1).next(), None);
    assert_eq!(roam_schemas::Revision::new(u64::MAX).next(), None);
}

#[test]
fn a_long_list_takes_no_more_memory_than_its_limit_and_is_refused() {
    let ops = |count| vec![json!({ "key": "", "action": "delete" }); count];
    let json = json!({ "change_v1": { "id": ID, "ops": ops(20_000) } }).to_string();
    // 16 bytes of id behind their length, no base, then 300,000 operations of three bytes each.
    let mut postcard = vec![Draft::KIND.tag(), 16];
    postcard.extend([7; 16]);
    postcard.extend([0, 0xE0, 0xA7, 0x12]);
    postcard.extend([0, 1, 0].repeat(300_000));
    for (payload, encoding) in [(json.as_bytes(), Encoding::Json), (&postcard, Encoding::Postcard)] {
        let draft: Draft = decode(payload, encoding).unwrap();
        assert_eq!(draft.ops.len(), limits::CHANGE_OPERATIONS + 1, "{encoding:?}");
        assert!(draft.ops.capacity() <= 2 * limits::CHANGE_OPERATIONS + 2, "{encoding:?}");
        assert!(decode::<Draft>(&payload[..payload.len() - 1], encoding).is_err(), "what is left out must be whole");
        assert!(decode::<Draft>(&[payload, b"\0"].concat(), encoding).is_err(), "nothing may follow what is left out");
    }
    let mut keys = vec![LatestRequest::KIND.tag(), 2, 0xE0, 0xA7, 0x12];
    keys.extend(b"\x01k".repeat(300_000));
    keys.extend([0, 0, 0, 0]);
    let request: LatestRequest = decode(&keys, Encoding::Postcard).unwrap();
    assert!(matches!(&request.select, Select::Keys(keys) if keys.len() == limits::REQUEST_KEYS + 1));
    let problem = request.validate().unwrap_err();
    assert_eq!((problem.code, problem.limit), (Code::TooLarge, Some(limits::REQUEST_KEYS as u64)));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut payload = vec![Draft::KIND.tag(), 16];
    payload.extend([7; 16]);
    payload.extend([0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]);
    assert!(matches!(decode::<Draft>(&payload, Encoding::Postcard), Err(DecodeError::Malformed(_))));
}

#[test]
fn what_a_decoder_quotes_is_one_short_line() {
    let hostile = "\r\nRoam-Code: none\u{1b}[2J\u{85}".to_owned() + &"é".repeat(10_000);
    let payload = json!({ "change_v1": { hostile: 1 } }).to_string();
    let error = decode::<Draft>(payload.as_bytes(), Encoding::Json).unwrap_err();
    let DecodeError::Malformed(text) = &error else { panic!("{error}") };
    assert!(text.len() <= limits::REASON_BYTES, "{}", text.len());
    assert!(text.contains("Roam-Code"), "it still says what is wrong: {text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn a_value_never_shows_in_debug_output() {
    assert_eq!(format!("{:?}", Value::new("secret")), "Value(6 bytes)");
}
