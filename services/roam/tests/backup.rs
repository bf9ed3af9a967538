//! Backups of a real system, made, looked at and brought back by `roam` as a shell runs it.

use std::{fs, path::PathBuf};

use crate::support::{PROFILE, System, run_at};

fn fill(system: &System, from: u32) {
    for number in from..from + 20 {
        system.done("laptop", &format!("put {PROFILE} key{number} value{number}"));
    }
}

fn backups(system: &System) -> PathBuf {
    system.place.path().join("data/backups")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_listed_verified_pruned_and_restored() {
    let system = System::start().await;
    let from = format!("--from {}", backups(&system).display());
    assert_eq!(system.run("desk", &format!("backup list {from}")).code, 2, "there are none yet");
    fill(&system, 0);
    let first = system.done("desk", "backup create --json").objects().remove(0);
    assert_eq!((&first["state"], &first["bytes"]), (&"made".into(), &first["new_bytes"]));
    assert_eq!(first["place"], backups(&system).to_str().unwrap());
    fill(&system, 20);
    let second = system.done("desk", "backup create --to directory");
    assert!(second.stdout.starts_with("backup 2") && second.stdout.contains(" new, in "), "{}", second.stdout);

    let listed = system.done("desk", &format!("backup list {from} --json")).objects();
    assert_eq!((listed.len(), &listed[1]["id"]), (2, &first["id"]));
    assert!(listed[0]["position"]["sequence"].as_u64() > listed[1]["position"]["sequence"].as_u64());
    let verified = system.done("desk", &format!("backup verify {from} --json")).objects().remove(0);
    assert_eq!((&verified["verified"], &verified["backup"]["id"]), (&true.into(), &listed[0]["id"]));
    assert!(verified["rows"]["version"].as_u64() >= Some(40), "{verified}");

    let target = system.place.path().join("restored");
    let data = format!("--data {}", target.display());
    let restored = system.done("desk", &format!("backup restore {from} {data}"));
    assert!(restored.stdout.contains("of the journal"), "{}", restored.stdout);
    let again = system.run("desk", &format!("backup restore {from} {data}"));
    assert!(again.code == 1 && again.stderr.contains("is not empty"), "{again:?}");

    let pruned = system.done("desk", &format!("backup prune {from} --keep 1 --json")).objects().remove(0);
    assert_eq!((&pruned["removed"][0], &pruned["kept"]), (&first["id"], &1.into()));
    let gone = system.run("desk", &format!("backup verify {} {from}", first["id"].as_str().unwrap()));
    assert!(gone.code == 2 && gone.stderr.contains("there is no backup"), "{gone:?}");
    system.done("desk", &format!("backup verify {from}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_goes_on_from_a_backup_with_the_rest_of_its_journal() {
    let system = System::start().await;
    fill(&system, 0);
    system.done("desk", "backup create");
    fill(&system, 20);
    let head = system.head();
    let place = system.stop();
    let (data, storage) = (place.path().join("data"), place.path().join("data/storage"));
    fs::rename(&storage, data.join("storage.old")).unwrap();
    let (from, storage) = (data.join("backups"), storage.display().to_string());
    let line = ["backup", "restore", "--from", from.to_str().unwrap(), "--data", &storage];
    let restored = run_at("nats://127.0.0.1:1", "desk", line);
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    let system = System::start_in(place).await;
    assert_eq!(system.head(), head);
    assert_eq!(system.value("key39").as_deref(), Some("value39"));
    fill(&system, 40);
    assert_eq!(system.head(), head + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_a_way_out() {
    let system = System::start().await;
    let nobody = system.run("desk", "backup create --replica nobody");
    assert!(nobody.code == 75 && nobody.stderr.contains("no replica of that name"), "{nobody:?}");
    // `roam up` provisions no bucket.
    let bucket = system.run("desk", "backup create --to bucket");
    assert!(bucket.code == 1 && bucket.stderr.contains("roam provision"), "{bucket:?}");
    let listed = system.run("desk", "backup list --from bucket");
    assert!(listed.code == 1 && listed.stderr.contains("--from DIR"), "{listed:?}");
    let id = system.run("desk", "backup verify newest");
    assert!(id.code == 64 && id.stderr.contains("looks like"), "{id:?}");
    let file = system.place.path().join("plain");
    fs::write(&file, "x").unwrap();
    let missing = system.run("desk", &format!("backup list --from {}", file.display()));
    assert_eq!(missing.code, 2, "{missing:?}");
}
