//! The batcher, with sequences in place of the duties to ack.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use roam_schemas::{
    App, Change, ChangeId, ContentType, Device, Key, Operation, Origin, Profile, RULES, Stamp, Tenant, Timestamp, User,
    limits::{CHANGE_BYTES, MAX_PAYLOAD, NAME_BYTES},
};

use super::*;

fn batcher() -> Batcher<u64> {
    Batcher::new(RULES, Terms::default(), Vec::new())
}

/// A change with this sequence, which came in a payload of so many bytes.
fn stamped(sequence: u64, bytes: usize) -> Stamped<u64> {
    let op = Operation::put(Key::parse("a").unwrap(), "v", ContentType::text());
    of_change(sequence, bytes, "n", Change::new(ChangeId::random(), None, vec![op]).unwrap())
}

fn of_change(sequence: u64, bytes: usize, name: &str, change: Change) -> Stamped<u64> {
    let profile = Profile {
        tenant: Tenant::parse(name).unwrap(),
        user: User::parse(name).unwrap(),
        app: App::parse(name).unwrap(),
    };
    let change = StampedChange {
        profile,
        device: Device::parse(name).unwrap(),
        encoding: Encoding::Json,
        stamp: Stamp { time: Timestamp::from_nanos(u64::MAX), origin: Origin { incarnation: u64::MAX, sequence } },
        digest: change.digest(),
        change,
    };
    Stamped { duty: sequence, received_at: Instant::now(), changes: vec![change], bytes }
}

/// A bulk of so many changes.
fn bulk(sequence: u64, changes: usize, bytes: usize) -> Stamped<u64> {
    let one = stamped(sequence, bytes);
    Stamped { changes: vec![one.changes[0].clone(); changes], ..one }
}

/// The batch that is full with that.
fn added(batcher: &mut Batcher<u64>, stamped: Stamped<u64>) -> Option<Batch<u64>> {
    let mut full = batcher.add(stamped);
    let batch = full.next();
    assert!(full.next().is_none());
    batch
}

fn sequences(batch: &Batch<u64>) -> Vec<u64> {
    batch.journal.changes.iter().map(|change| change.stamp.origin.sequence).collect()
}

#[test]
fn a_batch_is_what_is_there() {
    let mut batcher = batcher();
    assert!(added(&mut batcher, stamped(1, 100)).is_none());
    assert!(added(&mut batcher, stamped(2, 100)).is_none());
    let batch = batcher.close().unwrap();
    assert_eq!((sequences(&batch), batch.duties), (vec![1, 2], vec![1, 2]));
    assert!(batcher.close().is_none());
}

#[test]
fn a_batch_is_full_at_a_thousand_changes() {
    let mut batcher = batcher();
    for sequence in 1..1_000 {
        assert!(added(&mut batcher, stamped(sequence, 1)).is_none(), "full at {sequence}");
    }
    let batch = added(&mut batcher, stamped(1_000, 1)).unwrap();
    assert_eq!((batch.journal.changes.len(), batch.duties.len()), (1_000, 1_000));
    assert!(batcher.close().is_none());
}

#[test]
fn a_batch_takes_nothing_more_once_it_is_past_512_kib() {
    let mut batcher = batcher();
    assert!(added(&mut batcher, stamped(1, BATCH_BYTES)).is_none());
    let batch = added(&mut batcher, stamped(2, 1)).unwrap();
    assert_eq!(sequences(&batch), [1, 2]);
    // The next one begins from nothing.
    assert!(added(&mut batcher, stamped(3, BATCH_BYTES)).is_none());
    assert_eq!(sequences(&batcher.close().unwrap()), [3]);
}

#[test]
fn the_changes_of_a_batch_are_in_the_order_of_their_sequences() {
    let mut batcher = batcher();
    for sequence in [5, 9, 2, 7] {
        assert!(added(&mut batcher, stamped(sequence, 1)).is_none());
    }
    assert_eq!(sequences(&batcher.close().unwrap()), [2, 5, 7, 9]);
}

