//! What is said of each kind of verdict.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use roam_schemas::{
    BatchId, Change, Code, Conflict, ContentType, Control, Device, Erase, Expect, Operation, Origin, Profile, RULES,
    Revision, ServiceName, Stamp, Superseded, Terms, User, Value, decode, payload_hash,
};

use super::*;
use crate::fixture::{Fixture, delete, key, put, seconds, with_ttl};

fn said(batch: &AppliedBatch) -> Announcement {
    let mut announcement = Announcement::default();
    announcement.add(batch).unwrap();
    let notices = announcement.messages.iter().filter(|message| message.subject.starts_with("roam.v1.notice.")).count();
    assert_eq!(announcement.notices, notices as u64);
    assert_eq!(announcement.receipts, (announcement.messages.len() - notices) as u64);
    announcement
}

fn read<M: roam_schemas::Message>(message: &Message) -> M {
    decode(&message.payload, message.headers.encoding().unwrap()).unwrap()
}

/// The one receipt, and the one notice if there is one.
fn parts(announcement: &Announcement) -> (Receipt, Option<Notice>) {
    let receipt = read(&announcement.messages[0]);
    (receipt, announcement.messages.get(1).map(read))
}

fn batch_of(stamped: StampedChange, verdict: Verdict) -> AppliedBatch {
    let batch = JournalBatch {
        id: BatchId::from_bytes([1; 16]),
        rules: RULES,
        terms: Terms::default(),
        quotas: Vec::new(),
        changes: vec![stamped],
    };
    AppliedBatch { sequence: 1, batch, verdicts: vec![verdict] }
}

fn applied(fixture: &mut Fixture, ops: Vec<Operation>) -> AppliedBatch {
    fixture.write(ops)
}

#[test]
fn an_applied_change_is_receipted_and_noticed_in_its_own_encoding() {
    for encoding in [Encoding::Postcard, Encoding::Json] {
        let mut fixture = Fixture::new();
        let mut stamped = fixture.change(None, vec![with_ttl(put("a", "1"), 60), delete("b")]);
        stamped.encoding = encoding;
        let announcement = said(&fixture.apply(vec![stamped.clone()]));
        assert!(announcement.filed.is_empty());
        let [receipt, notice] = announcement.messages.as_slice() else { panic!("{announcement:?}") };
        assert_eq!(receipt.subject, "roam.v1.receipt.acme.alice.mail.laptop");
        assert_eq!(notice.subject, "roam.v1.notice.acme.alice.mail");
        assert_eq!(receipt.headers.encoding(), Some(encoding));
        assert_eq!(notice.headers.encoding(), Some(encoding));
        assert_eq!(notice.headers.get(headers::REVISION), Some("1"));

        let receipt: Receipt = read(receipt);
        let (revision, time) = (Revision::new(1), seconds(1));
        let outcome = Outcome::Applied(Applied {
            revision,
            time,
            conflicts: Vec::new(),
            superseded: Vec::new(),
            nearly_full: false,
        });
        let (sequence, id) = (stamped.stamp.origin.sequence, stamped.change.id());
        assert_eq!(receipt, Receipt { sequence, id: Some(id), again: false, outcome });

        let notice: Notice = read(notice);
        let value = Stored { value: Value::new("1"), content_type: ContentType::text(), expires: Some(seconds(61)) };
        let op = |name: &str, state| NoticeOperation { key: key(name), conflict: false, state: Some(state) };
        let ops = vec![op("a", State::Value(value)), op("b", State::Deleted)];
        assert_eq!(notice, Notice { revision, time, device: stamped.device, change: id, ops });
    }
}

#[test]
fn a_rejected_change_is_receipted_only() {
    let mut fixture = Fixture::new();
    applied(&mut fixture, vec![put("a", "1")]);
    let announcement = said(&applied(&mut fixture, vec![put("a", "2").expecting(Expect::Absent)]));
    let (receipt, notice) = parts(&announcement);
    assert_eq!(notice, None);
    assert!(!receipt.again);
    let Outcome::Rejected(problem) = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!(problem.code, Code::Exists);
    let failed = problem.failed.unwrap();
    assert_eq!((failed.key, failed.revision), (key("a"), Some(Revision::new(1))));
    assert!(announcement.filed.is_empty(), "a client must expect it");
}

