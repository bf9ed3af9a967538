//! A world: a nats-server, what is provisioned on it, access servers and storage replicas, and whoever connects to it.
//! Everything in it dies with it, and leaves nothing behind.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use roam_access_server::Rate;
use roam_auth::{Keyring, ProviderSettings, SigningKey, Token};
use roam_client::{Client, ClientSettings, Identity};
use roam_nats::{
    Bus, BusSettings, Deployment, Headers, NatsServer, Overrides, PermissionTables, PublishSettings, Publisher, Report,
    Role, Secret, ServerSettings, StreamState, SyncInterval, provision, provision_auth, security_conf, stream_state,
};
use roam_process::{ProcessSettings, clock, telemetry};
use roam_schemas::{
    Access, Apps, BatchId, Bearer, Control, ControlEntry, Encoding, Grant, ReplicaName, ServiceName, Shard, Shards,
    Terms, encode, subjects,
};
use roam_storage::BackupSettings;

use crate::{
    PATIENCE, Part, Post, Socket, Wire, device,
    part::{ACCESS_SERVER, AUTH, Program, STORAGE},
    place::Place,
    tenant, user,
};

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3_600);

/// What a world is going to be.
#[derive(Debug, Clone)]
pub struct Blueprint {
    access_servers: usize,
    auth_services: Option<usize>,
    providers: Vec<ProviderSettings>,
    replicas: usize,
    shards: Shards,
    binary: Option<PathBuf>,
    wires: bool,
    terms: Terms,
    rate: Rate,
    log_filter: Option<String>,
    memory_mib: usize,
    journal_max_bytes: u64,
    backup: BackupSettings,
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
    /// The auth services, if nobody gets in without a token.
    pub auth_services: Vec<Part>,
    /// The bus.
    pub nats: NatsServer,
    keys: Option<Keyring>,
    deployment: Deployment,
    place: Place,
}

impl World {
    /// A world of one access server and one replica, both in the test's process, unless told otherwise.
    #[expect(clippy::new_ret_no_self, reason = "a world begins as a sentence that says what it is to be")]
    pub fn new() -> Blueprint {
        Blueprint {
            access_servers: 1,
            auth_services: None,
            providers: Vec::new(),
            replicas: 1,
            shards: Shards::ONE,
            binary: None,
            wires: false,
            terms: Terms::default(),
            rate: Rate::default(),
            log_filter: None,
            memory_mib: 64,
            journal_max_bytes: 512 * MIB,
            backup: BackupSettings::default(),
            chunks_max_bytes: 512 * MIB,
            chunk_grace_seconds: None,
        }
    }

    /// Waits until every part that runs is ready.
    ///
    /// # Panics
    /// If one does not get ready, or does not run.
    pub async fn ready(&self) {
        for part in self.auth_services.iter().chain(&self.access_servers).chain(&self.replicas) {
            part.ready().await;
        }
    }

    /// Connects a device.
    ///
    /// # Panics
    /// If it cannot, as the other ways to connect.
    pub async fn device(&self, tenant: &str, user: &str, device: &str) -> Client {
        let identity = identity(tenant, user, device);
        self.connect(self.settings_of(&identity), identity).await
    }

    /// Connects a device through a wire.
    pub async fn device_on(&self, wire: &Wire, tenant: &str, user: &str, device: &str) -> Client {
        self.connect(ClientSettings::at(wire.url()), identity(tenant, user, device)).await
    }

