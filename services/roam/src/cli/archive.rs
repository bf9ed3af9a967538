//! The options of the commands that take a profile out of the system, and into it. Nothing is done here.

use std::path::PathBuf;

use clap::Args;
use roam_schemas::Profile;

/// `roam export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// Write into this file, which only its owner may read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `roam import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// What `roam export` has written [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show what would become of each key, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