#[test]
fn only_what_a_client_must_not_expect_is_filed() {
    let mut fixture = Fixture::new();
    for code in Code::ALL {
        let stamped = fixture.change(None, vec![put("a", "1")]);
        let verdict = Verdict::Decided(Outcome::Rejected(Problem::new(code, "a reason")));
        let announcement = said(&batch_of(stamped, verdict));
        let expected = matches!(code, Code::Conflict | Code::Exists | Code::Busy);
        assert_eq!(announcement.filed.is_empty(), expected, "{code}");
        assert_eq!((announcement.receipts, announcement.notices), (1, 0), "{code}");
    }
}

#[test]
fn a_change_that_was_decided_before_gets_its_first_outcome_and_no_notice() {
    let mut fixture = Fixture::new();
    let first = fixture.change(None, vec![put("a", "1")]);
    let (once, _) = parts(&said(&fixture.apply(vec![first.clone()])));
    applied(&mut fixture, vec![put("a", "2")]);
    let announcement = said(&fixture.apply(vec![first]));
    let (again, notice) = parts(&announcement);
    assert_eq!(again, Receipt { again: true, ..once });
    assert_eq!(notice, None);
    assert!(announcement.filed.is_empty());
}

#[test]
fn another_change_under_a_used_id_is_rejected_and_filed() {
    let mut fixture = Fixture::new();
    let first = fixture.change(None, vec![put("a", "1")]);
    let mut other = fixture.change(None, vec![put("a", "other")]);
    other.change = Change::new(first.change.id(), None, other.change.into_ops()).unwrap();
    other.digest = other.change.digest();
    let announcement = said(&fixture.apply(vec![first, other.clone()]));
    // Receipt and notice of the first, receipt of the other.
    assert_eq!((announcement.receipts, announcement.notices), (2, 1));
    let receipt: Receipt = read(&announcement.messages[2]);
    let Outcome::Rejected(problem) = &receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!((problem.code, receipt.again, receipt.sequence), (Code::Invalid, false, 2));
    let [filed] = announcement.filed.as_slice() else { panic!("{:?}", announcement.filed) };
    let refused: Change = decode(&filed.payload, Encoding::Postcard).unwrap();
    assert_eq!(refused, other.change);
}

#[test]
fn what_is_filed_says_what_was_refused_and_why() {
    let mut fixture = Fixture::of("acme/bob@example.com/mail", "lap.top");
    let stamped = fixture.change(None, vec![put("a", vec![b'x'; limits::REJECTED_BYTES])]);
    let whole = encode(&stamped.change, Encoding::Postcard).unwrap();
    let problem = Problem::new(Code::OverQuota, "the profile is full").with_limit(3, 4);
    let announcement = said(&batch_of(stamped, Verdict::Decided(Outcome::Rejected(problem))));
    let [filed] = announcement.filed.as_slice() else { panic!("{:?}", announcement.filed) };
    assert_eq!(filed.subject, "roam.v1.rejected.acme.bob%40example%2Ecom");
    assert_eq!(&filed.payload[..], &whole[..limits::REJECTED_BYTES], "cut");
    let expected = [
        (headers::CONTENT_TYPE, Encoding::Postcard.content_type()),
        (headers::CODE, "over_quota"),
        (headers::REASON, "over_quota: the profile is full (limit 3, actual 4)"),
        (headers::SUBJECT, "roam.v1.change.acme.bob%40example%2Ecom.mail.lap%2Etop"),
        (headers::SEQUENCE, "1"),
        (headers::SIZE, &whole.len().to_string()),
        (headers::HASH, &payload_hash(&whole)),
    ];
    for (name, value) in expected {
        assert_eq!(filed.headers.get(name), Some(value), "{name}");
    }
}

