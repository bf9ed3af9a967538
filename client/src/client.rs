//! One client: a connection, an identity, and the keeper of its changes in flight.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SelectAll;
use roam_nats::{Bus, PublishSettings, Publisher, SubscribeError};
use roam_schemas::{App, Device, User};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::publish::Submitter;
use crate::receipts::{Keeper, ReceiptCounts, Registry};
use crate::{ClientSettings, Identity, ProfileClient, large};

/// Most copies of changes that are without a PubAck, over all profiles; and most changes on their way to the keeper.
const PUBLISHER_WINDOW: usize = 4_096;
/// How long one copy waits for its PubAck before another one is sent. While a stream of three servers has no leader nobody answers, and
/// whoever waits longer waits beyond the election.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection of a device or of a service. Cheap to clone; the connection ends with the last clone, or by
/// [`Self::close`].
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) bus: Bus,
    pub(crate) settings: ClientSettings,
    pub(crate) submitter: Submitter,
    /// Publishes chunks of large values.
    pub(crate) chunks: Publisher,
    identity: Identity,
    device: Device,
    registry: Arc<Registry>,
    /// The keeper's task, aborted when this is dropped.
    _keeper: JoinSet<()>,
}

/// A client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings are wrong: mend them. All problems are listed.
    #[error("the client settings are wrong: {}", .0.join("; "))]
    Settings(Vec<String>),
    /// The bus cannot be reached, or does not let us in.
    #[error(transparent)]
    Bus(#[from] roam_nats::ConnectError),
    /// Receipts cannot be listened for: the connection was lost at once. Try again.
    #[error("receipts cannot be listened for")]
    Receipts(#[from] SubscribeError),
}

impl Client {
    /// Connects. Fails if the first attempt does; from then on the connection is made again for ever.
    ///
    /// Replies come below the inbox prefix of the identity, unless the settings name another one.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(mut settings: ClientSettings, identity: Identity) -> Result<Self, ConnectError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(ConnectError::Settings(problems));
        }
        settings.bus.inbox_prefix.get_or_insert_with(|| identity.inbox_prefix_for(&settings.apps));
        let bus = Bus::connect(&settings.bus, "roam-client").await?;
        let mut receipts = SelectAll::new();
        for subject in identity.receipts(&settings.apps) {
            receipts.push(bus.subscribe(subject).await?);
        }
        let window = PublishSettings { window: PUBLISHER_WINDOW, ack_timeout: ACK_TIMEOUT, retry_for: Duration::ZERO };
        let publisher = Publisher::new(&bus, window);
        let (keeper, handovers) = mpsc::channel(PUBLISHER_WINDOW);
        let registry = Arc::<Registry>::default();
        let mut tasks = JoinSet::new();
        let task = Keeper {
            bus: bus.clone(),
            registry: Arc::clone(&registry),
            publisher: publisher.clone(),
            encoding: settings.encoding,
            watched: Vec::new(),
            bulks: identity.bulks(settings.bulk),
        };
        let in_bulk = task.bulks.is_some();
        tasks.spawn(task.run(receipts, handovers));
        let (encoding, receipt_timeout) = (settings.encoding, settings.receipt_timeout);
        let submitter = Submitter { publisher, keeper, encoding, in_bulk, receipt_timeout };
        let device = identity.device();
        let chunks = large::publisher(&bus);
        let inner = Inner { bus, settings, submitter, chunks, identity, device, registry, _keeper: tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The device's own profile of an app. For a service, which has none, everything that is asked of it fails with
    /// [`crate::IdentityError::NoUser`].
    pub fn profile(&self, app: App) -> ProfileClient {
        self.used(self.inner.identity.own_profile(app))
    }

    /// The profile of a user of the tenant. For a device and a user other than its own, everything that is asked of it
    /// fails with [`crate::IdentityError::OtherUser`].
    pub fn profile_of(&self, user: User, app: App) -> ProfileClient {
        self.used(self.inner.identity.profile_of(user, app))
    }

    /// Who this client is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// How many receipts came, by what became of them.
    pub fn receipt_counts(&self) -> ReceiptCounts {
        self.inner.registry.counts()
    }

    /// Closes the connection, for all clones and profile clients: what was handed to it leaves first. Nobody waits for
    /// receipts any more: await the [`crate::Pending`] changes before, or learn that their outcome is unknown.
    pub async fn close(self) {
        self.inner.bus.close().await;
    }

    /// Whether the connection stands.
    #[cfg(feature = "durable")]
    pub(crate) fn is_connected(&self) -> bool {
        self.inner.bus.state().connected
    }

    /// Waits until the connection stands.
    #[cfg(feature = "durable")]
    pub(crate) async fn connected(&self) -> Result<(), crate::ChangeError> {
        let mut state = self.inner.bus.watch_state();
        let stands = state.wait_for(|state| state.connected || state.closed).await;
        match stands.is_ok_and(|state| state.connected) {
            true => Ok(()),
            false => Err(crate::ChangeError::Closed),
        }
    }

    fn used(&self, profile: Result<roam_schemas::Profile, crate::IdentityError>) -> ProfileClient {
        let window = self.inner.settings.window;
        let lane = profile.map(|profile| self.inner.registry.lane(profile, &self.inner.device, window));
        ProfileClient::new(Arc::clone(&self.inner), lane)
    }
}
