//! A real system as a user has it: `roam up` in a directory of its own, and `roam` as a shell runs it. Both end with the
//! test.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

use std::{
    ffi::OsStr,
    io::Write,
    process::{Child, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use roam_client::{App, Client, ClientSettings, ContentType, Device, Identity, Key, ProfileClient, Tenant, User};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::program::roam;

/// How long the system may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// How messages begin that hand a change to the bus.
const CHANGE: &[u8] = b"roam.v1.change.";

/// The profile that all of this is about.
pub const PROFILE: &str = "acme/alice/editor";

/// A running system.
pub struct System {
    up: Child,
    server: String,
    /// What it said when it was ready.
    pub told: Value,
    /// Where tests may keep files too.
    pub place: Arc<TempDir>,
}

impl System {
    /// Starts one, and returns once it is ready.
    pub async fn start() -> System {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// As [`Self::start`], with further options.
    pub async fn start_with(options: &[&str]) -> System {
        Self::launch(Arc::new(tempfile::tempdir().unwrap()), options).await
    }

    /// Starts it where one was stopped.
    pub async fn start_in(place: Arc<TempDir>) -> System {
        Self::start_in_with(place, &[]).await
    }

    /// As [`Self::start_in`], with further options.
    pub async fn start_in_with(place: Arc<TempDir>, options: &[&str]) -> System {
        Self::launch(place, options).await
    }

    async fn launch(place: Arc<TempDir>, options: &[&str]) -> System {
        let ready = place.path().join("ready");
        let mut up = roam();
        up.args(["up", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        up.arg("--data").arg(place.path().join("data")).arg("--ready-file").arg(&ready);
        up.args(options);
        let up = up.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut system = System { up, server: String::new(), told: Value::Null, place };
        let deadline = Instant::now() + PATIENCE;
        while !ready.exists() {
            assert_eq!(system.up.try_wait().unwrap(), None, "roam up ended at once");
            assert!(Instant::now() < deadline, "roam up is not ready after {PATIENCE:?}");
            sleep(PAUSE).await;
        }
        let told: Value = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        system.server = told["server"].as_str().unwrap().to_owned();
        system.told = told;
        system
    }

    /// Stops it, and leaves what it kept.
    pub fn stop(self) -> Arc<TempDir> {
        Arc::clone(&self.place)
    }

    /// Where clients connect.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs `roam` on a device, with the words of a line.
    pub fn run(&self, device: &str, line: &str) -> Ran {
        self.run_args(device, line.split_whitespace())
    }

    /// Runs `roam` on a device.
    pub fn run_args(&self, device: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        run_at(&self.server, device, args)
    }

    /// As [`Self::run`], with something to read on standard input.
    pub fn run_with_input(&self, device: &str, line: &str, input: &[u8]) -> Ran {
        let mut command = roam();
        command.args(line.split_whitespace()).args(["--server", &self.server, "--device", device]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(&child.wait_with_output().unwrap())
    }

    /// As [`Self::run`], of a command that must end well.
    pub fn done(&self, device: &str, line: &str) -> Ran {
        let ran = self.run(device, line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        ran
    }

    /// A client of the profile.
    pub async fn client(&self, device: &str) -> (Client, ProfileClient) {
        let identity = Identity::Device {
            tenant: Tenant::parse("acme").unwrap(),
            user: User::parse("alice").unwrap(),
            device: Device::parse(device).unwrap(),
        };
        let client = Client::connect(ClientSettings::at(&self.server), identity).await.unwrap();
        let profile = client.profile(App::parse("editor").unwrap());
        (client, profile)
    }

    /// The revision of the profile.
    pub fn head(&self) -> u64 {
        let ran = self.done("looker", &format!("changes {PROFILE} --json"));
        ran.objects().last().unwrap()["head"].as_u64().unwrap()
    }

    /// The value of a key as text; none if there is none.
    pub fn value(&self, key: &str) -> Option<String> {
        let ran = self.run("looker", &format!("get {PROFILE} {key}"));
        match ran.code {
            0 => Some(ran.stdout),
            2 => None,
            code => panic!("{code}: {}", ran.stderr),
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let id = i32::try_from(self.up.id()).ok().and_then(Pid::from_raw).unwrap();
        // It may have ended already, which is as good.
        let _ = kill_process(id, Signal::TERM);
        let _ = self.up.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// What it printed, as JSON, one object a line.
    pub fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs `roam` on a device against a server.
pub fn run_at(server: &str, device: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    let output = roam().args(args).args(["--server", server, "--device", device]).output().unwrap();
    Ran::of(&output)
}

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub fn text() -> ContentType {
    ContentType::text()
}

/// A way to the bus on which somebody else goes first: it holds the first change back until that is done.
pub struct Gate {
    /// Where to connect.
    pub url: String,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Opens it for one connection.
    pub async fn before_the_first_change(server: &str, meanwhile: impl FnOnce() + Send + 'static) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = server.strip_prefix("nats://").unwrap().to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let (mut client_reads, mut client_writes) = client.into_split();
            let (mut server_reads, mut server_writes) = server.into_split();
            let mut meanwhile = Some(meanwhile);
            let there = async {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let length = client_reads.read(&mut buffer).await.unwrap_or(0);
                    let said = &buffer[..length];
                    if said.windows(CHANGE.len()).any(|part| part == CHANGE)
                        && let Some(meanwhile) = meanwhile.take()
                    {
                        spawn_blocking(meanwhile).await.unwrap();
                    }
                    if length == 0 || server_writes.write_all(said).await.is_err() {
                        return;
                    }
                }
            };
            let back = tokio::io::copy(&mut server_reads, &mut client_writes);
            tokio::select! {
                () = there => {}
                _ = back => {}
            }
        });
        Gate { url, _tasks: tasks }
    }
}
