//! Bulks: changes that wait for the PubAcks of others and then go together, as the client library of an application service sends
//! them. Pure: it says what is to be sent, and takes note of what came back; told what time it is.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use roam_schemas::{Bulk, BulkChange, Change, Shard, Shards, encode, limits::BULK_CHANGES};

use super::plan::{Plan, PlanError};

/// How many messages are without a PubAck before changes wait: as by the client library.
const AT_ONCE: usize = 4;
/// After how long without one a message holds up no others any more: its PubAck is lost.
const PUB_ACK_WITHIN: Duration = Duration::from_secs(5);
/// About how many bytes of changes go together at most: as by the client library.
const BULK_BYTES: usize = 256 * 1024;
/// A change of about more bytes gains nothing from company: as by the client library.
const LARGE: usize = BULK_BYTES / 4;
/// About what a change and an operation take, besides its value.
const AROUND: usize = 64;

/// Changes that wait, and those that are under way.
#[derive(Debug)]
pub(super) struct Bulks {
    shards: Shards,
    waiting: VecDeque<Waiting>,
    /// By the number of the first change of each message.
    under_way: HashMap<u64, UnderWay>,
}

/// A message that was sent, without a PubAck as yet.
#[derive(Debug)]
struct UnderWay {
    since: Instant,
    /// The numbers of its changes.
    numbers: Vec<u64>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// The place of its profile.
    profile: usize,
    shard: Shard,
    bytes: usize,
    change: Change,
}

/// A message that is to be sent.
#[derive(Debug)]
pub(super) struct Together {
    /// The number of its first change: what its PubAck is known by.
    pub(super) first: u64,
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

/// Whether a change may wait for company.
pub(super) fn is_small(plan: &Plan, change: &Change) -> bool {
    size(plan, change) <= LARGE
}

/// About how large a change is.
fn size(plan: &Plan, change: &Change) -> usize {
    AROUND + change.ops().len() * (AROUND + plan.value_bytes())
}

impl Bulks {
    /// Nothing waits. The deployment has so many shards.
    pub(super) fn new(shards: Shards) -> Self {
        Self { shards, waiting: VecDeque::new(), under_way: HashMap::new() }
    }

    /// A change waits to be sent.
    pub(super) fn add(&mut self, plan: &Plan, number: u64, profile: usize, change: Change) {
        let Some(shard) = plan.profile(profile).map(|profile| self.shards.of_profile(profile)) else { return };
        let bytes = size(plan, &change);
        self.waiting.push_back(Waiting { number, profile, shard, bytes, change });
    }