/// The notice of a change, and its size on the wire.
fn notice_of(encoding: Encoding, ops: Vec<Operation>) -> (Notice, usize) {
    let mut fixture = Fixture::new();
    let mut stamped = fixture.change(None, ops);
    stamped.encoding = encoding;
    let announcement = said(&fixture.apply(vec![stamped]));
    let notice = &announcement.messages[1];
    (read(notice), notice.payload.len())
}

fn values(notice: &Notice) -> Vec<bool> {
    notice.ops.iter().map(|op| matches!(op.state, Some(State::Value(_)))).collect()
}

#[test]
fn values_are_inline_only_while_the_notice_stays_under_64_kib() {
    for encoding in [Encoding::Postcard, Encoding::Json] {
        // What the notice takes beside a value of as many plain letters.
        let (_, size) = notice_of(encoding, vec![put("a", vec![b'x'; 60_000])]);
        let most = limits::NOTICE_BYTES - 1 - (size - 60_000);
        let (notice, size) = notice_of(encoding, vec![put("a", vec![b'x'; most])]);
        assert_eq!((values(&notice), size), (vec![true], limits::NOTICE_BYTES - 1));
        let (notice, size) = notice_of(encoding, vec![put("a", vec![b'x'; most + 1])]);
        assert_eq!(values(&notice), [false]);
        assert_eq!(notice.ops[0].state, None, "fetch it");
        assert!(size < 200);
    }
}

#[test]
fn a_value_that_only_json_makes_too_large_is_left_out_of_json_only() {
    let ops = || vec![put("a", vec![b'"'; 40_000])];
    assert_eq!(values(&notice_of(Encoding::Postcard, ops()).0), [true]);
    assert_eq!(values(&notice_of(Encoding::Json, ops()).0), [false]);
}

#[test]
fn a_notice_without_values_still_says_what_was_deleted() {
    for large in [40_000, limits::VALUE_BYTES] {
        let ops = vec![put("a", vec![b'"'; large]), delete("b"), put("c", "small")];
        let (notice, _) = notice_of(Encoding::Json, ops);
        let states: Vec<_> = notice.ops.iter().map(|op| op.state.clone()).collect();
        assert_eq!(states, [None, Some(State::Deleted), None]);
    }
}

#[test]
fn a_notice_of_the_most_keys_fits_into_a_message() {
    let name = "\u{1}".repeat(limits::NAME_BYTES);
    let mut fixture = Fixture::of(&format!("{name}/{name}/{name}"), &name);
    let letters = limits::CHANGE_BYTES / limits::CHANGE_OPERATIONS / 6 - 4;
    let ops = (0..limits::CHANGE_OPERATIONS).map(|number| put(&format!("{number:04}{}", "\u{1}".repeat(letters)), ""));
    let announcement = said(&applied(&mut fixture, ops.collect()));
    for message in &announcement.messages {
        assert!(message.payload.len() < limits::MAX_PAYLOAD, "{} bytes", message.payload.len());
    }
}

/// A change that was published before what is there, and delivered after it.
fn late(fixture: &mut Fixture, ops: Vec<Operation>) -> StampedChange {
    let mut late = fixture.change(None, ops);
    late.stamp = Stamp { time: seconds(0), origin: Origin { incarnation: 1, sequence: 0 } };
    late
}

#[test]
fn operations_that_came_too_late_are_in_the_receipt_and_not_in_the_notice() {
    let mut fixture = Fixture::new();
    applied(&mut fixture, vec![put("a", "1")]);
    let change = late(&mut fixture, vec![put("a", "late"), put("b", "new")]);
    let (receipt, notice) = parts(&said(&fixture.apply(vec![change])));
    let Outcome::Applied(applied) = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!(applied.superseded, [Superseded { key: key("a"), revision: Revision::new(1) }]);
    assert_eq!(applied.revision, Revision::new(2));
    let keys: Vec<_> = notice.unwrap().ops.into_iter().map(|op| op.key).collect();
    assert_eq!(keys, [key("b")]);
}

