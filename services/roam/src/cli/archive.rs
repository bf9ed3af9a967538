//! The options of the commands that take profiles out of the system, and into it. Nothing is done here.

use std::path::PathBuf;

use clap::Args;
use roam_schemas::App;

use super::parse::app;
use crate::owner::Owner;

/// `roam export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// tenant/user/app, or tenant/user for all profiles of a user
    #[arg(value_name = "PROFILE|USER")]
    pub(crate) owner: Owner,
    /// Of a user, only the profile of this app, again for each
    #[arg(long = "app", value_name = "APP", value_parser = app)]
    pub(crate) apps: Vec<App>,
    /// A file with the nkey seed of an operator, to ask which profiles a user has
    #[arg(long, value_name = "FILE", conflicts_with = "apps")]
    pub(crate) operator_nkey: Option<PathBuf>,
    /// Write into this file, which only its owner may read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `roam import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// tenant/user/app, or tenant/user for all profiles that are in the file
    #[arg(value_name = "PROFILE|USER")]
    pub(crate) owner: Owner,
    /// What `roam export` has written [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show what would become of each key, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
