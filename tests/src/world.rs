//! A world: a nats-server, what is provisioned on it, access servers and storage replicas, and whoever connects to it.
//! Everything in it dies with it, and leaves nothing behind.

use std::path::{Path, PathBuf};

use roam_client::{Client, ClientSettings, Identity};
use roam_nats::{
    Bus, BusSettings, Deployment, Headers, NatsServer, Overrides, Report, ServerSettings, StreamState, SyncInterval,
    provision, stream_state,
};
use roam_process::{ProcessSettings, telemetry};
use roam_schemas::{ServiceName, Terms, subjects};

use crate::{
    PATIENCE, Part, Post, Socket, Wire, device,
    part::{ACCESS_SERVER, Program, STORAGE},
    place::Place,
    tenant, user,
};

const MIB: u64 = 1024 * 1024;

/// What a world is going to be.
#[derive(Debug, Clone)]
pub struct Blueprint {
    access_servers: usize,
    replicas: usize,
    binary: Option<PathBuf>,
    wires: bool,
    terms: Terms,
    memory_mib: usize,
    journal_max_bytes: u64,
    chunks_max_bytes: u64,
    chunk_grace_seconds: Option<u64>,
}

/// A running system. Its parts end in the order in which they stand here.
#[derive(Debug)]
pub struct World {
    /// The access servers.
    pub access_servers: Vec<Part>,
    /// The storage replicas.
    pub replicas: Vec<Part>,
    /// The bus.
    pub nats: NatsServer,
    deployment: Deployment,
    place: Place,
}

impl World {
    /// A world of one access server and one replica, both in the test's process, unless told otherwise.
    #[expect(clippy::new_ret_no_self, reason = "a world begins as a sentence that says what it is to be")]
    pub fn new() -> Blueprint {
        Blueprint {
            access_servers: 1,
            replicas: 1,
            binary: None,
            wires: false,
            terms: Terms::default(),
            memory_mib: 64,
            journal_max_bytes: 512 * MIB,
            chunks_max_bytes: 512 * MIB,
            chunk_grace_seconds: None,
        }
    }

    /// Waits until every part that runs is ready.
    ///
    /// # Panics
    /// If one does not get ready, or does not run.
    pub async fn ready(&self) {
        for part in self.access_servers.iter().chain(&self.replicas) {
            part.ready().await;
        }
    }

    /// Connects a device.
    ///
    /// # Panics
    /// If it cannot, as the other ways to connect.
    pub async fn device(&self, tenant: &str, user: &str, device: &str) -> Client {
        self.connect(self.client_settings(), identity(tenant, user, device)).await
    }

    /// Connects a device through a wire.
    pub async fn device_on(&self, wire: &Wire, tenant: &str, user: &str, device: &str) -> Client {
        self.connect(ClientSettings::at(wire.url()), identity(tenant, user, device)).await
    }

    /// Connects a service.
    pub async fn service(&self, tenant_name: &str, name: &str) -> Client {
        let name = ServiceName::parse(name).unwrap();
        self.connect(self.client_settings(), Identity::Service { tenant: tenant(tenant_name), name }).await
    }

    /// Connects whoever this is.
    pub async fn connect(&self, settings: ClientSettings, identity: Identity) -> Client {
        Client::connect(settings, identity).await.unwrap()
    }

    /// The default settings of a client of this world.
    pub fn client_settings(&self) -> ClientSettings {
        ClientSettings::at(self.nats.client_url())
    }

    /// A connection by hand, with the inbox of a device.
    pub async fn post(&self, tenant_name: &str, user_name: &str, device_name: &str) -> Post {
        let inbox = subjects::device_inbox(&tenant(tenant_name), &user(user_name), &device(device_name));
        let settings = BusSettings { inbox_prefix: Some(inbox), ..BusSettings::at(self.nats.client_url()) };
        Post::new(Bus::connect(&settings, "by hand").await.unwrap())
    }

    /// A bare connection.
    pub async fn socket(&self) -> Socket {
        Socket::connect(&self.nats.client_url()).await
    }

    /// A wire to the bus.
    pub async fn wire(&self) -> Wire {
        Wire::to(&self.nats.client_url()).await
    }

    /// Provisions once more, as the world was provisioned at its start.
    pub async fn provision(&self) -> Report {
        let bus = self.operator().await;
        let report = provision(&bus, &self.deployment).await.unwrap();
        bus.close().await;
        report
    }

    /// What the server says of a stream.
    pub async fn stream(&self, name: &str) -> StreamState {
        let bus = self.operator().await;
        let state = stream_state(&bus, name).await.unwrap();
        bus.close().await;
        state
    }

    /// Deletes a stream with all that is in it, and its durables.
    pub async fn delete_stream(&self, name: &str) {
        let bus = self.operator().await;
        let subject = format!("$JS.API.STREAM.DELETE.{name}");
        let answer = bus.request(subject, Headers::new(), "{}".into(), PATIENCE).await.unwrap();
        assert!(!answer.payload.windows(7).any(|part| part == b"\"error\""), "{answer:?}");
        bus.close().await;
    }

