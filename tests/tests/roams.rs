//! A value roams: what one device writes, the others of its user are told, find, and can look back on.

use futures_util::{TryStreamExt, future::join_all};
use roam_client::{
    Action, ChangeError, Client, ClientSettings, Code, Encoding, Event, Expect, Identity, Lookup, Operation,
    ProfileClient, Put, Record, Revision, Select, State, Value, Watch, WatchFrom,
};
use roam_tests::{PATIENCE, World, app, device, eventually, key, keys, tenant, text, user};
use tokio::time::timeout;

async fn event(watch: &mut Watch) -> Event {
    timeout(PATIENCE, watch.next()).await.expect("an event comes").unwrap()
}

/// The records of the next event, and the revision that they lead to.
async fn told(watch: &mut Watch) -> (Revision, Vec<Record>) {
    match event(watch).await {
        Event::Revision { revision, records, .. } | Event::State { head: revision, records, .. } => (revision, records),
        Event::Reset => panic!("nothing was reset"),
    }
}

fn value(record: &Record) -> Option<&str> {
    match &record.state {
        State::Value(stored) => stored.value.as_text(),
        State::Deleted | State::Expired => None,
    }
}

fn values(records: &[Record]) -> Vec<(&str, Option<&str>)> {
    records.iter().map(|record| (record.key.as_str(), value(record))).collect()
}

async fn found(profile: &ProfileClient, name: &str) -> Option<String> {
    match profile.get(key(name)).await.unwrap() {
        Lookup::Found(record) => value(&record).map(str::to_owned),
        _ => None,
    }
}

async fn put(profile: &ProfileClient, name: &str, value: &str) -> Revision {
    profile.put(key(name), value, text()).await.unwrap().revision
}

