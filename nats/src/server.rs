//! nats-server as a child process: for `roam up`, where the bus is part of the program, and for tests. It is found,
//! started, waited for, stopped, killed and started again. Never configures streams (see [`provision`](crate::provision)),
//! never downloads anything.
//!
//! **How a server ends.** [`NatsServer::stop`] is the graceful way; dropping the handle kills. If this process is itself
//! killed, a watching shell ends the server; and if even that fails, the lock on the directory stays with the server, so
//! that no second one is started on the same data. Ctrl-C in a terminal does not reach it: it has its own process group,
//! because whoever uses the bus must be able to finish first.

mod binary;
mod cluster;
mod directory;
mod health;
mod launch;
mod port;
mod watchdog;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use roam_schemas::Shards;
use tokio::time::{Instant, sleep, timeout};

pub use self::{
    binary::{FindError, OLDEST_SERVER, SERVER_VARIABLE, ServerBinary, ServerVersion},
    cluster::Cluster,
};
use self::{
    health::Probe,
    launch::{Launch, Running},
};
use crate::SecurityConf;

/// The configuration file of a server that stands alone, as the text of `nats/conf/single.conf`.
pub const SINGLE_CONF: &str = include_str!("../conf/single.conf");
/// The configuration file of each server of a cluster of three, as the text of `nats/conf/cluster.conf`.
pub const CLUSTER_CONF: &str = include_str!("../conf/cluster.conf");

/// Where the data of JetStream is, below the directory of a server.
const JETSTREAM: &str = "jetstream";
const POLL: Duration = Duration::from_millis(10);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What a single server is started with.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Everything that the server writes goes here: JetStream's data, its log, its configuration. Made if missing.
    pub dir: PathBuf,
    /// Where clients connect. Without `security` only the loopback address is safe: the server asks nobody for a password.
    pub address: IpAddr,
    /// The port for clients, or `None` for any free one.
    pub port: Option<u16>,
    /// The port for monitoring, always on the loopback address, or `None` for any free one.
    pub monitor_port: Option<u16>,
    /// When JetStream syncs its files.
    pub sync: SyncInterval,
    /// How long the server may take until it is ready. After a crash it reads its streams again, which takes longer the
    /// more they hold.
    pub ready_within: Duration,
    /// Who gets in, or `None` for everybody.
    pub security: Option<SecurityConf>,
    /// Into how many shards what clients publish is mapped, where everybody gets in; else `security` says it.
    pub shards: Shards,
    /// How many processors the server may use at once (`GOMAXPROCS`), or `None` for all, or for what our own environment says.
    pub processors: Option<NonZero<usize>>,
    /// The program, or `None` to find one.
    pub binary: Option<ServerBinary>,
}

/// When JetStream asks the disk to keep what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncInterval {
    /// Before every PubAck. What has a PubAck survives a power cut.
    #[default]
    Always,
    /// Every two minutes, as the server does by itself: far faster, and a power cut loses all PubAcks since.
    Default,
}

/// A nats-server that this process started. It dies when this is dropped.
#[derive(Debug)]
pub struct NatsServer {
    launch: Launch,
    running: Option<Running>,
}

/// Why a server did not start. `log` is the end of what it wrote.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable nats-server.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Another server works on the same data.
    #[error("{dir} is in use by another nats-server; end that one first, or choose another directory")]
    DirectoryInUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{dir} cannot be used as the directory of a nats-server")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A port is taken.
    #[error("port {port} at {address} cannot be used; is another nats-server running?")]
    Port {
        /// The address.
        address: IpAddr,
        /// The port, 0 if any free one was asked for.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The program did not run at all.
    #[error("{path} cannot be run")]
    Spawn {
        /// The program.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It ran and ended by itself.
    #[error("nats-server ended at once ({status}); its log ends with:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It runs and does not get ready.
    #[error("nats-server is not ready after {waited:?}: {answer}; its log ends with:\n{log}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// What it answered last when asked for its health.
        answer: String,
        /// The end of its log.
        log: String,
    },
}

