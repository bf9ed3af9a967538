//! The store of a device: its file, and the task that keeps it in step with the servers for as long as anybody uses it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roam_schemas::{App, Profile, User};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::clock;
use super::error::{Fault, LocalError};
use super::file::{File, Handle, Opener, opener};
use super::link::Link;
use super::profile::{LocalProfile, Shared};
use crate::{ClientSettings, ConnectError, Identity, IdentityError};

/// Most profiles that were asked for and are not followed yet.
const NEW_PROFILES: usize = 64;

/// What a device holds on disk: an outbox and a local copy for each profile that it uses, in one file. It works without a
/// connection; while there is one, it sends what waits and takes in what others change. Cheap to clone. It syncs for as
/// long as a clone, or a profile of it, lives, or until [`Self::close`].
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) handle: Handle,
    identity: Identity,
    settings: ClientSettings,
    /// The profiles that are in use.
    profiles: Mutex<HashMap<Profile, Arc<Shared>>>,
    /// Tells the link of them.
    news: mpsc::Sender<Arc<Shared>>,
    /// What writes, and what syncs. Aborted when this is dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// A local store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings are wrong: mend them.
    #[error(transparent)]
    Settings(#[from] ConnectError),
    /// The file cannot be used.
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl LocalStore {
    /// Opens the file of a device, and makes it if there is none. Returns at once, whether or not the servers can be
    /// reached: that is tried for ever from then on. What an earlier process left unsent is sent.
    ///
    /// # Errors
    /// See [`OpenError`]. That no server answers is none.
    pub async fn open(
        path: impl Into<PathBuf>,
        settings: ClientSettings,
        identity: Identity,
    ) -> Result<Self, OpenError> {
        let mut problems = settings.problems();
        problems.extend(settings.bus.problems());
        if !problems.is_empty() {
            return Err(ConnectError::Settings(problems).into());
        }
        Ok(Self::open_with(path.into(), settings, identity, opener()).await?)
    }

    async fn open_with(
        path: PathBuf,
        settings: ClientSettings,
        identity: Identity,
        opener: Opener,
    ) -> Result<Self, LocalError> {
        let owner = owner(&identity);
        let file =
            spawn_blocking(move || File::open(&path, &owner, opener)).await.map_err(|_| LocalError::Closed)??;
        let (handle, writer) = Handle::new(file);
        let (news, profiles) = mpsc::channel(NEW_PROFILES);
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run());
        tasks.spawn(Link::new(settings.clone(), identity.clone(), profiles).run());
        let (profiles, tasks) = (Mutex::default(), Mutex::new(tasks));
        let store = Self { inner: Arc::new(Inner { handle, identity, settings, profiles, news, tasks }) };
        store.resume().await?;
        Ok(store)
    }

    /// Opens the profiles of which something is unsent, so that it is sent whether or not anybody asks for them.
    async fn resume(&self) -> Result<(), LocalError> {
        let busy = self.inner.handle.read(|view| {
            let mut busy = Vec::new();
            for (name, row) in view.profiles()? {
                if view.is_busy(row.number)? {
                    busy.push(name);
                }
            }
            Ok(busy)
        });
        for name in busy.await? {
            match name.parse::<Profile>() {
                Ok(profile) => drop(self.open_profile(profile).await?),
                Err(error) => tracing::warn!(%error, "a profile of the local store has no name"),
            }
        }
        Ok(())
    }

    /// The device's own profile of an app.
    ///
    /// # Errors
    /// [`LocalError::Identity`] for a service, which has none; otherwise those of the file.
    pub async fn profile(&self, app: App) -> Result<LocalProfile, LocalError> {
        self.used(self.inner.identity.own_profile(app)).await
    }

    /// The profile of a user of the tenant.
    ///
    /// # Errors
    /// [`LocalError::Identity`] for a device and a user other than its own; otherwise those of the file.
    pub async fn profile_of(&self, user: User, app: App) -> Result<LocalProfile, LocalError> {
        self.used(self.inner.identity.profile_of(user, app)).await
    }

    /// Whose store this is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Stops syncing and closes the file, for all clones and profiles. What was accepted is on disk, and is sent when the
    /// store is opened again.
    pub async fn close(self) {
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.inner.handle.close().await;
        let profiles = std::mem::take(&mut *self.inner.profiles.lock().unwrap_or_else(PoisonError::into_inner));
        profiles.values().for_each(|shared| shared.hub.close());
    }

    async fn used(&self, profile: Result<Profile, IdentityError>) -> Result<LocalProfile, LocalError> {
        let shared = self.open_profile(profile?).await?;
        Ok(LocalProfile::new(shared, Arc::clone(&self.inner)))
    }

    async fn open_profile(&self, profile: Profile) -> Result<Arc<Shared>, LocalError> {
        if let Some(shared) = self.known(&profile) {
            return Ok(shared);
        }
        let name = profile.to_string();
        let row = self.inner.handle.write(move |tables| {
            let row = tables.profile_row(&name)?;
            tables.clean(&row, clock::now())?;
            tables.set_profile_row(&name, &row)?;
            Ok::<_, Fault>(row)
        });
        let row = row.await?;
        let device = self.inner.identity.device();
        let opened =
            Shared::new(profile.clone(), &row, device, self.inner.handle.clone(), self.inner.settings.encoding);
        let shared = {
            let mut profiles = self.inner.profiles.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(profiles.entry(profile).or_insert(Arc::new(opened)))
        };
        // Room first, so that a profile that is claimed is told of, whoever is cancelled. Refused once the store is closed.
        let room = self.inner.news.reserve().await.map_err(|_| LocalError::Closed)?;
        if shared.claim() {
            room.send(Arc::clone(&shared));
        }
        Ok(shared)
    }

    fn known(&self, profile: &Profile) -> Option<Arc<Shared>> {
        self.inner.profiles.lock().unwrap_or_else(PoisonError::into_inner).get(profile).map(Arc::clone)
    }
}

/// Whose file it is, as the file says it.
fn owner(identity: &Identity) -> String {
    match identity {
        Identity::Device { tenant, user, device } => format!("{tenant}/{user}/{}", device.as_str()),
        Identity::Service { tenant, .. } => format!("{tenant}/{}", identity.device().as_str()),
    }
}