#[test]
fn a_batch_is_as_old_as_its_oldest_delivery() {
    let mut batcher = batcher();
    let now = Instant::now();
    for (sequence, seconds) in [(1, 3), (2, 1), (3, 2)] {
        let received_at = now + Duration::from_secs(seconds);
        assert!(added(&mut batcher, Stamped { received_at, ..stamped(sequence, 1) }).is_none());
    }
    assert_eq!(batcher.close().unwrap().received_at, now + Duration::from_secs(1));
}

#[test]
fn every_batch_carries_the_rules_and_the_terms_and_an_id_of_its_own() {
    let terms = Terms { history_versions: 3, ..Terms::default() };
    let quota = |tenant| TenantQuota {
        tenant: Tenant::parse(tenant).unwrap(),
        profile_records: 1,
        profile_bytes: 2,
        user_profiles: 3,
    };
    let mut batcher = Batcher::new(RULES, terms.clone(), vec![quota("other"), quota("n")]);
    let mut batch = |sequence| {
        assert!(added(&mut batcher, stamped(sequence, 1)).is_none());
        batcher.close().unwrap().journal
    };
    let (one, two) = (batch(1), batch(2));
    for journal in [&one, &two] {
        assert_eq!((journal.rules, &journal.terms), (RULES, &terms));
        assert_eq!(journal.quotas, [quota("n")], "of the tenants in it");
    }
    assert_ne!(one.id, two.id);
}

#[test]
fn the_largest_batch_fits_into_a_message() {
    let name = "n".repeat(NAME_BYTES);
    let value = |bytes| {
        let op = |key: usize, bytes| {
            Operation::put(Key::parse(key.to_string()).unwrap(), vec![0; bytes], ContentType::octets())
        };
        let ops = (0..4).map(|key| op(key, bytes / 4)).collect();
        Change::new(ChangeId::random(), None, ops).unwrap()
    };
    let mut batcher = batcher();
    for sequence in 1..BATCH_CHANGES as u64 {
        assert!(added(&mut batcher, of_change(sequence, BATCH_BYTES / BATCH_CHANGES, &name, value(400))).is_none());
    }
    let last = of_change(1_000, CHANGE_BYTES, &name, value(CHANGE_BYTES - 1_000));
    let batch = added(&mut batcher, last).expect("it is full");
    let payload = encode(&batch.journal, Encoding::Postcard).unwrap();
    assert!(payload.len() < MAX_PAYLOAD, "{} bytes", payload.len());
}

#[test]
fn a_bulk_stays_together_with_one_duty() {
    let mut batcher = batcher();
    assert!(added(&mut batcher, stamped(1, 1)).is_none());
    assert!(added(&mut batcher, bulk(2, 64, 1)).is_none());
    let batch = batcher.close().unwrap();
    assert_eq!((batch.duties, batch.journal.changes.len()), (vec![1, 2], 65));
}

#[test]
fn a_bulk_for_which_a_batch_has_no_room_begins_the_next_one() {
    let mut batcher = batcher();
    for sequence in 1..=15 {
        assert!(added(&mut batcher, bulk(sequence, 64, 1)).is_none(), "{sequence}");
    }
    let full = added(&mut batcher, bulk(16, 64, 1)).unwrap();
    assert_eq!((full.journal.changes.len(), full.duties.len()), (960, 15));
    // One that is large besides ends the next one too.
    for sequence in 17..=30 {
        assert!(added(&mut batcher, bulk(sequence, 64, 1)).is_none(), "{sequence}");
    }
    let batches: Vec<_> = batcher.add(bulk(31, 64, BATCH_BYTES + 1)).collect();
    assert_eq!(batches.iter().map(|batch| batch.journal.changes.len()).collect::<Vec<_>>(), [960, 64]);
    assert!(batcher.close().is_none());
}
