//! The agent: roams the files of applications on a device. It watches them, publishes what changed, and writes into them
//! what others changed.
//!
//! Data moves in a straight line: `files` (what is there) -> `reconcile` (what is to be done) -> `desk` (does it, and says
//! what is to be published) -> `roam` (publishes, and hears). What the agent knows between two runs is in `store`; an edit
//! that is not published stands in the user's file and nowhere else.
//!
//! **Architecture Invariant:** a file is replaced only by a rename, only over what was read of it, and only with what the
//! profile holds or a merge of both; what would be lost is set aside first. No device overwrites a record that it has not
//! heard of.

mod beside;
mod content;
mod control;
mod desk;
mod files;
pub mod format;
mod hook;
pub mod init;
mod layered;
mod reconcile;
mod roam;
mod settings;
mod spool;
mod status;
mod store;
pub mod tree;
mod watcher;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use roam_client::{Client, ClientSettings, ConnectError, Identity, Layers};
use roam_process::{Condition, Context, Tasks, TasksError};
use roam_schemas::{App, Device, Tenant, User};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

pub use control::{AskError, Question, ask};
pub use desk::HeldBack;
pub use hook::HookSettings;
pub use settings::{Kind, ProfileSettings, Settings};
pub use status::ProfileStatus;
pub use store::StoreError;

use crate::{
    control::Control,
    desk::Desk,
    files::Files,
    hook::Hook,
    layered::Layered,
    roam::{RoamError, Roamer},
    settings::at_home,
    spool::Spool,
    status::{Board, KnownStatus},
    store::{Store, known_at_rest},
};

/// The mean pause between attempts to connect for the first time.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How much of the time for stopping is kept for closing the connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long a change waits for its receipt. It is published again from the file, so there is nothing to wait for.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Orders that a profile has not followed yet.
const ORDERS: usize = 8;
/// The database's name in the agent's directory.
const DATABASE: &str = "agent.redb";
/// The name of the directory in it where large values wait until the files have them.
const SPOOL: &str = "large";

/// Why an agent ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings do not say who this device is.
    #[error("tenant, user and device must be set")]
    Nobody,
    /// A profile's settings are wrong.
    #[error("the profile {app}: {why}")]
    Profile {
        /// Its app.
        app: String,
        /// What is wrong.
        why: String,
    },
    /// The agent's directory cannot be used.
    #[error("the agent's directory cannot be used")]
    Directory(#[source] io::Error),
    /// The agent's database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus does not let us in, or the settings do not say how to get there: mend them.
    #[error("the bus cannot be connected to")]
    Connect(#[from] ConnectError),
    /// A part of it failed, or did not stop in time.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Runs an agent until the context's shutdown. It may be killed at any time.
///
/// # Errors
/// See [`RunError`]. A bus that cannot be reached is none: it is waited for, and what is edited meanwhile is published then.
pub async fn run(settings: Settings, context: Context) -> Result<(), RunError> {
    let directory = settings.directory();
    open_directory(&directory).map_err(RunError::Directory)?;
    let store = Arc::new(Store::open(&directory.join(DATABASE))?);
    let board = Board::default();
    let identity = identity(&settings)?;
    let device = identity.device();
    let mut desks = Vec::new();
    let (mut orders, mut ordered) = (BTreeMap::new(), Vec::new());
    for profile in &settings.profiles {
        let app = app(profile)?;
        let scope = scope(&settings, &app);
        desks.push((app, desk(profile, &scope, &device, &store, &directory)?));
        let (sender, receiver) = mpsc::channel(ORDERS);
        orders.insert(profile.app.clone(), sender);
        ordered.push(receiver);
        let path = at_home(&profile.path);
        board.update(&profile.app, |status| {
            (status.path, status.trouble) = (path, Some("no server was reached yet".to_owned()));
        });
    }
    let control = Control::bind(&directory, board.clone(), orders).map_err(RunError::Directory)?;
    let bus = context.health.condition("bus");
    let mut tasks = Tasks::new(&context);
    let (hook, runner) = Hook::new(&settings.hook);
    if let Some(runner) = runner {
        let shutdown = context.shutdown.clone();
        // As long as one may still be told of something, it does not end by itself.
        let telling = hook.clone();
        tasks.spawn("hook", async move {
            shutdown.run_until_cancelled(runner.run()).await;
            drop(telling);
            Ok::<_, RunError>(())
        });
    }
    let shutdown = context.shutdown.clone();
    tasks.spawn("control", async move { shutdown.run_until_cancelled(control.answer()).await.unwrap_or(Ok(())) });
    let shutdown = context.shutdown.clone();
    let roaming = async move {
        let connecting = Box::pin(connect(&settings, identity, &bus));
        let Some(client) = shutdown.run_until_cancelled(connecting).await.transpose()? else { return Ok(()) };
        let mut roamers = JoinSet::new();
        for ((app, desk), orders) in desks.into_iter().zip(ordered) {
            roamers.spawn(Roamer::new(&client, app, desk, board.clone(), hook.clone(), orders).run());
        }
        let ended = shutdown.run_until_cancelled(first_end(&mut roamers)).await.unwrap_or(Ok(()));
        roamers.shutdown().await;
        // A connection that is down has nothing to close, and would be waited for longer.
        let _ = timeout(CLOSE_WITHIN, client.close()).await;
        ended.map_err(Box::<dyn std::error::Error + Send + Sync>::from)
    };
    tasks.spawn("roam", roaming);
    Ok(tasks.join(context.grace).await?)
}

/// Waits until a profile cannot roam any more. Without profiles that is never.
async fn first_end(roamers: &mut JoinSet<Result<(), RoamError>>) -> Result<(), RoamError> {
    match roamers.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

/// The user's alone.
fn open_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn identity(settings: &Settings) -> Result<Identity, RunError> {
    match (&settings.tenant, &settings.user, &settings.device) {
        (Some(tenant), Some(user), Some(device)) => {
            Ok(Identity::Device { tenant: tenant.clone(), user: user.clone(), device: device.clone() })
        }
        _ => Err(RunError::Nobody),
    }
}

fn app(profile: &ProfileSettings) -> Result<App, RunError> {
    App::parse(profile.app.as_str()).map_err(|error| wrong(profile, &error))
}

/// What the store keeps a profile under: a user who is renamed in the settings is another one.
fn scope(settings: &Settings, app: &App) -> String {
    let (tenant, user) = (settings.tenant.as_ref().map(Tenant::token), settings.user.as_ref().map(User::token));
    format!("{}.{}.{}", tenant.unwrap_or_default(), user.unwrap_or_default(), app.token())
}

fn desk(
    profile: &ProfileSettings,
    scope: &str,
    device: &Device,
    store: &Arc<Store>,
    directory: &Path,
) -> Result<Desk, RunError> {
    let layers = Layers::new(device, Layers::this_platform()).map_err(|error| wrong(profile, &error))?;
    let globs = |patterns: &[String]| globs(patterns).map_err(|error| wrong(profile, &error));
    let layered =
        Layered::new(layers, globs(&profile.local)?, globs(&profile.per_device)?, globs(&profile.per_platform)?);
    let at_home = ProfileSettings { path: at_home(&profile.path), ..profile.clone() };
    let files = Files::of(&at_home).map_err(|error| wrong(profile, &error))?;
    let spool = Spool::open(directory.join(SPOOL).join(scope)).map_err(RunError::Directory)?;
    Ok(Desk::new(scope, device.as_str(), Arc::clone(store), files, layered, spool)?)
}

fn globs(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern)?);
    }
    set.build()
}

