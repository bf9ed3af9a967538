//! `roam up --secure`: the keys and certificates of this machine, and the first token.

use std::{env, fs, path::PathBuf, time::Duration};

use roam_auth::{SigningKey, TokenRecord, sign, store, write_private};
use roam_client::Secret;
use roam_nats::{Bus, BusSettings, Deployment, Overrides, Report, Role, SecurityConf, provision_auth};
use roam_process::clock;
use roam_schemas::{Access, App, Apps, Device, Grant, ServiceName, Shards, Tenant, User};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{WHAT, place::Place};
use crate::{
    cli::Up,
    commands::{
        keys::{Made, make},
        provision::not_provisioned,
    },
    connect::{host_name, not_on_the_bus},
    failure::Failure,
};

/// How long the first token is good for.
const FIRST_TOKEN: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long it may take until the system is ready.
const START: Duration = Duration::from_secs(3_600);
const SECOND: u64 = 1_000_000_000;

/// How this system keeps others out.
pub(super) struct Secure {
    made: Made,
    place: PathBuf,
    mutual_tls: bool,
    shards: Shards,
}

impl Secure {
    /// Opens the keys; makes them the first time.
    pub(super) fn open(args: &Up, place: &Place) -> Result<Self, Failure> {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !args.listen.ip().is_unspecified() && !args.listen.ip().is_loopback() {
            hosts.push(args.listen.ip().to_string());
        }
        hosts.extend(args.hosts.iter().cloned());
        let place = place.keys();
        let made = make(&place, &hosts, args.mutual_tls, args.shards)?;
        Ok(Self { made, place, mutual_tls: args.mutual_tls, shards: args.shards })
    }

    /// The keys that were missing beside others, which are made now.
    pub(super) fn added(&self) -> &[String] {
        self.made.keys.added()
    }

    /// What the server is started with.
    pub(super) fn conf(&self) -> SecurityConf {
        self.made.conf.clone()
    }

    /// How a role reaches the server.
    pub(super) fn bus(&self, role: Role, server: &str) -> BusSettings {
        self.made.keys.bus(role, &self.plain(server))
    }

    /// The file of the seed of the responder.
    pub(super) fn responder_seed(&self) -> PathBuf {
        self.made.keys.seed_of(Role::Responder)
    }

    /// The settings of the auth service.
    pub(super) fn auth(&self, server: &str) -> roam_auth::Settings {
        let shards = self.shards.get();
        roam_auth::Settings { shards, ..self.made.keys.auth_settings(&self.plain(server)) }
    }

    /// How to reach the server for a look whether it is ready.
    pub(super) fn looking(&self, server: &str, tenant: Tenant, name: ServiceName) -> Result<BusSettings, Failure> {
        let grant = Grant::service(tenant, name, Access::Read, Apps::All);
        let (_, text) = self.sign(grant.map_err(|error| Failure::because(WHAT, &error))?, START)?;
        Ok(BusSettings { token: Some(text), ..self.plain(server) })
    }

    /// The commands that make the others sign in.
    pub(super) fn exports(&self, server: &str) -> Vec<(&'static str, String)> {
        let show = |path: PathBuf| path.display().to_string();
        let mut exports = vec![
            ("ROAM_SERVER", server.to_owned()),
            ("ROAM_CA", show(self.made.certificates.ca())),
            ("ROAM_TOKEN_FILE", show(self.first_token())),
        ];
        if self.mutual_tls {
            let [certificate, key] = self.made.certificates.pair("client");
            exports.push(("ROAM_CERTIFICATE", show(certificate)));
            exports.push(("ROAM_CERTIFICATE_KEY", show(key)));
        }
        exports
    }

    /// The directory of the keys.
    pub(super) fn keys(&self) -> String {
        self.place.display().to_string()
    }

    /// Makes the streams for tokens and audit, and the first token the first time.
    pub(super) async fn prepare(&self, server: &str, args: &Up) -> Result<Report, Failure> {
        let Up { audit_max_bytes, tokens_max_bytes, .. } = *args;
        let overrides = Overrides { audit_max_bytes, tokens_max_bytes, ..Overrides::default() };
        let deployment = Deployment { overrides, ..Deployment::new(1, 1) };
        let bus = Bus::connect(&self.bus(Role::Registrar, server), "roam-up").await;
        let bus = bus.map_err(|error| not_on_the_bus(WHAT, &error))?;
        let (runtime, making) = (Handle::current(), bus.clone());
        // As in `provisioned`: the compiler cannot tell that the future may move between threads.
        let made = spawn_blocking(move || runtime.block_on(provision_auth(&making, &deployment))).await;
        let made = made.map_err(|error| Failure::because(WHAT, &error))?;
        let made = made.map_err(|error| not_provisioned(WHAT, &error))?;
        let first = self.make_first_token(&bus).await;
        bus.close().await;
        first.map(|()| made)
    }

    async fn make_first_token(&self, bus: &Bus) -> Result<(), Failure> {
        let file = self.first_token();
        if file.exists() {
            return Ok(());
        }
        let (token, text) = self.sign(first_grant()?, FIRST_TOKEN)?;
        store(bus, &TokenRecord::of(&token)).await.map_err(|error| Failure::because(WHAT, &error))?;
        let written = write_private(&file, format!("{}\n", text.expose()).as_bytes());
        written.map_err(|error| Failure::because(file.display().to_string(), &error))
    }

    fn first_token(&self) -> PathBuf {
        self.place.join("first.token")
    }

    fn plain(&self, server: &str) -> BusSettings {
        self.made.certificates.bus(server.to_owned(), self.mutual_tls)
    }

    fn sign(&self, grant: Grant, lifetime: Duration) -> Result<(roam_auth::Token, Secret), Failure> {
        let path = roam_auth::Keyring::signer_in(&self.place);
        let unusable = |error: &dyn std::error::Error| Failure::because(path.display().to_string(), error);
        let seed = fs::read_to_string(&path).map_err(|error| unusable(&error))?;
        let key = SigningKey::from_seed(&seed).map_err(|error| unusable(&error))?;
        sign(grant, clock::now_ns() / SECOND, lifetime, &key).map_err(|error| Failure::because(WHAT, &error))
    }
}

/// The person who starts the system, on this machine, in a tenant of one's own.
fn first_grant() -> Result<Grant, Failure> {
    let user = env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "me".to_owned());
    let failed = |error: &dyn std::error::Error| Failure::because(WHAT, error);
    let tenant = Tenant::parse("home").map_err(|error| failed(&error))?;
    let user = User::parse(user).map_err(|error| failed(&error))?;
    let device = host_name().unwrap_or_else(|| "this-device".to_owned());
    let device = Device::parse(&device).map_err(|error| failed(&error))?;
    Grant::device(tenant, user, device, Apps::All).map_err(|error| failed(&error))
}

/// The profile to try, in the name of the first token.
pub(super) fn profile_to_try() -> String {
    let grant = first_grant().ok().map(|grant| grant.bearer);
    let user = match grant {
        Some(roam_schemas::Bearer::Device { user, .. }) => user.to_string(),
        _ => "me".to_owned(),
    };
    let app = App::parse("editor").map(|app| app.to_string()).unwrap_or_default();
    format!("home/{}/{app}", user.replace('%', "%25").replace('/', "%2F"))
}
