//! The same world from Python, with nats-py and plain JSON: `examples/python/`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use roam_client::{Lookup, ProfileClient, State};
use roam_tests::{Fate, Frame, PATIENCE, Side, World, app, key, text};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

fn example() -> PathBuf {
    Path::new("../examples/python").canonicalize().unwrap()
}

/// Runs a program to its end, and gives what it printed.
async fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let (printed, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{printed}{said}", output.status);
    printed
}

/// The client in Python.
struct Python {
    program: PathBuf,
    server: String,
}

impl Python {
    /// Its virtual environment is made if there is none; without Python's venv and pip this fails, and says so.
    async fn at(server: String) -> Self {
        let venv = run(Command::new(example().join("test")).arg("--venv")).await;
        Self { program: Path::new(venv.trim()).join("bin/python"), server }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(example().join("roam_json.py"))
            .args(["--server", &self.server, "--device", "python"])
            .args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments)).await
    }

    fn watch(&self) -> Watch {
        let mut command = self.command(&["watch", "acme/alice/demo"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { lines, _child: child }
    }
}

struct Watch {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Watch {
    /// The revision of the next event, and its keys with their values; none for one that was deleted.
    async fn next(&mut self) -> (u64, Vec<(String, Option<String>)>) {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line comes").unwrap().expect("it goes on");
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let records = event["records"].as_array().unwrap().iter();
        let records = records.map(|record| (text(&record["key"]).unwrap(), text(&record["state"]["value"]["value"])));
        (event["revision"].as_u64().unwrap(), records.collect())
    }
}

async fn put(profile: &ProfileClient, name: &str, value: &str) -> u64 {
    profile.put(key(name), value, text()).await.unwrap().revision.get()
}

fn told(revision: u64, records: &[(&str, Option<&str>)]) -> (u64, Vec<(String, Option<String>)>) {
    let records = records.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
    (revision, records.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_in_python_finds_all_as_it_should_be() {
    let world = World::new().access_servers(2).replicas(2).start().await;
    let printed = run(Command::new(example().join("test")).arg(world.nats.client_url())).await;
    assert!(printed.contains("all as it should be"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rust_writes_python_reads_and_the_other_way_round() {
    let world = World::new().start().await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("demo"));
    let python = Python::at(world.nats.client_url()).await;
    put(&laptop, "theme", "dark").await;
    assert_eq!(python.run(&["get", "acme/alice/demo", "theme"]).await, "dark");

    let receipt: Value = serde_json::from_str(&python.run(&["put", "acme/alice/demo", "font", "mono"]).await).unwrap();
    assert_eq!(receipt["revision"], 2);
    let Lookup::Found(record) = laptop.get(key("font")).await.unwrap() else { panic!("it is there") };
    let State::Value(stored) = record.state else { panic!("{record:?}") };
    assert_eq!((stored.value.as_text(), record.device.as_str()), (Some("mono"), "python"));

    python.run(&["rm", "acme/alice/demo", "theme"]).await;
    assert!(matches!(laptop.get(key("theme")).await.unwrap(), Lookup::Deleted(_)));
    let listed = python.run(&["ls", "acme/alice/demo"]).await;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let history = python.run(&["history", "acme/alice/demo", "theme"]).await;
    assert_eq!(history.lines().count(), 2, "{history}");
    let delta: Value = serde_json::from_str(&python.run(&["changes", "acme/alice/demo"]).await).unwrap();
    let cursor = delta["cursor"].as_str().unwrap();
    put(&laptop, "font", "serif").await;
    let delta = python.run(&["changes", "acme/alice/demo", "--cursor", cursor]).await;
    let delta: Value = serde_json::from_str(&delta).unwrap();
    assert_eq!((&delta["head"], delta["records"].as_array().unwrap().len()), (&Value::from(4), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_in_python_follows_through_lost_notices_and_lost_connections() {
    let world = World::new().start().await;
    // This device speaks postcard, so the watch is told of its revisions by their headers alone.
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("demo"));
    let json = roam_client::ClientSettings { encoding: roam_client::Encoding::Json, ..world.client_settings() };
    let identity = world.device("acme", "alice", "tablet").await.identity().clone();
    let tablet = world.connect(json, identity).await.profile(app("demo"));
    put(&laptop, "a", "1").await;
    let wire = world.wire().await;
    let mut watch = Python::at(wire.url()).await.watch();
    assert_eq!(watch.next().await, told(1, &[("a", Some("1"))]), "what was there before");
    put(&laptop, "a", "2").await;
    assert_eq!(watch.next().await, told(2, &[("a", Some("2"))]));
    put(&tablet, "b", "1").await;
    assert_eq!(watch.next().await, told(3, &[("b", Some("1"))]));

    let is_notice = |frame: &Frame| frame.to == Side::Client && frame.subject.starts_with("roam.v1.notice.");
    wire.judge(move |frame| if is_notice(frame) { Fate::Drop } else { Fate::Pass });
    put(&tablet, "b", "2").await;
    roam_tests::eventually("the notice is lost", async || (wire.dropped() == 1).then_some(())).await;
    wire.judge(move |frame| if is_notice(frame) { Fate::Twice } else { Fate::Pass });
    tablet.delete(key("a")).await.unwrap();
    assert_eq!(watch.next().await, told(5, &[("b", Some("2")), ("a", None)]), "the gap");

    wire.cut();
    put(&tablet, "c", "1").await;
    wire.mend();
    assert_eq!(watch.next().await, told(6, &[("c", Some("1"))]), "while it was away");
    put(&tablet, "d", "1").await;
    assert_eq!(watch.next().await, told(7, &[("d", Some("1"))]));
}
