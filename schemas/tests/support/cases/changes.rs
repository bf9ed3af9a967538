//! Golden changes and journal batches.

use roam_schemas::{
    Action, BatchId, Bulk, BulkChange, ContentType, Draft, DraftOperation, Encoding, Expect, JournalBatch, Operation,
    Origin, Put, Stamp, StampedChange, TenantQuota, Terms, Value,
};

use super::{
    BINARY, Case, case, directory_service, id, key, laptop, late_revision, odd_device, profile, revision, text, time,
};

pub(super) fn all() -> Vec<Case> {
    vec![
        case("put_text", Draft { id: id(1), base: None, ops: vec![put("theme", text("dark"), "text/plain", None)] }),
        case("put_binary_that_expires", put_binary_that_expires()),
        case("delete", Draft { id: id(3), base: Some(revision(41)), ops: vec![delete("bookmarks/7")] }),
        case("every_expectation", every_expectation()),
        case("of_two_users", of_two_users()),
        case("of_one_user", Bulk { changes: vec![part("*", every_expectation())] }),
        case("one_change", one_change()),
        case("every_kind_of_device", every_kind_of_device()),
    ]
}

fn put(name: &str, value: Value, content_type: &str, ttl: Option<u32>) -> DraftOperation {
    let content_type = ContentType::parse(content_type).unwrap();
    DraftOperation { key: name.to_owned(), action: Action::Put(Put { value, content_type, ttl }), expect: Expect::Any }
}

fn delete(name: &str) -> DraftOperation {
    DraftOperation { key: name.to_owned(), action: Action::Delete, expect: Expect::Any }
}

fn put_binary_that_expires() -> Draft {
    let mut op = put("session", Value::new(BINARY), "application/octet-stream", Some(3_600));
    op.expect = Expect::At(revision(39));
    Draft { id: id(2), base: Some(late_revision()), ops: vec![op] }
}

fn every_expectation() -> Draft {
    let mut absent = put("Grüße/日本語", text("\"ja\"\n"), "application/json", None);
    absent.expect = Expect::Absent;
    let mut at = delete("bookmarks/7");
    at.expect = Expect::At(revision(128));
    let any = put("empty", Value::default(), "text/plain; charset=utf-8", None);
    Draft { id: id(4), base: Some(revision(0)), ops: vec![absent, at, any] }
}

fn part(user: &str, change: Draft) -> BulkChange {
    BulkChange { user: user.to_owned(), change }
}

fn of_two_users() -> Bulk {
    let put = Draft { id: id(1), base: None, ops: vec![put("theme", text("dark"), "text/plain", None)] };
    let delete = Draft { id: id(3), base: Some(revision(41)), ops: vec![delete("bookmarks/7")] };
    Bulk { changes: vec![part("alice@example.com", put), part("bob", delete)] }
}

fn stamped(device: roam_schemas::Device, encoding: Encoding, sequence: u64, ops: Vec<Operation>) -> StampedChange {
    let change = roam_schemas::Change::new(id(u8::try_from(sequence).unwrap()), None, ops).unwrap();
    let stamp = Stamp { time: time(sequence), origin: Origin { incarnation: time(0).as_nanos(), sequence } };
    StampedChange { profile: profile(), device, encoding, stamp, digest: change.digest(), change }
}

fn batch(last: u8, terms: Terms, changes: Vec<StampedChange>) -> JournalBatch {
    let mut bytes = *id(last).as_bytes();
    bytes[8] = 0xB0;
    JournalBatch { id: BatchId::from_bytes(bytes), rules: 1, terms, quotas: Vec::new(), changes }
}

fn one_change() -> JournalBatch {
    let op = Operation::put(key("theme"), "dark", ContentType::text());
    batch(1, Terms::default(), vec![stamped(laptop(), Encoding::Postcard, 1, vec![op])])
}

fn every_kind_of_device() -> JournalBatch {
    let terms = Terms {
        seen_seconds: 1,
        tombstone_seconds: 2,
        history_seconds: 3,
        history_versions: 4,
        profile_records: 5,
        profile_bytes: 6,
        user_profiles: 7,
    };
    let expired = Operation::delete(key("session")).expecting(Expect::At(revision(39)));
    let absent = Operation::put(key("avatar"), BINARY, ContentType::octets()).expecting(Expect::Absent);
    let changes = vec![
        stamped(directory_service(), Encoding::Json, 2, vec![absent, Operation::delete(key("draft"))]),
        stamped(roam_schemas::Device::expiry(), Encoding::Postcard, 3, vec![expired]),
        stamped(odd_device(), Encoding::Postcard, 4, vec![Operation::delete(key("theme"))]),
    ];
    let own = TenantQuota { tenant: profile().tenant, profile_records: 8, profile_bytes: 9, user_profiles: 10 };
    JournalBatch { quotas: vec![own], ..batch(2, terms, changes) }
}
