//! The table of single steps, and random losses, repetitions and reorderings against a plain model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use roam_schemas::{App, ChangeId, ContentType, Device, Key, State, Stored, Tenant, User, Value};

use super::*;

fn profile() -> Profile {
    Profile {
        tenant: Tenant::parse("acme").unwrap(),
        user: User::parse("alice").unwrap(),
        app: App::parse("mail").unwrap(),
    }
}

fn time_of(revision: u64) -> Timestamp {
    Timestamp::from_nanos(1_000 + revision)
}

fn cursor(revision: u64) -> Cursor {
    Cursor::new(&profile(), Revision::new(revision), time_of(revision))
}

fn follower(revision: u64) -> Follower {
    Follower::new(profile(), Revision::new(revision), time_of(revision))
}

/// A profile whose revision `n` wrote the keys at index `n - 1`.
#[derive(Debug, Clone, Default)]
struct Source {
    written: Vec<Vec<u8>>,
}

impl Source {
    fn head(&self) -> u64 {
        self.written.len() as u64
    }

    fn record(key: u8, revision: u64) -> Record {
        let value = Stored {
            value: Value::new(format!("{key} at {revision}")),
            content_type: ContentType::text(),
            expires: None,
        };
        Record {
            key: Key::parse(key.to_string()).unwrap(),
            revision: Revision::new(revision),
            time: time_of(revision),
            device: Device::parse("laptop").unwrap(),
            conflict: false,
            state: if (u64::from(key) + revision).is_multiple_of(4) { State::Deleted } else { State::Value(value) },
        }
    }

    fn records_of(&self, revision: u64) -> Vec<Record> {
        self.written[usize::try_from(revision).unwrap() - 1].iter().map(|key| Self::record(*key, revision)).collect()
    }

    fn notice(&self, revision: u64, inline: bool) -> Notice {
        let op = |record: Record| NoticeOperation {
            key: record.key,
            conflict: record.conflict,
            state: Some(record.state).filter(|_| inline),
        };
        Notice {
            revision: Revision::new(revision),
            time: time_of(revision),
            device: Device::parse("laptop").unwrap(),
            change: ChangeId::from_bytes([7; 16]),
            ops: self.records_of(revision).into_iter().map(op).collect(),
        }
    }

    /// What the profile held at a revision.
    fn at(&self, revision: u64) -> BTreeMap<Key, Record> {
        let records = (1..=revision).flat_map(|revision| self.records_of(revision));
        records.map(|record| (record.key.clone(), record)).collect()
    }

    /// What a replica that has reached `to` answers to whoever stands at `since`.
    fn delta(&self, since: u64, to: u64) -> Delta {
        let mut records: Vec<Record> = self.at(to).into_values().collect();
        records.retain(|record| record.revision > Revision::new(since));
        records.sort_by_key(|record| record.revision);
        Delta { records, cursor: cursor(to), head: Revision::new(to) }
    }
}

fn source(revisions: u64) -> Source {
    Source { written: (0..revisions).map(|number| vec![u8::try_from(number % 3).unwrap()]).collect() }
}

/// A follower at revision 2 that lacks nothing.
fn up_to_date() -> Follower {
    let mut follower = follower(2);
    assert_eq!(follower.delta(source(2).delta(2, 2)).unwrap(), None);
    assert_eq!(follower.wanted(), None);
    follower
}

#[test]
fn a_notice_is_delivered_only_if_it_is_the_next_one_and_complete() {
    let source = source(6);
    // The revision of the notice, whether it has its values; whether it is delivered, and what is wanted then.
    let cases = [(1, true, false, None), (2, true, false, None), (3, true, true, None), (3, false, false, Some(3))];
    let gaps = [(4, true, false, Some(4)), (6, false, false, Some(6))];
    for (revision, inline, delivered, wanted) in cases.into_iter().chain(gaps) {
        let mut follower = up_to_date();
        let event = follower.notice(source.notice(revision, inline));
        assert_eq!(event.is_some(), delivered, "revision {revision}, {inline}");
        assert_eq!(follower.wanted(), wanted.map(Revision::new), "revision {revision}, {inline}");
    }
}

