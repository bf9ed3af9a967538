//! The options of the commands that look back: what was, why it is as it is, and how to get it again. Nothing is done
//! here.

use clap::Args;
use roam_schemas::{Key, Profile};

use super::parse::{at, key};
use crate::past::At;

/// `roam explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
}

/// `roam conflicts`.
#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    /// tenant/user/app
    pub(crate) profile: Profile,
}

/// `roam restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// To when: a revision (42), a time (2026-03-01T12:00:00Z), or how long ago (90s, 15m, 2h, 1d)
    #[arg(long, value_name = "WHEN", value_parser = at)]
    pub(crate) at: At,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Show what would become of each key, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