    /// Connects a service.
    pub async fn service(&self, tenant_name: &str, name: &str) -> Client {
        let name = ServiceName::parse(name).unwrap();
        let identity = Identity::Service { tenant: tenant(tenant_name), name };
        self.connect(self.settings_of(&identity), identity).await
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
        let bus = self.settings_of(&identity(tenant_name, user_name, device_name)).bus;
        let settings = BusSettings { inbox_prefix: Some(inbox), ..bus };
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
        if self.keys.is_some() {
            let bus = self.bus_of(Role::Registrar).await;
            provision_auth(&bus, &self.deployment).await.unwrap();
            bus.close().await;
        }
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

    /// Orders something in the journal, as an operator. Gives its sequence.
    pub async fn order(&self, control: Control) -> u64 {
        let id = BatchId::random();
        let payload = encode(&ControlEntry { id, control }, Encoding::Postcard).unwrap();
        self.append(&subjects::journal_control(Shard::ONLY), &id.to_string(), payload).await
    }

    /// Appends an entry to the journal, whatever is in it. Gives its sequence.
    pub async fn append(&self, subject: &str, batch: &str, payload: Vec<u8>) -> u64 {
        let bus = self.operator().await;
        let publisher = Publisher::new(&bus, PublishSettings::default());
        let headers = Headers::new().with_batch(batch.to_owned());
        let sequence = publisher.publish(subject.to_owned(), headers, payload.into()).await.await.unwrap().sequence;
        bus.close().await;
        sequence
    }

    /// A connection for what only operators do.
    pub async fn operator(&self) -> Bus {
        self.bus_of(Role::Operator).await
    }

    /// A connection of a role; of nobody where everybody gets in.
    pub async fn bus_of(&self, role: Role) -> Bus {
        Bus::connect(&self.bus_settings_of(role), role.as_str()).await.unwrap()
    }

    /// How a role connects.
    pub fn bus_settings_of(&self, role: Role) -> BusSettings {
        let bus = BusSettings::at(self.nats.client_url());
        self.keys.as_ref().map_or(bus.clone(), |keys| keys.bus(role, &bus))
    }

    /// The keys of a world where nobody gets in without.
    pub fn keys(&self) -> &Keyring {
        self.keys.as_ref().expect("the world is secure")
    }

    /// Makes a token that is good for so long. No record of it is kept.
    pub fn token(&self, grant: Grant, lifetime: Duration) -> (Token, Secret) {
        let seed = std::fs::read_to_string(Keyring::signer_in(&self.dir().join("keys"))).unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        roam_auth::sign(grant, clock::now_ns() / 1_000_000_000, lifetime, &key).unwrap()
    }

    /// The settings of a client that signs in with this token.
    pub fn settings_with(&self, token: Secret) -> ClientSettings {
        let mut settings = self.client_settings();
        settings.bus.token = Some(token);
        settings
    }

    /// The settings of a client that may be what it says it is, with all apps.
    pub fn settings_of(&self, identity: &Identity) -> ClientSettings {
        match self.keys {
            None => self.client_settings(),
            Some(_) => self.settings_with(self.token(grant(identity), HOUR).1),
        }
    }

    /// Where the files of the world are.
    pub fn dir(&self) -> &Path {
        self.place.path()
    }
}

/// What an identity may be granted at most.
fn grant(identity: &Identity) -> Grant {
    let (tenant, bearer) = match identity.clone() {
        Identity::Device { tenant, user, device } => (tenant, Bearer::Device { user, device }),
        Identity::Service { tenant, name } => (tenant, Bearer::Service { name, access: Access::Write }),
    };
    Grant { tenant, bearer, apps: Apps::All }
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

    /// Over so many shards, each with as many access servers and storage replicas as were named: those of the first shard
    /// come first.
    #[must_use]
    pub fn shards(self, shards: u16) -> Self {
        Self { shards: Shards::new(shards).unwrap(), ..self }
    }

    /// With so many auth services, and nobody gets in without a token or a key.
    #[must_use]
    pub fn secure(self, auth_services: usize) -> Self {
        Self { auth_services: Some(auth_services), ..self }
    }

    /// With auth services that trust these too.
    #[must_use]
    pub fn providers(self, providers: Vec<ProviderSettings>) -> Self {
        Self { providers, ..self }
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

    /// With this rate for every user.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }

    /// With processes that log this much.
    #[must_use]
    pub fn log_filter(self, filter: &str) -> Self {
        Self { log_filter: Some(filter.to_owned()), ..self }
    }

    /// With a journal that keeps no more than this.
    #[must_use]
    pub fn journal_max_bytes(self, journal_max_bytes: u64) -> Self {
        Self { journal_max_bytes, ..self }
    }

    /// With replicas that make backups so. A directory is below that of the world.
    #[must_use]
    pub fn backups(self, backup: BackupSettings) -> Self {
        Self { backup, ..self }
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
        let mut settings =
            ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(place.path().join("nats")) };
        let keys = self.auth_services.map(|_| Keyring::open(&place.path().join("keys")).unwrap());
        let tables = PermissionTables::read(self.shards).unwrap();
        settings.shards = self.shards;
        settings.security = keys.as_ref().map(|keys| security_conf(&tables, &keys.security(None)));
        let nats = NatsServer::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
        let deployment = self.deployment();
        let (access_servers, replicas, auth_services) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = World { access_servers, replicas, auth_services, nats, keys, deployment, place };
        world.provision().await;
        for index in 0..self.auth_services.unwrap_or_default() {
            let program = |world: &World, bus, _| self.auth(world, &bus);
            let part = self.part(&world, format!("{AUTH}-{index}"), program).await;
            world.auth_services.push(part);
        }
        for shard in self.shards.each() {
            for index in 0..self.replicas {
                let name = format!("{STORAGE}-{}", usize::from(shard.number()) * self.replicas + index);
                let program = |world: &World, bus, dir| self.storage(shard, world, &bus, dir);
                let part = self.part(&world, name, program).await;
                world.replicas.push(part);
            }
            for index in 0..self.access_servers {
                let name = format!("{ACCESS_SERVER}-{}", usize::from(shard.number()) * self.access_servers + index);
                let program = |world: &World, bus, _| self.access_server(shard, world, &bus);
                let part = self.part(&world, name, program).await;
                world.access_servers.push(part);
            }
        }
        let parts = world.auth_services.iter_mut().chain(&mut world.replicas).chain(&mut world.access_servers);
        for part in parts {
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
            backups_max_bytes: Some(256 * MIB),
            tokens_max_bytes: Some(32 * MIB),
            audit_max_bytes: Some(32 * MIB),
            chunks_max_bytes: Some(self.chunks_max_bytes),
            chunk_grace_seconds: self.chunk_grace_seconds,
            ..Overrides::default()
        };
        Deployment { overrides, shards: self.shards, ..Deployment::new(1, self.replicas.max(1)) }
    }

    async fn part(
        &self,
        world: &World,
        name: String,
        program: impl Fn(&World, BusSettings, PathBuf) -> Program,
    ) -> Part {
        let wire = if self.wires { Some(world.wire().await) } else { None };
        let url = wire.as_ref().map_or_else(|| world.nats.client_url(), Wire::url);
        let mut program = program(world, BusSettings::at(url), world.dir().join(&name));
        if let Program::Storage(settings) = &mut program {
            let directory = self.backup.directory.as_ref().map(|directory| world.dir().join(directory));
            settings.backup = BackupSettings { directory, ..self.backup.clone() };
        }
        Part::new(name, program, self.binary.as_deref(), world.dir(), wire)
    }

    /// On a free port, with the default grace.
    fn process(&self) -> ProcessSettings {
        let mut process = ProcessSettings::on_port(0);
        process.log_filter = self.log_filter.clone().unwrap_or(process.log_filter);
        process
    }

    fn auth(&self, world: &World, bus: &BusSettings) -> Program {
        let (process, providers, shards) = (self.process(), self.providers.clone(), self.shards.get());
        Program::Auth(roam_auth::Settings { process, providers, shards, ..world.keys().auth_settings(bus) })
    }

    fn access_server(&self, shard: Shard, world: &World, bus: &BusSettings) -> Program {
        let (shard, shards) = (shard.number(), shard.shards().get());
        let bus = world.keys.as_ref().map_or(bus.clone(), |keys| keys.bus(Role::AccessServer, bus));
        let (process, terms, rate) = (self.process(), self.terms.clone(), self.rate);
        Program::AccessServer(roam_access_server::Settings {
            process,
            bus,
            shard,
            shards,
            terms,
            rate,
            ..Default::default()
        })
    }

    fn storage(&self, shard: Shard, world: &World, bus: &BusSettings, directory: PathBuf) -> Program {
        let responder_seed = world.keys.as_ref().map(|keys| keys.seed_of(Role::Responder));
        let bus = world.keys.as_ref().map_or(bus.clone(), |keys| keys.bus(Role::Storage, bus));
        let name = directory.file_name().and_then(|name| ReplicaName::parse(name.to_str()?).ok());
        let (shard, shards) = (shard.number(), shard.shards().get());
        let process = self.process();
        let mut settings = roam_storage::Settings {
            process,
            bus,
            name,
            shard,
            shards,
            responder_seed,
            directory,
            ..Default::default()
        };
        settings.store.memory_mib = self.memory_mib;
        Program::Storage(settings)
    }
}

/// Sets the log of the test's process, once.
fn log() {
    let filter = std::env::var("ROAM_TESTS_LOG").unwrap_or_else(|_| "error".to_owned());
    // A second world of the same process finds it set.
    let _ = telemetry::init(telemetry::LogFormat::Text, &filter);
}