#[test]
fn the_event_of_a_notice_has_all_that_the_notice_says() {
    let source = source(3);
    let event = up_to_date().notice(source.notice(3, true)).unwrap();
    let expected = Event::Revision {
        revision: Revision::new(3),
        time: time_of(3),
        device: Device::parse("laptop").unwrap(),
        change: Some(ChangeId::from_bytes([7; 16])),
        records: source.records_of(3),
        cursor: cursor(3),
    };
    assert_eq!(event, expected);
}

#[test]
fn a_new_follower_fetches_before_it_listens() {
    let mut follower = follower(2);
    assert_eq!(follower.wanted(), Some(Revision::new(2)));
    assert_eq!(follower.notice(source(3).notice(3, true)), None);
    assert_eq!(follower.wanted(), Some(Revision::new(3)));
}

#[test]
fn a_notice_that_cannot_be_read_makes_it_fetch_up_to_there() {
    let mut follower = up_to_date();
    follower.unreadable(Revision::new(2));
    assert_eq!(follower.wanted(), None);
    follower.unreadable(Revision::new(5));
    assert_eq!(follower.wanted(), Some(Revision::new(5)));
    follower.behind();
    assert_eq!(follower.wanted(), Some(Revision::new(2)), "what nobody has is not waited for");
}

#[test]
fn a_delta_with_nothing_new_is_no_event_and_an_older_one_is_not_believed() {
    let source = source(4);
    let mut follower = up_to_date();
    follower.doubt();
    assert_eq!(follower.delta(source.delta(0, 1)).unwrap(), None);
    assert_eq!(follower.wanted(), Some(Revision::new(2)));
    assert_eq!(follower.delta(source.delta(0, 2)).unwrap(), None);
    assert_eq!(follower.wanted(), None);
    follower.unreadable(Revision::new(4));
    let event = follower.delta(source.delta(0, 3)).unwrap().unwrap();
    let expected = Event::State { records: source.records_of(3), head: Revision::new(3), cursor: cursor(3) };
    assert_eq!(event, expected, "only what is new");
    assert_eq!(follower.wanted(), Some(Revision::new(4)), "still to be fetched");
}

#[test]
fn the_whole_profile_after_a_reset_is_delivered_whole_and_never_older() {
    let source = source(4);
    let mut follower = up_to_date();
    follower.doubt();
    assert_eq!(follower.whole(source.delta(0, 1)).unwrap(), None);
    let event = follower.whole(source.delta(0, 4)).unwrap().unwrap();
    assert!(matches!(event, Event::State { records, .. } if records == source.delta(0, 4).records));
    assert_eq!((follower.cursor(), follower.wanted()), (cursor(4), None));
}

#[test]
fn a_delta_of_another_profile_is_refused() {
    let other = Profile { app: App::parse("other").unwrap(), ..profile() };
    let delta = Delta { cursor: Cursor::new(&other, Revision::new(9), time_of(9)), ..source(9).delta(0, 9) };
    assert!(up_to_date().delta(delta.clone()).is_err());
    assert!(up_to_date().whole(delta).is_err());
}

/// What happens on the way.
#[derive(Debug, Clone)]
enum Step {
    /// A change to these keys is applied; its notice may be delivered later, more than once, or never.
    Write(Vec<u8>),
    /// One of the notices so far reaches the watcher, with or without its values.
    Notice(prop::sample::Index, bool),
    /// One of the notices so far reaches it in an encoding that it does not read.
    Unreadable(prop::sample::Index),
    /// It was told of a lost connection, or its clock ran out.
    Doubt,
    /// A replica that has reached any revision answers to where the watcher stands, or stood; perhaps with the whole.
    Delta { since: prop::sample::Index, to: prop::sample::Index, reset: bool },
    /// A replica that keeps to what is wanted answers.
    Repair { to: prop::sample::Index },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::btree_set(0_u8..6, 1..3).prop_map(|keys| Step::Write(keys.into_iter().collect())),
        6 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8)).prop_map(|(at, inline)| Step::Notice(at, inline)),
        1 => any::<prop::sample::Index>().prop_map(Step::Unreadable),
        1 => Just(Step::Doubt),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::bool::weighted(0.2))
            .prop_map(|(since, to, reset)| Step::Delta { since, to, reset }),
        2 => any::<prop::sample::Index>().prop_map(|to| Step::Repair { to }),
    ];
    prop::collection::vec(step, 0..120)
}