    /// What is to be sent now, if anything is: changes of one shard, in their order, or one by itself.
    pub(super) fn next(&mut self, plan: &Plan, now: Instant) -> Result<Option<Together>, PlanError> {
        self.under_way.retain(|_, sent| now.saturating_duration_since(sent.since) < PUB_ACK_WITHIN);
        let Some(&Waiting { number: first, shard, .. }) =
            self.waiting.front().filter(|_| self.under_way.len() < AT_ONCE)
        else {
            return Ok(None);
        };
        let (mut taken, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0);
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.shard != shard {
                left.push_back(waiting);
            } else if taken.is_empty() || (taken.len() < BULK_CHANGES && bytes + waiting.bytes <= BULK_BYTES) {
                bytes += waiting.bytes;
                taken.push(waiting);
            } else {
                self.waiting.push_front(waiting);
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        let numbers = taken.iter().map(|waiting| waiting.number).collect();
        self.under_way.insert(first, UnderWay { since: now, numbers });
        let (subject, payload) = message(plan, shard, taken)?;
        Ok(Some(Together { first, subject, payload }))
    }

    /// The answer to a message came: the numbers of the changes in it. None if it is not under way.
    pub(super) fn answered(&mut self, first: u64) -> Option<Vec<u64>> {
        self.under_way.remove(&first).map(|sent| sent.numbers)
    }

    /// Gives up on all that waits or is under way.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
        self.under_way.clear();
    }
}

/// Where changes of a shard are published, and what: together, or one that found no company by itself.
fn message(plan: &Plan, shard: Shard, taken: Vec<Waiting>) -> Result<(String, Bytes), PlanError> {
    if let [alone] = &taken[..] {
        return plan.message(alone.profile, &alone.change);
    }
    let part = |waiting: Waiting| {
        let user = plan.profile(waiting.profile)?.user.as_str().to_owned();
        Some(BulkChange { user, change: waiting.change.into() })
    };
    let changes = taken.into_iter().filter_map(part).collect();
    Ok((plan.bulk_subject(shard), encode(&Bulk { changes }, plan.encoding())?.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use roam_schemas::{Encoding, Tenant, decode, subjects};

    use super::*;

    fn plan() -> Plan {
        Plan::new(Tenant::parse("bench").unwrap(), 64, 0, 128, Encoding::Postcard).unwrap()
    }

    fn with(shards: u16, plan: &Plan, changes: u64) -> Bulks {
        let mut bulks = Bulks::new(Shards::new(shards).unwrap());
        for number in 0..changes {
            let (profile, change) = plan.change(number).unwrap();
            bulks.add(plan, number, profile, change);
        }
        bulks
    }

    #[test]
    fn four_bulks_are_under_way_and_an_answer_makes_room_for_one_more() {
        let plan = plan();
        let mut bulks = with(1, &plan, 300);
        let now = Instant::now();
        let sent: Vec<_> = std::iter::from_fn(|| bulks.next(&plan, now).unwrap()).collect();
        assert_eq!(sent.iter().map(|together| together.first).collect::<Vec<_>>(), [0, 64, 128, 192]);
        assert_eq!(bulks.answered(64), Some((64..128).collect()));
        assert_eq!(bulks.answered(64), None, "it is answered once");
        let last = bulks.next(&plan, now).unwrap().unwrap();
        let Bulk { changes } = decode(&last.payload, Encoding::Postcard).unwrap();
        assert_eq!((last.first, changes.len()), (256, 300 - 256));
        assert!(bulks.next(&plan, now).unwrap().is_none(), "nothing waits");
    }

    #[test]
    fn what_gets_no_answer_does_not_hold_up_others_for_ever() {
        let plan = plan();
        let mut bulks = with(1, &plan, 300);
        let sent = Instant::now();
        while bulks.next(&plan, sent).unwrap().is_some() {}
        assert!(bulks.next(&plan, sent + PUB_ACK_WITHIN / 2).unwrap().is_none(), "four are under way");
        let next = bulks.next(&plan, sent + PUB_ACK_WITHIN).unwrap();
        assert_eq!(next.map(|together| together.first), Some(256));
    }

    #[test]
    fn nothing_is_left_of_what_was_given_up() {
        let plan = plan();
        let mut bulks = with(1, &plan, 300);
        let now = Instant::now();
        while bulks.next(&plan, now).unwrap().is_some() {}
        bulks.give_up();
        assert!(bulks.next(&plan, now).unwrap().is_none(), "nothing waits");
        let (profile, change) = plan.change(300).unwrap();
        bulks.add(&plan, 300, profile, change);
        assert_eq!(bulks.next(&plan, now).unwrap().map(|together| together.first), Some(300));
    }

    #[test]
    fn a_bulk_holds_changes_of_one_shard_and_none_is_left_out() {
        let plan = plan();
        let mut bulks = with(4, &plan, 500);
        let mut found = HashSet::new();
        while let Some(Together { first, subject, payload }) = bulks.next(&plan, Instant::now()).unwrap() {
            let numbers = bulks.answered(first).unwrap();
            let shards: HashSet<_> = numbers
                .iter()
                .map(|number| bulks.shards.of_profile(plan.profile(plan.change(*number).unwrap().0).unwrap()))
                .collect();
            assert_eq!(shards.len(), 1);
            let shard = *shards.iter().next().unwrap();
            if numbers.len() > 1 {
                assert_eq!(subject, plan.bulk_subject(shard));
                assert!(subjects::parse_bulk(Shard::ONLY, &subject).is_ok());
                let Bulk { changes } = decode(&payload, Encoding::Postcard).unwrap();
                assert_eq!(changes.len(), numbers.len());
            }
            numbers.into_iter().for_each(|number| assert!(found.insert(number)));
        }
        assert_eq!(found.len(), 500);
    }

    #[test]
    fn a_change_that_finds_no_company_goes_by_itself() {
        let plan = plan();
        let mut bulks = with(1, &plan, 1);
        let Together { first, subject, payload } = bulks.next(&plan, Instant::now()).unwrap().unwrap();
        let (profile, change) = plan.change(0).unwrap();
        assert_eq!((subject, payload), plan.message(profile, &change).unwrap());
        assert_eq!(bulks.answered(first), Some(vec![0]));
    }

    #[test]
    fn large_changes_have_little_company_and_larger_ones_none() {
        let of =
            |value_bytes| Plan::new(Tenant::parse("bench").unwrap(), 4, 0, value_bytes, Encoding::Postcard).unwrap();
        let plan = of(60_000);
        let mut bulks = with(1, &plan, 5);
        assert_eq!(bulks.next(&plan, Instant::now()).unwrap().map(|together| together.first), Some(0));
        assert_eq!(bulks.answered(0), Some(vec![0, 1, 2, 3]));
        for (value_bytes, small) in [(60_000, true), (70_000, false)] {
            let plan = of(value_bytes);
            assert_eq!(is_small(&plan, &plan.change(0).unwrap().1), small, "{value_bytes}");
        }
    }
}
