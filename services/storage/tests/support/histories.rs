//! Random histories of one profile: what devices publish, and in which order, how often and after how long it reaches
//! the journal. Holds no test.

use proptest::{collection::vec, option, prelude::*, sample::Index};
use roam_schemas::{
    Action, Change, ChangeId, ContentType, Device, Encoding, Expect, Key, Operation, Origin, Profile, Put, Revision,
    Stamp, StampedChange, Terms, Timestamp, Value,
};

use super::model::Model;

const SECOND: u64 = 1_000_000_000;
/// A key that is a prefix of another, with a zero byte between them, and an odd one.
const KEYS: [&str; 4] = ["a", "a\0", "a\0b", "é/%2F"];

/// What happens, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) terms: Terms,
    pub(crate) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A device publishes a change, which waits in the stream.
    Publish(Intent),
    /// One of those that wait is delivered.
    Deliver(Index),
    /// One that was delivered is delivered again, as it was.
    Redeliver(Index),
    /// A device publishes again what it published before, under the same id.
    Resend(Index),
    /// Somebody publishes another change under an id that was used before.
    Reuse(Index, Intent),
    /// Time goes on, by nanoseconds.
    Pass(u64),
    /// The stream's clock goes back, by nanoseconds: another leader.
    SetBack(u64),
    /// The stream loses its last messages, and their sequences are used again.
    RollBack(u64),
    /// The stream is created anew.
    Recreate,
}

/// A change that a device wants.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    device: u8,
    /// How many revisions the device lags behind the head.
    base: Option<u64>,
    ops: Vec<(u8, Wish, Condition)>,
}

#[derive(Debug, Clone)]
enum Wish {
    Put { value: Vec<u8>, ttl: Option<u32> },
    Delete,
}

#[derive(Debug, Clone)]
enum Condition {
    Any,
    Absent,
    /// At the revision that the record has when the change is published.
    AtNewest,
    At(u64),
}

/// Histories in which everything happens, under terms that are over within a few steps.
pub(crate) fn any_history(steps: usize) -> impl Strategy<Value = History> {
    let ages = prop_oneof![Just((40, 20)), Just((15, 30)), Just((1_000_000, 1_000_000))];
    let quotas = prop_oneof![2 => Just((50_000, 1 << 26)), 1 => Just((2, 1 << 26)), 1 => Just((50_000, 9))];
    let terms = (ages, quotas).prop_map(|((seen_seconds, tombstone_seconds), (records, bytes))| Terms {
        seen_seconds,
        tombstone_seconds,
        profile_records: records,
        profile_bytes: bytes,
        ..Terms::default()
    });
    (terms, vec(any_step(), 1..steps)).prop_map(|(terms, steps)| History { terms, steps })
}

/// Histories under the usual terms, none of which is over in them.
pub(crate) fn history_within_terms(steps: usize) -> impl Strategy<Value = History> {
    vec(any_step(), 1..steps).prop_map(|steps| History { terms: Terms::default(), steps })
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let moments = prop_oneof![Just(0), Just(1), Just(SECOND / 2), Just(SECOND), Just(7 * SECOND), Just(25 * SECOND)];
    prop_oneof![
        10 => any_intent().prop_map(Step::Publish),
        10 => index().prop_map(Step::Deliver),
        2 => index().prop_map(Step::Redeliver),
        1 => index().prop_map(Step::Resend),
        1 => (index(), any_intent()).prop_map(|(index, intent)| Step::Reuse(index, intent)),
        4 => moments.prop_map(Step::Pass),
        1 => prop_oneof![Just(1), Just(SECOND), Just(3 * SECOND)].prop_map(Step::SetBack),
        1 => (1_u64..6).prop_map(Step::RollBack),
        1 => Just(Step::Recreate),
    ]
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let ttl = prop_oneof![Just(None), Just(None), Just(Some(1)), Just(Some(5)), Just(Some(30))];
    let put = (vec(any::<u8>(), 0..4), ttl).prop_map(|(value, ttl)| Wish::Put { value, ttl });
    let wish = prop_oneof![3 => put, 1 => Just(Wish::Delete)];
    let condition = prop_oneof![
        6 => Just(Condition::Any),
        1 => Just(Condition::Absent),
        2 => Just(Condition::AtNewest),
        1 => (0_u64..8).prop_map(Condition::At),
    ];
    let ops = vec((0..KEYS.len() as u8, wish, condition), 1..4);
    (0_u8..4, option::of(0_u64..4), ops).prop_map(|(device, base, ops)| Intent { device, base, ops })
}

