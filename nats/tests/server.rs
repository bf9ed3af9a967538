//! The child-process handle with a real nats-server: starting, ending in every way, starting again.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use roam_nats::{
    Bus, BusSettings, CLUSTER_CONF, Deployment, FindError, Headers, NatsServer, Overrides, SINGLE_CONF, ServerBinary,
    ServerSettings, StartError, SyncInterval, provision, stream_state,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::few_bytes;

const CHANGE_SUBJECT: &str = "roam.v1.change.acme.alice.notes.laptop";
const HELD_DIR: &str = "ROAM_TEST_HELD_DIR";

async fn connect(server: &NatsServer) -> Bus {
    let settings = BusSettings { servers: vec![server.client_url()], ..BusSettings::default() };
    Bus::connect(&settings, "test").await.unwrap()
}

fn small_deployment() -> Deployment {
    let overrides = Overrides { backups_max_bytes: Some(0), ..few_bytes() };
    Deployment { overrides, ..Deployment::new(1, 1) }
}

async fn publish_a_change(bus: &Bus) {
    let ack = bus
        .request(CHANGE_SUBJECT.to_owned(), Headers::new(), Bytes::from_static(b"x"), Duration::from_secs(5))
        .await
        .unwrap();
    assert!(ack.payload.starts_with(b"{\"stream\":\"ROAM_CHANGES\""), "{:?}", ack.payload);
}

