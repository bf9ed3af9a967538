//! Sending changes with several of them in flight. Each key is in one change only, so that their order does not matter.

use std::collections::VecDeque;

use roam_client::{ChangeError, Pending, ProfileClient};
use roam_schemas::{Change, ChangeId, Conflict, Operation, Revision};

/// How many changes are in flight; what they hold in memory is this times the size of a change.
const IN_FLIGHT: usize = 16;

/// Sends changes and waits for their receipts.
pub(crate) struct Sender<'a> {
    profile: &'a ProfileClient,
    /// What the profile held when it was looked at; whatever is newer is a conflict.
    base: Revision,
    /// Changes without a receipt, oldest first, each with the number of its operations.
    in_flight: VecDeque<(usize, Pending)>,
    sent: Sent,
}

/// What was saved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// How many changes.
    pub(crate) changes: u64,
    /// How many operations were in them.
    pub(crate) operations: u64,
    /// The highest revision that they were given.
    pub(crate) revision: Option<Revision>,
    /// Records that another device had changed since the profile was looked at.
    pub(crate) conflicts: Vec<Conflict>,
}

impl<'a> Sender<'a> {
    /// Nothing in flight.
    pub(crate) fn new(profile: &'a ProfileClient, base: Revision) -> Self {
        Self { profile, base, in_flight: VecDeque::new(), sent: Sent::default() }
    }

    /// Where it sends to.
    pub(crate) fn profile(&self) -> &'a ProfileClient {
        self.profile
    }

    /// Sends a change, as soon as there is room for it. Large values are uploaded before.
    ///
    /// # Errors
    /// Its own, or that of one sent before. Nothing more should be sent then; see [`Self::saved`].
    pub(crate) async fn send(&mut self, ops: Vec<Operation>) -> Result<(), ChangeError> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.land().await?;
        }
        let operations = ops.len();
        let ops = self.profile.prepare(ops).await?;
        let change = Change::new(ChangeId::random(), Some(self.base), ops).map_err(ChangeError::Invalid)?;
        self.in_flight.push_back((operations, self.profile.submit(change).await?));
        Ok(())
    }

    /// Waits for the receipts of all that was sent.
    ///
    /// # Errors
    /// The first that is none.
    pub(crate) async fn finish(&mut self) -> Result<Sent, ChangeError> {
        while !self.in_flight.is_empty() {
            self.land().await?;
        }
        Ok(std::mem::take(&mut self.sent))
    }

    /// What is known to be saved so far.
    pub(crate) fn saved(&self) -> &Sent {
        &self.sent
    }

    /// Waits for the receipt of the oldest.
    async fn land(&mut self) -> Result<(), ChangeError> {
        let Some((operations, pending)) = self.in_flight.pop_front() else { return Ok(()) };
        let saved = pending.receipt().await?;
        self.sent.changes += 1;
        self.sent.operations += operations as u64;
        self.sent.revision = self.sent.revision.max(Some(saved.revision));
        self.sent.conflicts.extend(saved.conflicts);
        Ok(())
    }
}
