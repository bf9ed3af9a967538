//! What access servers go by, as they tell it: terms, quotas and rates, one number each. What each of them means stands where
//! it takes effect; nothing is decided by what is told here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BatchId, Kind, Message, Tenant};

/// One entry of ROAM_TERMS: an access server goes by other terms than those that were told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TermsEntry {
    /// Chosen by whoever writes it; its `Roam-Batch` header repeats it.
    pub id: BatchId,
    /// What was told last. Where nothing was: the defaults.
    pub before: Vec<Term>,
    /// What holds from now on, whole.
    pub terms: Vec<Term>,
}

/// One number that access servers go by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The tenant that has it for its own; none for what holds for all others.
    pub tenant: Option<Tenant>,
    /// What it is called in the settings.
    pub setting: String,
    /// The number, in the unit of that setting.
    pub value: u64,
}

impl Message for TermsEntry {
    const KIND: Kind = Kind::TermsEntry;
}
