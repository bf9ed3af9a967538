//! Following a profile over a real bus, with a stand-in for the services that loses what may be lost.

use std::collections::BTreeMap;

use crate::support::{World, app, device, key, profile, service, soon, user};
use futures_util::StreamExt;
use roam_client::{
    Client, ContentType, Cursor, Event, Profile, ProfileClient, ReadError, Record, Revision, State, Timestamp, Watch,
    WatchError, WatchFrom,
};
use roam_nats::Headers;
use roam_schemas::subjects;

/// A profile that is written by a service and followed by a device.
struct Followed {
    writer: ProfileClient,
    reader: ProfileClient,
    client: Client,
}

impl Followed {
    async fn of(world: &World) -> Followed {
        let writer = Client::connect(world.settings(), service()).await.unwrap().profile_of(user(), app("mail"));
        let client = Client::connect(world.settings(), device()).await.unwrap();
        Followed { writer, reader: client.profile(app("mail")), client }
    }

    async fn write(&self, name: &str, value: &str) -> Revision {
        soon(self.writer.put(key(name), value, ContentType::text())).await.unwrap().revision
    }

    async fn watch(&self, from: WatchFrom) -> Watch {
        soon(self.reader.watch(from)).await.unwrap()
    }
}

fn values(records: &[Record]) -> BTreeMap<String, String> {
    let value = |record: &Record| match &record.state {
        State::Value(stored) => (record.key.to_string(), stored.value.as_text().unwrap().to_owned()),
        state => (record.key.to_string(), format!("{state:?}")),
    };
    records.iter().map(value).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Demands the next event to be a revision, and gives what it wrote.
async fn revision(watch: &mut Watch, expected: u64) -> BTreeMap<String, String> {
    match soon(watch.next()).await.unwrap() {
        Event::Revision { revision, records, device, change, cursor, .. } => {
            assert_eq!((revision.get(), device.as_str()), (expected, "$svc-directory"));
            assert_eq!((cursor, change.is_some()), (watch.cursor(), true));
            values(&records)
        }
        event => panic!("{event:?} instead of revision {expected}"),
    }
}

/// Gives what is new, where the first check of a watch may come before the notice on a machine that has much to do.
async fn news(watch: &mut Watch) -> BTreeMap<String, String> {
    match soon(watch.next()).await.unwrap() {
        Event::Revision { records, .. } | Event::State { records, .. } => values(&records),
        Event::Reset => panic!("a reset"),
    }
}

/// Demands the next event to be a state, and gives what changed.
async fn state(watch: &mut Watch, expected: u64) -> BTreeMap<String, String> {
    match soon(watch.next()).await.unwrap() {
        Event::State { records, head, cursor } => {
            assert_eq!((head.get(), cursor), (expected, watch.cursor()));
            values(&records)
        }
        event => panic!("{event:?} instead of a state up to {expected}"),
    }
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    followed.write("a", "1").await;
    let cursor = soon(followed.reader.changes(None)).await.unwrap().cursor;
    followed.write("b", "2").await;

    let mut beginning = followed.watch(WatchFrom::Beginning).await;
    let mut resumed = followed.watch(WatchFrom::Cursor(cursor)).await;
    let mut now = followed.watch(WatchFrom::Now).await;
    assert_eq!(state(&mut beginning, 2).await, pairs([("a", "1"), ("b", "2")]));
    assert_eq!(state(&mut resumed, 2).await, pairs([("b", "2")]));

    followed.write("a", "3").await;
    assert_eq!(news(&mut now).await, pairs([("a", "3")]));
    for watch in [&mut beginning, &mut resumed] {
        assert_eq!(news(watch).await, pairs([("a", "3")]));
    }
    assert_eq!(followed.reader.seen(), Revision::new(3));
    soon(followed.writer.delete(key("b"))).await.unwrap();
    assert_eq!(news(&mut now).await, pairs([("b", "Deleted")]));
}

#[tokio::test]
async fn a_lost_notice_is_noticed_at_the_next_one() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    let mut watch = up_to_date(&followed).await;
    world.system().lose_notices = 2;
    followed.write("a", "2").await;
    followed.write("b", "3").await;
    followed.write("a", "4").await;
    assert_eq!(state(&mut watch, 4).await, pairs([("a", "4"), ("b", "3")]));
    followed.write("c", "5").await;
    assert_eq!(revision(&mut watch, 5).await, pairs([("c", "5")]));
}

#[tokio::test]
async fn a_lost_last_notice_is_found_by_the_check() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    followed.write("a", "1").await;
    let mut watch = followed.watch(WatchFrom::Beginning).await;
    assert_eq!(state(&mut watch, 1).await, pairs([("a", "1")]));
    world.system().lose_notices = 1;
    followed.write("b", "2").await;
    assert_eq!(state(&mut watch, 2).await, pairs([("b", "2")]));
}

