//! A real nats-server with Roam's streams, and a stand-in for everything behind them: it takes changes from the stream,
//! decides them in memory, and loses on request what may be lost on the way. It tests the client, never the services.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

pub mod system;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use roam_client::{App, Client, ClientSettings, Device, Identity, Key, Profile, ServiceName, Tenant, User};
use roam_nats::{
    ACCESS_DURABLE, Bus, BusSettings, CHANGES_STREAM, Deliveries, Deployment, Headers, NatsServer, Overrides,
    PullSettings, ServerSettings, SyncInterval, provision,
};
use roam_schemas::{Shard, subjects};
use system::System;
use tempfile::TempDir;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before the test fails.
pub const WITHIN: Duration = Duration::from_secs(20);

pub struct World {
    pub server: NatsServer,
    pub bus: Bus,
    system: Arc<Mutex<System>>,
    tasks: JoinSet<()>,
    dir: TempDir,
}

impl World {
    /// The bus alone: nobody takes changes, nobody answers.
    pub async fn start() -> World {
        Self::with(Overrides::default()).await
    }

    pub async fn with(overrides: Overrides) -> World {
        let dir = TempDir::new().unwrap();
        let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
        let server = NatsServer::start(settings).await.unwrap();
        let bus = Bus::connect(&BusSettings::at(server.client_url()), "stand-in").await.unwrap();
        // Nothing is set aside for what these tests do not use.
        let overrides = Overrides { backups_max_bytes: Some(0), chunks_max_bytes: Some(64 << 20), ..overrides };
        let deployment = Deployment { overrides, ..Deployment::new(1, 1) };
        provision(&bus, &deployment).await.unwrap();
        World { server, bus, system: Arc::default(), tasks: JoinSet::new(), dir }
    }

    /// The bus with everything behind it.
    pub async fn running() -> World {
        let mut world = Self::start().await;
        world.take_changes().await;
        world.answer().await;
        world
    }

    /// Begins to take changes from the stream and to decide them.
    pub async fn take_changes(&mut self) -> AbortHandle {
        let pull = PullSettings::default();
        let mut deliveries = Deliveries::open(&self.bus, CHANGES_STREAM, ACCESS_DURABLE, pull).await.unwrap();
        let (bus, system) = (self.bus.clone(), Arc::clone(&self.system));
        self.tasks.spawn(async move {
            while let Ok(delivery) = deliveries.next().await {
                let said = system.lock().unwrap().take(&delivery.message, delivery.stream_sequence);
                delivery.ack();
                for (subject, headers, payload) in said {
                    bus.send(subject, headers, payload).await.unwrap();
                }
            }
        })
    }

    /// Begins to answer requests.
    pub async fn answer(&mut self) -> AbortHandle {
        let mut requests = self.bus.subscribe("roam.v1.*.*.*.*".to_owned()).await.unwrap();
        self.bus.round_trip(WITHIN).await.unwrap();
        let (bus, system) = (self.bus.clone(), Arc::clone(&self.system));
        self.tasks.spawn(async move {
            while let Some(request) = requests.next().await {
                let Ok((verb, profile)) = subjects::parse_request(Shard::ONLY, &request.subject) else { continue };
                let reply = request.reply.clone().unwrap();
                assert!(subjects::may_answer(&reply, &profile), "{reply}");
                let (headers, payload) = system.lock().unwrap().answer(verb, &profile, &request);
                bus.send(reply, headers, payload).await.unwrap();
            }
        })
    }

    /// Where a test may keep files.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap()
    }

    pub fn settings(&self) -> ClientSettings {
        ClientSettings::at(self.server.client_url())
    }

    pub async fn client(&self) -> Client {
        self.client_with(self.settings()).await
    }

    pub async fn client_with(&self, settings: ClientSettings) -> Client {
        Client::connect(settings, device()).await.unwrap()
    }

    /// Says something on a subject, as whoever may.
    pub async fn say(&self, subject: String, headers: Headers, payload: impl Into<Bytes>) {
        self.bus.send(subject, headers, payload.into()).await.unwrap();
        self.bus.round_trip(WITHIN).await.unwrap();
    }
}

pub fn device() -> Identity {
    Identity::Device { tenant: tenant(), user: user(), device: Device::parse("laptop").unwrap() }
}

pub fn service() -> Identity {
    Identity::Service { tenant: tenant(), name: ServiceName::parse("directory").unwrap() }
}

pub fn tenant() -> Tenant {
    Tenant::parse("acme").unwrap()
}

pub fn user() -> User {
    User::parse("alice@example.com").unwrap()
}

pub fn app(name: &str) -> App {
    App::parse(name).unwrap()
}

pub fn profile(name: &str) -> Profile {
    Profile { tenant: tenant(), user: user(), app: app(name) }
}

pub fn key(text: impl Into<String>) -> Key {
    Key::parse(text).unwrap()
}

/// Fails the test instead of waiting for ever.
pub async fn soon<F: Future>(work: F) -> F::Output {
    timeout(WITHIN, work).await.expect("it takes too long")
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
