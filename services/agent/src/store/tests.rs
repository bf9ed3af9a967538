//! What is known after a restart, and what replaces it.
#![allow(clippy::unwrap_used)]

use roam_schemas::{
    App, Chunk, ContentHash, ContentType, Device, Profile, State, Stored, Tenant, Timestamp, User, Value,
};

use super::*;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn record(name: &str, revision: u64, value: Option<&str>) -> Record {
    let stored = |text: &str| Stored { value: Value::new(text), content_type: ContentType::text(), expires: None };
    Record {
        key: key(name),
        revision: Revision::new(revision),
        time: Timestamp::default(),
        device: Device::parse("phone").unwrap(),
        conflict: false,
        state: value.map_or(State::Deleted, |text| State::Value(stored(text))),
    }
}

fn cursor(revision: u64) -> Cursor {
    let profile = Profile {
        tenant: Tenant::parse("acme").unwrap(),
        user: User::parse("alice").unwrap(),
        app: App::parse("a").unwrap(),
    };
    Cursor::new(&profile, Revision::new(revision), Timestamp::default())
}

#[test]
fn what_was_heard_and_agreed_on_is_known_after_a_restart_and_apps_are_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.redb");
    let mut known = Known::default();
    {
        let store = Store::open(&path).unwrap();
        let records = [record("k", 3, Some("new")), record("gone", 2, None)];
        store.hear("a", &mut known, &records, cursor(3), false).unwrap();
        store.hear("a", &mut known, &[record("k", 1, Some("old"))], cursor(3), false).unwrap();
        let agreed = |name: &str, value: Option<&str>, written| Agreed {
            key: key(name),
            value: value.map(|text| Content::Whole(text.as_bytes().to_vec())),
            written,
        };
        let of = vec![agreed("k", Some("new"), None), agreed("mine", Some("x"), Some((key("mine"), Revision::new(4))))];
        store.agree("a", &mut known, of).unwrap();
        let parked = Parked { digest: None, reason: "too_large".to_owned() };
        store.park("a", &mut known, key("big"), parked).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let again = store.known("a").unwrap();
    assert_eq!((&again.base, &again.remote, &again.parked), (&known.base, &known.remote, &known.parked));
    assert_eq!(again.cursor, Some(cursor(3)));
    assert_eq!(again.remote[&key("mine")].revision, Revision::new(4));
    assert_eq!(store.remote("a", &key("k")).unwrap(), Some(Content::Whole(b"new".to_vec())));
    for other in ["", "A", "b", "a\0"] {
        let known = store.known(other).unwrap();
        assert!(known.base.is_empty() && known.remote.is_empty() && known.cursor.is_none(), "{other:?}");
    }
}

#[test]
fn the_whole_state_of_a_profile_replaces_what_was_known() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("agent.redb")).unwrap();
    let mut known = Known::default();
    store.hear("a", &mut known, &[record("old", 9, Some("x")), record("k", 9, Some("x"))], cursor(9), false).unwrap();
    store.hear("a", &mut known, &[record("k", 2, Some("y"))], cursor(2), true).unwrap();
    assert_eq!(known.remote.keys().map(Key::as_str).collect::<Vec<_>>(), ["k"]);
    assert_eq!(store.known("a").unwrap().remote, known.remote);
}

#[test]
fn a_large_value_is_known_by_its_manifest_until_a_small_one_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.redb");
    let chunk = |byte: u8| Chunk { hash: ContentHash::of(&[byte]), length: 1 };
    let manifest = Manifest {
        length: 2,
        hash: ContentHash::of(&[1, 2]),
        content_type: ContentType::octets(),
        chunks: vec![chunk(1), chunk(2)],
    };
    let mut large = record("k", 1, Some(""));
    let (value, content_type) = manifest.to_value().unwrap();
    large.state = State::Value(Stored { value, content_type, expires: None });
    let mut known = Known::default();
    let store = Store::open(&path).unwrap();
    store.hear("a", &mut known, &[large], cursor(1), true).unwrap();
    let content = Content::Large(manifest);
    assert_eq!(store.remote("a", &key("k")).unwrap(), Some(content.clone()));
    assert_eq!(known.remote[&key("k")].value, Some(blake3::hash(&[1, 2])));
    let agreed = Agreed { key: key("k"), value: Some(content), written: None };
    store.agree("a", &mut known, vec![agreed]).unwrap();
    let again = store.known("a").unwrap();
    assert_eq!((&again.base, &again.remote), (&known.base, &known.remote));
    store.hear("a", &mut known, &[record("k", 2, Some("small"))], cursor(2), false).unwrap();
    let agreed = Agreed { key: key("k"), value: Some(Content::Whole(b"small".to_vec())), written: None };
    store.agree("a", &mut known, vec![agreed]).unwrap();
    drop(store);
    let again = known_at_rest(&path, &["a".to_owned()]).unwrap().remove(0);
    assert_eq!((&again.base, &again.remote), (&known.base, &known.remote));
    assert_eq!(again.base[&key("k")], blake3::hash(b"small"));
}

#[test]
fn a_second_agent_on_the_same_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.redb");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
}

#[test]
fn an_agent_that_starts_waits_for_whoever_reads_how_it_stood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.redb");
    drop(Store::open(&path).unwrap());
    let reading = redb::ReadOnlyDatabase::open(&path).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| Store::open(&path));
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(!opening.is_finished(), "it is read");
        drop(reading);
        opening.join().unwrap().unwrap();
    });
}

#[test]
fn what_was_deleted_lately_is_known_after_a_restart_until_it_is_long_ago_or_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.redb");
    let at = |seconds: u64| Timestamp::default().plus_seconds(seconds);
    let lately = std::time::Duration::from_secs(60);
    let mut known = Known::default();
    let store = Store::open(&path).unwrap();
    store.deleting("a", &mut known, [key("old")].iter(), at(100), lately).unwrap();
    store.deleting("a", &mut known, [key("new")].iter(), at(161), lately).unwrap();
    store.hold_back("a", &mut known, true).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let mut again = store.known("a").unwrap();
    assert_eq!((&again.deleted, again.holds_back), (&known.deleted, true));
    assert_eq!(again.deleted.iter().collect::<Vec<_>>(), [(&key("new"), &at(161))]);
    store.forget_deletions("a", &mut again).unwrap();
    let known = store.known("a").unwrap();
    assert!(known.deleted.is_empty() && !known.holds_back);
}
