//! What a program does with one profile of a local store: writes that are accepted once they are on disk, and reads that
//! need nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roam_schemas::{ChangeId, ContentType, Device, Encoding, Key, Operation, Profile, Revision};
use tokio::sync::{Notify, watch};

use super::clock;
use super::error::{Fault, LocalError};
use super::events::{Hub, LocalEvents, SyncState};
use super::file::Handle;
use super::layout::ProfileRow;
use super::local::Inner;
use super::tables::Tables;
use super::view::{LocalRecord, Parked, Unsaved, View};
use crate::{Layer, Layers};

/// One profile of a local store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalProfile {
    shared: Arc<Shared>,
    /// Keeps the store open, and syncing.
    _store: Arc<Inner>,
}

/// What the readers and writers of a profile share with what syncs it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) profile: Profile,
    pub(super) device: Device,
    pub(super) hub: Hub,
    /// Told when something is to be sent.
    pub(super) edited: Notify,
    pub(super) encoding: Encoding,
    name: String,
    number: u32,
    handle: Handle,
    /// The highest revision seen when the profile was opened.
    pub(super) seen: Revision,
    claimed: AtomicBool,
}

impl Shared {
    pub(super) fn new(profile: Profile, row: &ProfileRow, device: Device, handle: Handle, encoding: Encoding) -> Self {
        Self {
            name: profile.to_string(),
            number: row.number,
            seen: row.seen,
            hub: Hub::new(row.revision),
            edited: Notify::new(),
            claimed: AtomicBool::new(false),
            profile,
            device,
            handle,
            encoding,
        }
    }

    /// Whether nobody syncs it yet; from now on somebody does.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// Works on the tables with the row of this profile, which is written afterwards.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>, &mut ProfileRow) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LocalError> {
        let name = self.name.clone();
        let write = self.handle.write(move |tables| {
            let mut row = tables.profile_row(&name)?;
            let before = row.clone();
            let done = work(tables, &mut row)?;
            if row != before {
                tables.set_profile_row(&name, &row)?;
            }
            Ok(done)
        });
        write.await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View, u32) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LocalError> {
        let number = self.number;
        self.handle.read(move |view| look(view, number)).await
    }

    pub(super) async fn row(&self) -> Result<ProfileRow, LocalError> {
        let name = self.name.clone();
        self.handle.read(move |view| view.profile_row(&name)).await
    }

    /// Lets changes wait, all or none.
    async fn append(&self, changes: Vec<Vec<Operation>>) -> Result<(), LocalError> {
        if changes.is_empty() {
            return Ok(());
        }
        let encoding = self.encoding;
        self.write(move |tables, row| tables.append(row, changes, encoding, clock::now())).await?;
        self.hub.edited();
        self.edited.notify_one();
        Ok(())
    }
}

impl LocalProfile {
    pub(super) fn new(shared: Arc<Shared>, store: Arc<Inner>) -> Self {
        Self { shared, _store: store }
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// Writes a key. Returns once that is on disk: it is seen here from then on, and is sent as soon as it can be.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn put(&self, key: Key, value: impl Into<Vec<u8>>, content_type: ContentType) -> Result<(), LocalError> {
        self.change(vec![Operation::put(key, value, content_type)]).await
    }

    /// Deletes a key. As [`Self::put`].
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn delete(&self, key: Key) -> Result<(), LocalError> {
        self.change(vec![Operation::delete(key)]).await
    }

    /// Does all operations together: the servers apply all of them, or none. Operations that expect something expect it of
    /// the record that the servers have; if it is not so, the whole change is parked.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn change(&self, ops: Vec<Operation>) -> Result<(), LocalError> {
        self.shared.append(vec![ops]).await
    }

    /// Does operations of which each stands for itself, as many as there are: one write to disk for all of them, and as few
    /// changes on the wire as hold them. All of them are accepted, or none.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn change_each(&self, ops: Vec<Operation>) -> Result<(), LocalError> {
        self.shared.append(ops.into_iter().map(|op| vec![op]).collect()).await
    }

    /// What this device knows of the value of a key as it is to have it, and the layer that it is of; needs no connection.
    /// None if no layer has a value.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn effective(&self, key: &Key, layers: &Layers) -> Result<Option<(Layer, LocalRecord)>, LocalError> {
        for layer in Layer::ALL {
            let Ok(key) = layers.key(layer, key) else { continue };
            if let Some(record) = self.get(key).await?.filter(|record| record.value().is_some()) {
                return Ok(Some((layer, record)));
            }
        }
        Ok(None)
    }

    /// What this device knows of a key; needs no connection. None if it knows nothing.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn get(&self, key: Key) -> Result<Option<LocalRecord>, LocalError> {
        let record = self.shared.read(move |view, number| view.record(number, &key, clock::now())).await?;
        Ok(record.state().is_some().then_some(record))
    }

    /// All keys that begin with this (all, if it is empty) and have a value here, in order; needs no connection.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn records(&self, prefix: impl Into<String>) -> Result<Vec<LocalRecord>, LocalError> {
        let prefix = prefix.into();
        self.shared.read(move |view, number| view.records(number, &prefix, clock::now())).await
    }

    /// The highest revision that this device has seen of the profile. It only rises, also over restarts.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn seen(&self) -> Result<Revision, LocalError> {
        Ok(self.shared.row().await?.seen)
    }

    /// How much is not saved yet.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn unsaved(&self) -> Result<Unsaved, LocalError> {
        let row = self.shared.row().await?;
        self.shared.read(move |view, _| view.unsaved(&row)).await
    }

    /// The changes that were rejected, in the order in which they were made.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub async fn parked(&self) -> Result<Vec<Parked>, LocalError> {
        self.shared.read(|view, number| view.parked(number)).await
    }

    /// Sends a parked change again, as a new one behind all that waits. Its expectations stay.
    ///
    /// # Errors
    /// [`LocalError::NotParked`]; see [`LocalError`].
    pub async fn retry(&self, id: ChangeId) -> Result<(), LocalError> {
        let encoding = self.shared.encoding;
        self.shared.write(move |tables, row| tables.retry(row, id, encoding, clock::now())).await?;
        self.shared.hub.edited();
        self.shared.edited.notify_one();
        Ok(())
    }

    /// Drops a parked change.
    ///
    /// # Errors
    /// [`LocalError::NotParked`]; see [`LocalError`].
    pub async fn discard(&self, id: ChangeId) -> Result<Parked, LocalError> {
        Ok(self.shared.write(move |tables, row| tables.unpark(row, id)).await?.into())
    }

    /// What happens to the profile from now on. It begins with how it stands.
    pub fn events(&self) -> LocalEvents {
        self.shared.hub.subscribe()
    }

    /// How the profile stands to the servers.
    pub fn state(&self) -> watch::Receiver<SyncState> {
        self.shared.hub.state()
    }

    /// Waits until all that was written here so far is saved or parked, and this device has all that the servers had.
    ///
    /// # Errors
    /// [`LocalError::Closed`].
    pub async fn synced(&self) -> Result<Revision, LocalError> {
        let mut state = self.state();
        let ended = state.wait_for(|state| matches!(state, SyncState::Synced { .. } | SyncState::Closed)).await;
        match *ended.map_err(|_| LocalError::Closed)? {
            SyncState::Synced { revision } => Ok(revision),
            SyncState::Offline { .. } | SyncState::Syncing | SyncState::Closed => Err(LocalError::Closed),
        }
    }
}
