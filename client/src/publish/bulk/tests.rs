//! What goes together, and when.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use roam_schemas::{ContentType, Device, Key, Operation, Profile, User, decode};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::super::table::Entry;
use super::super::timeline::{Patience, Timeline};
use super::*;

const ENCODING: Encoding = Encoding::Postcard;

struct World {
    bulks: Bulks,
    window: Arc<Semaphore>,
}

impl World {
    fn of(shards: u16) -> Self {
        let (tenant, name) = (Tenant::parse("acme").unwrap(), ServiceName::parse("hr").unwrap());
        let bulks = Bulks::new(tenant, name, Shards::new(shards).unwrap());
        Self { bulks, window: Arc::new(Semaphore::new(10_000)) }
    }

    /// Adds a change of so many bytes, more or less.
    fn add(&mut self, user: &str, app: &str, bytes: usize) -> (Arc<Lane>, ChangeId) {
        let profile = Profile {
            tenant: Tenant::parse("acme").unwrap(),
            user: User::parse(user).unwrap(),
            app: App::parse(app).unwrap(),
        };
        let device = Device::service(&ServiceName::parse("hr").unwrap());
        let lane = Arc::new(Lane::new(profile, &device, 8));
        let op = Operation::put(Key::parse("k").unwrap(), vec![0; bytes], ContentType::octets());
        let change = Change::new(ChangeId::random(), None, vec![op]).unwrap();
        let id = change.id();
        let entry = Entry {
            payload: encode(&change, ENCODING).unwrap().into(),
            keys: Box::new([1]),
            timeline: Timeline::new(Instant::now(), Patience::within(Duration::from_secs(9))),
            accepted: None,
            outcome: oneshot::channel().0,
            _permit: Arc::clone(&self.window).try_acquire_owned().unwrap(),
            order: 0,
        };
        lane.register(id, entry).unwrap();
        self.bulks.add(Arc::clone(&lane), id, change);
        (lane, id)
    }

    fn add_many(&mut self, count: usize) -> Vec<(Arc<Lane>, ChangeId)> {
        (0..count).map(|number| self.add(&format!("user{number}"), "mail", 8)).collect()
    }

    /// What is to be sent now.
    fn now(&mut self) -> Vec<Together> {
        std::iter::from_fn(|| self.bulks.next(ENCODING)).collect()
    }
}

fn sizes(sent: &[Together]) -> Vec<usize> {
    sent.iter().map(|together| together.of.len()).collect()
}

#[test]
fn one_alone_leaves_as_it_is_and_at_once() {
    let mut world = World::of(1);
    let (lane, id) = world.add("alice", "mail", 8);
    let sent = world.now();
    assert_eq!(sizes(&sent), [1]);
    assert_eq!((&sent[0].subject, &sent[0].payload), (&lane.change_subject, &lane.payload(id).unwrap()));
}

#[test]
fn what_waits_goes_together_in_its_order_once_a_message_is_answered() {
    let mut world = World::of(1);
    let first = world.add_many(300);
    let sent = world.now();
    assert_eq!(sizes(&sent), [64; 4], "four messages are under way, the rest waits");
    let ids = |of: &[(Arc<Lane>, ChangeId)]| of.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    for (together, expected) in sent.iter().zip(first.chunks(64)) {
        assert_eq!(together.subject, "roam.v1.change.acme.$bulk-0.mail.$svc-hr");
        let bulk: Bulk = decode(&together.payload, ENCODING).unwrap();
        let inside: Vec<_> = bulk.changes.iter().map(|part| part.change.id).collect();
        assert_eq!((ids(&together.of), inside), (ids(expected), ids(expected)));
    }
    assert!(world.now().is_empty());
    world.bulks.answered();
    assert_eq!(sizes(&world.now()), [44]);
}

#[test]
fn a_bulk_is_of_one_app_and_one_shard() {
    let mut world = World::of(4);
    for number in 0..40 {
        world.add(&format!("user{}", number / 2), ["mail", "editor"][number % 2], 8);
    }
    let shards = Shards::new(4).unwrap();
    let of = |lane: &Lane| (shards.of_profile(&lane.profile), lane.profile.app.clone());
    let mut found = 0;
    while found < 40 {
        let together = world.bulks.next(ENCODING).unwrap();
        world.bulks.answered();
        found += together.of.len();
        let (shard, app) = of(&together.of[0].0);
        assert!(together.of.iter().all(|(lane, _)| of(lane) == (shard, app.clone())));
        if together.of.len() > 1 {
            assert_eq!(together.subject, subjects::bulk(shard, &world.bulks.tenant, &app, &world.bulks.name));
        }
    }
    assert!(world.now().is_empty());
}

#[test]
fn a_bulk_is_no_larger_than_it_may_be() {
    let mut world = World::of(1);
    for number in 0..12 {
        world.add(&format!("user{number}"), "mail", LARGE - 100);
    }
    let sent = world.now();
    assert_eq!(sizes(&sent), [4, 4, 4]);
    assert!(sent.iter().all(|together| together.payload.len() <= BULK_BYTES));
    assert!(is_small(LARGE) && !is_small(LARGE + 1));
}

#[test]
fn what_somebody_let_go_of_is_not_sent() {
    let mut world = World::of(1);
    let all = world.add_many(3);
    all[0].0.forget(all[0].1);
    all[2].0.forget(all[2].1);
    let sent = world.now();
    assert_eq!((sizes(&sent), sent[0].of[0].1), (vec![1], all[1].1));
}

#[test]
fn after_a_refusal_each_goes_by_itself_and_none_waits_for_another() {
    let mut world = World::of(1);
    world.bulks.give_up();
    let all = world.add_many(100);
    let sent = world.now();
    assert_eq!(sizes(&sent), [1; 100]);
    assert!(sent.iter().zip(&all).all(|(together, (lane, _))| together.subject == lane.change_subject));
}

#[test]
fn there_is_room_for_so_many() {
    let mut world = World::of(1);
    world.add_many(ROOM - 1);
    assert!(world.bulks.has_room());
    world.add("bob", "mail", 8);
    assert!(!world.bulks.has_room());
}
