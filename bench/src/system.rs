//! Roam as it is measured: `roam up`, which is the whole system on one machine as a user runs it, and the same services
//! with three nats-servers. Each is made of processes of its own, built from this checkout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use roam_nats::{
    BusSettings, Cluster, Deployment, NatsServer, Role, SecurityConf, ServerSettings, SyncInterval, provision,
    provision_auth,
};
use tokio::process::Command;

use crate::{
    asking::{connect, connect_by},
    child::{Child, free_port, sibling},
    keys::{self, NAME},
    roam::{DEVICE, Names, until_answered},
};

/// How long a system may take to be ready. After a crash it reads all that it has.
pub(crate) const READY: Duration = Duration::from_secs(1_200);

/// Whom the token of the service that measures is of.
const AS_SERVICE: [&str; 4] = ["--service", NAME, "--access", "write"];

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
    /// The rest of them.
    others: Vec<Child>,
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
        let keys = Self::keys(directory);
        let server = format!("tls://{}", system.address);
        let token = make_token(&server, &keys, directory, &AS_SERVICE).await?;
        let (ca, token_file) = (Some(keys.join("ca.pem")), Some(token));
        Ok((system, BusSettings { servers: vec![server], ca, token_file, tls: true, ..BusSettings::default() }))
    }

    /// Makes a token for a device of each of these, and gives how each of them signs in.
    pub(crate) async fn devices(&self, service: &BusSettings, names: &Names) -> anyhow::Result<Vec<BusSettings>> {
        let mut devices = Vec::new();
        for mut device in names.devices(service)? {
            let (keys, number) = (Self::keys(&self.directory), devices.len() as u64);
            let who = ["--user", &keys::user(number), "--device", DEVICE];
            device.token_file = Some(make_token(&service.servers[0], &keys, &self.directory, &who).await?);
            devices.push(device);
        }
        Ok(devices)
    }

    /// Where its keys and certificates are, if it is secure.
    pub(crate) fn keys(directory: &Path) -> PathBuf {
        directory.join("data/keys")
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
        fs::create_dir_all(directory)?;
        let cluster = Cluster::start(&directory.join("nats")).await?;
        let servers = cluster.client_urls();
        Self::over(Nats::Three { _cluster: cluster }, servers, 3, 1, directory).await
    }

    /// So many access servers and one replica over one nats-server, as `roam up` has it.
    pub(crate) async fn over_one(access_servers: usize, directory: &Path) -> anyhow::Result<Self> {
        let server = start_nats(directory, None).await?;
        let servers = vec![server.client_url()];
        Self::over(Nats::One { _server: Box::new(server) }, servers, 1, access_servers, directory).await
    }

    /// The same with one access server, such that nobody gets in without a token, and nothing is encrypted: what security costs
    /// beside encryption. Gives how the service that measures signs in, too.
    pub(crate) async fn with_tokens(directory: &Path) -> anyhow::Result<(Self, BusSettings)> {
        let place = directory.join("keys");
        let made = roam(&["keys", "--json", "--host", "localhost", &place.display().to_string()]).await?;
        let signer = serde_json::from_slice::<serde_json::Value>(&made)?["signer"].clone();
        let signer = signer.as_str().context("there is no key that signs tokens")?;
        let seed_of = |role: Role| place.join(format!("{}.nk", role.as_str()));
        let text = without_tls(&fs::read_to_string(place.join("security.conf"))?)?;
        let server = start_nats(directory, Some(SecurityConf { text, tls: false, routes: String::new() })).await?;
        let plain = BusSettings::at(server.client_url());
        let bus = async |role: Role| {
            let settings = BusSettings { nkey_seed: Some(seed_of(role)), ..plain.clone() }.signed_in_as(role);
            connect_by(&settings).await
        };
        let (operator, registrar) = (bus(Role::Operator).await?, bus(Role::Registrar).await?);
        provision(&operator, &Deployment::new(1, 1)).await.context("the system cannot be provisioned")?;
        provision_auth(&registrar, &Deployment::new(1, 1)).await.context("there is no place for tokens")?;
        operator.close().await;
        registrar.close().await;
        let seed = |name: &str, role| format!("{name}={}", seed_of(role).display());
        let nats = Nats::One { _server: Box::new(server) };
        let mut services = Self::none(nats, plain.servers.clone(), directory);
        services.start(
            "roam-auth",
            &[
                seed("bus.nkey_seed", Role::Auth),
                seed("system_seed", Role::AuthSystem),
                seed("auditor_seed", Role::Auditor),
                format!("issuer_seed={}", place.join("issuer.nk").display()),
                format!("signers={signer}"),
            ],
        )?;
        // Whoever finds a certificate authority beside the keys encrypts.
        let alone = directory.join("registrar");
        fs::create_dir(&alone)?;
        for key in ["registrar.nk", "signer.nk"] {
            fs::copy(place.join(key), alone.join(key))?;
        }
        let token = make_token(&plain.servers[0], &alone, directory, &AS_SERVICE).await?;
        services.start(
            "roam-storage",
            &[
                storage_directory(directory),
                seed("bus.nkey_seed", Role::Storage),
                seed("responder_seed", Role::Responder),
            ],
        )?;
        services.start("roam-access-server", &[seed("bus.nkey_seed", Role::AccessServer)])?;
        let bus = BusSettings { token_file: Some(token), ..plain };
        until_answered(&bus, READY).await?;
        Ok((services, bus))
    }

    async fn over(
        nats: Nats,
        servers: Vec<String>,
        streams: usize,
        access: usize,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let bus = connect(&servers, None).await?;
        provision(&bus, &Deployment::new(streams, 1)).await.context("the system cannot be provisioned")?;
        bus.close().await;
        let mut services = Self::none(nats, servers, directory);
        services.start("roam-storage", &[storage_directory(directory)])?;
        for _ in 0..access {
            services.add_access_server()?;
        }
        until_answered(&BusSettings { servers: services.servers.clone(), ..BusSettings::default() }, READY).await?;
        Ok(services)
    }

    fn none(nats: Nats, servers: Vec<String>, directory: &Path) -> Self {
        Self { access: Vec::new(), others: Vec::new(), servers, directory: directory.to_owned(), _nats: nats }
    }

    fn start(&mut self, program: &str, assignments: &[String]) -> anyhow::Result<()> {
        let given = assignments.iter().flat_map(|assignment| ["--set".to_owned(), assignment.clone()]);
        let arguments: Vec<_> = settings(&self.servers).into_iter().chain(given).collect();
        self.others.push(Child::start(&sibling(program)?, &arguments, &self.directory)?);
        Ok(())
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

async fn start_nats(directory: &Path, security: Option<SecurityConf>) -> anyhow::Result<NatsServer> {
    fs::create_dir_all(directory)?;
    let settings =
        ServerSettings { sync: SyncInterval::Default, security, ..ServerSettings::new(directory.join("nats")) };
    Ok(NatsServer::start(settings).await?)
}

/// Makes a token of somebody of the tenant, and gives its file.
async fn make_token(server: &str, keys: &Path, directory: &Path, who: &[&str]) -> anyhow::Result<PathBuf> {
    let token = directory.join(format!("{}.token", who[1]));
    let text = |path: &Path| path.display().to_string();
    let (keys, file) = (text(keys), text(&token));
    let create = ["token", "create", "--tenant", NAME];
    roam(&[create.as_slice(), who, &["--server", server, "--keys", &keys, "--output", &file]].concat()).await?;
    Ok(token)
}

/// What the command line says.
async fn roam(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let said = Command::new(sibling("roam")?).args(arguments).stdin(Stdio::null()).output().await?;
    ensure!(said.status.success(), "roam {}: {}", arguments.join(" "), String::from_utf8_lossy(&said.stderr));
    Ok(said.stdout)
}

/// A server's configuration without the part that has clients use TLS.
fn without_tls(conf: &str) -> anyhow::Result<String> {
    let (before, rest) = conf.split_once("\ntls {").context("the configuration has no TLS")?;
    let (_, after) = rest.split_once("\n}").context("the TLS of the configuration has no end")?;
    Ok([before, after].concat())
}

fn storage_directory(directory: &Path) -> String {
    format!("directory={}", directory.join("storage").display())
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
