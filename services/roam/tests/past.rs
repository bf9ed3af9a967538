//! Looking back, and going back, with a real system: conflicts, explanations and restores.

use crate::support::{Gate, PROFILE, System, key, run_at, text};
use roam_client::Operation;
use roam_nats::{Bus, BusSettings, CHANGES_STREAM, Headers, PublishSettings, Publisher, stream_state};
use roam_schemas::{
    BatchId, Change, ChangeId, Device, Encoding, JournalBatch, Origin, RULES, Shard, Stamp, StampedChange, Terms,
    Timestamp, encode, subjects,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_listed_with_what_lost_until_a_put_resolves_it() {
    let system = System::start().await;
    assert_eq!(system.done("laptop", &format!("conflicts {PROFILE}")).stdout, "no conflicts\n");
    system.done("laptop", &format!("put {PROFILE} theme dark"));
    system.done("phone", &format!("put {PROFILE} theme light"));
    system.done("phone", &format!("put {PROFILE} font mono"));
    let (client, laptop) = system.client("laptop").await;
    let unseen = Operation::put(key("theme"), "solarized", text());
    let saved = laptop.change_with(Some(roam_client::Revision::new(1)), vec![unseen]).await.unwrap();
    assert_eq!(saved.conflicts.len(), 1);
    client.close().await;

    let found = system.done("laptop", &format!("conflicts {PROFILE} --json")).objects();
    let [conflict] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&conflict["key"], &conflict["revision"]), (&json!("theme"), &json!(4)));
    let winner = &conflict["winner"];
    assert_eq!((&winner["device"], &winner["base"], &winner["bytes"]), (&json!("laptop"), &json!(1), &json!(9)));
    assert_eq!(winner["time"], json!(saved.time));
    let [loser] = conflict["losers"].as_array().unwrap().as_slice() else { panic!("{conflict}") };
    assert_eq!((&loser["device"], &loser["revision"], &loser["bytes"]), (&json!("phone"), &json!(2), &json!(5)));

    let told = system.done("laptop", &format!("conflicts {PROFILE}")).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "theme"), "{told}");
    assert!(lines[1].starts_with("  won ") && lines[1].contains("laptop"), "{told}");
    assert!(lines[2].starts_with("  lost ") && lines[2].contains("phone"), "{told}");

    system.done("phone", &format!("put {PROFILE} theme light"));
    assert_eq!(system.done("laptop", &format!("conflicts {PROFILE} --json")).stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_back_to_what_they_were_and_a_dry_run_writes_nothing() {
    let system = System::start().await;
    let put = |words: &str| system.done("laptop", &format!("put {PROFILE} {words} --json"));
    put("changed old");
    put("deleted here");
    put("same as-ever");
    put("changed new");
    system.done("laptop", &format!("rm {PROFILE} deleted"));
    put("made new");
    put("same other");
    let newest = put("same as-ever").objects()[0]["time"].as_str().unwrap().to_owned();
    let restore = |rest: &str| system.run("laptop", &format!("restore {PROFILE} {rest}"));

    let dry = restore("--at 3 --dry-run");
    let expected = "~ changed  3 B -> 3 B  \"new\" -> \"old\"\n+ deleted  4 B  \"here\"\n- made  3 B  \"new\"\n";
    let (diff, summary) = dry.stdout.split_at(expected.len());
    assert_eq!((dry.code, diff), (0, expected), "{}", dry.stderr);
    assert!(summary.starts_with("would bring back 2 keys to revision 3 and delete 1; 1 as then;"), "{summary}");
    let dry = restore("--at 3 --dry-run --json").objects();
    assert_eq!((&dry[2]["key"], &dry[2]["from"]["text"], &dry[2]["to"]), (&json!("made"), &json!("new"), &json!(null)));
    assert_eq!((&dry[3]["dry_run"], &dry[3]["put"], &dry[3]["revision"]), (&json!(true), &json!(2), &json!(null)));
    assert_eq!(system.head(), 8, "nothing was written");

    let report = restore("--at 3 --json").objects();
    assert_eq!((report.len(), &report[0]["put"], &report[0]["deleted"]), (1, &json!(2), &json!(1)));
    assert_eq!((&report[0]["unchanged"], &report[0]["revision"]), (&json!(1), &json!(9)), "one change");
    let values = || ["changed", "deleted", "made", "same"].map(|key| system.value(key));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(values(), [text("old"), text("here"), None, text("as-ever")]);
    assert_eq!(restore("--at 3 --json").objects()[0]["revision"], json!(null), "it is as it was already");

    assert_eq!(restore(&format!("--at {newest} --prefix ma")).code, 0);
    assert_eq!(values(), [text("old"), text("here"), text("new"), text("as-ever")], "by time, and only that key");
    assert_eq!(restore(&format!("--at {newest}")).code, 0);
    assert_eq!(values(), [text("new"), None, text("new"), text("as-ever")]);
    assert_eq!(restore("--at 1h").code, 0);
    assert_eq!(values(), [None, None, None, None], "nothing was there an hour ago");

    let ahead = restore("--at 99");
    assert_eq!(ahead.code, 1);
    assert!(ahead.stderr.contains("there is no revision 99 yet: the profile is at revision 12"), "{}", ahead.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_as_it_was_and_what_is_not_known_is_not_made_up() {
    let system = System::start().await;
    let put = |words: &str| system.done("laptop", &format!("put {PROFILE} {words} --json"));
    let first = put("theme dark").objects()[0]["time"].as_str().unwrap().to_owned();
    let at_first = format!("theme --at {first}");
    put("theme light");
    system.done("laptop", &format!("rm {PROFILE} theme"));
    put("font mono");
    for number in 0..11 {
        put(&format!("often {number}"));
    }
    for (rest, code, said) in [
        ("theme --revision 1", 0, "dark"),
        ("theme --at 1", 0, "dark"),
        (at_first.as_str(), 0, "dark"),
        ("theme --at 2", 0, "light"),
        ("theme --revision 3", 2, "not found: it was deleted by laptop at revision 3, "),
        ("theme --revision 0", 2, "not found: the profile had no such key at revision 0"),
        ("theme --at 1h", 2, "not found: the profile had no such key at 2"),
        // What other keys were shows that nothing is forgotten that is so old.
        ("font --revision 2", 2, "not found: the profile had no such key at revision 2"),
        ("nothing --at 7", 2, "not found: the profile had no such key at revision 7"),
        ("often --at 15", 0, "10"),
        ("often --at 5", 1, "what it was at revision 5 is not kept\nhint: `roam history`"),
        ("theme --revision 99", 1, "there is no revision 99 yet: the profile is at revision 15"),
    ] {
        let ran = system.run("phone", &format!("get {PROFILE} {rest}"));
        let told = if code == 0 { ran.stdout == said } else { ran.stderr.contains(said) && ran.stdout.is_empty() };
        assert!(told && ran.code == code, "{rest}: {} {}{}", ran.code, ran.stdout, ran.stderr);
    }
    let record = &system.done("phone", &format!("get {PROFILE} theme --at 1 --json")).objects()[0];
    assert_eq!((&record["key"], &record["revision"], &record["time"]), (&json!("theme"), &json!(1), &json!(first)));
    assert_eq!((&record["device"], &record["state"]["value"]["value"]), (&json!("laptop"), &json!("dark")));
    assert_eq!(system.value("theme"), None, "it is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_keys_come_back_in_few_changes() {
    let system = System::start().await;
    let (client, laptop) = system.client("laptop").await;
    let names: Vec<String> = (0..2_500).map(|number| format!("k{number:04}")).collect();
    for value in ["old", "new"] {
        for part in names.chunks(500) {
            let ops = part.iter().map(|name| Operation::put(key(name), value, text())).collect();
            laptop.change(ops).await.unwrap();
        }
    }
    client.close().await;
    for encoding in ["postcard", "json"] {
        let restore =
            |rest: &str| system.done("laptop", &format!("restore {PROFILE} --encoding {encoding} {rest} --json"));
        let report = restore("--at 5").objects();
        assert_eq!((&report[0]["put"], &report[0]["changes"]), (&json!(2_500), &json!(3)), "{report:?}");
        let exported = system.done("laptop", &format!("export {PROFILE}")).objects();
        assert!(exported.len() == 2_501 && exported[1..].iter().all(|line| line["value"] == "old"));
        assert_eq!(restore("--at 10").objects()[0]["put"], json!(2_500), "and back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_during_a_restore_is_not_overwritten() {
    let system = System::start().await;
    for words in ["theme old", "font old", "lost old", "theme new", "font new"] {
        system.done("laptop", &format!("put {PROFILE} {words}"));
    }
    system.done("laptop", &format!("rm {PROFILE} lost"));
    let server = system.server().to_owned();
    let gate = Gate::before_the_first_change(system.server(), move || {
        for words in ["theme mine", "lost found"] {
            let args = format!("put {PROFILE} {words}");
            assert_eq!(run_at(&server, "phone", args.split(' ')).code, 0);
        }
    });
    let gate = gate.await;
    let line = format!("restore {PROFILE} --at 3 --json");
    let ran = run_at(&gate.url, "laptop", line.split(' '));
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let report = &ran.objects()[0];
    let mut changed: Vec<_> = report["changed_meanwhile"].as_array().unwrap().clone();
    changed.sort_by_key(ToString::to_string);
    assert_eq!((changed, &report["put"]), (vec![json!("lost"), json!("theme")], &json!(1)), "{report}");
    assert!(ran.stderr.contains("changed meanwhile"), "{}", ran.stderr);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(["theme", "font", "lost"].map(|key| system.value(key)), [text("mine"), text("old"), text("found")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_history_does_not_reach_back_is_left_alone_and_said() {
    let system = System::start().await;
    let (client, laptop) = system.client("laptop").await;
    laptop.put(key("font"), "old", text()).await.unwrap();
    for number in 0..11 {
        laptop.put(key("often"), number.to_string(), text()).await.unwrap();
    }
    // Of values this large not all fit in an answer, so that nobody can tell whether there was one before.
    for letter in ["a", "b", "c", "d"] {
        laptop.put(key("large"), letter.repeat(256 * 1024), text()).await.unwrap();
    }
    laptop.put(key("font"), "new", text()).await.unwrap();
    client.close().await;

    let ran = system.run("laptop", &format!("restore {PROFILE} --at 2 --json"));
    let report = &ran.objects()[0];
    assert_eq!((ran.code, &report["put"], &report["deleted"]), (1, &json!(1), &json!(0)), "{report}");
    assert_eq!(report["not_kept"], json!(["large", "often"]));
    assert!(ran.stderr.contains("2 keys stay as they are, because what they were is not kept"), "{}", ran.stderr);
    assert_eq!((system.value("often").as_deref(), system.value("font").as_deref()), (Some("10"), Some("old")));
    assert_eq!(system.value("large").unwrap().len(), 256 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_tells_of_conflicts_and_of_what_came_too_late() {
    let system = System::start().await;
    system.done("laptop", &format!("put {PROFILE} font mono"));
    system.done("phone", &format!("put {PROFILE} theme light"));
    let (client, laptop) = system.client("laptop").await;
    let unseen = vec![Operation::put(key("theme"), "dark", text())];
    let saved = laptop.change_with(Some(roam_client::Revision::new(1)), unseen).await.unwrap();
    client.close().await;
    let late = append(&system, Operation::put(key("theme"), "too late", text()), Terms::default()).await;
    // Whatever is saved after it shows that it was applied.
    system.done("laptop", &format!("put {PROFILE} font sans"));

    let explained = system.done("laptop", &format!("explain {PROFILE} theme --json")).objects();
    let [won, superseded, first] = explained.as_slice() else { panic!("{explained:?}") };
    assert_eq!((&won["change"], &won["conflict"], &won["base"]), (&json!(saved.id), &json!(true), &json!(1)));
    let beat = &won["beat"];
    assert_eq!((&beat["revision"], &beat["device"], &beat["seen"]), (&json!(2), &json!("phone"), &json!(false)));
    assert_eq!(won["superseded_by"], json!(null));
    assert_eq!((&superseded["change"], &superseded["rank"]), (&json!(late), &json!(1)));
    assert_eq!((&superseded["superseded_by"], &superseded["beat"]), (&json!(3), &json!(null)));
    assert_eq!((&first["revision"], &first["beat"], &first["conflict"]), (&json!(2), &json!(null), &json!(false)));

    let told = system.done("laptop", &format!("explain {PROFILE} theme")).stdout;
    for line in [
        "beat    nothing: superseded by revision 3, which was published later and applied before it",
        "base    revision 1: what its writer had seen",
        "beat    revision 2 by phone, ",
        "its writer had not seen that: a conflict",
        &format!("change  {}", saved.id),
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(system.run("laptop", &format!("explain {PROFILE} nothing")).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_operator_keeps_less_nothing_is_taken_for_absent_that_was_forgotten() {
    let system = System::start().await;
    for number in 1..=3 {
        system.done("laptop", &format!("put {PROFILE} theme {number}"));
    }
    system.done("laptop", &format!("put {PROFILE} font mono"));
    let two = Terms { history_versions: 2, ..Terms::default() };
    append(&system, Operation::put(key("other"), "late", text()), two).await;
    // Not by saving something else: what is saved next brings its own terms.
    timeout(Duration::from_secs(30), async {
        while system.value("other").is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    for (rest, code, said) in [
        ("theme --at 3", 0, "3"),
        ("theme --at 2", 0, "2"),
        ("theme --at 1", 1, "what it was at revision 1 is not kept"),
        ("font --at 2", 2, "the profile had no such key at revision 2"),
        // When revision 1 was nobody knows any more.
        ("font --at 1", 1, "what it was at revision 1 is not kept"),
    ] {
        let ran = system.run("phone", &format!("get {PROFILE} {rest}"));
        assert_eq!(ran.code, code, "{rest}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(said) || ran.stderr.contains(said), "{rest}: {}{}", ran.stdout, ran.stderr);
    }
    for (at, put, deleted, not_kept) in [(2, 1, 2, json!([])), (1, 0, 0, json!(["font", "other", "theme"]))] {
        let dry = system.run("laptop", &format!("restore {PROFILE} --at {at} --dry-run --json"));
        let report = dry.objects().pop().unwrap();
        assert_eq!((&report["put"], &report["deleted"]), (&json!(put), &json!(deleted)), "{at}: {report}");
        assert_eq!(report["not_kept"], not_kept, "{at}: {report}");
    }
}

/// Appends an operation to the journal as an access server of these terms does whose delivery came late.
async fn append(system: &System, op: Operation, terms: Terms) -> ChangeId {
    let bus = Bus::connect(&BusSettings::at(system.server()), "late").await.unwrap();
    let created = stream_state(&bus, CHANGES_STREAM).await.unwrap().created;
    let incarnation = u64::try_from(created.unix_timestamp_nanos()).unwrap();
    let stamp = Stamp { time: Timestamp::from_nanos(incarnation), origin: Origin { incarnation, sequence: 1 } };
    let change = Change::new(ChangeId::random(), None, vec![op]).unwrap();
    let (id, digest, device) = (change.id(), change.digest(), Device::parse("tablet").unwrap());
    let profile = PROFILE.parse().unwrap();
    let stamped = StampedChange { profile, device, encoding: Encoding::Json, stamp, digest, change };
    let batch = JournalBatch { id: BatchId::random(), rules: RULES, terms, quotas: Vec::new(), changes: vec![stamped] };
    let headers = Headers::new().with_content_type(Encoding::Postcard).with_batch(batch.id.to_string());
    let publisher = Publisher::new(&bus, PublishSettings::default());
    let payload = encode(&batch, Encoding::Postcard).unwrap();
    publisher.publish(subjects::journal(Shard::ONLY), headers, payload.into()).await.await.unwrap();
    bus.close().await;
    id
}
