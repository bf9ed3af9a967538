//! The command line, variables, ports and directory of one nats-server, kept so that the same server can be started any
//! number of times. Never waits for anything.

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::mappings_conf;

use super::{
    POLL, SINGLE_CONF, ServerBinary, ServerSettings, StartError, directory::Directory, health::Probe, port::Port,
    watchdog::Watchdog,
};

/// How long a start waits for a directory or a port that is in use.
const FREED_WITHIN: Duration = Duration::from_secs(3);

/// The variable by which a Go program learns how many processors it may use.
const GO_PROCESSORS: &str = "GOMAXPROCS";

/// All that is needed to start the same server again.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) binary: ServerBinary,
    pub(crate) directory: Directory,
    pub(crate) ports: Ports,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// What a start waits for.
    pub(crate) probe: Probe,
    pub(crate) ready_within: Duration,
    /// Whether clients use TLS.
    pub(crate) tls: bool,
}

/// Where a server listens. Held as long as the server may be started again.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) client: Port,
    pub(crate) monitor: Port,
    /// Where the other servers of its cluster connect.
    pub(crate) _routes: Option<Port>,
}

/// A process that was started and has not been waited for. Killed on drop.
#[derive(Debug)]
pub(crate) struct Running {
    // Before the child, because fields are dropped in this order: while the watch lasts, the child's number is its own.
    _watchdog: Watchdog,
    pub(crate) child: Child,
    /// How long the log was before this start, in bytes.
    pub(crate) log_from: u64,
}

impl Launch {
    /// One server by itself.
    pub(crate) async fn single(settings: ServerSettings) -> Result<Launch, StartError> {
        let binary = settings.binary.map_or_else(ServerBinary::find, Ok)?;
        let directory = open_directory(&settings.dir).await?;
        let ports = Ports {
            client: keep_port(settings.address, settings.port).await?,
            monitor: keep_port(Ipv4Addr::LOCALHOST.into(), settings.monitor_port).await?,
            _routes: None,
        };
        let mut variables = vec![("ROAM_NATS_SYNC", settings.sync.interval().to_owned())];
        if let Some(processors) = settings.processors.filter(|_| env::var_os(GO_PROCESSORS).is_none()) {
            variables.push((GO_PROCESSORS, processors.to_string()));
        }
        let launch = Launch {
            binary,
            directory,
            ports,
            arguments: Vec::new(),
            variables,
            probe: Probe::Everything,
            ready_within: settings.ready_within,
            tls: settings.security.as_ref().is_some_and(|security| security.tls),
        };
        let further = settings.security.map_or_else(|| mappings_conf(settings.shards), |security| security.text);
        launch.with_configuration("roam", &format!("{SINGLE_CONF}{further}"))
    }

    /// Adds what every server needs: its configuration file, written into its directory, and what differs from the file.
    pub(crate) fn with_configuration(mut self, name: &str, conf: &str) -> Result<Launch, StartError> {
        let file = self.directory.write("nats-server.conf", conf).map_err(|source| self.directory_error(source))?;
        let (client, monitor) = (self.ports.client.address(), self.ports.monitor.address());
        let flags = [
            ("-c", self.text(&file)?),
            ("-a", client.ip().to_string()),
            ("-p", client.port().to_string()),
            ("-m", monitor.port().to_string()),
            ("-l", self.text(&self.directory.log_path())?),
        ];
        self.arguments.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        let store = quoted(&self.text(self.directory.path())?);
        self.variables.extend([("ROAM_NATS_NAME", quoted(name)), ("ROAM_NATS_STORE", store)]);
        Ok(self)
    }

    /// Starts the process.
    pub(crate) fn spawn(&self) -> Result<Running, StartError> {
        let on_directory = |source| self.directory_error(source);
        let log = self.directory.log().map_err(on_directory)?;
        let log_from = log.metadata().map_err(on_directory)?.len();
        let child = Command::new(self.binary.path())
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            // Its input is the lock of the directory: see `Directory::lock`.
            .stdin(self.directory.lock().map_err(on_directory)?)
            // What it says before it opens its log, such as an error in its configuration.
            .stderr(log)
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| StartError::Spawn { path: self.binary.path().to_owned(), source })?;
        let watchdog = child.id().map(Watchdog::over).unwrap_or_default();
        Ok(Running { _watchdog: watchdog, child, log_from })
    }

    /// A path as an argument.
    fn text(&self, path: &Path) -> Result<String, StartError> {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            self.directory_error(io::Error::new(io::ErrorKind::InvalidFilename, "its path is not UTF-8"))
        })
    }

    fn directory_error(&self, source: io::Error) -> StartError {
        StartError::Directory { dir: self.directory.path().to_owned(), source }
    }
}

impl Running {
    /// Asks the process to end (SIGTERM).
    pub(crate) fn terminate(&self) -> io::Result<()> {
        // Without a number it has ended and been waited for already.
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return Ok(());
        };
        kill_process(pid, Signal::TERM).map_err(io::Error::from)
    }
}

/// Makes and locks the directory of a server.
pub(crate) async fn open_directory(dir: &Path) -> Result<Directory, StartError> {
    let opened = until_freed(|| Directory::open(dir).transpose()).await;
    match opened {
        Some(Ok(directory)) => Ok(directory),
        Some(Err(source)) => Err(StartError::Directory { dir: dir.to_owned(), source }),
        None => Err(StartError::DirectoryInUse { dir: dir.to_owned() }),
    }
}

/// Keeps a port for a server.
pub(crate) async fn keep_port(address: IpAddr, port: Option<u16>) -> Result<Port, StartError> {
    let kept = until_freed(|| match Port::keep(address, port) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        other => Some(other),
    });
    let kept = kept.await.unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()));
    kept.map_err(|source| StartError::Port { address, port: port.unwrap_or(0), source })
}

/// Tries until there is a result, for a short while: whoever has what we need may be about to end, such as the server of
/// a process that was killed and is being started again.
async fn until_freed<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + FREED_WITHIN;
    loop {
        let result = attempt();
        if result.is_some() || Instant::now() >= deadline {
            return result;
        }
        sleep(POLL).await;
    }
}

/// A value as nats-server reads one from a variable: its configuration language, in which text may need quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
