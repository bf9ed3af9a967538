//! The options of the commands by which operators look at a deployment and decide for it. Nothing is done here.

use clap::{Args, Subcommand};
use roam_schemas::{ReplicaName, Tenant, User};

#[cfg(feature = "embedded")]
use super::backup::Source;
use super::parse::{replica, tenant, user};
use crate::owner::UserName;

/// Which shard.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Only {
    /// Only this shard, from 0, where a deployment has several
    #[arg(long = "shard", value_name = "NUMBER")]
    pub(crate) shard: Option<u16>,
}

/// `roam status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Which shard is looked at.
    #[command(flatten)]
    pub(crate) only: Only,
    /// Where the backups are.
    #[cfg(feature = "embedded")]
    #[command(flatten)]
    pub(crate) backups: Source,
}

/// `roam storage`.
#[derive(Debug, Args)]
pub(crate) struct Storage {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: StorageCommand,
}

/// The commands of `roam storage`.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Let one replica go on with what it holds, after the journal was lost, rolled back or cut off
    #[command(after_help = "\
Where each replica stands is shown first. The named one goes on with all that the journal holds and makes a backup. The
others take that by themselves, from the backup directory of their settings or, without one, the bucket; where one finds
none there, bring it back by hand (`roam backup restore`). Choose the one that applied most.

Example:
  roam storage resume storage-1
  roam storage resume storage-1 --yes --json")]
    Resume(ResumeReplica),
    /// Have all replicas pass over the entry of the journal that one of them stands still before
    #[command(after_help = "\
Each change in it is rejected with the code `skipped`, so whoever published it learns of it. Refused if any replica has
applied the entry, since the replicas would differ from then on, or if one does not answer that may have.

Example:
  roam storage skip storage-1
  roam storage skip storage-1 --yes --json")]
    Skip(SkipEntry),
}

/// `roam storage resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeReplica {
    /// The replica that counts from now on
    #[arg(value_parser = replica)]
    pub(crate) replica: ReplicaName,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `roam storage skip`.
#[derive(Debug, Args)]
pub(crate) struct SkipEntry {
    /// A replica that stands still before the entry
    #[arg(value_parser = replica)]
    pub(crate) replica: ReplicaName,
    /// Also if a replica does not answer: it must not have applied the entry
    #[arg(long)]
    pub(crate) despite_absent: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `roam verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Which shard is looked at.
    #[command(flatten)]
    pub(crate) only: Only,
    /// Only profiles of this tenant
    #[arg(long, value_parser = tenant)]
    pub(crate) tenant: Option<Tenant>,
    /// and of this user of it
    #[arg(long, value_parser = user, requires = "tenant")]
    pub(crate) user: Option<User>,
}

/// `roam profiles`.
#[derive(Debug, Args)]
pub(crate) struct Profiles {
    /// Which shard is looked at.
    #[command(flatten)]
    pub(crate) only: Only,
    /// Only those of this tenant
    #[arg(long, value_parser = tenant)]
    pub(crate) tenant: Option<Tenant>,
    /// and of this user of it
    #[arg(long, value_parser = user, requires = "tenant")]
    pub(crate) user: Option<User>,
    /// Ask this replica [default: the one that applied most]
    #[arg(long, value_name = "NAME", value_parser = replica)]
    pub(crate) replica: Option<ReplicaName>,
}

/// `roam erase`.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// tenant/user
    #[arg(value_name = "TENANT/USER")]
    pub(crate) user: UserName,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
