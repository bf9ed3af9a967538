//! `decide` against a plain model of a profile, over random histories.
//!
//! 100,000 histories in an ordinary run; `PROPTEST_CASES=1000000 cargo test --release -p roam-storage --test decide` tries
//! more.

use std::collections::BTreeMap;

use crate::support::{
    cases,
    histories::{Scene, any_history},
    memory::Memory,
    model::{Answer, Model, Said},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use roam_schemas::{
    Change, ChangeId, ContentType, Device, Encoding, Key, Operation, Origin, Stamp, StampedChange, Terms, Timestamp,
};

/// What the store would hold is what the model holds.
fn compare(memory: &Memory, model: &Model) {
    assert_eq!((memory.head.revision.get(), memory.head.time.as_nanos()), (model.revision, model.time), "head");
    assert_eq!((memory.head.records, memory.head.bytes), memory.count(), "what the head counts");
    assert_eq!(memory.count(), model.count(), "what the profile holds");
    let records = model.records();
    assert!(memory.records.keys().map(Key::as_str).eq(records.keys().copied()), "keys");
    for (record, (revision, written)) in memory.records.values().zip(records.values()) {
        let known = &record.known;
        assert_eq!(known.revision.get(), *revision);
        assert_eq!(known.time.as_nanos(), written.time);
        assert_eq!(known.device.as_str(), written.device);
        assert_eq!(record.conflict, written.conflict);
        assert_eq!(record.value.as_ref(), written.value.as_ref().map(|(_, bytes, _)| bytes));
        let end = known.value.and_then(|value| value.expires).map(Timestamp::as_nanos);
        assert_eq!(end, written.value.as_ref().and_then(|(_, _, end)| *end));
    }
    let late = memory.late.iter().map(|((key, revision), count)| ((key.as_str(), *revision), *count as usize));
    assert!(late.eq(model.late.iter().map(|((key, revision), ops)| ((key.as_str(), *revision), ops.len()))), "late");
}

/// Revision and time rise strictly together, or neither moves.
fn check_order(before: (u64, u64), after: (u64, u64)) {
    let stays = after == before;
    let rises = after.0 == before.0 + 1 && after.1 > before.1;
    assert!(stays || rises, "from {before:?} to {after:?}");
}

/// While an id is known it takes effect once.
fn check_once(applied: &mut BTreeMap<ChangeId, u64>, stamped: &StampedChange, said: &Said, terms: &Terms) {
    let Said::First(Answer::Applied { time, .. }) = said else {
        return;
    };
    if let Some(before) = applied.insert(stamped.change.id(), *time) {
        assert!(*time >= before + terms.seen_seconds * 1_000_000_000, "{} took effect twice", stamped.change.id());
    }
}

proptest! {
    #![proptest_config(cases(100_000))]

    #[test]
    fn decide_does_what_the_model_does(history in any_history(48)) {
        let mut scene = Scene::new("acme/alice/mail".parse().unwrap());
        let mut memory = Memory::default();
        let mut applied = BTreeMap::new();
        for step in &history.steps {
            let Some(stamped) = scene.take(step) else { continue };
            let before = (memory.head.revision.get(), memory.head.time.as_nanos());
            let said = memory.hear(&stamped, &history.terms);
            prop_assert_eq!(&said, &scene.model.hear(&stamped, &history.terms), "{:?}", stamped);
            let after = (memory.head.revision.get(), memory.head.time.as_nanos());
            check_order(before, after);
            // One that was superseded whole is told the time of the head that stood, and took no effect.
            if after != before {
                check_once(&mut applied, &stamped, &said, &history.terms);
            }
            compare(&memory, &scene.model);
        }
    }
}

/// Unconditional changes in the order in which a stream took them in.
fn stream() -> impl Strategy<Value = Vec<StampedChange>> {
    let put = (0_u8..3, vec(any::<u8>(), 0..3)).prop_map(|(key, value)| (key, Some(value)));
    let op = prop_oneof![3 => put, 1 => (0_u8..3).prop_map(|key| (key, None))];
    vec((vec(op, 1..3), 0_u64..3, 1_u8..4), 1..12).prop_map(|changes| {
        let mut time = 1_000;
        let stamped = changes.into_iter().zip(1..).map(|((ops, pause, device), sequence)| {
            time += pause;
            let origin = Origin { incarnation: 1, sequence };
            unconditional(ops, device, Stamp { time: Timestamp::from_nanos(time), origin })
        });
        stamped.collect()
    })
}

fn unconditional(ops: Vec<(u8, Option<Vec<u8>>)>, device: u8, stamp: Stamp) -> StampedChange {
    let ops: BTreeMap<u8, Option<Vec<u8>>> = ops.into_iter().collect();
    let key = |key| Key::parse(format!("key {key}")).unwrap();
    let ops = ops.into_iter().map(|(name, value)| match value {
        Some(value) => Operation::put(key(name), value, ContentType::octets()),
        None => Operation::delete(key(name)),
    });
    let id = ChangeId::from_bytes(u128::from(stamp.origin.sequence).to_be_bytes());
    let change = Change::new(id, None, ops.collect()).unwrap();
    StampedChange {
        profile: "acme/alice/mail".parse().unwrap(),
        device: Device::parse(&format!("device {device}")).unwrap(),
        encoding: Encoding::Postcard,
        stamp,
        digest: change.digest(),
        change,
    }
}

proptest! {
    #![proptest_config(cases(5_000))]

    /// Needs no model: access servers may deliver in whatever order and as often as they like.
    #[test]
    fn whatever_the_order_of_delivery_the_last_sequence_wins(
        stream in stream(),
        order in vec(any::<Index>(), 0..40),
    ) {
        let mut memory = Memory::default();
        let deliveries = order.iter().map(|index| index.get(&stream)).chain(&stream);
        for stamped in deliveries {
            memory.hear(stamped, &Terms::default());
        }
        let mut last = BTreeMap::new();
        for stamped in &stream {
            for op in stamped.change.ops() {
                last.insert(op.key.clone(), stamped.stamp.origin.sequence);
            }
        }
        let stands = memory.records.iter().map(|(key, record)| (key.clone(), record.known.stamp.origin.sequence));
        prop_assert_eq!(stands.collect::<BTreeMap<_, _>>(), last);
    }
}
