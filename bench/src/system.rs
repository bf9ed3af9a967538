//! Roam as it is measured: `roam up`, which is the whole system on one machine as a user runs it, and the same services
//! with three nats-servers. Each is made of processes of its own, built from this checkout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use roam_nats::{BusSettings, Cluster, Deployment, NatsServer, ServerSettings, SyncInterval, provision};

use tokio::process::Command;

use crate::{
    asking::connect,
    child::{Child, free_port, sibling},
    keys::NAME,
    roam::until_answered,
};

/// How long a system may take to be ready. After a crash it reads all that it has.
pub(crate) const READY: Duration = Duration::from_secs(240);

/// `roam up`.
#[derive(Debug)]
pub(crate) struct OneMachine {
    child: Child,
    address: String,
    directory: PathBuf,
}

/// Services over nats-servers that belong to the benchmark.
#[derive(Debug)]
pub(crate) struct Services {
    access: Vec<Child>,
    _storage: Child,
    servers: Vec<String>,
    directory: PathBuf,
    _nats: Nats,
}

#[derive(Debug)]
enum Nats {
    One { _server: Box<NatsServer> },
    Three { _cluster: Cluster },
}

impl OneMachine {
    /// Starts it on what that directory holds, and waits until it is ready.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        Self::start_with(directory, &[]).await
    }

    async fn start_with(directory: &Path, options: &[&str]) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let (address, ready) = (format!("127.0.0.1:{}", free_port()?), directory.join("ready"));
        // A system that was killed has left it behind.
        let _ = fs::remove_file(&ready);
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            "up".to_owned(),
            "--data".to_owned(),
            text(&directory.join("data")),
            "--listen".to_owned(),
            address.clone(),
            "--metrics".to_owned(),
            "127.0.0.1:0".to_owned(),
            "--ready-file".to_owned(),
            text(&ready),
        ];
        let options = options.iter().map(|option| (*option).to_owned());
        let arguments: Vec<_> = arguments.into_iter().chain(options).collect();
        let mut child = Child::start(&sibling("roam")?, &arguments, directory)?;
        child.until("ready", READY, async || ready.exists()).await?;
        Ok(Self { child, address, directory: directory.to_owned() })
    }

    /// Starts it so that nobody gets in without a token and all is encrypted, and makes the token of the service that measures.
    /// Gives how it signs in, too.
    pub(crate) async fn start_secure(directory: &Path) -> anyhow::Result<(Self, BusSettings)> {
        let system = Self::start_with(directory, &["--secure"]).await?;
        let (keys, token) = (directory.join("data/keys"), directory.join("service.token"));
        let server = format!("tls://{}", system.address);
        let text = |path: &Path| path.display().to_string();
        let mut making = Command::new(sibling("roam")?);
        making.args(["token", "create", "--tenant", NAME, "--service", NAME, "--access", "write", "--server", &server]);
        making.args(["--keys", &text(&keys), "--output", &text(&token)]);
        let made = making.stdin(Stdio::null()).output().await?;
        ensure!(made.status.success(), "no token is made: {}", String::from_utf8_lossy(&made.stderr));
        let (ca, token_file) = (Some(keys.join("ca.pem")), Some(token));
        Ok((system, BusSettings { servers: vec![server], ca, token_file, tls: true, ..BusSettings::default() }))
    }

    /// Where clients connect.
    pub(crate) fn servers(&self) -> Vec<String> {
        vec![format!("nats://{}", self.address)]
    }

    /// The same as an address and a port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many bytes of memory its services hold.
    pub(crate) fn resident_alone(&self) -> anyhow::Result<u64> {
        self.child.resident_alone()
    }

    /// How many bytes of memory all of it holds, its nats-server included.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        self.child.resident()
    }

    /// Stops it in good order, and gives its directory.
    pub(crate) async fn stop(self) -> anyhow::Result<PathBuf> {
        self.child.stop().await?;
        Ok(self.directory)
    }

    /// Kills it with SIGKILL, and gives its directory.
    pub(crate) async fn kill(self) -> anyhow::Result<PathBuf> {
        self.child.kill().await?;
        // Its nats-server is ended by whoever watches it, a moment later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(self.directory)
    }
}

impl Services {
    /// One access server and one replica over three nats-servers that sync always.
    pub(crate) async fn over_three(directory: &Path) -> anyhow::Result<Self> {
        let cluster = Cluster::start(&directory.join("nats")).await?;
        let servers = cluster.client_urls();
        Self::over(Nats::Three { _cluster: cluster }, servers, 3, 1, directory).await
    }

    /// So many access servers and one replica over one nats-server, as `roam up` has it.
    pub(crate) async fn over_one(access_servers: usize, directory: &Path) -> anyhow::Result<Self> {
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(directory.join("nats")) };
        let server = NatsServer::start(settings).await?;
        let servers = vec![server.client_url()];
        Self::over(Nats::One { _server: Box::new(server) }, servers, 1, access_servers, directory).await
    }

    async fn over(
        nats: Nats,
        servers: Vec<String>,
        streams: usize,
        access: usize,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let bus = connect(&servers, None).await?;
        provision(&bus, &Deployment::new(streams, 1)).await.context("the system cannot be provisioned")?;
        bus.close().await;
        let mut arguments = settings(&servers);
        arguments.extend(["--set".to_owned(), format!("directory={}", directory.join("storage").display())]);
        let storage = Child::start(&sibling("roam-storage")?, &arguments, directory)?;
        let mut services =
            Self { access: Vec::new(), _storage: storage, servers, directory: directory.to_owned(), _nats: nats };
        for _ in 0..access {
            services.add_access_server()?;
        }
        until_answered(&services.servers, READY).await?;
        Ok(services)
    }

    /// Where clients connect.
    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Its access servers.
    pub(crate) fn access_servers(&self) -> &[Child] {
        &self.access
    }

    /// Starts another access server.
    pub(crate) fn add_access_server(&mut self) -> anyhow::Result<()> {
        let child = Child::start(&sibling("roam-access-server")?, &settings(&self.servers), &self.directory)?;
        self.access.push(child);
        Ok(())
    }

    /// Takes an access server away.
    pub(crate) fn take_access_server(&mut self) -> Option<Child> {
        self.access.pop()
    }
}

fn settings(servers: &[String]) -> Vec<String> {
    let set = |assignment: String| ["--set".to_owned(), assignment];
    let servers = set(format!("bus.servers={}", servers.join(",")));
    servers
        .into_iter()
        .chain(set("process.listen=127.0.0.1:0".to_owned()))
        .chain(["--log".to_owned(), "warn".to_owned()])
        .collect()
}
