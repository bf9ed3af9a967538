//! What a program does with one profile. Each operation here is a line or two: the work is in `publish.rs`, `read.rs` and
//! `watch.rs`.

use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use roam_schemas::{
    Action, Change, ChangeId, ContentType, Cursor, Expect, HistoryReply, HistoryRequest, Key, LatestReply,
    LatestRequest, Manifest, Operation, Put, Record, Revision, Select, Version, limits,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::Inner;
use crate::publish::Lane;
#[cfg(feature = "durable")]
use crate::publish::Patience;
use crate::read::{self, Delta, Lookup, Reader};
use crate::{
    ChangeError, Effective, IdentityError, Layer, Layers, Pending, ReadError, Saved, Transferred, Watch, WatchFrom,
    large,
};

/// One profile. Cheap to clone; all of one client's profile clients of a profile share what they have seen of it, and the
/// window of changes in flight.
#[derive(Debug, Clone)]
pub struct ProfileClient {
    inner: Arc<Inner>,
    /// The error is told at each use.
    lane: Result<Arc<Lane>, IdentityError>,
}

impl ProfileClient {
    pub(crate) fn new(inner: Arc<Inner>, lane: Result<Arc<Lane>, IdentityError>) -> Self {
        Self { inner, lane }
    }

    /// Writes a record, whatever it was before, of at most 100 MiB. Returns once that is saved.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn put(
        &self,
        key: Key,
        value: impl Into<Vec<u8>>,
        content_type: ContentType,
    ) -> Result<Saved, ChangeError> {
        self.change(vec![Operation::put(key, value, content_type)]).await
    }

    /// Deletes a record, whatever it was before. Returns once that is saved.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn delete(&self, key: Key) -> Result<Saved, ChangeError> {
        self.change(vec![Operation::delete(key)]).await
    }

    /// Applies all operations, or none if an expectation fails. Returns once that is saved.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(&self, ops: Vec<Operation>) -> Result<Saved, ChangeError> {
        self.change_with(None, ops).await
    }

    /// As [`Self::change`]; records that another device has changed since `base` are reported as conflicts.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_with(&self, base: Option<Revision>, ops: Vec<Operation>) -> Result<Saved, ChangeError> {
        let ops = self.prepare(ops).await?;
        let change = Change::new(ChangeId::random(), base, ops).map_err(ChangeError::Invalid)?;
        self.submit(change).await?.receipt().await
    }

    /// Writes a record of what is read, up to 100 MiB, without holding it in memory. `progress` is told how far it is.
    /// Returns once that is saved.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn put_from(
        &self,
        key: Key,
        source: &mut (impl AsyncRead + Unpin + Send),
        content_type: ContentType,
        progress: impl FnMut(Transferred) + Send,
    ) -> Result<Saved, ChangeError> {
        let put = self.stage(source, content_type, progress).await?;
        self.change(vec![Operation { key, action: Action::Put(put), expect: Expect::Any }]).await
    }

    /// Reads a value to its end and makes a put of it. A large one is uploaded first; the put must then be published
    /// within half the grace of the deployment (a day, unless it is set otherwise).
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn stage(
        &self,
        source: &mut (impl AsyncRead + Unpin + Send),
        content_type: ContentType,
        progress: impl FnMut(Transferred) + Send,
    ) -> Result<Put, ChangeError> {
        large::stage(&self.reader()?, source, content_type, progress).await
    }

    /// Makes operations fit into a change for [`Self::submit`]: large values are uploaded, and what is a manifest already
    /// is made sure of. The change must then be published within half the grace of the deployment. [`Self::change`]
    /// does that by itself.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn prepare(&self, ops: Vec<Operation>) -> Result<Vec<Operation>, ChangeError> {
        // Most changes hold nothing of the kind, and wait for nothing.
        if !ops.iter().any(is_large) {
            return Ok(ops);
        }
        Box::pin(large::prepare(&self.reader()?, ops)).await
    }

    /// Hands a change to the bus, as soon as there is room for it, and returns: for pipelining. Changes to one key take
    /// effect in the order in which they were submitted, as long as they expect nothing; no other order is kept. So a
    /// change that was submitted before another to its key, and whose receipt is lost, ends with [`ChangeError::Unknown`].
    /// If an earlier attempt ended so, the very same change may be submitted again; it counts as submitted then.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn submit(&self, change: Change) -> Result<Pending, ChangeError> {
        self.inner.submitter.submit(self.lane()?, change).await
    }

    /// The newest state of a key. A large value is fetched.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: Key) -> Result<Lookup, ReadError> {
        match self.get_record(key).await? {
            Lookup::Found(record) => Ok(Lookup::Found(Box::pin(self.whole(record)).await?)),
            lookup => Ok(lookup),
        }
    }

    /// As [`Self::get`], except that a large value is not fetched: the record holds its manifest.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get_record(&self, key: Key) -> Result<Lookup, ReadError> {
        let request = LatestRequest { select: Select::Keys(vec![key]), ..LatestRequest::default() };
        read::lookup(self.latest(request).await?)
    }

    /// The value of a key as a device is to have it, and the layer that it is of; none if no layer has one. A large value is
    /// not fetched: the record holds its manifest.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn effective(&self, key: &Key, layers: &Layers) -> Result<Option<Effective>, ReadError> {
        // What is too long for a key was never written.
        let keys = Layer::ALL.iter().filter_map(|layer| layers.key(*layer, key).ok()).collect();
        let request = LatestRequest { select: Select::Keys(keys), ..LatestRequest::default() };
        Ok(layers.resolve(self.latest(request).await?.records).pop())
    }

    /// The value of every key as a device is to have it, in the order of the keys. As [`Self::effective`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn all_effective(&self, layers: &Layers) -> Result<Vec<Effective>, ReadError> {
        let records: Vec<Record> = self.records(Select::All).try_collect().await?;
        Ok(layers.resolve(records))
    }

    /// The record with its whole value: a large one is fetched, and is then of its own content type.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn whole(&self, record: Record) -> Result<Record, ReadError> {
        large::whole(&self.reader()?, record).await
    }

    /// Writes the value that a manifest describes, chunk by chunk, each once it is verified. `progress` is told how far
    /// it is. What was written is whole only once this returns.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn download(
        &self,
        manifest: &Manifest,
        sink: &mut (impl AsyncWrite + Unpin + Send),
        progress: impl FnMut(Transferred) + Send,
    ) -> Result<(), ReadError> {
        large::download(&self.reader()?, manifest, sink, progress).await
    }

    /// One page of records; those of large values hold manifests. Unless the request says otherwise, the answer is at least as new as anything that this client
    /// has seen of the profile; a replica that is behind is given five seconds.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn latest(&self, request: LatestRequest) -> Result<LatestReply, ReadError> {
        self.reader()?.latest(request).await
    }

    /// All records that are asked for, page by page: live ones in order of their keys; of the named ones also those that
    /// are deleted or expired. Each page is as new as the one before or newer.
    pub fn records(&self, select: Select) -> impl Stream<Item = Result<Record, ReadError>> + Send + use<> {
        read::records(self.clone(), select)
    }

    /// All that changed since a cursor, or all there is.
    ///
    /// # Errors
    /// [`ReadError::Reset`] if the cursor is too old: ask without one, and forget what is not in the answer. See also
    /// [`ReadError`].
    pub async fn changes(&self, cursor: Option<Cursor>) -> Result<Delta, ReadError> {
        self.reader()?.changes(cursor).await
    }

    /// The kept versions of a key, newest first, as many as fit in one answer.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn history(&self, key: Key, limit: Option<u32>) -> Result<Vec<Version>, ReadError> {
        Ok(self.history_page(key, limit).await?.versions)
    }

    /// As [`Self::history`], and whether older versions are kept that did not fit.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn history_page(&self, key: Key, limit: Option<u32>) -> Result<HistoryReply, ReadError> {
        self.reader()?.history(HistoryRequest { key, limit }).await
    }

    /// Follows the profile.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn watch(&self, from: WatchFrom) -> Result<Watch, ReadError> {
        let lane = self.lane()?;
        Watch::start(Arc::clone(&self.inner), Arc::clone(lane), from).await
    }

    /// The revision that a cursor of this profile stands at; none for one of another profile.
    pub fn revision_of(&self, cursor: Cursor) -> Option<Revision> {
        let (revision, _) = cursor.open(&self.lane.as_ref().ok()?.profile).ok()?;
        Some(revision)
    }

    /// The highest revision that this client has seen of the profile, by receipts, answers and what it watches.
    pub fn seen(&self) -> Revision {
        self.lane.as_ref().map_or(Revision::ZERO, |lane| lane.seen())
    }

    /// Something else than the bus has told of this revision.
    #[cfg(feature = "durable")]
    pub(crate) fn saw(&self, revision: Revision) {
        if let Ok(lane) = &self.lane {
            lane.saw(revision);
        }
    }

    /// As [`Self::submit`], and waits for the receipt as patiently as this.
    #[cfg(feature = "durable")]
    pub(crate) async fn submit_with(&self, change: Change, patience: Patience) -> Result<Pending, ChangeError> {
        self.inner.submitter.submit_with(self.lane()?, change, patience).await
    }

    pub(crate) fn reader(&self) -> Result<Reader<'_>, IdentityError> {
        Ok(Reader { inner: &self.inner, lane: self.lane()? })
    }

    fn lane(&self) -> Result<&Arc<Lane>, IdentityError> {
        self.lane.as_ref().map_err(|error| *error)
    }
}

/// Whether a put is of a value that does not fit into a record, or of a manifest.
fn is_large(op: &Operation) -> bool {
    matches!(&op.action, Action::Put(put) if put.value.len() > limits::VALUE_BYTES || put.content_type.is_manifest())
}