#[test]
fn a_change_that_came_too_late_whole_has_a_receipt_and_no_notice() {
    let mut fixture = Fixture::new();
    applied(&mut fixture, vec![put("a", "1")]);
    let change = late(&mut fixture, vec![put("a", "late")]);
    let (receipt, notice) = parts(&said(&fixture.apply(vec![change])));
    let Outcome::Applied(applied) = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!((applied.revision, applied.time), (Revision::new(1), seconds(1)), "the head that stood");
    assert_eq!(notice, None);
}

#[test]
fn a_conflict_is_in_the_receipt_and_marked_in_the_notice() {
    let mut fixture = Fixture::new();
    applied(&mut fixture, vec![put("a", "1"), put("b", "1")]);
    fixture.device = Device::parse("phone").unwrap();
    let change = fixture.change(Some(0), vec![put("a", "2"), put("c", "2")]);
    let (receipt, notice) = parts(&said(&fixture.apply(vec![change])));
    let Outcome::Applied(applied) = receipt.outcome else { panic!("{receipt:?}") };
    let device = Device::parse("laptop").unwrap();
    assert_eq!(applied.conflicts, [Conflict { key: key("a"), revision: Revision::new(1), device }]);
    let marks: Vec<_> = notice.unwrap().ops.into_iter().map(|op| op.conflict).collect();
    assert_eq!(marks, [true, false]);
}

#[test]
fn a_successor_says_from_the_table_what_was_said_from_memory() {
    let mut fixture = Fixture::new();
    let first = fixture.change(None, vec![put("a", "1")]);
    let mut other = fixture.change(None, vec![put("a", "other")]);
    other.change = Change::new(first.change.id(), None, other.change.into_ops()).unwrap();
    other.digest = other.change.digest();
    let mut elsewhere = first.clone();
    elsewhere.profile = "acme/bob/mail".parse::<Profile>().unwrap();
    let exists = fixture.change(None, vec![put("a", "2").expecting(Expect::Absent)]);
    let batches = [
        fixture.apply(vec![first.clone(), other.clone(), first.clone(), elsewhere, exists.clone()]),
        fixture.apply(vec![first, exists, other]),
    ];
    for batch in &batches {
        let found = verdicts(&fixture.reader.snapshot(), &batch.batch).unwrap();
        assert_eq!(found.iter().flatten().collect::<Vec<_>>(), batch.verdicts.iter().collect::<Vec<_>>());
        assert_eq!(known(batch.sequence, batch.batch.clone(), found).batch, batch.batch);
    }
}

#[test]
fn nothing_is_said_of_a_change_that_the_table_does_not_know() {
    let mut fixture = Fixture::new();
    let first = fixture.change(None, vec![put("a", "1")]);
    let never = fixture.change(None, vec![put("b", "1")]);
    let applied = fixture.apply(vec![first.clone()]);
    let batch = JournalBatch { changes: vec![never, first], ..applied.batch };
    let found = verdicts(&fixture.reader.snapshot(), &batch).unwrap();
    assert_eq!(found[0], None);
    // By its batch it is the first, by its index another: it was decided before.
    assert!(matches!(found[1], Some(Verdict::Again(_))));
    let announcement = said(&known(1, batch, found));
    assert_eq!((announcement.receipts, announcement.notices, announcement.filed.len()), (1, 0, 0));
}

