//! Notices may be lost, repeated or reordered on the way, and a connection may break: a watch notices, and fetches what is
//! missing. It tells every revision in order and once, or a state that includes it.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roam_client::{
    ClientSettings, Encoding, Event, Operation, ProfileClient, Record, Revision, Select, State, Watch, WatchFrom,
};
use roam_schemas::{Change, ChangeId, encode, subjects};
use roam_tests::{Fate, Frame, PATIENCE, Side, World, app, device, dice, envelope, eventually, key, profile, text};
use tokio::time::timeout;

/// What a device holds that believes its watch.
#[derive(Default)]
struct Mirror {
    revision: Revision,
    records: BTreeMap<String, String>,
    /// How often it was told a state instead of a revision.
    states: usize,
}

impl Mirror {
    /// Follows until the profile has come to a revision.
    async fn follow(&mut self, watch: &mut Watch, until: Revision) {
        while self.revision < until {
            let event = timeout(PATIENCE, watch.next()).await.expect("an event comes").unwrap();
            match event {
                Event::Revision { revision, records, .. } => {
                    assert_eq!(Some(revision), self.revision.next(), "in order and once");
                    self.hold(revision, &records);
                }
                Event::State { head, records, .. } => {
                    assert!(head > self.revision, "nothing is told twice");
                    self.states += 1;
                    self.hold(head, &records);
                }
                Event::Reset => panic!("nothing was reset"),
            }
        }
        assert_eq!(self.revision, until);
    }

    fn hold(&mut self, head: Revision, records: &[Record]) {
        let mut keys = HashSet::new();
        for record in records {
            assert!(self.revision < record.revision && record.revision <= head, "{record:?} up to {head}");
            assert!(keys.insert(&record.key), "{} comes twice", record.key);
            match &record.state {
                State::Value(stored) => {
                    self.records.insert(record.key.as_str().to_owned(), stored.value.as_text().unwrap().to_owned());
                }
                _ => drop(self.records.remove(record.key.as_str())),
            }
        }
        self.revision = head;
    }

    /// Holds this against what the replicas hold.
    async fn compare(&self, profile: &ProfileClient) {
        let request = roam_client::LatestRequest { select: Select::All, ..Default::default() };
        let reply = profile.latest(request).await.unwrap();
        let held = reply.records.iter().map(|record| {
            let State::Value(stored) = &record.state else { panic!("{record:?}") };
            (record.key.as_str().to_owned(), stored.value.as_text().unwrap().to_owned())
        });
        assert_eq!(self.records, held.collect());
        assert_eq!(self.revision, reply.head);
    }
}

fn is_notice(frame: &Frame) -> bool {
    frame.to == Side::Client && frame.subject.starts_with("roam.v1.notice.")
}

