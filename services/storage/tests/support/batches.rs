//! Batches that anybody can make again from their sequence alone, and the positions that belong to them. Holds no test.

use roam_schemas::{
    BatchId, Change, ChangeId, ContentType, Device, Encoding, JournalBatch, Key, Operation, Origin, Profile, RULES,
    Stamp, StampedChange, Terms, Timestamp,
};
use roam_storage::store::Position;

/// The position after a batch.
pub(crate) fn position(sequence: u64, batch: &JournalBatch) -> Position {
    Position { incarnation: 7, sequence, batch: batch.id, published: sequence, line: 1, terms: batch.terms.clone() }
}

/// A batch of changes.
pub(crate) fn batch_of(sequence: u64, terms: &Terms, changes: Vec<StampedChange>) -> JournalBatch {
    let id = BatchId::from_bytes((0xBA7C_u128 << 64 | u128::from(sequence)).to_be_bytes());
    JournalBatch { id, rules: RULES, terms: terms.clone(), quotas: Vec::new(), changes }
}

/// The batch of that sequence: some puts and deletes of a few keys of a few profiles, some with a time to live.
pub(crate) fn batch(sequence: u64) -> JournalBatch {
    let mut random = Random(sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let changes = (0..1 + random.below(8)).map(|index| change(sequence, index, &mut random)).collect();
    batch_of(sequence, &Terms::default(), changes)
}

fn change(batch: u64, index: u64, random: &mut Random) -> StampedChange {
    let number = batch * 10 + index;
    let mut keys: Vec<u64> = (0..1 + random.below(3)).map(|_| random.below(40)).collect();
    keys.sort_unstable();
    keys.dedup();
    let ops = keys.into_iter().map(|key| {
        let key = Key::parse(format!("key {key}")).unwrap();
        let value = vec![b'a' + u8::try_from(random.below(26)).unwrap(); usize::try_from(random.below(300)).unwrap()];
        match random.below(5) {
            0 => Operation::delete(key),
            _ => Operation::put(key, value, ContentType::text()),
        }
    });
    let change = Change::new(ChangeId::from_bytes(u128::from(number).to_be_bytes()), None, ops.collect()).unwrap();
    stamped(&format!("acme/user {}/mail", random.below(5)), number, change)
}

/// A change with the stamp of that sequence, one second after the one before.
pub(crate) fn stamped(profile: &str, sequence: u64, change: Change) -> StampedChange {
    StampedChange {
        profile: profile.parse::<Profile>().unwrap(),
        device: Device::parse("laptop").unwrap(),
        encoding: Encoding::Postcard,
        stamp: Stamp {
            time: Timestamp::from_nanos(1_000_000_000 * sequence),
            origin: Origin { incarnation: 3, sequence },
        },
        digest: change.digest(),
        change,
    }
}

/// An unconditional put as a change of its own, whose id is its sequence.
pub(crate) fn put(profile: &str, sequence: u64, key: &str, value: impl Into<Vec<u8>>) -> StampedChange {
    let op = Operation::put(Key::parse(key).unwrap(), value, ContentType::text());
    one(profile, sequence, op)
}

/// A change of one operation, whose id is its sequence.
pub(crate) fn one(profile: &str, sequence: u64, op: Operation) -> StampedChange {
    let id = ChangeId::from_bytes(u128::from(sequence).to_be_bytes());
    stamped(profile, sequence, Change::new(id, None, vec![op]).unwrap())
}

/// xorshift64*: the same numbers from the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