/// What is known of all profiles while no agent runs, by their apps: read from the agent's database.
///
/// # Errors
/// [`RunError::Store`] if there is none, or an agent has it open.
pub fn status_at_rest(settings: &Settings) -> Result<BTreeMap<String, ProfileStatus>, RunError> {
    let scopes = settings.profiles.iter().map(|profile| Ok(scope(settings, &app(profile)?)));
    let scopes = scopes.collect::<Result<Vec<_>, RunError>>()?;
    let known = known_at_rest(&settings.directory().join(DATABASE), &scopes)?;
    let status = settings.profiles.iter().zip(known).map(|(profile, known)| {
        let mut status = ProfileStatus {
            path: at_home(&profile.path),
            trouble: Some("the agent does not run".to_owned()),
            ..ProfileStatus::default()
        };
        status.set_known(KnownStatus::of(&known));
        (profile.app.clone(), status)
    });
    Ok(status.collect())
}

fn wrong(profile: &ProfileSettings, why: &dyn std::error::Error) -> RunError {
    RunError::Profile { app: profile.app.clone(), why: why.to_string() }
}

/// Connects, however long it takes until there is a server. Only what a person must mend is an error.
async fn connect(settings: &Settings, identity: Identity, bus: &Condition) -> Result<Client, ConnectError> {
    let client =
        ClientSettings { bus: settings.bus.clone(), receipt_timeout: RECEIPT_TIMEOUT, ..ClientSettings::default() };
    loop {
        match Client::connect(client.clone(), identity.clone()).await {
            Err(
                error @ (ConnectError::Bus(roam_nats::ConnectError::Unreachable { .. } | roam_nats::ConnectError::Lost)
                | ConnectError::Receipts(_)),
            ) => {
                bus.set_not_ready("no server can be reached");
                tracing::warn!(error = &error as &dyn std::error::Error, "not connected");
                sleep(CONNECT_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            Ok(client) => {
                bus.set_ready();
                return Ok(client);
            }
            Err(error) => return Err(error),
        }
    }
}
