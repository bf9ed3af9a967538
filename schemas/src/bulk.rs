//! A bulk: changes of several users in one message, from a service that writes much. Each is a change by itself, with its own id,
//! its own receipt and its own fate; only the ways to the journal and back are shared. Nothing is checked here that
//! [`Draft::validate`] checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Draft, Kind, Message, Problem, Receipt, User, bounded, limits::BULK_CHANGES};

/// One change of a bulk, as it was decoded, with nothing checked. Tenant, app and writer are those of the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "One change of a bulk.")]
pub struct BulkChange {
    /// Whose profile it changes: any user of the tenant, which is what the subject allows.
    #[schemars(with = "User")]
    pub user: String,
    /// The change.
    pub change: Draft,
}

/// Changes of several users, as they were decoded, with nothing checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "Changes of several users of a tenant, from a service.")]
pub struct Bulk {
    /// 1 to 64 changes. Those of one profile are applied in this order.
    // Of a longer list one more than that is decoded, for `check` to refuse.
    #[serde(deserialize_with = "bounded::list::<_, _, BULK_CHANGES>")]
    #[schemars(length(min = 1, max = BULK_CHANGES))]
    pub changes: Vec<BulkChange>,
}

/// What became of one change of a bulk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "What became of one change of a bulk.")]
pub struct BulkReceipt {
    /// Whose profile it changed. Tenant, app and writer are those of the subject.
    pub user: User,
    /// The receipt that it would have got by itself.
    pub receipt: Receipt,
}

/// The answer to a bulk: the receipts of its changes, in their order, matched by id. Each comes by itself instead where there is only one,
/// where all take more than [`limits::BULK_RECEIPTS_BYTES`](crate::limits::BULK_RECEIPTS_BYTES), and for what was sent again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "The receipts of the changes of a bulk.")]
pub struct BulkReceipts {
    /// One for each change that was decided together.
    pub receipts: Vec<BulkReceipt>,
}

impl Message for Bulk {
    const KIND: Kind = Kind::Bulk;

    fn is_cut(&self) -> bool {
        self.changes.len() > BULK_CHANGES || self.changes.iter().any(|part| part.change.is_cut())
    }
}

impl Bulk {
    /// Checks how many changes there are.
    ///
    /// # Errors
    /// `invalid` for none, `too_large` for more than 64.
    pub fn check(&self) -> Result<(), Problem> {
        match self.changes.len() {
            0 => Err(Problem::invalid("a bulk has no change")),
            1..=BULK_CHANGES => Ok(()),
            more => Err(Problem::too_large("a bulk has too many changes", BULK_CHANGES, more)),
        }
    }
}

impl Message for BulkReceipts {
    const KIND: Kind = Kind::BulkReceipts;
}
