//! The small types whose spelling matters: time, value, cursor, and the digest of a change.

use crate::support::{ENCODINGS, strategies};
use proptest::{prelude::any, proptest, test_runner::Config};
use roam_schemas::{
    Action, Change, ChangeId, Code, ContentType, Cursor, Draft, Encoding, Expect, Key, Operation, Profile, Put,
    Revision, Timestamp, Value, decode, encode, limits,
};

#[test]
fn a_time_is_written_in_utc_with_nine_digits_of_fraction() {
    for (nanos, text) in [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (951_782_400_500_000_000, "2000-02-29T00:00:00.500000000Z"),
        (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
    ] {
        assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
        assert_eq!(Timestamp::parse(text), Ok(Timestamp::from_nanos(nanos)));
    }
    let same = Timestamp::from_nanos(951_782_400_000_000_000);
    assert_eq!(Timestamp::parse("2000-02-29T01:00:00+01:00"), Ok(same));
    for text in
        ["", "now", "2000-02-30T00:00:00Z", "1969-12-31T23:59:59.999999999Z", "2554-07-21T23:34:33.709551616Z", "0"]
    {
        assert!(Timestamp::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_time_stays_at_its_ends_instead_of_wrapping() {
    let (first, last) = (Timestamp::from_nanos(0), Timestamp::from_nanos(u64::MAX));
    assert_eq!(last.plus_seconds(1), last);
    assert_eq!(first.plus_seconds(u64::MAX), last);
    assert_eq!(first.minus_seconds(1), first);
    assert_eq!(first.plus_seconds(2).minus_seconds(1).as_nanos(), 1_000_000_000);
}

fn in_json(value: &Value) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn a_value_is_a_string_in_json_exactly_if_it_is_text() {
    for (bytes, json) in [
        (&b""[..], r#""""#),
        (b"dark", r#""dark""#),
        (b"tab\tline\nreturn\r", r#""tab\tline\nreturn\r""#),
        (b"\"quoted\\", r#""\"quoted\\""#),
        ("Grüße 日本語 \u{2028}".as_bytes(), "\"Grüße 日本語 \u{2028}\""),
        (b"\0", r#"{"base64":"AA=="}"#),
        (b"\x1b[0m", r#"{"base64":"G1swbQ=="}"#),
        (b"\x7f", r#"{"base64":"fw=="}"#),
        ("\u{85}".as_bytes(), r#"{"base64":"woU="}"#),
        (b"\xff\xfe", r#"{"base64":"//4="}"#),
        (b"half \xc3", r#"{"base64":"aGFsZiDD"}"#),
    ] {
        let value = Value::new(bytes);
        assert_eq!(in_json(&value), json);
        assert_eq!(value.as_text().is_some(), json.starts_with('"'));
        assert_eq!(serde_json::from_str::<Value>(json).unwrap(), value);
    }
    assert_eq!(serde_json::from_str::<Value>(r#"{"base64":"ZGFyaw=="}"#).unwrap(), Value::new("dark"), "either reads");
    assert_eq!(serde_json::from_str::<Value>(r#""\u0000""#).unwrap(), Value::new([0]), "either reads");
}

fn profile() -> Profile {
    "acme/alice/mail".parse().unwrap()
}

#[test]
fn a_cursor_opens_in_its_own_profile_only() {
    let cursor = Cursor::new(&profile(), Revision::new(41), Timestamp::from_nanos(7));
    assert_eq!(cursor.open(&profile()), Ok((Revision::new(41), Timestamp::from_nanos(7))));
    for other in ["acme/alice/mai", "acme/bob/mail", "other/alice/mail", "acme/mail/alice"] {
        let problem = cursor.open(&other.parse().unwrap()).unwrap_err();
        assert_eq!((problem.code, problem.retry), (Code::Invalid, false), "{other}");
    }
}

#[test]
fn rubbish_is_no_cursor() {
    let good = Cursor::new(&profile(), Revision::new(41), Timestamp::from_nanos(7)).to_text();
    assert_eq!(good.len(), 32);
    let from_the_end_of_revisions = {
        let last = Cursor::new(&profile(), Revision::new(limits::REVISION_END - 1), Timestamp::default());
        assert!(Cursor::from_text(&last.to_text()).is_ok());
        Cursor::new(&profile(), Revision::new(limits::REVISION_END), Timestamp::default()).to_text()
    };
    for text in [
        String::new(),
        "cursor".to_owned(),
        good[..31].to_owned(),
        good[..28].to_owned(),
        format!("{good}A"),
        format!("{good}AAAA"),
        format!("{good}="),
        format!(" {good}"),
        format!("{}+", &good[..31]),
        format!("{}*", &good[..31]),
        from_the_end_of_revisions,
    ] {
        let problem = Cursor::from_text(&text).unwrap_err();
        assert_eq!(problem.code, Code::Invalid, "{text}");
        let request = format!("{{\"changes_request_v1\":{{\"cursor\":{}}}}}", serde_json::Value::from(text.as_str()));
        assert!(decode::<roam_schemas::ChangesRequest>(request.as_bytes(), Encoding::Json).is_err(), "{text}");
    }
}

fn change(base: Option<u64>, ops: Vec<Operation>) -> Change {
    Change::new(ChangeId::from_bytes([7; 16]), base.map(Revision::new), ops).unwrap()
}

fn put(key: &str, value: &str, content_type: &str, ttl: Option<u32>, expect: Expect) -> Operation {
    let put = Put { value: Value::new(value), content_type: ContentType::parse(content_type).unwrap(), ttl };
    Operation { key: Key::parse(key).unwrap(), action: Action::Put(put), expect }
}

#[test]
fn a_digest_differs_with_all_that_a_change_says_but_its_id() {
    let plain = || put("a", "v", "text/plain", None, Expect::Any);
    let delete = |key: &str| Operation::delete(Key::parse(key).unwrap());
    let all = [
        change(None, vec![plain()]),
        change(Some(0), vec![plain()]),
        change(Some(1), vec![plain()]),
        change(None, vec![put("b", "v", "text/plain", None, Expect::Any)]),
        change(None, vec![put("a", "w", "text/plain", None, Expect::Any)]),
        change(None, vec![put("av", "", "text/plain", None, Expect::Any)]),
        change(None, vec![put("a", "v", "text/html", None, Expect::Any)]),
        change(None, vec![put("a", "v", "text/plain", Some(1), Expect::Any)]),
        change(None, vec![put("a", "v", "text/plain", Some(2), Expect::Any)]),
        change(None, vec![put("a", "v", "text/plain", None, Expect::Absent)]),
        change(None, vec![put("a", "v", "text/plain", None, Expect::At(Revision::ZERO))]),
        change(None, vec![put("a", "v", "text/plain", None, Expect::At(Revision::new(1)))]),
        change(None, vec![delete("a")]),
        change(None, vec![delete("a"), delete("b")]),
        change(None, vec![delete("b"), delete("a")]),
        change(None, vec![plain(), delete("b")]),
    ];
    let distinct: std::collections::HashSet<[u8; 16]> = all.iter().map(Change::digest).collect();
    assert_eq!(distinct.len(), all.len());
    let again = Change::new(ChangeId::from_bytes([8; 16]), None, vec![plain()]).unwrap();
    assert_eq!(again.digest(), all[0].digest());
}

#[test]
fn a_payload_hash_is_64_hexadecimal_digits_of_blake3() {
    // The hash of nothing, from BLAKE3's published test vectors.
    assert_eq!(roam_schemas::payload_hash(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_time_reads_back_as_it_was(time in strategies::timestamp()) {
        assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
    }

    #[test]
    fn times_sort_as_their_texts_do(one in strategies::timestamp(), other in strategies::timestamp(), near in 0..3_u64) {
        assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        let near = Timestamp::from_nanos(one.as_nanos().saturating_add(near));
        assert_eq!(one.cmp(&near), one.to_string().cmp(&near.to_string()));
    }

    #[test]
    fn a_value_never_more_than_doubles_in_json(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,50}|[\"\\\\\\t\\n\\r]{0,50}") {
        for value in [Value::new(bytes), Value::new(text)] {
            let json = in_json(&value);
            assert!(json.len() <= 2 * value.len() + r#"{"base64":""}"#.len() + 4, "{json}");
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
    }

    #[test]
    fn a_cursor_reads_back_from_its_text(cursor in strategies::cursor()) {
        assert_eq!(Cursor::from_text(&cursor.to_text()), Ok(cursor));
    }

    #[test]
    fn a_cursor_text_that_is_accepted_is_the_text_of_that_cursor(text in "[A-Za-z0-9_-]{10}[AQgw]A[A-H][A-Za-z0-9_-]{19}|[A-Za-z0-9_=-]{30,34}") {
        if let Ok(cursor) = Cursor::from_text(&text) {
            assert_eq!(cursor.to_text(), text);
        }
    }

    #[test]
    fn a_digest_is_the_same_in_either_encoding(change in strategies::change()) {
        for encoding in ENCODINGS {
            let payload = encode(&change, encoding).unwrap();
            let draft: Draft = decode(&payload, encoding).unwrap();
            assert_eq!(draft.validate(payload.len()).unwrap().digest(), change.digest(), "{encoding:?}");
        }
    }

    #[test]
    fn two_changes_have_one_digest_exactly_if_they_say_the_same(one in strategies::change(), other in strategies::change()) {
        let same = one.base() == other.base() && one.ops() == other.ops();
        assert_eq!(one.digest() == other.digest(), same);
    }
}