    /// A connection without an identity, for what only operators do.
    pub async fn operator(&self) -> Bus {
        Bus::connect(&BusSettings::at(self.nats.client_url()), "operator").await.unwrap()
    }

    /// Where the files of the world are.
    pub fn dir(&self) -> &Path {
        self.place.path()
    }
}

fn identity(tenant_name: &str, user_name: &str, device_name: &str) -> Identity {
    Identity::Device { tenant: tenant(tenant_name), user: user(user_name), device: device(device_name) }
}

impl Blueprint {
    /// With so many access servers.
    #[must_use]
    pub fn access_servers(self, access_servers: usize) -> Self {
        Self { access_servers, ..self }
    }

    /// With so many storage replicas.
    #[must_use]
    pub fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// With every part as a process of its own, which can be killed. `binary` is
    /// `env!("CARGO_BIN_EXE_roam-tests-service")`, which only a suite knows.
    #[must_use]
    pub fn as_processes(self, binary: impl Into<PathBuf>) -> Self {
        Self { binary: Some(binary.into()), ..self }
    }

    /// With a wire between each part and the bus.
    #[must_use]
    pub fn with_wires(self) -> Self {
        Self { wires: true, ..self }
    }

    /// With these terms.
    #[must_use]
    pub fn terms(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    /// With a journal that keeps no more than this.
    #[must_use]
    pub fn journal_max_bytes(self, journal_max_bytes: u64) -> Self {
        Self { journal_max_bytes, ..self }
    }

    /// With room for no more than this of large values.
    #[must_use]
    pub fn chunks_max_bytes(self, chunks_max_bytes: u64) -> Self {
        Self { chunks_max_bytes, ..self }
    }

    /// With chunks that stay for so many seconds when no record needs them.
    #[must_use]
    pub fn chunk_grace_seconds(self, seconds: u64) -> Self {
        Self { chunk_grace_seconds: Some(seconds), ..self }
    }

    /// Starts everything, and returns once all parts are ready.
    ///
    /// # Panics
    /// If anything does not start.
    pub async fn start(self) -> World {
        log();
        let place = Place::new();
        // What a test is about survives a killed server with either setting, and this one is faster.
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(place.path().join("nats")) };
        let nats = NatsServer::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
        let deployment = self.deployment();
        let mut world = World { access_servers: Vec::new(), replicas: Vec::new(), nats, deployment, place };
        world.provision().await;
        for index in 0..self.replicas {
            let part = self.part(&world, format!("{STORAGE}-{index}"), |bus, dir| self.storage(bus, dir)).await;
            world.replicas.push(part);
        }
        for index in 0..self.access_servers {
            let part = self.part(&world, format!("{ACCESS_SERVER}-{index}"), |bus, _| self.access_server(bus)).await;
            world.access_servers.push(part);
        }
        for part in world.replicas.iter_mut().chain(&mut world.access_servers) {
            part.start().await;
        }
        world.ready().await;
        world
    }

    fn deployment(&self) -> Deployment {
        // JetStream sets the whole of a stream's bound aside, and a test needs little.
        let overrides = Overrides {
            changes_max_bytes: Some(128 * MIB),
            journal_max_bytes: Some(self.journal_max_bytes),
            rejected_max_bytes: Some(32 * MIB),
            chunks_max_bytes: Some(self.chunks_max_bytes),
            chunk_grace_seconds: self.chunk_grace_seconds,
            ..Overrides::default()
        };
        Deployment { overrides, ..Deployment::new(1, self.replicas) }
    }

    async fn part(&self, world: &World, name: String, program: impl Fn(BusSettings, PathBuf) -> Program) -> Part {
        let wire = if self.wires { Some(world.wire().await) } else { None };
        let url = wire.as_ref().map_or_else(|| world.nats.client_url(), Wire::url);
        let program = program(BusSettings::at(url), world.dir().join(&name));
        Part::new(name, program, self.binary.as_deref(), world.dir(), wire)
    }

    fn access_server(&self, bus: BusSettings) -> Program {
        let (process, terms) = (process(), self.terms.clone());
        Program::AccessServer(roam_access_server::Settings { process, bus, terms, ..Default::default() })
    }

    fn storage(&self, bus: BusSettings, directory: PathBuf) -> Program {
        let mut settings = roam_storage::Settings { process: process(), bus, directory, ..Default::default() };
        settings.store.memory_mib = self.memory_mib;
        Program::Storage(settings)
    }
}

/// On a free port, with the default grace.
fn process() -> ProcessSettings {
    ProcessSettings::on_port(0)
}

/// Sets the log of the test's process, once.
fn log() {
    let filter = std::env::var("ROAM_TESTS_LOG").unwrap_or_else(|_| "error".to_owned());
    // A second world of the same process finds it set.
    let _ = telemetry::init(telemetry::LogFormat::Text, &filter);
}
