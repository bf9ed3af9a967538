//! A process that writes, sends and copies is killed at any moment, again and again. The test's own program is that
//! process, started with the name of [`a_process_to_be_killed`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::*;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const PATH: &str = "ROAM_CLIENT_TESTS_STORE";
const SERVER: &str = "ROAM_CLIENT_TESTS_SERVER";
const FIRST: &str = "ROAM_CLIENT_TESTS_FIRST";
const KEYS: u64 = 20;
const ROUNDS: u32 = 12;

/// Writes numbers for ever, and says each once it was accepted. Does nothing unless it was started for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_to_be_killed() {
    let (Ok(path), Ok(server)) = (std::env::var(PATH), std::env::var(SERVER)) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = LocalStore::open(path, ClientSettings::at(server), device("laptop")).await.unwrap();
    let mail = store.profile(app("mail")).await.unwrap();
    for number in first.. {
        put(&mail, &format!("k{}", number % KEYS), &number.to_string()).await;
        println!("\naccepted {number}");
        std::io::stdout().flush().unwrap();
    }
}

fn start(path: &Path, server: &str, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["durable::kill::a_process_to_be_killed", "--exact", "--nocapture"])
        .env(PATH, path)
        .env(SERVER, server)
        .env(FIRST, first.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Lets it work until it has had `count` writes accepted and some time more, kills it, and gives the last accepted one.
async fn run_and_kill(mut child: Child, count: u32, more: Duration) -> Option<u64> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut last, mut seen) = (None, 0);
    let mut take = |line: String| {
        let number = line.strip_prefix("accepted ").and_then(|number| number.parse().ok());
        seen += u32::from(number.is_some());
        last = number.or(last);
        seen
    };
    while let Some(line) = soon(lines.next_line()).await.unwrap() {
        if take(line) >= count {
            break;
        }
    }
    let rest = async { while lines.next_line().await.unwrap().map(&mut take).is_some() {} };
    let _ = timeout(more, rest).await;
    child.kill().await.unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        take(line);
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_was_accepted_and_does_nothing_twice() {
    let world = World::running().await;
    let phone = other(&world).await;
    let path = world.dir().join("laptop.redb");
    let (mut next, mut accepted) = (0, BTreeMap::new());
    for round in 0..ROUNDS {
        let child = start(&path, &world.server.client_url(), next);
        let (count, more) = (rand::random_range(1..40), Duration::from_micros(rand::random_range(0..30_000)));
        // So that there is something to copy, too.
        write(&phone, &format!("theirs{round}"), "1").await;
        let last = run_and_kill(child, count, more).await.unwrap();
        for number in next..=last {
            accepted.insert(number % KEYS, number);
        }
        // One more may have been accepted without saying so.
        next = last + 2;
    }
    let store = open(&world, "laptop").await;
    let mail = store.profile(app("mail")).await.unwrap();
    soon(mail.synced()).await.unwrap();
    let held = values(&mail).await;
    assert_eq!(held, world.system().values(&profile("mail")));
    for (key, number) in &accepted {
        let value: u64 = held[&format!("k{key}")].parse().unwrap();
        assert!(value >= *number, "k{key} holds {value}, and {number} was accepted");
    }
    assert_eq!((0..ROUNDS).filter(|round| held.contains_key(&format!("theirs{round}"))).count(), 12);
    let mut applied: BTreeMap<&str, u64> = BTreeMap::new();
    let system = world.system();
    for (key, value) in system.applied.iter().filter(|(key, _)| key.starts_with('k')) {
        let value: u64 = value.parse().unwrap();
        let before = applied.insert(key, value);
        assert!(before < Some(value), "{key} became {value} after {before:?}");
    }
}
