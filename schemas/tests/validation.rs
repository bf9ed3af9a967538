//! What `validate` lets through, at each limit and one past it.

use roam_schemas::{
    Action, Change, ChangeId, ChangesRequest, Code, ContentType, Draft, DraftOperation, Expect, HistoryRequest, Key,
    LatestRequest, Operation, Problem, Put, Select, Value, limits,
};

/// What is expected: nothing, or a code with its limit and the actual value.
type Expected = Result<(), (Code, Option<u64>, Option<u64>)>;

const OK: Expected = Ok(());
const INVALID: Expected = Err((Code::Invalid, None, None));

fn too_large(limit: usize, actual: usize) -> Expected {
    Err((Code::TooLarge, Some(limit as u64), Some(actual as u64)))
}

fn check<T>(case: &str, found: Result<T, Problem>, expected: Expected) {
    if let Err(problem) = &found {
        assert!(!problem.retry, "{case}: sending it again cannot help");
        assert!(!problem.message.is_empty(), "{case}");
    }
    let found = found.map(|_| ()).map_err(|problem| (problem.code, problem.limit, problem.actual));
    assert_eq!(found, expected, "{case}");
}

fn delete(key: impl Into<String>) -> DraftOperation {
    DraftOperation { key: key.into(), action: Action::Delete, expect: Expect::Any }
}

fn put(bytes: usize, ttl: Option<u32>) -> DraftOperation {
    let put = Put { value: Value::new(vec![b'x'; bytes]), content_type: ContentType::text(), ttl };
    DraftOperation { key: format!("{bytes} {ttl:?}"), action: Action::Put(put), expect: Expect::Any }
}

fn draft(ops: Vec<DraftOperation>) -> Draft {
    Draft { id: ChangeId::from_bytes([7; 16]), base: None, ops }
}

fn deletes(count: usize) -> Vec<DraftOperation> {
    (0..count).map(|number| delete(number.to_string())).collect()
}

/// Puts of distinct keys whose values have as many bytes as a value may have.
fn full_puts(count: usize) -> Vec<DraftOperation> {
    let put = |number: usize| DraftOperation { key: number.to_string(), ..put(limits::VALUE_BYTES, None) };
    (0..count).map(put).collect()
}

#[test]
fn a_change_is_let_through_up_to_each_limit_and_no_further() {
    let in_a_key = |bytes| vec![delete("k".repeat(bytes))];
    let two_bytes_each = |count: usize| vec![delete("é".repeat(count))];
    for (case, ops, expected) in [
        ("no operation", vec![], INVALID),
        ("one operation", deletes(1), OK),
        ("1,000 operations", deletes(1_000), OK),
        ("1,001 operations", deletes(1_001), too_large(1_000, 1_001)),
        ("an empty key", in_a_key(0), INVALID),
        ("a key of 512 bytes", in_a_key(512), OK),
        ("a key of 513 bytes", in_a_key(513), too_large(512, 513)),
        ("a key of 257 characters and 514 bytes", two_bytes_each(257), too_large(512, 514)),
        ("a key twice", vec![delete("a"), delete("b"), delete("a")], INVALID),
        ("a key in two cases", vec![delete("a"), delete("A")], OK),
        ("an empty value", vec![put(0, None)], OK),
        ("a value of 256 KiB", vec![put(262_144, None)], OK),
        ("a value one byte over", vec![put(262_145, None)], too_large(262_144, 262_145)),
        ("a time to live of 0", vec![put(1, Some(0))], INVALID),
        ("a time to live of 1 s", vec![put(1, Some(1))], OK),
        ("a time to live of ten years", vec![put(1, Some(315_360_000))], OK),
        ("a time to live over ten years", vec![put(1, Some(315_360_001))], too_large(315_360_000, 315_360_001)),
        ("the longest time to live", vec![put(1, Some(u32::MAX))], too_large(315_360_000, 4_294_967_295)),
        ("values of 1 MiB and keys", full_puts(4), too_large(1_048_576, 1_048_580)),
        ("values of 768 KiB", full_puts(3), OK),
        ("a bad operation behind a good one", vec![delete("a"), delete("")], INVALID),
    ] {
        check(case, draft(ops).validate(1), expected);
    }
}

