//! What is refused: its publisher is told, an operator can read it, it never comes again, and the others pass.

use crate::support::{World, alice, laptop, next_entry, next_receipt, put, subject_of};
use roam_access_server::{Rate, Settings};
use roam_nats::Entry;
use roam_schemas::{
    Action, ChangeId, Code, ContentType, Device, Draft, DraftOperation, Encoding, Expect, Outcome, Put, ServiceName,
    Value, encode, headers, limits, subjects,
};

fn draft(ops: Vec<DraftOperation>) -> Draft {
    Draft { id: ChangeId::random(), base: None, ops }
}

fn op(key: &str, bytes: usize) -> DraftOperation {
    let put = Put { value: Value::new(vec![b'v'; bytes]), content_type: ContentType::octets(), ttl: None };
    DraftOperation { key: key.to_owned(), action: Action::Put(put), expect: Expect::Any }
}

fn header<'a>(entry: &'a Entry, name: &'static str) -> &'a str {
    entry.headers.get(name).unwrap_or_else(|| panic!("there is no {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_change_is_receipted_filed_and_terminated() {
    let world = World::start().await;
    let server = world.access_server().await;
    let mut receipts = world.receipts(&alice(), &laptop()).await;
    let mut rejected = world.rejected().await;
    let many = (0..=limits::CHANGE_OPERATIONS).map(|index| op(&index.to_string(), 1)).collect();
    let large = (0..5).map(|index| op(&index.to_string(), limits::VALUE_BYTES)).collect();
    let drafts = [
        (draft(vec![]), Code::Invalid),
        (draft(many), Code::TooLarge),
        (draft(vec![op(&"k".repeat(limits::KEY_BYTES + 1), 1)]), Code::TooLarge),
        (draft(vec![op("k", limits::VALUE_BYTES + 1)]), Code::TooLarge),
        (draft(vec![op("k", 1), op("k", 2)]), Code::Invalid),
        (draft(large), Code::TooLarge),
    ];
    let mut table = Vec::new();
    for encoding in [Encoding::Postcard, Encoding::Json] {
        for (draft, code) in &drafts {
            let payload = encode(draft, encoding).unwrap();
            let id = (payload.len() <= limits::CHANGE_BYTES).then_some(draft.id);
            table.push((encoding, payload, *code, id));
        }
        table.push((encoding, b"rubbish".to_vec(), Code::Invalid, None));
        // Far beyond the largest change, and still within what the servers take.
        table.push((encoding, vec![b'x'; limits::MAX_PAYLOAD - 1024], Code::TooLarge, None));
    }
    table.push((Encoding::Postcard, vec![2 << 5 | 1], Code::UnsupportedVersion, None));
    table.push((Encoding::Json, br#"{"change_v9": {}}"#.to_vec(), Code::UnsupportedVersion, None));

    for (encoding, payload, code, id) in table {
        let sequence = world.publish(&subject_of("laptop"), encoding, payload.clone()).await;
        let receipt = next_receipt(&mut receipts, encoding).await;
        assert_eq!((receipt.sequence, receipt.id, receipt.again), (sequence, id, false), "{code}");
        let Outcome::Rejected(problem) = receipt.outcome else { panic!("it is rejected with {code}") };
        assert_eq!((problem.code, problem.retry), (code, false));

        let entry = next_entry(&mut rejected).await;
        assert_eq!(entry.subject, subjects::rejected(&alice().tenant, &alice().user));
        assert_eq!(entry.headers.encoding(), Some(encoding));
        assert_eq!(header(&entry, headers::CODE), code.as_str());
        assert_eq!(header(&entry, headers::REASON), problem.to_string());
        assert_eq!(header(&entry, headers::SUBJECT), subject_of("laptop"));
        assert_eq!(header(&entry, headers::SEQUENCE), sequence.to_string());
        assert_eq!(header(&entry, headers::SIZE), payload.len().to_string());
        assert_eq!(&entry.payload[..], &payload[..payload.len().min(limits::REJECTED_BYTES)]);
    }
    world.settled().await;
    assert_eq!(server.metric("changes_rejected_total{code=\"unsupported_version\"}"), 2.0);
    assert_eq!(server.metric("changes_appended_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_names_nobody_is_filed_where_encoding_never_leads() {
    let world = World::start().await;
    let _server = world.access_server().await;
    let mut rejected = world.rejected().await;
    let payload = encode(&put("a"), Encoding::Json).unwrap();
    for token in ["%2a", "%zz", "%FF", "%41", "$other", "a%"] {
        let subject = format!("roam.v1.change.acme.{token}.mail.laptop");
        world.publish(&subject, Encoding::Json, payload.clone()).await;
        let entry = next_entry(&mut rejected).await;
        assert_eq!(entry.subject, subjects::rejected_of_nobody());
        assert_eq!((header(&entry, headers::SUBJECT), header(&entry, headers::CODE)), (subject.as_str(), "invalid"));
    }
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_nobody_is_filed_only_as_fast_as_its_publisher_may_publish() {
    const EACH: usize = 50;
    let world = World::start().await;
    let mut rejected = world.rejected().await;
    let directory = Device::service(&ServiceName::parse("directory").unwrap());
    let of_bulks = subjects::receipt_of_bulk(&alice().tenant, &alice().app, &directory);
    let mut receipts = world.bus.subscribe(of_bulks).await.unwrap();
    // A new subject each time, so that no bound of the stream counts.
    for number in 0..EACH {
        for subject in [
            format!("roam.v1.change.acme.mallory.%zz{number}.phone"),
            format!("roam.v1.change.acme.%zz{number}.mail.$svc-mailer"),
            format!("roam.v1.change.acme.$bulk-{number}.mail.$svc-directory"),
        ] {
            world.publish(&subject, Encoding::Json, "rubbish").await;
        }
    }
    let bob = "roam.v1.change.acme.bob.%zz.phone";
    world.publish(bob, Encoding::Json, "rubbish").await;
    let rate = Rate { changes_per_second: 1, burst: 3 };
    let server = world.access_server_with(Settings { rate, ..world.settings() }).await;
    while header(&next_entry(&mut rejected).await, headers::SUBJECT) != bob {}
    for _ in 0..EACH {
        next_receipt(&mut receipts, Encoding::Json).await;
    }
    world.settled().await;
    let filed = server.metric("changes_rejected_total{code=\"invalid\"}");
    assert!((10.0..60.0).contains(&filed), "{filed} are filed: three of each publisher, and a few more in time");
    assert_eq!(server.metric("changes_throttled_total"), (3 * EACH + 1) as f64 - filed);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_changes_do_not_stop_the_others() {
    const VALID: usize = 500;
    let world = World::start().await;
    let _announcer = world.announcer().await;
    let mut rejected = world.rejected().await;
    let mut journal = world.journal().await;
    // Many more refused ones than fit into the queue of refusals, before the valid ones and between them.
    let mut refused = 0;
    let mut published = std::collections::BTreeMap::new();
    for round in 0..5 {
        for index in 0..250 {
            let subject = subject_of(&format!("bad-{round}-{index}"));
            world.publish(&subject, Encoding::Json, "rubbish").await;
            refused += 1;
        }
        published.extend(world.publish_many(VALID / 5).await);
    }
    let server = world.access_server().await;
    let found = journal.take(VALID).await;
    assert!(found.iter().map(|change| (change.stamp.origin.sequence, change.change.id())).eq(published));
    for _ in 0..refused {
        assert_eq!(header(&next_entry(&mut rejected).await, headers::CODE), "invalid");
    }
    world.settled().await;
    assert_eq!(server.metric("changes_rejected_total{code=\"invalid\"}"), f64::from(refused));
}