#[test]
fn nothing_more_is_waited_for_of_a_change_whose_user_was_erased_after_it() {
    let mut fixture = Fixture::new();
    let change = fixture.change(None, vec![put("a", "1")]);
    assert_eq!(change.stamp.time, seconds(1));
    let batch = fixture.apply(vec![change]).batch;
    let known = |fixture: &Fixture, journaled, batch: &JournalBatch| {
        let snapshot = fixture.reader.snapshot();
        let found = verdicts(&snapshot, batch).unwrap();
        (found.iter().flatten().count(), are_settled(&snapshot, journaled, batch, &found).unwrap())
    };
    assert_eq!(known(&fixture, seconds(2), &batch), (1, true));
    fixture.published = seconds(5).as_nanos();
    let (tenant, user) = (fixture.profile.tenant.clone(), fixture.profile.user.clone());
    fixture.control(&Control::Erase(Erase { tenant, user }));
    assert_eq!(known(&fixture, seconds(2), &batch), (0, true));
    assert_eq!(known(&fixture, seconds(9), &batch), (0, true), "the clock of the journal was set back");
    let with = |alter: fn(&mut StampedChange)| {
        let mut other = batch.clone();
        alter(&mut other.changes[0]);
        other
    };
    let ahead = with(|stamped| stamped.stamp.time = seconds(7));
    assert_eq!(known(&fixture, seconds(2), &ahead), (0, true), "the clock of its stream is ahead");
    assert_eq!(known(&fixture, seconds(9), &ahead), (0, false), "it came after that, and will be decided");
    let of_another = with(|stamped| stamped.profile.user = User::parse("bob").unwrap());
    assert_eq!(known(&fixture, seconds(2), &of_another), (0, false), "nobody erased him");
}

/// So many changes of a service, of alice and bob in turn, that came in one message.
fn bulk(fixture: &mut Fixture, changes: usize, encoding: Encoding) -> Vec<StampedChange> {
    fixture.device = Device::service(&ServiceName::parse("hr").unwrap());
    let mut bulk: Vec<_> =
        (0..changes).map(|number| fixture.change(None, vec![put("a", number.to_string())])).collect();
    let origin = bulk[0].stamp.origin;
    for (number, stamped) in bulk.iter_mut().enumerate() {
        (stamped.stamp.origin, stamped.encoding) = (origin, encoding);
        stamped.profile.user = User::parse(if number % 2 == 0 { "alice" } else { "b.b" }).unwrap();
    }
    bulk
}

#[test]
fn changes_of_one_message_are_receipted_in_one_and_noticed_each() {
    for encoding in [Encoding::Postcard, Encoding::Json] {
        let mut fixture = Fixture::new();
        let before = fixture.change(None, vec![put("z", "by itself")]);
        let bulk = bulk(&mut fixture, 3, encoding);
        let after = fixture.change(None, vec![put("y", "by itself")]);
        let ids: Vec<_> = bulk.iter().map(|stamped| stamped.change.id()).collect();
        let sequence = bulk[0].stamp.origin.sequence;
        let mut announcement = Announcement::default();
        let all = [vec![before], bulk, vec![after]].concat();
        announcement.add(&fixture.apply(all)).unwrap();
        assert_eq!((announcement.receipts, announcement.notices), (5, 5));
        let subjects: Vec<_> = announcement.messages.iter().map(|message| message.subject.as_str()).collect();
        let expected = [
            "roam.v1.receipt.acme.alice.mail.laptop",
            "roam.v1.notice.acme.alice.mail",
            "roam.v1.receipt.acme.$bulk.mail.$svc-hr",
            "roam.v1.notice.acme.alice.mail",
            "roam.v1.notice.acme.b%2Eb.mail",
            "roam.v1.notice.acme.alice.mail",
            "roam.v1.receipt.acme.alice.mail.$svc-hr",
            "roam.v1.notice.acme.alice.mail",
        ];
        assert_eq!(subjects, expected);
        assert_eq!(announcement.messages[2].headers.encoding(), Some(encoding));
        let BulkReceipts { receipts } = read(&announcement.messages[2]);
        let users: Vec<_> = receipts.iter().map(|one| one.user.as_str()).collect();
        assert_eq!(users, ["alice", "b.b", "alice"]);
        let revisions = [2, 1, 3].map(Revision::new);
        for ((one, id), expected) in receipts.iter().zip(ids).zip(revisions) {
            assert_eq!((one.receipt.sequence, one.receipt.id, one.receipt.again), (sequence, Some(id), false));
            let Outcome::Applied(applied) = &one.receipt.outcome else { panic!("{one:?}") };
            assert_eq!(applied.revision, expected);
        }
    }
}