/// The stream that changes wait in, and the profile as the model knows it.
pub(crate) struct Scene {
    pub(crate) model: Model,
    profile: Profile,
    now: u64,
    incarnation: u64,
    sequence: u64,
    made: u64,
    waiting: Vec<StampedChange>,
    delivered: Vec<StampedChange>,
}

impl Scene {
    pub(crate) fn new(profile: Profile) -> Self {
        let (now, incarnation) = (1_000 * SECOND, 1);
        let (waiting, delivered) = (Vec::new(), Vec::new());
        Self { model: Model::default(), profile, now, incarnation, sequence: 0, made: 0, waiting, delivered }
    }

    /// Lets something happen; says what is delivered by that. Whoever calls lets the model hear it before the next
    /// step.
    pub(crate) fn take(&mut self, step: &Step) -> Option<StampedChange> {
        match step {
            Step::Publish(intent) => {
                let id = self.new_id();
                self.publish(id, intent);
            }
            Step::Resend(index) if !self.delivered.is_empty() => {
                let mut again = index.get(&self.delivered).clone();
                again.stamp = self.stamp();
                self.waiting.push(again);
            }
            Step::Reuse(index, intent) if !self.delivered.is_empty() => {
                let id = index.get(&self.delivered).change.id();
                self.publish(id, intent);
            }
            Step::Pass(nanos) => self.now += nanos,
            Step::SetBack(nanos) => self.now -= nanos.min(&(self.now / 2)),
            Step::RollBack(sequences) => {
                let kept = self.sequence.saturating_sub(*sequences);
                self.sequence = kept;
                // What was lost was never delivered; what was delivered before may come again all the same.
                let here = self.incarnation;
                self.waiting
                    .retain(|change| change.stamp.origin.incarnation != here || change.stamp.origin.sequence <= kept);
            }
            Step::Recreate => (self.incarnation, self.sequence) = (self.incarnation + 1, 0),
            Step::Deliver(index) if !self.waiting.is_empty() => {
                let change = self.waiting.remove(index.index(self.waiting.len()));
                self.delivered.push(change.clone());
                return Some(change);
            }
            Step::Redeliver(index) if !self.delivered.is_empty() => return Some(index.get(&self.delivered).clone()),
            Step::Resend(_) | Step::Reuse(..) | Step::Deliver(_) | Step::Redeliver(_) => {}
        }
        None
    }

    fn new_id(&mut self) -> ChangeId {
        self.made += 1;
        ChangeId::from_bytes(u128::from(self.made).to_be_bytes())
    }

    fn stamp(&mut self) -> Stamp {
        self.sequence += 1;
        let origin = Origin { incarnation: self.incarnation, sequence: self.sequence };
        Stamp { time: Timestamp::from_nanos(self.now), origin }
    }

    fn publish(&mut self, id: ChangeId, intent: &Intent) {
        let mut ops: Vec<Operation> = intent.ops.iter().map(|op| self.operation(op)).collect();
        ops.sort_by(|a, b| a.key.cmp(&b.key));
        ops.dedup_by(|a, b| a.key == b.key);
        let base = intent.base.map(|lag| Revision::new(self.model.revision.saturating_sub(lag)));
        let change = Change::new(id, base, ops).unwrap();
        let device = match intent.device {
            0 => Device::expiry(),
            number => Device::parse(&format!("device {number}")).unwrap(),
        };
        let (profile, stamp) = (self.profile.clone(), self.stamp());
        let digest = change.digest();
        self.waiting.push(StampedChange { profile, device, encoding: Encoding::Json, stamp, digest, change });
    }

    fn operation(&self, (key, wish, condition): &(u8, Wish, Condition)) -> Operation {
        let key = Key::parse(KEYS[usize::from(*key)]).unwrap();
        let newest = self.model.newest(key.as_str()).map_or(0, |(revision, _)| revision);
        let expect = match condition {
            Condition::Any => Expect::Any,
            Condition::Absent => Expect::Absent,
            Condition::AtNewest => Expect::At(Revision::new(newest)),
            Condition::At(revision) => Expect::At(Revision::new(*revision)),
        };
        let action = match wish {
            Wish::Delete => Action::Delete,
            Wish::Put { value, ttl } => {
                Action::Put(Put { value: Value::new(value.clone()), content_type: ContentType::octets(), ttl: *ttl })
            }
        };
        Operation { key, action, expect }
    }
}
