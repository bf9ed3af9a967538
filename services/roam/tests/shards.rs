//! `roam up --shards`: a system of several shards in one process, used by `roam` as a shell runs it.

use crate::{program::roam, support::System};

const SMALL: [&str; 8] = [
    "--changes-max-bytes",
    "33554432",
    "--journal-max-bytes",
    "33554432",
    "--chunks-max-bytes",
    "33554432",
    "--rejected-max-bytes",
    "33554432",
];

fn of_shards(shards: &'static str) -> Vec<&'static str> {
    SMALL.into_iter().chain(["--shards", shards]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_of_four_shards_serves_everybody_and_stays_as_it_was_split() {
    let system = System::start_with(&of_shards("4")).await;
    let users: Vec<_> = (0..12).map(|number| format!("acme/user{number}/editor")).collect();
    for user in &users {
        system.done("laptop", &format!("put {user} theme dark"));
        let explained = system.done("phone", &format!("explain {user} theme"));
        assert!(explained.stdout.contains("laptop"), "{}", explained.stdout);
    }
    assert_eq!(system.done("desk", "profiles --json").objects().len(), users.len());
    let status = system.run("desk", "status --json");
    let seen: Vec<_> = status.objects().iter().map(|seen| seen["shard"].as_u64()).collect();
    assert_eq!(seen, [Some(0), Some(1), Some(2), Some(3)], "{}", status.stderr);
    system.done("desk", "verify");
    // Whoever gets in without a token is what it finds.
    let doctor = system.run("desk", "doctor");
    assert!(doctor.stdout.contains("streams and durables are as they should be"), "{}", doctor.stdout);
    assert_eq!(system.done("desk", "backup create --json").objects().len(), 4);
    let backups = system.place.path().join("data/backups");
    for shard in 0..4 {
        let listed = format!("backup list --from {} --shard {shard} --json", backups.display());
        assert_eq!(system.done("desk", &listed).objects().len(), 1, "shard {shard}");
    }
    let erased = system.done("desk", "erase acme/user3 --yes");
    assert!(erased.stdout.contains("0 rows remain"), "{}", erased.stdout);

    let place = system.stop();
    let mut other = roam();
    other.args(["up", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data"]).arg(place.path().join("data"));
    let refused = other.args(of_shards("2")).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the number of shards"), "{said}");

    let system = System::start_in_with(place, &of_shards("4")).await;
    for (number, user) in users.iter().enumerate() {
        let found = system.run("phone", &format!("get {user} theme"));
        assert_eq!(found.code, if number == 3 { 2 } else { 0 }, "{user}: {}", found.stderr);
    }
}