async fn device_speaking(world: &World, name: &str, encoding: Encoding) -> Client {
    let identity = Identity::Device { tenant: tenant("acme"), user: user("alice@example.com"), device: device(name) };
    world.connect(ClientSettings { encoding, ..world.client_settings() }, identity).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_device_writes_another_is_told_and_finds_whichever_encodings_they_speak() {
    use Encoding::{Json, Postcard};
    let world = World::new().start().await;
    for (round, (writes, reads)) in
        [(Postcard, Postcard), (Json, Json), (Postcard, Json), (Json, Postcard)].into_iter().enumerate()
    {
        let laptop = device_speaking(&world, "laptop", writes).await.profile(app(&round.to_string()));
        let phone = device_speaking(&world, "phone", reads).await.profile(app(&round.to_string()));
        let mut watch = phone.watch(WatchFrom::Now).await.unwrap();

        let saved = laptop.put(key("theme"), "dark", text()).await.unwrap();
        assert_eq!((saved.revision, saved.again), (Revision::new(1), false));
        let (revision, records) = told(&mut watch).await;
        assert_eq!((revision, values(&records)), (Revision::new(1), vec![("theme", Some("dark"))]));
        assert_eq!((records[0].time, &records[0].device), (saved.time, &device("laptop")));
        assert_eq!(found(&phone, "theme").await.as_deref(), Some("dark"));

        laptop.delete(key("theme")).await.unwrap();
        let (revision, records) = told(&mut watch).await;
        assert_eq!((revision, values(&records)), (Revision::new(2), vec![("theme", None)]));
        let Lookup::Deleted(tombstone) = phone.get(key("theme")).await.unwrap() else { panic!("it is deleted") };
        assert_eq!(tombstone.revision, Revision::new(2));
        assert_eq!(phone.get(key("font")).await.unwrap(), Lookup::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_and_large_values_come_back_as_they_were() {
    let world = World::new().start().await;
    for encoding in [Encoding::Postcard, Encoding::Json] {
        let laptop = device_speaking(&world, "laptop", encoding).await.profile(app("blobs"));
        let phone = device_speaking(&world, "phone", encoding).await.profile(app("blobs"));
        let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
        for size in [0, 1, 300, 70_000, 262_144] {
            let bytes: Vec<u8> = (0..size).map(|index: u32| (index % 251) as u8).collect();
            laptop.put(key("blob"), bytes.clone(), roam_client::ContentType::octets()).await.unwrap();
            // A notice of 64 KiB or more leaves the value out, and the watch fetches it.
            let (_, records) = told(&mut watch).await;
            let State::Value(stored) = &records[0].state else { panic!("it is a value") };
            assert!(stored.value == Value::new(bytes), "{size} bytes in {encoding:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_holds_or_nothing_of_the_change_is_applied() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let at = |revision| Expect::At(Revision::new(revision));
    let write = |name: &str, expect| Operation::put(key(name), "new", text()).expecting(expect);
    put(&laptop, "theme", "dark").await;

    let refused = [
        (write("theme", Expect::Absent), Code::Exists, Some(Revision::new(1))),
        (write("theme", at(2)), Code::Conflict, Some(Revision::new(1))),
        (write("font", at(1)), Code::Conflict, None),
        (Operation::delete(key("font")).expecting(at(1)), Code::Conflict, None),
    ];
    for (op, code, revision) in refused {
        let failed_key = op.key.clone();
        let error = laptop.change(vec![write("other", Expect::Any), op]).await.unwrap_err();
        let ChangeError::Rejected(problem) = error else { panic!("{error:?}") };
        let failed = problem.failed.expect("it names the record");
        assert_eq!((problem.code, failed.key, failed.revision), (code, failed_key, revision));
    }
    assert_eq!(laptop.get(key("other")).await.unwrap(), Lookup::Unknown);

    let both = vec![write("theme", at(1)), write("font", Expect::Absent)];
    assert_eq!(laptop.change(both).await.unwrap().revision, Revision::new(2), "refused changes take no revision");
    let gone = laptop.change(vec![Operation::delete(key("font")).expecting(at(2))]).await.unwrap();
    assert_eq!(gone.revision, Revision::new(3));
    let again = laptop.change(vec![write("font", Expect::Absent)]).await.unwrap();
    assert_eq!(again.revision, Revision::new(4), "a deleted record is absent");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_writer_wins_and_a_conflict_with_what_it_had_not_seen_is_told_to_all() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let base = put(&laptop, "theme", "dark").await;
    let unseen = put(&phone, "theme", "light").await;
    let mut watch = phone.watch(WatchFrom::Now).await.unwrap();

    let write = || vec![Operation::put(key("theme"), "solarized", text())];
    let saved = laptop.change_with(Some(base), write()).await.unwrap();
    let [conflict] = saved.conflicts.as_slice() else { panic!("{:?}", saved.conflicts) };
    assert_eq!((&conflict.key, conflict.revision, &conflict.device), (&key("theme"), unseen, &device("phone")));
    let (_, records) = told(&mut watch).await;
    assert_eq!((values(&records), records[0].conflict), (vec![("theme", Some("solarized"))], true));
    let Lookup::Found(record) = phone.get(key("theme")).await.unwrap() else { panic!("it is there") };
    assert!(record.conflict);

    let loser = &phone.history(key("theme"), None).await.unwrap()[1];
    assert_eq!((loser.revision, &loser.device), (unseen, &device("phone")));
    let settled = laptop.change_with(Some(saved.revision), write()).await.unwrap();
    assert_eq!(settled.conflicts, [], "it had seen all there was");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_versions_of_a_key_are_kept_newest_first() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    for number in 1..=12 {
        put(&laptop, "theme", &number.to_string()).await;
    }
    laptop.delete(key("theme")).await.unwrap();

    let versions = laptop.history(key("theme"), None).await.unwrap();
    let states: Vec<_> = versions.iter().map(|version| (version.revision.get(), &version.state)).collect();
    assert_eq!(states[0], (13, &State::Deleted));
    assert_eq!(states.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), (4..=13).rev().collect::<Vec<_>>());
    assert!(versions.windows(2).all(|pair| pair[0].time > pair[1].time && pair[0].rank == 0));
    assert_eq!(laptop.history(key("theme"), Some(3)).await.unwrap(), versions[..3]);
    assert_eq!(laptop.history(key("font"), None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_away_is_told_what_changed_since_and_nothing_else() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    for name in ["a", "b", "c", "d"] {
        put(&laptop, name, "1").await;
    }
    let all = phone.changes(None).await.unwrap();
    assert_eq!(values(&all.records), [("a", Some("1")), ("b", Some("1")), ("c", Some("1")), ("d", Some("1"))]);
    assert_eq!(phone.changes(Some(all.cursor)).await.unwrap().records, []);

    put(&laptop, "b", "2").await;
    laptop.delete(key("c")).await.unwrap();
    put(&laptop, "b", "3").await;
    put(&laptop, "e", "1").await;
    let since = [("c", None), ("b", Some("3")), ("e", Some("1"))];
    let delta = phone.changes(Some(all.cursor)).await.unwrap();
    assert_eq!((values(&delta.records), delta.head), (since.to_vec(), Revision::new(8)));

    let mut watch = phone.watch(WatchFrom::Cursor(all.cursor)).await.unwrap();
    let (revision, records) = told(&mut watch).await;
    assert_eq!((revision, values(&records)), (Revision::new(8), since.to_vec()));
    assert_eq!(watch.cursor(), delta.cursor);
    put(&laptop, "a", "2").await;
    let (revision, records) = told(&mut watch).await;
    assert_eq!((revision, values(&records)), (Revision::new(9), vec![("a", Some("2"))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_profile_comes_page_by_page_whole_by_prefix_and_by_keys() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("mail"));
    let name = |number: usize| format!("{}/{number:04}", if number.is_multiple_of(2) { "even" } else { "odd" });
    let mut all: Vec<String> = (0..2_500).map(name).collect();
    let changes = all.chunks(500).map(|part| {
        let ops = part.iter().map(|name| Operation::put(key(name), name.as_bytes(), text())).collect();
        laptop.change(ops)
    });
    for saved in join_all(changes).await {
        saved.unwrap();
    }
    all.sort();
    let names = async |select| {
        let records: Vec<Record> = laptop.records(select).try_collect().await.unwrap();
        assert!(records.iter().all(|record| value(record) == Some(record.key.as_str())));
        records.into_iter().map(|record| record.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Select::All).await, all);
    assert_eq!(names(Select::Prefix("odd/".to_owned())).await, all[1_250..]);
    assert_eq!(names(Select::Keys(keys(&["odd/0001", "none", "even/0000"]))).await, ["odd/0001", "even/0000"]);
    let delta = laptop.changes(None).await.unwrap();
    assert_eq!((delta.records.len(), delta.head), (2_500, Revision::new(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_writes_for_a_user_and_her_devices_are_told() {
    let world = World::new().start().await;
    let phone = world.device("acme", "alice", "phone").await.profile(app("vpn"));
    let mut watch = phone.watch(WatchFrom::Now).await.unwrap();
    let service = world.service("acme", "it-department").await;
    let vpn = service.profile_of(user("alice"), app("vpn"));
    put(&vpn, "gateway", "10.0.0.1").await;
    let (_, records) = told(&mut watch).await;
    assert_eq!(values(&records), [("gateway", Some("10.0.0.1"))]);
    assert_eq!(records[0].device.as_str(), "$svc-it-department");
    assert_eq!(found(&vpn, "gateway").await.as_deref(), Some("10.0.0.1"));
    let other = service.profile_of(user("bob"), app("vpn"));
    assert_eq!(other.get(key("gateway")).await.unwrap(), Lookup::Unknown, "another user has another profile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_with_a_time_to_live_is_hidden_once_that_is_over() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let put = Put { value: Value::new("1"), content_type: text(), ttl: Some(1) };
    let op = Operation { key: key("token"), action: Action::Put(put), expect: Expect::Any };
    let saved = laptop.change(vec![op]).await.unwrap();
    // Where all is slow it may be deleted already when it is looked at next.
    let hidden = eventually("the value is hidden", async || match laptop.get(key("token")).await.unwrap() {
        Lookup::Expired(record) | Lookup::Deleted(record) => Some(record),
        Lookup::Found(_) => None,
        Lookup::Unknown => panic!("it was there"),
    });
    let hidden = hidden.await;
    match hidden.state {
        State::Expired => assert_eq!(hidden.revision, saved.revision),
        _ => assert_eq!(hidden.device.as_str(), "$expiry"),
    }
    let live: Vec<Record> = laptop.records(Select::All).try_collect().await.unwrap();
    assert_eq!(live, []);
    let absent = Operation::put(key("token"), "2", text()).expecting(Expect::Absent);
    laptop.change(vec![absent]).await.expect("an expired record is absent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reads_what_it_wrote_whichever_replica_answers() {
    let world = World::new().access_servers(2).replicas(2).start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    for number in 0..200 {
        let value = number.to_string();
        put(&laptop, "counter", &value).await;
        let answers = join_all((0..4).map(|_| found(&laptop, "counter"))).await;
        assert!(answers.iter().all(|answer| answer.as_ref() == Some(&value)), "{answers:?} after {value}");
    }
    for replica in &world.replicas {
        let answered = replica.pages().metric("roam_storage_requests_total", &["latest"]).await;
        assert!(answered > 100.0, "{} answered {answered} of 800", replica.log().display());
    }
}