/// A watcher that keeps what it is told, and checks it against the source.
struct Watcher {
    follower: Follower,
    told: u64,
    holds: BTreeMap<Key, Record>,
}

impl Watcher {
    fn hear(&mut self, source: &Source, event: Option<Event>, reset: bool) {
        let (revision, records, at) = match event {
            None => return,
            Some(Event::Revision { revision, records, cursor, .. }) => {
                assert_eq!(revision.get(), self.told + 1, "in order and once");
                assert_eq!(records, source.records_of(revision.get()));
                (revision.get(), records, cursor)
            }
            Some(Event::State { records, head, cursor }) => {
                assert!(head.get() >= self.told, "never back");
                let new = |record: &Record| record.revision.get() > self.told;
                assert!(reset || records.iter().all(new), "nothing twice");
                assert!(reset || head.get() > self.told, "no event without news");
                (head.get(), records, cursor)
            }
            Some(Event::Reset) => unreachable!("the shell says that"),
        };
        assert_eq!(at, cursor(revision));
        self.told = revision;
        if reset {
            self.holds.clear();
        }
        self.holds.extend(records.into_iter().map(|record| (record.key.clone(), record)));
        assert_eq!(self.holds, source.at(revision), "what it holds is what there was at {revision}");
    }

    fn step(&mut self, source: &mut Source, step: Step) {
        let pick = |index: prop::sample::Index, from: u64, to: u64| {
            from + index.index(usize::try_from(to - from + 1).unwrap()) as u64
        };
        let head = source.head();
        match step {
            Step::Write(keys) => source.written.push(keys),
            Step::Notice(at, inline) if head > 0 => {
                let revision = pick(at, 1, head);
                let event = self.follower.notice(source.notice(revision, inline));
                let missing = event.is_none() && revision > self.told;
                assert!(!missing || self.follower.wanted() >= Some(Revision::new(revision)), "a gap is noticed");
                self.hear(source, event, false);
            }
            Step::Unreadable(at) if head > 0 => self.follower.unreadable(Revision::new(pick(at, 1, head))),
            Step::Notice(..) | Step::Unreadable(_) => {}
            Step::Doubt => self.follower.doubt(),
            Step::Delta { since, to, reset: false } => {
                let delta = source.delta(pick(since, 0, self.told), pick(to, 0, head));
                let event = self.follower.delta(delta).unwrap();
                self.hear(source, event, false);
            }
            Step::Delta { to, reset: true, .. } => {
                let event = self.follower.whole(source.delta(0, pick(to, 0, head))).unwrap();
                self.hear(source, event, true);
            }
            Step::Repair { to } => {
                let Some(wanted) = self.follower.wanted() else { return };
                let event = self.follower.delta(source.delta(self.told, pick(to, wanted.get(), head))).unwrap();
                assert_eq!(self.follower.wanted(), None);
                self.hear(source, event, false);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_revision_is_delivered_in_order_and_once_or_a_state_that_includes_it(steps in steps()) {
        let mut source = Source::default();
        let mut watcher = Watcher { follower: follower(0), told: 0, holds: BTreeMap::new() };
        for step in steps {
            watcher.step(&mut source, step);
        }
        // Faults end: one check brings it to the head, and the next notice counts by itself.
        watcher.follower.doubt();
        let event = watcher.follower.delta(source.delta(watcher.told, source.head())).unwrap();
        watcher.hear(&source, event, false);
        prop_assert_eq!(watcher.told, source.head());
        source.written.push(vec![1]);
        let event = watcher.follower.notice(source.notice(source.head(), true));
        prop_assert!(matches!(event, Some(Event::Revision { .. })), "the next notice is a revision of its own");
        watcher.hear(&source, event, false);
    }
}
