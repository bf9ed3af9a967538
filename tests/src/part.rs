//! One service of a world: an access server or a storage replica, as a task of the test's process or as a process of its
//! own. It is started, stopped, killed and started again.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use roam_process::{Context, http};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io,
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, Pages, Wire, eventually};

/// Tells a process of the tests which service it is.
pub const SERVICE_VARIABLE: &str = "ROAM_TESTS_SERVICE";
/// The access server, as its program is called.
pub const ACCESS_SERVER: &str = "roam-access-server";
/// The auth service, as its program is called.
pub const AUTH: &str = "roam-auth";
/// The storage replica, as its program is called.
pub const STORAGE: &str = "roam-storage";

/// An agent, as its program is called. It is no part of a world, but a device in it.
pub const AGENT: &str = "roam-agent";

/// One service of a world.
#[derive(Debug)]
pub struct Part {
    /// What it is called in logs and files, such as `roam-storage-0`.
    name: String,
    program: Program,
    /// The program that runs as whatever service [`SERVICE_VARIABLE`] says, if this is to be a process.
    binary: Option<PathBuf>,
    dir: PathBuf,
    wire: Option<Wire>,
    /// Set in the environment of a process.
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

/// A service with its settings.
#[derive(Debug, Clone)]
pub enum Program {
    /// An access server.
    AccessServer(roam_access_server::Settings),
    /// An auth service.
    Auth(roam_auth::Settings),
    /// A storage replica.
    Storage(roam_storage::Settings),
}

#[derive(Debug)]
enum Running {
    Task(Task),
    Process { child: Child, address: SocketAddr },
}

/// A service as a task, with what a process would do around it.
#[derive(Debug)]
struct Task {
    context: Context,
    /// Of one task each, which are aborted when this is dropped.
    service: JoinSet<Result<(), String>>,
    pages: JoinSet<io::Result<()>>,
    closing: CancellationToken,
    address: SocketAddr,
}

impl Part {
    pub(crate) fn new(name: String, program: Program, binary: Option<&Path>, dir: &Path, wire: Option<Wire>) -> Part {
        let (binary, dir) = (binary.map(Path::to_owned), dir.to_owned());
        Part { name, program, binary, dir, wire, environment: Vec::new(), running: None }
    }

    /// A service that is going to be a process of the program of its own name in `programs`, such as `roam-storage`. Its
    /// configuration and its log are in `dir`.
    pub fn process(name: String, program: Program, programs: &Path, dir: &Path) -> Part {
        let binary = programs.join(program.name());
        Part::new(name, program, Some(&binary), dir, None)
    }

    /// With these variables in the environment of its process.
    #[must_use]
    pub fn environment(self, environment: Vec<(String, String)>) -> Part {
        Part { environment, ..self }
    }

    /// Sets a variable in the environment of its next process, or takes it out.
    pub fn set_variable(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(there, _)| there != name);
        self.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Starts it, and returns once its pages answer. It need not be ready then.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        match self.binary.is_some() {
            false => self.running = Some(Running::Task(Task::start(self.program.clone()).await)),
            true => self.try_start().await.unwrap_or_else(|error| panic!("{error}")),
        }
    }

    /// As [`Self::start`], of a process that may refuse to.
    ///
    /// # Errors
    /// What it logged, if it ended at once.
    ///
    /// # Panics
    /// If it runs, or is to be a task.
    pub async fn try_start(&mut self) -> Result<(), String> {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let binary = self.binary.clone().expect("it is a process");
        self.running = Some(self.spawn(&binary).await?);
        Ok(())
    }

    /// Whose tokens an auth service trusts from its next start on, as an operator edits its settings.
    ///
    /// # Panics
    /// If it is no auth service.
    pub fn trust(&mut self, signers: &[&str]) {
        let Program::Auth(settings) = &mut self.program else { panic!("{} trusts nobody", self.name) };
        settings.signers = signers.iter().map(|signer| (*signer).to_owned()).collect();
    }

