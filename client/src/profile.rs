//! What a program does with one profile. Each operation here is a line or two: the work is in `publish.rs`, `read.rs` and
//! `watch.rs`.

use std::sync::Arc;

use futures_util::Stream;
use roam_schemas::{
    Change, ChangeId, ContentType, Cursor, HistoryReply, HistoryRequest, Key, LatestReply, LatestRequest, Operation,
    Record, Revision, Select, Version,
};

use crate::client::Inner;
use crate::publish::Lane;
#[cfg(feature = "durable")]
use crate::publish::Patience;
use crate::read::{self, Delta, Lookup, Reader};
use crate::{ChangeError, IdentityError, Pending, ReadError, Saved, Watch, WatchFrom};

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

    /// Writes a record, whatever it was before. Returns once that is saved.
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
        let change = Change::new(ChangeId::random(), base, ops).map_err(ChangeError::Invalid)?;
        self.submit(change).await?.receipt().await
    }

    /// Hands a change to the bus, as soon as there is room for it, and returns: for pipelining. Changes to one key take
    /// effect in the order in which they were submitted, as long as they expect nothing; no other order is kept. If an
    /// earlier attempt ended with [`ChangeError::Unknown`], the very same change may be submitted again.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn submit(&self, change: Change) -> Result<Pending, ChangeError> {
        self.inner.submitter.submit(self.lane()?, change).await
    }

    /// The newest state of a key.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, key: Key) -> Result<Lookup, ReadError> {
        let request = LatestRequest { select: Select::Keys(vec![key]), ..LatestRequest::default() };
        read::lookup(self.latest(request).await?)
    }

    /// One page of records. Unless the request says otherwise, the answer is at least as new as anything that this client
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