async fn put(profile: &ProfileClient, name: &str, value: &str) -> Revision {
    profile.put(key(name), value, text()).await.unwrap().revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_whatever_happens_to_the_notices() {
    let mut dice = dice();
    let writers_dice = [(); 2].map(|()| StdRng::from_rng(&mut dice));
    let world = World::new().start().await;
    let writers = ["laptop", "tablet"].map(|name| world.device("acme", "alice", name));
    let writers = join_all(writers).await.into_iter().map(|client| client.profile(app("editor")));
    let wire = world.wire().await;
    let phone = world.device_on(&wire, "acme", "alice", "phone").await.profile(app("editor"));
    let mut watch = phone.watch(WatchFrom::Beginning).await.unwrap();
    wire.judge(move |frame| match dice.random_range(0..100) {
        _ if !is_notice(frame) => Fate::Pass,
        0..40 => Fate::Pass,
        40..70 => Fate::Drop,
        70..85 => Fate::Twice,
        _ => Fate::Hold,
    });

    let write = async |(writer, (profile, mut dice)): (usize, (ProfileClient, StdRng))| {
        for number in 0..150 {
            let name = format!("key-{}", dice.random_range(0..10));
            if dice.random_bool(0.1) {
                profile.delete(key(&name)).await.unwrap();
            } else {
                put(&profile, &name, &format!("{writer}/{number}")).await;
            }
            if dice.random_bool(0.1) {
                wire.release().await;
            }
        }
    };
    let writing = async {
        join_all(writers.zip(writers_dice).enumerate().map(write)).await;
        wire.pass_all();
        wire.release().await;
        // The notice after the last that was lost: it shows that there was one.
        put(&phone, "end", "1").await
    };
    let mut mirror = Mirror::default();
    let (last, ()) = tokio::join!(writing, mirror.follow(&mut watch, Revision::new(301)));
    assert_eq!(last, Revision::new(301));
    mirror.compare(&phone).await;
    assert!(wire.dropped() > 30 && mirror.states > 0, "{} notices lost, {} states", wire.dropped(), mirror.states);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_closed_by_the_state_and_then_the_notices_count_again() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let wire = world.wire().await;
    let phone = world.device_on(&wire, "acme", "alice", "phone").await.profile(app("editor"));
    let (mut watch, mut mirror) = (phone.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    put(&laptop, "a", "1").await;
    mirror.follow(&mut watch, Revision::new(1)).await;
    let before = mirror.states;
    wire.judge(|frame| if is_notice(frame) { Fate::Drop } else { Fate::Pass });
    put(&laptop, "a", "2").await;
    put(&laptop, "b", "1").await;
    eventually("both notices are lost", async || (wire.dropped() == 2).then_some(())).await;
    wire.pass_all();
    put(&laptop, "c", "1").await;
    mirror.follow(&mut watch, Revision::new(4)).await;
    assert_eq!(mirror.states, before + 1, "one state for the gap");
    put(&laptop, "d", "1").await;
    mirror.follow(&mut watch, Revision::new(5)).await;
    assert_eq!(mirror.states, before + 1, "a notice for what followed");
    mirror.compare(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_notice_that_is_lost_is_found_missing_by_the_check() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let wire = world.wire().await;
    let phone = world.device_on(&wire, "acme", "alice", "phone").await.profile(app("editor"));
    let (mut watch, mut mirror) = (phone.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    wire.judge(|frame| if is_notice(frame) { Fate::Drop } else { Fate::Pass });
    put(&laptop, "a", "1").await;
    mirror.follow(&mut watch, Revision::new(1)).await;
    assert_eq!((mirror.states, wire.dropped()), (1, 1));
    mirror.compare(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_connection_was_down_is_told_once_it_stands_again() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let wire = world.wire().await;
    let phone = world.device_on(&wire, "acme", "alice", "phone").await.profile(app("editor"));
    let (mut watch, mut mirror) = (phone.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    for round in 0..5 {
        let before = Revision::new(4 * round);
        put(&laptop, "a", &round.to_string()).await;
        mirror.follow(&mut watch, before.next().unwrap()).await;
        wire.cut();
        put(&laptop, "b", &round.to_string()).await;
        laptop.delete(key("a")).await.unwrap();
        let head = put(&laptop, "c", &round.to_string()).await;
        wire.mend();
        // Nothing is announced any more, so the watch itself has to look.
        mirror.follow(&mut watch, head).await;
    }
    assert!(mirror.states >= 5);
    mirror.compare(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_the_server_and_the_replica() {
    let mut world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let (mut watch, mut mirror) = (phone.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    put(&laptop, "a", "1").await;
    mirror.follow(&mut watch, Revision::new(1)).await;
    world.nats.kill().await.unwrap();
    world.replicas[0].stop().await;
    world.nats.restart().await.unwrap();
    world.replicas[0].start().await;
    put(&laptop, "a", "2").await;
    mirror.follow(&mut watch, Revision::new(2)).await;
    mirror.compare(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_steered_onto_notices_and_receipts_is_dropped() {
    let world = World::new().start().await;
    let phone = world.device("acme", "alice", "phone").await;
    let editor = phone.profile(app("editor"));
    let (mut watch, mut mirror) = (editor.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    assert_eq!(put(&editor, "a", "1").await, Revision::new(1));
    mirror.follow(&mut watch, Revision::new(1)).await;
    let before = mirror.states;
    let post = world.post("acme", "mallory", "laptop").await;
    let victims = [
        subjects::notice(&profile("acme/alice/editor")),
        subjects::receipt(&profile("acme/alice/editor"), &device("phone")),
    ];
    for victim in &victims {
        let mut mailbox = post.listen(victim.clone()).await;
        let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("k"), "v", text())]).unwrap();
        let subject = subjects::change(&profile("acme/mallory/editor"), &device("laptop"));
        let payload = encode(&change, Encoding::Json).unwrap().into();
        post.bus.send_with_reply(subject, victim.clone(), envelope(Encoding::Json), payload).await.unwrap();
        let steered = mailbox.next().await;
        assert!(steered.headers.is_empty() && steered.payload.starts_with(b"{\"stream\":"), "a PubAck: {steered:?}");
    }
    assert_eq!(put(&editor, "a", "2").await, Revision::new(2));
    mirror.follow(&mut watch, Revision::new(2)).await;
    assert_eq!(mirror.states, before, "by its notice");
    assert_eq!(phone.receipt_counts().foreign, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_in_an_encoding_that_the_watch_does_not_speak_makes_it_fetch() {
    let world = World::new().start().await;
    let wire = world.wire().await;
    let phone = world.device_on(&wire, "acme", "alice", "phone").await.profile(app("editor"));
    let (mut watch, mut mirror) = (phone.watch(WatchFrom::Now).await.unwrap(), Mirror::default());
    // As of a later version: with our header, and not decodable.
    let post = world.post("acme", "alice", "laptop").await;
    let json = ClientSettings { encoding: Encoding::Json, ..world.client_settings() };
    let laptop = world.connect(json, phone_identity()).await.profile(app("editor"));
    wire.judge(|frame| if is_notice(frame) { Fate::Drop } else { Fate::Pass });
    put(&laptop, "a", "1").await;
    eventually("the notice is lost", async || (wire.dropped() == 1).then_some(())).await;
    wire.pass_all();
    let headers = envelope(Encoding::Postcard).with(roam_schemas::headers::REVISION, "1");
    let subject = subjects::notice(&profile("acme/alice/editor"));
    post.bus.send(subject, headers, b"\xffa notice of the future"[..].to_vec().into()).await.unwrap();
    mirror.follow(&mut watch, Revision::new(1)).await;
    assert_eq!(mirror.states, 1);
}

fn phone_identity() -> roam_client::Identity {
    roam_client::Identity::Device {
        tenant: roam_tests::tenant("acme"),
        user: roam_tests::user("alice"),
        device: device("tablet"),
    }
}