#[test]
fn a_payload_is_let_through_up_to_its_limit_and_no_further() {
    for (encoded, expected) in
        [(0, OK), (limits::CHANGE_BYTES, OK), (limits::CHANGE_BYTES + 1, too_large(1_048_576, 1_048_577))]
    {
        check(&format!("{encoded} bytes"), draft(deletes(1)).validate(encoded), expected);
    }
}

#[test]
fn a_change_made_in_rust_meets_the_same_limits() {
    let op = |key: &str| Operation::delete(Key::parse(key).unwrap());
    let many = |count: usize| (0..count).map(|number| op(&number.to_string())).collect::<Vec<_>>();
    let value = |bytes: usize| vec![Operation::put(Key::parse("k").unwrap(), vec![0; bytes], ContentType::octets())];
    for (case, ops, expected) in [
        ("no operation", vec![], INVALID),
        ("1,001 operations", many(1_001), too_large(1_000, 1_001)),
        ("1,000 operations", many(1_000), OK),
        ("a key twice", vec![op("a"), op("a")], INVALID),
        ("a value one byte over", value(262_145), too_large(262_144, 262_145)),
    ] {
        check(case, Change::new(ChangeId::random(), None, ops), expected);
    }
}

#[test]
fn a_content_type_is_visible_ascii_of_at_most_127_bytes() {
    for (text, expected) in [
        ("text/plain; charset=utf-8".to_owned(), OK),
        ("x".repeat(127), OK),
        ("x".repeat(128), too_large(127, 128)),
        (String::new(), INVALID),
        ("text/plain\r\nRoam-Code: x".to_owned(), INVALID),
        ("text/plain\u{7f}".to_owned(), INVALID),
        ("text/ünicode".to_owned(), INVALID),
    ] {
        check(&text, ContentType::parse(text.as_str()), expected);
    }
}

#[test]
fn a_request_is_let_through_up_to_each_limit_and_no_further() {
    let keys = |count: usize| Select::Keys((0..count).map(|number| Key::parse(number.to_string()).unwrap()).collect());
    let whole = LatestRequest::default;
    let after = Some(Key::parse("a").unwrap());
    for (case, request, expected) in [
        ("the whole profile", whole(), OK),
        ("a limit of 0", LatestRequest { limit: Some(0), ..whole() }, INVALID),
        ("a limit of 1,000", LatestRequest { limit: Some(1_000), ..whole() }, OK),
        ("a limit of 1,001", LatestRequest { limit: Some(1_001), ..whole() }, too_large(1_000, 1_001)),
        ("a wait of 5 s", LatestRequest { wait_ms: Some(5_000), ..whole() }, OK),
        ("a wait over 5 s", LatestRequest { wait_ms: Some(5_001), ..whole() }, too_large(5_000, 5_001)),
        ("no key", LatestRequest { select: keys(0), ..whole() }, OK),
        ("1,000 keys", LatestRequest { select: keys(1_000), ..whole() }, OK),
        ("1,001 keys", LatestRequest { select: keys(1_001), ..whole() }, too_large(1_000, 1_001)),
        ("all after a key", LatestRequest { after: after.clone(), ..whole() }, OK),
        ("keys after a key", LatestRequest { select: keys(1), after, ..whole() }, INVALID),
    ] {
        check(case, request.validate(), expected);
    }
    let changes = |limit, wait_ms| ChangesRequest { limit, wait_ms, ..ChangesRequest::default() }.validate();
    check("changes", changes(None, None), OK);
    check("changes, a limit of 0", changes(Some(0), None), INVALID);
    check("changes, a limit of 1,001", changes(Some(1_001), Some(5_000)), too_large(1_000, 1_001));
    check("changes, a wait over 5 s", changes(Some(1), Some(5_001)), too_large(5_000, 5_001));
    let history = |limit| HistoryRequest { key: Key::parse("k").unwrap(), limit }.validate();
    check("history", history(None), OK);
    check("history, a limit of 0", history(Some(0)), INVALID);
    check("history, a limit of 1,001", history(Some(1_001)), too_large(1_000, 1_001));
}