#[tokio::test]
async fn what_a_notice_does_not_tell_is_fetched() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    let mut watch = up_to_date(&followed).await;
    world.system().bare_notices = true;
    followed.write("b", "2").await;
    assert_eq!(state(&mut watch, 2).await, pairs([("b", "2")]));
    world.system().strange_notices = true;
    followed.write("c", "3").await;
    assert_eq!(state(&mut watch, 3).await, pairs([("c", "3")]));
}

#[tokio::test]
async fn repeated_notices_and_those_without_our_header_are_no_events() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    let mut watch = up_to_date(&followed).await;
    let mut copies = world.bus.subscribe(subjects::notice(&profile("mail"))).await.unwrap();
    followed.write("b", "2").await;
    let copy = soon(copies.next()).await.unwrap();
    world.say(copy.subject.clone(), copy.headers, copy.payload).await;
    world.say(copy.subject, Headers::new(), r#"{"stream":"ROAM_CHANGES","seq":9}"#).await;
    followed.write("c", "3").await;
    assert_eq!(news(&mut watch).await, pairs([("b", "2")]));
    assert_eq!(news(&mut watch).await, pairs([("c", "3")]));
}

#[tokio::test]
async fn what_happened_while_the_connection_was_lost_comes_as_a_state() {
    let mut world = World::running().await;
    let followed = Followed::of(&world).await;
    let mut watch = up_to_date(&followed).await;
    world.server.kill().await.unwrap();
    // The receipt and the notice of what is decided now are lost with the connection, or not; the state is not.
    world.system().lose_notices = 1;
    let write = soon(followed.writer.submit(one("b", "2"))).await.unwrap();
    world.server.restart().await.unwrap();
    soon(write.receipt()).await.unwrap();
    assert_eq!(state(&mut watch, 2).await, pairs([("b", "2")]));
    followed.write("c", "3").await;
    assert_eq!(news(&mut watch).await, pairs([("c", "3")]));
}

#[tokio::test]
async fn a_cursor_that_is_too_old_is_answered_with_a_reset_and_the_whole() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    followed.write("a", "1").await;
    let cursor = soon(followed.reader.changes(None)).await.unwrap().cursor;
    followed.write("b", "2").await;
    world.system().horizon = 2;
    assert_eq!(soon(followed.reader.changes(Some(cursor))).await, Err(ReadError::Reset));
    let mut watch = followed.watch(WatchFrom::Cursor(cursor)).await;
    assert_eq!(soon(watch.next()).await.unwrap(), Event::Reset);
    assert_eq!(watch.cursor(), cursor, "nothing of it was told yet");
    assert_eq!(state(&mut watch, 2).await, pairs([("a", "1"), ("b", "2")]));
}

#[tokio::test]
async fn a_watch_is_never_led_back_by_a_replica_that_is_behind() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    let mut watch = up_to_date(&followed).await;
    world.system().lose_notices = 1;
    followed.write("b", "2").await;
    world.system().stale_answers = 2;
    followed.write("c", "3").await;
    assert_eq!(state(&mut watch, 3).await, pairs([("b", "2"), ("c", "3")]));
}

#[tokio::test]
async fn a_watch_of_a_closed_client_ends_and_one_of_another_profile_does_not_begin() {
    let world = World::running().await;
    let followed = Followed::of(&world).await;
    let other = Profile { app: app("other"), ..profile("mail") };
    let strange = Cursor::new(&other, Revision::new(1), Timestamp::from_nanos(1));
    let error = soon(followed.reader.watch(WatchFrom::Cursor(strange))).await.unwrap_err();
    assert!(matches!(error, ReadError::Invalid(_)), "{error:?}");

    followed.write("a", "1").await;
    let mut events = std::pin::pin!(followed.watch(WatchFrom::Beginning).await.into_stream());
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::State { .. }))));
    soon(followed.client.close()).await;
    assert_eq!(soon(events.next()).await, Some(Err(WatchError::Closed)));
    assert_eq!(soon(events.next()).await, None);
}

/// A watch that has revision 1.
async fn up_to_date(followed: &Followed) -> Watch {
    followed.write("a", "1").await;
    let mut watch = followed.watch(WatchFrom::Beginning).await;
    assert_eq!(state(&mut watch, 1).await, pairs([("a", "1")]));
    watch
}

fn one(name: &str, value: &str) -> roam_client::Change {
    let op = roam_client::Operation::put(key(name), value, ContentType::text());
    roam_client::Change::new(roam_client::ChangeId::random(), None, vec![op]).unwrap()
}
