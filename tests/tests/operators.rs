//! What operators do by the command line: see how all stands, decide what only a person can, compare replicas, and have a
//! user forgotten.

mod erase;
mod stopped;
mod verify;

use std::process::Stdio;

use roam_client::ProfileClient;
use roam_tests::{Ran, SERVICE_VARIABLE, STORAGE, World, app, eventually, key, text};
use serde_json::Value;
use tokio::process::{Child, Command};

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");

async fn roam(world: &World, line: &str) -> Ran {
    world.roam(BINARY, line).await
}

async fn editor(world: &World, user: &str) -> ProfileClient {
    world.device("acme", user, "laptop").await.profile(app("editor"))
}

async fn put(profile: &ProfileClient, name: &str, value: &str) {
    profile.put(key(name), value, text()).await.unwrap();
}

/// What status says once it says this; it may take a moment to see a part go.
async fn status_saying(world: &World, text: &str) -> Ran {
    eventually(&format!("status says {text}"), async || {
        let ran = roam(world, "status").await;
        (ran.stdout.contains(text)).then_some(ran)
    })
    .await
}

/// The states of all replicas.
fn states(status: &Value) -> Vec<&str> {
    status["replicas"].as_array().unwrap().iter().map(|replica| replica["state"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_how_every_part_stands_and_what_is_wrong() {
    let mut world = World::new().replicas(2).start().await;
    let alice = editor(&world, "alice").await;
    put(&alice, "theme", "dark").await;
    let well = eventually("both replicas have applied all", async || {
        let status = roam(&world, "status --json").await.with_code(0).object();
        status["replicas"].as_array().unwrap().iter().all(|replica| replica["behind"] == 0).then_some(status)
    })
    .await;
    assert_eq!(states(&well), ["serving", "serving"]);
    assert_eq!(well["changes"]["attended"], true);
    assert_eq!(well["replicas"][0]["position"]["batch"], well["replicas"][1]["position"]["batch"]);
    let announcing = |status: &Value| {
        status["replicas"].as_array().unwrap().iter().filter(|replica| replica["announces"] == true).count()
    };
    assert_eq!(announcing(&well), 1);
    let said = roam(&world, "status").await.with_code(0);
    assert!(
        said.stdout.contains("replica   roam-storage-0") && said.stdout.contains("ROAM_JOURNAL"),
        "{}",
        said.stdout
    );

    world.access_servers[0].stop().await;
    let _ = status_saying(&world, "no access server asks for changes").await.with_code(1);
    world.access_servers[0].start().await;
    world.replicas[1].stop().await;
    let _ = status_saying(&world, "1 of 2 storage replicas answer").await.with_code(1);
    world.replicas[1].start().await;
    world.ready().await;
    let _ = roam(&world, "status").await.with_code(0);
}

/// A replica beside those of a world, under a name of its choice.
fn replica_called(world: &World, name: &str) -> Child {
    let directory = world.dir().join("beside").display().to_string();
    let set = [
        format!("name={name}"),
        format!("directory={directory}"),
        format!("bus.servers=[\"{}\"]", world.nats.client_url()),
        "process.listen=127.0.0.1:0".to_owned(),
    ];
    let mut command = Command::new(BINARY);
    command.env(SERVICE_VARIABLE, STORAGE).args(set.iter().flat_map(|set| ["--set", set]));
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_of_one_name_are_told_apart_and_refused() {
    let world = World::new().replicas(2).start().await;
    let beside = replica_called(&world, "roam-storage-1");
    let said = status_saying(&world, "two replicas have the name roam-storage-1").await.with_code(1);
    assert!(said.stdout.contains("3 storage replicas answer"), "{}", said.stdout);
    let _ = roam(&world, "verify").await.with_code(1).saying("two replicas have the name roam-storage-1");
    let _ = roam(&world, "storage resume roam-storage-1 --yes").await.with_code(1).saying("two replicas have the name");
    drop(beside);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_read_what_it_holds_says_so_instead_of_nothing() {
    let world = World::new().start().await;
    std::fs::rename(world.dir().join("roam-storage-0"), world.dir().join("away")).unwrap();
    let _ = status_saying(&world, "the replica cannot read what it holds").await.with_code(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_listed_with_what_they_hold() {
    let world = World::new().start().await;
    for (user, keys) in [("alice", 3), ("bob", 1)] {
        let profile = editor(&world, user).await;
        for number in 0..keys {
            put(&profile, &format!("key {number}"), "value").await;
        }
    }
    let all = roam(&world, "profiles --json").await.with_code(0);
    let lines: Vec<Value> = all.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["profile"].as_str().unwrap()).collect::<Vec<_>>(),
        ["acme/alice/editor", "acme/bob/editor"]
    );
    assert_eq!((&lines[0]["records"], &lines[0]["revision"]), (&3.into(), &3.into()));
    let bobs = roam(&world, "profiles --tenant acme --user bob").await.with_code(0);
    assert!(bobs.stdout.contains("acme/bob/editor") && !bobs.stdout.contains("alice"), "{}", bobs.stdout);
    assert!(bobs.stdout.contains("1 profile, 1 record"), "{}", bobs.stdout);
    let _ = roam(&world, "profiles --tenant other").await.with_code(2);
    let _ = roam(&world, "profiles --user bob").await.with_code(64);
    let _ = roam(&world, "profiles --replica nobody").await.with_code(75).saying("no replica of the name nobody");
}