    /// What bounds users from the next start of an access server on, as an operator edits its settings.
    ///
    /// # Panics
    /// If it is no access server.
    pub fn bound(&mut self, edit: impl FnOnce(&mut roam_access_server::Settings)) {
        let Program::AccessServer(settings) = &mut self.program else { panic!("{} bounds nobody", self.name) };
        edit(settings);
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its process; none if it does not run, or is a task.
    pub fn pid(&self) -> Option<Pid> {
        let Some(Running::Process { child, .. }) = &self.running else { return None };
        Pid::from_raw(i32::try_from(child.id()?).ok()?)
    }

    /// Whether its process has ended without having been asked to. It may be started again then.
    ///
    /// # Panics
    /// If the process cannot be looked at.
    pub fn has_ended(&mut self) -> bool {
        let Some(Running::Process { child, .. }) = &mut self.running else { return false };
        let ended = child.try_wait().unwrap().is_some();
        if ended {
            self.running = None;
        }
        ended
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    pub async fn ready(&self) {
        let pages = self.pages();
        let mut last = String::new();
        let what = format!("{} is ready; what it logged is in {}", self.name, self.log().display());
        let ready = eventually(&what, async || match pages.try_get("/readyz").await {
            Ok((200, _)) => Some(()),
            answer => {
                last = format!("{answer:?}");
                None
            }
        });
        if timeout(PATIENCE / 2, ready).await.is_err() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            panic!("{} is not ready: {last}\n{log}", self.name);
        }
    }

    /// Asks it to stop and waits. Says how long that took.
    ///
    /// # Panics
    /// If it does not run, or does not stop well.
    pub async fn stop(&mut self) -> Duration {
        let asked = Instant::now();
        match self.take() {
            Running::Task(task) => task.stop(&self.name).await,
            Running::Process { mut child, .. } => {
                let id = i32::try_from(child.id().expect("it runs")).ok().and_then(Pid::from_raw).unwrap();
                kill_process(id, Signal::TERM).unwrap();
                let status = timeout(PATIENCE, child.wait()).await.expect("it stops").unwrap();
                assert!(status.success(), "{} stopped badly: {status}", self.name);
            }
        }
        asked.elapsed()
    }

    /// Ends it at once: a process by SIGKILL, a task by dropping it in the middle of whatever it does. Returns once it is
    /// gone.
    ///
    /// # Panics
    /// If it does not run, or is a replica in the test's process, whose store would stay open for a moment.
    pub async fn kill(&mut self) {
        match (self.take(), &self.program) {
            (Running::Process { mut child, .. }, _) => child.kill().await.unwrap(),
            (Running::Task(mut task), Program::AccessServer(_) | Program::Auth(_)) => task.service.shutdown().await,
            (Running::Task(_), Program::Storage(_)) => panic!("a replica is killed as a process only"),
        }
    }

    /// Returns once it says that it is not ready, and why: with a text that holds this one.
    ///
    /// # Panics
    /// If it says no such thing in time.
    pub async fn complains(&self, of: &str) {
        let pages = self.pages();
        eventually(&format!("{} complains of `{of}`", self.name), async || {
            let (status, body) = pages.get("/readyz").await;
            (status == 503 && body.contains(of)).then_some(())
        })
        .await;
    }

    /// Its pages.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pages(&self) -> Pages {
        let address = match self.running.as_ref().expect("it runs") {
            Running::Task(task) => task.address,
            Running::Process { address, .. } => *address,
        };
        Pages { address }
    }

    /// The wire to the bus.
    ///
    /// # Panics
    /// If the world was made without wires.
    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("the world has wires")
    }

    /// Where a process logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn take(&mut self) -> Running {
        self.running.take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    async fn spawn(&self, binary: &Path) -> Result<Running, String> {
        let configuration = self.dir.join(format!("{}.toml", self.name));
        fs::write(&configuration, self.program.configuration()).unwrap();
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let begins_at = log.metadata().unwrap().len();
        let mut child = Command::new(binary)
            .env(SERVICE_VARIABLE, self.program.name())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--config")
            .arg(&configuration)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let what = format!("{} says where its pages are, in {}", self.name, self.log().display());
        let address = eventually(&what, async || {
            let log = fs::read_to_string(self.log()).unwrap();
            let said = &log[usize::try_from(begins_at).unwrap()..];
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Err(format!("{} ended at once ({status}):\n{said}", self.name)));
            }
            said.lines().find_map(address_in).map(Ok)
        });
        let address = address.await?;
        Ok(Running::Process { child, address })
    }
}

/// The address in the log line that says that a process has started.
fn address_in(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "started").then(|| line["address"].as_str()?.parse().ok()).flatten()
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Self::AccessServer(_) => ACCESS_SERVER,
            Self::Auth(_) => AUTH,
            Self::Storage(_) => STORAGE,
        }
    }

    fn grace(&self) -> Duration {
        match self {
            Self::AccessServer(settings) => settings.process.grace(),
            Self::Auth(settings) => settings.process.grace(),
            Self::Storage(settings) => settings.process.grace(),
        }
    }

    /// The configuration file. There are no secrets in it that would be left out.
    fn configuration(&self) -> String {
        match self {
            Self::AccessServer(settings) => roam_process::settings::print(settings),
            Self::Auth(settings) => roam_process::settings::print(settings),
            Self::Storage(settings) => roam_process::settings::print(settings),
        }
        .unwrap()
    }

    async fn run(self, context: Context) -> Result<(), String> {
        match self {
            Self::AccessServer(settings) => {
                roam_access_server::run(settings, context).await.map_err(|error| format!("{error:?}"))
            }
            Self::Auth(settings) => roam_auth::run(settings, context).await.map_err(|error| format!("{error:?}")),
            Self::Storage(settings) => roam_storage::run(settings, context).await.map_err(|error| format!("{error:?}")),
        }
    }
}

impl Task {
    async fn start(program: Program) -> Task {
        let context = Context::new(program.grace());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let (mut pages, mut service) = (JoinSet::new(), JoinSet::new());
        pages.spawn(http::serve(listener, context.clone(), closing.clone()));
        let (name, run) = (program.name(), program.run(context.clone()));
        // As a process does: otherwise nobody would learn why it is not ready any more.
        service.spawn(async move { run.await.inspect_err(|error| tracing::error!(error, "{name} has failed")) });
        Task { context, service, pages, closing, address }
    }

    async fn stop(mut self, name: &str) {
        self.context.shutdown.cancel();
        let ended = timeout(PATIENCE, self.service.join_next()).await.expect("it stops").unwrap();
        assert_eq!(ended.unwrap(), Ok(()), "{name} stopped badly");
        self.closing.cancel();
        self.pages.join_next().await.unwrap().unwrap().unwrap();
    }
}