/// Asks a server's monitoring. The body of the answer.
async fn monitored(server: &NatsServer, path: &str) -> String {
    let mut stream = TcpStream::connect(server.monitor_address()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Whether a process runs: a zombie does not.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A program that calls itself a nats-server of some version and does `then` when it is started as a server.
fn pretended(dir: &Path, version: &str, then: &str) -> PathBuf {
    let path = dir.join("nats-server");
    let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: {version}' && exit\n{then}\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Starting a program that another thread has just written can fail while a third one forks (ETXTBSY): the fork holds
/// the file open for writing until it execs.
fn taken(path: &Path) -> Result<ServerBinary, FindError> {
    loop {
        match ServerBinary::at(path) {
            Err(FindError::NotRunnable { source, .. }) if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn a_server_starts_serves_and_stops() {
    let dir = TempDir::new().unwrap();
    let mut server = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    let pid = server.pid().unwrap();
    assert!(monitored(&server, "/healthz").await.contains("\"status\":\"ok\""));
    connect(&server).await.close().await;

    server.stop().await.unwrap();
    assert_eq!(server.pid(), None);
    assert!(!runs(pid));
    let log = fs::read_to_string(server.log_path()).unwrap();
    assert!(log.contains("Server Exiting"), "it was stopped gracefully: {log}");
    // Stopping what is stopped changes nothing.
    server.stop().await.unwrap();
    server.kill().await.unwrap();
}

#[tokio::test]
async fn a_restarted_server_keeps_its_address_and_its_data() {
    let dir = TempDir::new().unwrap();
    let mut server = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    let (client_url, monitor_url) = (server.client_url(), server.monitor_url());
    let bus = connect(&server).await;
    provision(&bus, &small_deployment()).await.unwrap();
    publish_a_change(&bus).await;
    let before = stream_state(&bus, "ROAM_CHANGES").await.unwrap();
    assert_eq!((before.messages, before.last_sequence), (1, 1));

    for graceful in [true, false] {
        if graceful {
            server.stop().await.unwrap();
        } else {
            server.kill().await.unwrap();
        }
        server.restart().await.unwrap();
        assert_eq!((server.client_url(), server.monitor_url()), (client_url.clone(), monitor_url.clone()));
        let bus = connect(&server).await;
        assert_eq!(stream_state(&bus, "ROAM_CHANGES").await.unwrap(), before, "stopped gracefully: {graceful}");
    }
}

#[tokio::test]
async fn a_running_server_is_stopped_before_it_is_started_again() {
    let dir = TempDir::new().unwrap();
    let mut server = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    let first = server.pid().unwrap();
    server.restart().await.unwrap();
    assert!(!runs(first));
    assert!(runs(server.pid().unwrap()));
}

#[tokio::test]
async fn the_sync_interval_reaches_the_server() {
    for (sync, always) in [(SyncInterval::Always, true), (SyncInterval::Default, false)] {
        let dir = TempDir::new().unwrap();
        let server = NatsServer::start(ServerSettings { sync, ..ServerSettings::new(dir.path()) }).await.unwrap();
        let settings = monitored(&server, "/varz").await;
        assert_eq!(settings.contains("\"sync_always\": true"), always, "{sync:?}: {settings}");
        assert!(settings.contains("\"sync_interval\": 120000000000"), "{settings}");
        assert!(settings.contains("\"strict\": true"), "{settings}");
        assert!(settings.contains("\"max_payload\": 4194304"), "{settings}");
    }
}

#[tokio::test]
async fn a_directory_with_any_name_can_hold_a_server() {
    let dir = TempDir::new().unwrap();
    let odd = dir.path().join("a \"quoted\" $HOME, \\ and {more}");
    let server = NatsServer::start(ServerSettings::new(&odd)).await.unwrap();
    assert!(odd.join("jetstream").is_dir());
    drop(server);
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    let refused = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap_err();
    assert!(matches!(refused, StartError::DirectoryInUse { .. }), "{refused}");
    // One that is about to end is waited for.
    let pid = first.pid().unwrap();
    drop(first);
    NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    eventually("a dropped server dies", || !runs(pid)).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = NatsServer::start(ServerSettings::new(one.path())).await.unwrap();
    let port: u16 = first.client_url().rsplit_once(':').unwrap().1.parse().unwrap();
    let settings = ServerSettings { port: Some(port), ..ServerSettings::new(two.path()) };
    let refused = NatsServer::start(settings).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("port {port} at 127.0.0.1 cannot be used")), "{refused}");
}

#[tokio::test]
async fn an_unasked_end_is_noticed() {
    let dir = TempDir::new().unwrap();
    let mut server = NatsServer::start(ServerSettings::new(dir.path())).await.unwrap();
    let pid = server.pid().unwrap().to_string();
    assert!(tokio::time::timeout(Duration::from_millis(50), server.ended()).await.is_err());
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let status = tokio::time::timeout(Duration::from_secs(10), server.ended()).await.unwrap();
    assert!(!status.success());
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
}

#[tokio::test]
async fn a_server_dies_with_a_parent_that_is_killed() {
    let dir = TempDir::new().unwrap();
    let pid_file = dir.path().join("pid");
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "server::holds_a_server_until_it_is_killed", "--ignored", "--nocapture"])
        .env(HELD_DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the parent has started its server", || pid_file.exists()).await;
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(runs(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("its server ended", || !runs(pid)).await;
    // It was asked to, instead of being killed as well.
    let log = fs::read_to_string(dir.path().join("nats/nats-server.log")).unwrap();
    assert!(log.contains("Server Exiting"), "{log}");
}

#[tokio::test]
#[ignore = "the process that is killed by another test"]
async fn holds_a_server_until_it_is_killed() {
    let dir = PathBuf::from(env::var_os(HELD_DIR).expect("started by a_server_dies_with_a_parent_that_is_killed"));
    let server = NatsServer::start(ServerSettings::new(dir.join("nats"))).await.unwrap();
    fs::write(dir.join("pid.new"), server.pid().unwrap().to_string()).unwrap();
    fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
    std::future::pending::<()>().await;
}

#[test]
fn a_missing_program_says_what_to_install() {
    let text = FindError::Missing.to_string();
    for part in ["nats-server 2.12.0 or newer", "PATH", ".tools", "ROAM_NATS_SERVER"] {
        assert!(text.contains(part), "{text}");
    }
    let text = ServerBinary::at(Path::new("/nowhere/nats-server")).unwrap_err().to_string();
    assert!(text.contains("/nowhere/nats-server cannot be run") && text.contains("ROAM_NATS_SERVER"), "{text}");
}

#[test]
fn a_server_that_is_too_old_is_refused() {
    let dir = TempDir::new().unwrap();
    let refused = taken(&pretended(dir.path(), "v2.9.10", "exit 1")).unwrap_err();
    assert!(matches!(refused, FindError::TooOld { .. }));
    let text = refused.to_string();
    assert!(text.contains("is nats-server 2.9.10, which is too old; install nats-server 2.12.0 or newer"), "{text}");

    let refused = taken(&pretended(dir.path(), "of my own", "exit 1")).unwrap_err();
    assert!(matches!(refused, FindError::Unreadable { .. }), "{refused}");
    assert!(taken(&pretended(dir.path(), "v2.12.0", "exit 1")).is_ok());
}

#[tokio::test]
async fn a_server_that_ends_at_once_shows_the_end_of_its_log() {
    let dir = TempDir::new().unwrap();
    let binary = taken(&pretended(dir.path(), "v2.15.1", "echo 'the disk is on fire' >&2; exit 3")).unwrap();
    let settings = ServerSettings { binary: Some(binary), ..ServerSettings::new(dir.path().join("data")) };
    let error = NatsServer::start(settings).await.unwrap_err();
    let StartError::Ended { status, log } = &error else { panic!("{error}") };
    assert_eq!((status.code(), log.as_str()), (Some(3), "the disk is on fire"));
    assert!(error.to_string().contains("the disk is on fire"));
}

#[tokio::test]
async fn a_server_that_never_gets_ready_is_given_up_and_ended() {
    let dir = TempDir::new().unwrap();
    let script = format!("echo $$ > '{}/pid'; echo 'still thinking' >&2; exec sleep 1000", dir.path().display());
    let binary = taken(&pretended(dir.path(), "v2.15.1", &script)).unwrap();
    let settings = ServerSettings {
        binary: Some(binary),
        ready_within: Duration::from_millis(300),
        ..ServerSettings::new(dir.path().join("data"))
    };
    let error = NatsServer::start(settings).await.unwrap_err();
    assert!(matches!(error, StartError::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("still thinking"), "{error}");
    let pid: u32 = fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    eventually("it was ended", || !runs(pid)).await;
}

#[test]
fn the_configurations_name_each_variable_that_they_miss() {
    let dir = TempDir::new().unwrap();
    let binary = NatsServer::find().unwrap();
    for (conf, variables) in [
        (SINGLE_CONF, &["ROAM_NATS_NAME", "ROAM_NATS_STORE", "ROAM_NATS_SYNC"][..]),
        (CLUSTER_CONF, &["ROAM_NATS_NAME", "ROAM_NATS_STORE"][..]),
    ] {
        let file = dir.path().join("nats-server.conf");
        fs::write(&file, conf).unwrap();
        let check = |missing: Option<&str>| {
            let mut command = Command::new(binary.path());
            command.arg("-t").arg("-c").arg(&file).env_clear();
            for variable in variables.iter().filter(|variable| Some(**variable) != missing) {
                command.env(variable, "always");
            }
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        assert!(check(None).0, "{}", check(None).1);
        for variable in variables {
            let (accepted, text) = check(Some(variable));
            assert!(!accepted && text.contains(variable), "without {variable}: {text}");
        }
    }
}
