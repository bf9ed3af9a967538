//! `roam up`: the whole system in one process. NATS runs as its child; the access server and the storage replica are
//! mounted as they are. They start in that order, and stop from the front of the pipeline to its end: the access server,
//! then the replica, then NATS. A part that stops unasked stops the whole, with its reason.

mod part;
mod place;
mod ready;
mod secure;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use futures_util::future::{join_all, select_all};
use roam_client::{App, Client, ClientSettings, ConnectError, Identity, ServiceName, Tenant, User};
use roam_nats::{
    Bus, BusSettings, Deployment, NatsServer, Overrides, Report, Role, ServerSettings, StartError, SyncInterval,
    provision,
};
use roam_process::{Context, ProcessSettings};
use roam_schemas::{LatestRequest, NameError, ReplicaName, Shard, Shards};
use tokio::{
    runtime::Handle,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use self::{
    part::Part,
    place::{Place, PlaceError},
    ready::{Addresses, announce, not_yet},
    secure::Secure,
};
use super::provision::{not_provisioned, overrides};
use crate::{
    cli::{Global, Room, Sync, Up},
    connect::{not_answered, not_connected, not_on_the_bus},
    failure::{Failure, chain},
    output::Output,
};

const WHAT: &str = "up";
/// What is logged unless something else is asked for. How the process ends is said without it.
const LOG: &str = "warn,roam_process::health=off";
/// After a crash NATS reads what it holds, which takes longer the more that is.
const NATS_READY: Duration = Duration::from_secs(120);
/// For both services, one after the other, and for NATS.
const GRACE_SECONDS: u64 = 30;
/// Between two attempts to sign in while the system starts, and how long one may take.
const PAUSE: Duration = Duration::from_millis(100);
const SIGN_IN_WITHIN: Duration = Duration::from_secs(1);

/// Runs until it is asked to stop.
pub(super) fn run(args: Up, global: &Global, out: Output) -> ExitCode {
    let process = ProcessSettings {
        listen: args.metrics,
        log_filter: global.log.clone().unwrap_or_else(|| LOG.to_owned()),
        grace_seconds: GRACE_SECONDS,
        ..ProcessSettings::default()
    };
    roam_process::launch("roam", &process, move |context| live(args, out, context))
}

/// From the first step to the last, and says how it went.
async fn live(args: Up, out: Output, context: Context) -> Result<(), Failure> {
    let ended = Box::pin(live_until_stopped(&args, out, &context)).await;
    context.shutdown.cancel();
    if let Err(failure) = &ended {
        out.fail(failure);
    }
    ended
}

async fn live_until_stopped(args: &Up, out: Output, context: &Context) -> Result<(), Failure> {
    let place = Place::of(args.data.as_deref()).map_err(|error| no_place(&error))?;
    not_yet(args)?;
    out.note(format_args!("starting in {}", place.root.display()));
    let starting = Box::pin(System::start(args, &place, out, context));
    let Some(started) = context.shutdown.run_until_cancelled(starting).await else {
        return Ok(());
    };
    let mut system = started?;
    let served = system.serve(args, &place, out, context).await;
    // From here on the clock runs against a stop that hangs.
    context.shutdown.cancel();
    out.note("stopping");
    let stopped = system.stop().await;
    served.and(stopped)
}

/// The parts, in the order in which they stop.
struct System {
    /// One a shard.
    access: Vec<Part>,
    /// One a shard.
    storage: Vec<Part>,
    /// Who lets people in, if not everybody gets in.
    auth: Option<Part>,
    secure: Option<Secure>,
    nats: NatsServer,
}

impl System {
    async fn start(args: &Up, place: &Place, out: Output, context: &Context) -> Result<Self, Failure> {
        let secure = args.secure.then(|| Secure::open(args, place)).transpose()?;
        if let Some(added) = secure.as_ref().map(Secure::added).filter(|added| !added.is_empty()) {
            out.note(format_args!("added to the keys, and used from now on: {}", added.join(", ")));
        }
        let nats = start_nats(args, place, secure.as_ref()).await?;
        let server = nats.client_url();
        let bus = |role| match &secure {
            Some(secure) => secure.bus(role, &server),
            None => BusSettings::at(&server),
        };
        if !make_streams(&bus(Role::Operator), args.room, args.shards).await?.created.is_empty() {
            nats.sync_to_disk().await.map_err(|error| Failure::because(WHAT, &error))?;
        }
        let mut auth = None;
        if let Some(secure) = &secure {
            for object in secure.prepare(&server, args).await?.updated {
                out.note(format_args!("updated {object}: an earlier version had made it otherwise"));
            }
            let settings = secure.auth(&server);
            auth = Some(Part::start("auth", context, |context| roam_auth::run(settings, context)));
        }
        let (mut access, mut storage) = (Vec::new(), Vec::new());
        for shard in args.shards.each() {
            let (number, shards) = (shard.number(), shard.shards().get());
            let bus_of_access = bus(Role::AccessServer);
            let settings =
                roam_access_server::Settings { bus: bus_of_access, shard: number, shards, ..Default::default() };
            let run = |context| roam_access_server::run(settings, context);
            access.push(Part::start_of(shard, "access-server", context, run));
            let settings = roam_storage::Settings {
                bus: bus(Role::Storage),
                name: Some(name_of(shard)?),
                shard: number,
                shards,
                responder_seed: secure.as_ref().map(Secure::responder_seed),
                directory: place.storage(shard),
                backup: roam_storage::BackupSettings { directory: Some(place.backups()), ..Default::default() },
                ..Default::default()
            };
            let run = |context| roam_storage::run(settings, context);
            storage.push(Part::start_of(shard, "storage", context, run));
        }
        Ok(Self { access, storage, auth, secure, nats })
    }

    /// Waits until it is ready, says so, and waits on until it is asked to stop.
    async fn serve(&mut self, args: &Up, place: &Place, out: Output, context: &Context) -> Result<(), Failure> {
        let addresses = Addresses { server: self.nats.client_url(), monitor: self.nats.monitor_address() };
        tokio::select! {
            () = context.shutdown.cancelled() => Ok(()),
            why = any_stopped(&self.access) => Err(Failure::new(WHAT, why)),
            why = any_stopped(&self.storage) => Err(Failure::new(WHAT, why)),
            why = stopped(self.auth.as_ref()) => Err(Failure::new(WHAT, why)),
            status = self.nats.ended() => {
                let log = self.nats.log_path();
                Err(Failure::new(WHAT, format!("nats-server ended ({status})")).hint(format!("see {}", log.display())))
            }
            ended = tell(&addresses, self.secure.as_ref(), args, place, out, context) => ended,
        }
    }

    /// What is in the pipeline goes through it before its end stops.
    async fn stop(mut self) -> Result<(), Failure> {
        let (access, storage) = match self.nats.pid() {
            Some(_) => (stop_all(self.access).await, stop_all(self.storage).await),
            // Nothing gets through any more: neither has to wait for the other.
            None => tokio::join!(stop_all(self.access), stop_all(self.storage)),
        };
        // Last of the services, because the others may have to sign in once more.
        let auth = match self.auth.take() {
            Some(auth) => auth.stop().await,
            None => Ok(()),
        };
        let nats = self.nats.stop().await.map_err(|error| chain(&error));
        access.and(storage).and(auth).and(nats).map_err(|why| Failure::new(WHAT, why))
    }
}

/// Waits until one of some parts ends unasked, and says why.
async fn any_stopped(parts: &[Part]) -> String {
    select_all(parts.iter().map(|part| Box::pin(part.stopped()))).await.0
}

/// Stops parts at once. Says why the first did not do so well.
async fn stop_all(parts: Vec<Part>) -> Result<(), String> {
    join_all(parts.into_iter().map(Part::stop)).await.into_iter().collect()
}

/// What the replica of a shard is called.
fn name_of(shard: Shard) -> Result<ReplicaName, Failure> {
    let name = ReplicaName::default();
    if shard.is_only() {
        return Ok(name);
    }
    let named = ReplicaName::parse(format!("{name}-{}", shard.number()));
    named.map_err(|error| Failure::because(WHAT, &error))
}

/// Waits until a part that there may be ends unasked, and says why.
async fn stopped(part: Option<&Part>) -> String {
    match part {
        Some(part) => part.stopped().await,
        None => std::future::pending().await,
    }
}

/// Says that the system is ready once it is, for as long as it lives.
async fn tell(
    addresses: &Addresses,
    secure: Option<&Secure>,
    args: &Up,
    place: &Place,
    out: Output,
    context: &Context,
) -> Result<(), Failure> {
    until_ready(&addresses.server, secure, context).await?;
    let _ready = announce(addresses, &place.root, secure, args, out)?;
    context.shutdown.cancelled().await;
    Ok(())
}

async fn start_nats(args: &Up, place: &Place, secure: Option<&Secure>) -> Result<NatsServer, Failure> {
    let [port, monitor_port] = [args.listen, args.monitor].map(|at| Some(at.port()).filter(|port| *port != 0));
    let settings = ServerSettings {
        address: args.listen.ip(),
        port,
        monitor_port,
        sync: sync(args.sync),
        ready_within: NATS_READY,
        security: secure.map(Secure::conf),
        shards: args.shards,
        // The services of this process take the other half.
        processors: Some(roam_process::half_of_the_processors()),
        ..ServerSettings::new(place.nats())
    };
    NatsServer::start(settings).await.map_err(|error| not_started(args, &error))
}

/// Why nats-server does not run.
fn not_started(args: &Up, error: &StartError) -> Failure {
    let failure = Failure::because(WHAT, error);
    match error {
        StartError::Port { address, port, .. } if SocketAddr::new(*address, *port) == args.monitor => {
            failure.hint("take another one with --monitor")
        }
        StartError::Port { .. } => failure.hint("take another one with --listen"),
        StartError::DirectoryInUse { .. } => failure.hint("is roam up running there already?"),
        _ => failure,
    }
}

fn sync(chosen: Sync) -> SyncInterval {
    match chosen {
        Sync::Default => SyncInterval::Default,
        Sync::Always => SyncInterval::Always,
    }
}

async fn make_streams(settings: &BusSettings, room: Room, shards: Shards) -> Result<Report, Failure> {
    let bus = Bus::connect(settings, "roam-up").await.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let made = provisioned(bus.clone(), room, shards).await;
    bus.close().await;
    made
}

/// Provisions on a thread of its own, because the compiler cannot tell that its future may move between threads.
async fn provisioned(bus: Bus, room: Room, shards: Shards) -> Result<Report, Failure> {
    let runtime = Handle::current();
    // Backups go into a directory: a bucket would take as much of the same disk again, in advance.
    let overrides = Overrides { backups_max_bytes: Some(0), ..overrides(room) };
    let deployment = Deployment { overrides, shards, ..Deployment::new(1, 1) };
    let made = spawn_blocking(move || runtime.block_on(provision(&bus, &deployment))).await;
    let made = made.map_err(|error| Failure::because(WHAT, &error))?;
    made.map_err(|error| not_provisioned(WHAT, &error))
}

/// Waits until a request is answered and every part says that it is ready. The answer comes first: a part that has not
/// begun says nothing at all, and before it begins the others may be ready already.
async fn until_ready(server: &str, secure: Option<&Secure>, context: &Context) -> Result<(), Failure> {
    let ((tenant, name), user, app) = nobody().map_err(|error| Failure::because(WHAT, &error))?;
    let mut settings = ClientSettings::at(server);
    if let Some(secure) = secure {
        settings.bus = secure.looking(server, tenant.clone(), name.clone())?;
    }
    let identity = Identity::Service { tenant, name };
    let client = loop {
        match timeout(SIGN_IN_WITHIN, Client::connect(settings.clone(), identity.clone())).await {
            // Until the auth service listens, the server does not say whom it lets in; until it knows who may, nobody is.
            Err(_) => {}
            Ok(Err(ConnectError::Bus(_))) if secure.is_some() && !context.health.is_ready() => sleep(PAUSE).await,
            Ok(connected) => break connected.map_err(|error| not_connected(WHAT, &error))?,
        }
    };
    let profile = client.profile_of(user, app);
    while let Err(error) = profile.latest(LatestRequest::default()).await {
        if !error.retry() {
            return Err(not_answered(WHAT, &error));
        }
    }
    client.close().await;
    context.health.ready().await.map_err(|why| Failure::new(WHAT, why))
}

/// A profile that nobody has.
fn nobody() -> Result<((Tenant, ServiceName), User, App), NameError> {
    Ok(((Tenant::parse("roam")?, ServiceName::parse("up")?), User::parse("nobody")?, App::parse("none")?))
}

fn no_place(error: &PlaceError) -> Failure {
    Failure::because(WHAT, error).hint("name a directory with --data DIR")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_port_that_is_taken_is_told_by_the_option_that_names_it() {
        let line = "roam up --listen 0.0.0.0:4222 --monitor 127.0.0.1:4222";
        let args = match Cli::read(line.split(' ')).unwrap().command {
            Command::Up(args) => args,
            other => panic!("not up: {other:?}"),
        };
        for (taken, option) in [(args.listen, "--listen"), (args.monitor, "--monitor")] {
            let source = std::io::ErrorKind::AddrInUse.into();
            let error = StartError::Port { address: taken.ip(), port: taken.port(), source };
            assert_eq!(not_started(&args, &error).hint.unwrap(), format!("take another one with {option}"));
        }
    }
}
