//! The workload: clients that write, read and watch through the client library, four to a profile, with values that
//! nobody writes twice. Three of the four are devices; the fourth is a service that writes for several profiles, in bulks when it has
//! much to write. Beside them somebody who sends changes again, somebody who publishes by hand, and somebody who listens to
//! all that goes over the wire. It records, and never judges.

mod copies;
mod device;
mod posts;
mod watcher;
mod wire;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roam_client::{App, BusSettings, Change, Client, Device, Identity, Profile, ServiceName, Tenant, User};
use roam_nats::Bus;
use roam_schemas::subjects;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    device::{change_of, saved},
    posts::{CLIENT as SPOILING, POSTED},
};
use crate::{history::Recorder, site::Site};

/// Clients that share a profile. The last of them is a service.
const DEVICES: usize = 4;
/// How many services there are. Each writes for every so manieth profile, over one connection.
const SERVICES: usize = 2;
/// How long a change waits for its receipt until its client calls it unknown.
const RECEIPT_WITHIN: Duration = Duration::from_secs(4);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Operations a second that all clients together aim at.
    pub(crate) rate: f64,
}

/// What faults may switch in the workload.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// Every change is sent again, at once and later.
    pub(crate) duplicate: AtomicBool,
    /// Every change is sent again seconds later, when others have written since.
    pub(crate) delay: AtomicBool,
    /// Clients pause for nothing, and have many changes in flight.
    pub(crate) overload: AtomicBool,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    pub(crate) switches: Switches,
    /// Highest revision with a receipt, a profile each.
    saved: Vec<AtomicU64>,
    /// The place in the history and the content of changes whose outcome is not known.
    pub(crate) unsettled: Mutex<Vec<(usize, Change)>>,
    /// Where the watch of each client stands.
    pub(crate) watched: Vec<AtomicU64>,
    /// Asks without the client library, which would not believe a stale answer.
    asking: Bus,
    /// Changes that are to be sent again.
    copies: tokio::sync::mpsc::Sender<copies::Copy>,
    writing: CancellationToken,
    watching: CancellationToken,
}

/// The running workload.
pub(crate) struct Workload {
    pub(crate) shared: Arc<Shared>,
    writers: JoinSet<()>,
    watchers: JoinSet<()>,
    /// Copies, posts and the wire.
    others: JoinSet<()>,
}

/// Which profile is that of a client.
pub(crate) fn profile_of(client: usize) -> usize {
    client / DEVICES
}

pub(crate) fn profiles(clients: usize) -> usize {
    clients.div_ceil(DEVICES)
}

/// Who owns a profile.
pub(crate) fn owner(profile: usize) -> Result<User> {
    Ok(User::parse(format!("user-{profile}"))?)
}

pub(crate) fn tenant() -> Result<Tenant> {
    Ok(Tenant::parse("acme")?)
}

pub(crate) fn app() -> Result<App> {
    Ok(App::parse("editor")?)
}

pub(crate) fn profile_named(profile: usize) -> Result<Profile> {
    Ok(Profile { tenant: tenant()?, user: owner(profile)?, app: app()? })
}

/// The place of a profile, by its user's name; none if it is not of the workload.
pub(crate) fn place_of(profile: &Profile) -> Option<usize> {
    profile.user.as_str().strip_prefix("user-")?.parse().ok()
}

pub(crate) fn device_named(client: usize) -> Result<Device> {
    Ok(Device::parse(&format!("device-{client}"))?)
}

/// As whom a client of the workload writes.
pub(crate) fn writer(client: usize) -> Result<Device> {
    match is_service(client) {
        false => device_named(client),
        true => Ok(Device::service(&service_named(client)?)),
    }
}

fn is_service(client: usize) -> bool {
    client % DEVICES == DEVICES - 1
}

fn service_named(client: usize) -> Result<ServiceName> {
    Ok(ServiceName::parse(format!("writer-{}", profile_of(client) % SERVICES))?)
}

impl Workload {
    /// Connects everybody and begins.
    pub(crate) async fn start(site: &Site, load: Load, recorder: Recorder, dice: &mut StdRng) -> Result<Workload> {
        let (copies, queue) = copies::queue();
        let counters = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let shared = Arc::new(Shared {
            recorder,
            switches: Switches::default(),
            saved: counters(profiles(load.clients)),
            unsettled: Mutex::default(),
            watched: counters(load.clients),
            asking: asking(site).await?,
            copies,
            writing: CancellationToken::new(),
            watching: CancellationToken::new(),
        });
        let mut others = JoinSet::new();
        wire::listen(site, &shared, &mut others).await?;
        copies::send(site, queue, &mut others).await?;
        posts::send(site, &shared, &mut others).await?;
        let (mut writers, mut watchers) = (JoinSet::new(), JoinSet::new());
        let pause = Duration::from_secs_f64(load.clients as f64 / load.rate);
        let mut services = HashMap::new();
        for client in 0..load.clients {
            let profile = match is_service(client) {
                false => connect(site, client, identity(client)?).await?.profile(app()?),
                true => {
                    let service = match services.entry(service_named(client)?) {
                        Entry::Occupied(there) => there.into_mut(),
                        Entry::Vacant(place) => place.insert(connect(site, client, identity(client)?).await?),
                    };
                    service.profile_of(owner(profile_of(client))?, app()?)
                }
            };
            let dice = StdRng::seed_from_u64(dice.random());
            watchers.spawn(watcher::watch(client, profile.clone(), Arc::clone(&shared), dice.clone()));
            writers.spawn(device::work(client, profile, Arc::clone(&shared), pause, dice));
        }
        Ok(Workload { shared, writers, watchers, others })
    }

    /// Has the clients finish what they have in hand, and nobody write any more.
    pub(crate) async fn stop_writing(&mut self) {
        self.shared.writing.cancel();
        while self.writers.join_next().await.is_some() {}
        self.others.shutdown().await;
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Arc<Shared> {
        self.shared.watching.cancel();
        while self.watchers.join_next().await.is_some() {}
        self.shared
    }
}

impl Shared {
    /// Highest revision of a profile with a receipt so far.
    pub(crate) fn saved(&self, profile: usize) -> u64 {
        self.saved[profile].load(Ordering::SeqCst)
    }

    pub(crate) fn was_saved(&self, profile: usize, revision: u64) {
        self.saved[profile].fetch_max(revision, Ordering::SeqCst);
    }

    /// Remembers a change of which nobody knows what became.
    pub(crate) fn unsettled(&self, place: usize, change: Change) {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).push((place, change));
    }
}

/// A connection that asks by hand, as a service.
async fn asking(site: &Site) -> Result<Bus> {
    let inbox = subjects::service_inbox(&tenant()?, &ServiceName::parse("reader")?);
    let settings = BusSettings { inbox_prefix: Some(inbox), ..site.client_settings(2).bus };
    Ok(Bus::connect(&settings, "roam-faults reader").await?)
}

fn identity(client: usize) -> Result<Identity> {
    Ok(match is_service(client) {
        false => {
            Identity::Device { tenant: tenant()?, user: owner(profile_of(client))?, device: device_named(client)? }
        }
        true => Identity::Service { tenant: tenant()?, name: service_named(client)? },
    })
}

async fn connect(site: &Site, client: usize, identity: Identity) -> Result<Client> {
    let mut settings = site.client_settings(client);
    (settings.receipt_timeout, settings.request_timeout) = (RECEIPT_WITHIN, ANSWER_WITHIN);
    Ok(Client::connect(settings, identity).await?)
}