/// Why a server did not stop gracefully. It does not run any more in any case.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It did not end in time and was killed.
    #[error("nats-server did not end within {waited:?} and was killed")]
    Forced {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The operating system did not take the signal, or did not say how the child ended.
    #[error("nats-server cannot be signalled or waited for")]
    Io(#[from] io::Error),
}

impl ServerSettings {
    /// A server on free ports of the loopback address, syncing always, ready within 10 s.
    pub fn new(dir: impl Into<PathBuf>) -> ServerSettings {
        ServerSettings {
            dir: dir.into(),
            address: Ipv4Addr::LOCALHOST.into(),
            port: None,
            monitor_port: None,
            sync: SyncInterval::Always,
            ready_within: Duration::from_secs(10),
            security: None,
            shards: Shards::ONE,
            processors: None,
            binary: None,
        }
    }
}

impl NatsServer {
    /// Finds the program: `ROAM_NATS_SERVER`, then `.tools/nats-server` in the current directory and upwards and beside
    /// this executable, then `PATH`.
    pub fn find() -> Result<ServerBinary, FindError> {
        ServerBinary::find()
    }

    /// Starts a server and waits until it is ready.
    pub async fn start(settings: ServerSettings) -> Result<NatsServer, StartError> {
        let mut server = NatsServer { launch: Launch::single(settings).await?, running: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Where clients connect, as a URL.
    pub fn client_url(&self) -> String {
        let scheme = if self.launch.tls { "tls" } else { "nats" };
        format!("{scheme}://{}", self.launch.ports.client.reachable())
    }

    /// Where the server tells about itself, to this machine alone.
    pub fn monitor_address(&self) -> SocketAddr {
        self.launch.ports.monitor.reachable()
    }

    /// The same as a URL: append `/healthz`, `/varz`, `/jsz`.
    pub fn monitor_url(&self) -> String {
        format!("http://{}", self.monitor_address())
    }

    /// The process, or `None` if it was stopped or killed.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// The directory of everything that it writes.
    pub fn dir(&self) -> &Path {
        self.launch.directory.path()
    }

    /// Its log file.
    pub fn log_path(&self) -> PathBuf {
        self.launch.directory.log_path()
    }

    /// Has the system write to the disk all that JetStream has written. The server syncs what makes a stream a stream (its
    /// definition) only if it syncs always: without that, a stream that was made seconds before the power goes cannot be
    /// recovered afterwards, and the server is not healthy for ever ("could not be recovered", 2.12; seen under faults).
    pub async fn sync_to_disk(&self) -> io::Result<()> {
        let directory = self.dir().join(JETSTREAM);
        tokio::task::spawn_blocking(move || sync_file_system(&directory)).await.map_err(io::Error::other)?
    }

    /// Waits until the server ends without having been asked to, and says how. Waits for ever if it does not run.
    /// Cancel-safe.
    pub async fn ended(&mut self) -> ExitStatus {
        loop {
            let Some(running) = &mut self.running else { return std::future::pending().await };
            match running.child.wait().await {
                Ok(status) => {
                    self.running = None;
                    return status;
                }
                Err(error) => tracing::warn!(%error, "nats-server cannot be waited for"),
            }
            sleep(POLL).await;
        }
    }

    /// Asks the server to end, and waits. It is killed if it takes longer than 10 s.
    pub async fn stop(&mut self) -> Result<(), StopError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.terminate()?;
        match timeout(STOP_WITHIN, running.child.wait()).await {
            Ok(ended) => ended.map(|_| ()).map_err(StopError::Io),
            Err(_) => {
                running.child.kill().await?;
                Err(StopError::Forced { waited: STOP_WITHIN })
            }
        }
    }

    /// Kills the server with SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<(), StopError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.child.kill().await.map_err(StopError::Io)
    }

    /// Starts the server once more after `stop`, `kill` or its own end: same directory, same ports. If it runs, it is
    /// stopped first.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        if let Err(error) = self.stop().await {
            tracing::warn!(%error, "nats-server is started again after it did not stop gracefully");
        }
        self.start_again().await
    }

    async fn start_again(&mut self) -> Result<(), StartError> {
        self.spawn()?;
        self.wait_until(self.launch.probe).await
    }

    fn spawn(&mut self) -> Result<(), StartError> {
        self.running = Some(self.launch.spawn()?);
        Ok(())
    }

    /// Polls until the probe succeeds. A server that does not get there goes on running.
    async fn wait_until(&mut self, probe: Probe) -> Result<(), StartError> {
        let waited = self.launch.ready_within;
        let deadline = Instant::now() + waited;
        let monitor = self.launch.ports.monitor.reachable();
        let Some(running) = &mut self.running else { return Ok(()) };
        loop {
            let answer = health::ask(monitor, probe).await;
            // Looked at after the answer: an answer counts only if it is our server's.
            let ended = running.child.try_wait();
            if let Ok(Some(status)) = ended {
                let log = self.launch.directory.log_tail(running.log_from);
                self.running = None;
                return Err(StartError::Ended { status, log });
            }
            let Err(answer) = answer else { return Ok(()) };
            if Instant::now() >= deadline {
                let log = self.launch.directory.log_tail(running.log_from);
                return Err(StartError::NotReady { waited, answer, log });
            }
            sleep(POLL).await;
        }
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(directory)?)?)
}

/// Elsewhere only all file systems can be synced.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

impl SyncInterval {
    /// As the setting `sync_interval` of nats-server takes it. In seconds: `2m` without quotes is two million of them.
    fn interval(self) -> &'static str {
        match self {
            SyncInterval::Always => "always",
            SyncInterval::Default => "120s",
        }
    }
}