#[test]
fn what_was_delivered_twice_is_told_twice_and_makes_no_bulk_of_one_change() {
    let mut fixture = Fixture::new();
    let alone = fixture.change(None, vec![put("z", "by itself")]);
    let mut announcement = Announcement::default();
    announcement.add(&fixture.apply(vec![alone.clone(), alone])).unwrap();
    let subjects: Vec<_> = announcement.messages.iter().map(|message| message.subject.as_str()).collect();
    let of_laptop = "roam.v1.receipt.acme.alice.mail.laptop";
    assert_eq!(subjects, [of_laptop, "roam.v1.notice.acme.alice.mail", of_laptop]);
    let bulk = bulk(&mut fixture, 2, Encoding::Postcard);
    let mut announcement = Announcement::default();
    announcement.add(&fixture.apply([bulk.clone(), bulk].concat())).unwrap();
    assert_eq!((announcement.receipts, announcement.notices, announcement.messages.len()), (4, 2, 3));
    let BulkReceipts { receipts } = read(&announcement.messages[0]);
    let again: Vec<_> = receipts.iter().map(|one| one.receipt.again).collect();
    assert_eq!(again, [false, false, true, true]);
}

#[test]
fn what_has_one_origin_by_chance_is_no_bulk() {
    let mut fixture = Fixture::new();
    let laptops = [(); 2].map(|()| fixture.change(None, vec![put("z", "of a laptop")]));
    let hr = bulk(&mut fixture, 2, Encoding::Postcard);
    let of = |mut stamped: StampedChange, profile: &str, service: &str| {
        stamped.profile = profile.parse().unwrap();
        stamped.device = Device::service(&ServiceName::parse(service).unwrap());
        stamped
    };
    let of_another = [("acme/alice/mail", "crm"), ("acme/alice/todo", "hr"), ("evil/alice/mail", "hr")];
    let pairs = of_another.map(|(profile, service)| [hr[0].clone(), of(hr[1].clone(), profile, service)]);
    for mut pair in [laptops].into_iter().chain(pairs) {
        pair[1].stamp.origin = pair[0].stamp.origin;
        let mut announcement = Announcement::default();
        announcement.add(&fixture.apply(pair.to_vec())).unwrap();
        let told = |of: &StampedChange| {
            let subject = subjects::receipt(&of.profile, &of.device);
            announcement.messages.iter().filter(|message| message.subject == subject).count()
        };
        assert!(pair.iter().all(|of| told(of) > 0), "{announcement:?}");
        assert!(announcement.messages.iter().all(|message| !message.subject.contains("$bulk")), "{announcement:?}");
    }
}

#[test]
fn receipts_that_are_too_large_together_go_one_by_one() {
    let mut fixture = Fixture::new();
    for (bytes, messages) in [(limits::BULK_RECEIPTS_BYTES / 2 - 200, 1), (limits::BULK_RECEIPTS_BYTES / 2, 2)] {
        let bulk = bulk(&mut fixture, 2, Encoding::Postcard);
        let verdict = Verdict::Again(Outcome::Rejected(Problem::new(Code::Conflict, "x".repeat(bytes))));
        let mut batch = batch_of(bulk[0].clone(), verdict.clone());
        batch.batch.changes.push(bulk[1].clone());
        batch.verdicts.push(verdict);
        let mut announcement = Announcement::default();
        announcement.add(&batch).unwrap();
        assert_eq!((announcement.messages.len(), announcement.receipts), (messages, 2));
        if let [_, second] = announcement.messages.as_slice() {
            assert_eq!(second.subject, "roam.v1.receipt.acme.b%2Eb.mail.$svc-hr");
            assert_eq!(read::<Receipt>(second).id, Some(bulk[1].change.id()));
        }
    }
}
