//! The options of `roam backup` and its commands. Nothing is done here.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};
use roam_schemas::ReplicaName;
use roam_storage::backup::{BackupId, Target};

use super::{operate::Only, parse::replica};

/// The word for the bucket in place of a directory.
const BUCKET: &str = "bucket";

/// `roam backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: BackupCommand,
}

/// The commands of `roam backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Have a running replica make a backup, while it goes on
    #[command(after_help = "\
Files and chunks of large values that are in the repository already are not copied again. Without --to the backup goes into the directory that the
replica's own settings name ([backup] directory; of `roam up --data DIR` that is DIR/backups), or, without one, into the
bucket on the bus.

Example:
  roam backup create
  roam backup create --replica storage-2 --to bucket --json")]
    Create(CreateBackup),
    /// List the backups there are, newest first
    #[command(
        after_help = "Example:\n  roam backup list --from ~/roam-data/backups\n  roam backup list --from bucket --json"
    )]
    List(ListBackups),
    /// Read all of a backup: compare every file and chunk with its hash, open it, and read every row
    #[command(after_help = "\
A backup in the bucket is copied to the directory for temporary files first (TMPDIR).

Example:
  roam backup verify --from ~/roam-data/backups
  roam backup verify 20260301T120000.000Z-0123abcd --from bucket")]
    Verify(VerifyBackup),
    /// Bring a backup back into the directory of a replica that does not run
    #[command(after_help = "\
The directory has to be empty or missing; that of `roam up --data DIR` is DIR/storage. Every file is checked as it is
written. If the journal reaches back to the backup, the replica that is started there goes on from it, and nothing is lost. If
not, a single replica begins a new epoch, in which devices offer what they hold that is newer; one of several takes a
newer backup, or waits for an order. What is to be expected is said at the end.

The chunks of large values are brought back too, below that directory. The replica that is started there puts those on the
bus that are missing, and removes them from the directory. Where the bus has them all, --without-chunks saves the copying.

Example:
  mv ~/roam-data/storage ~/roam-data/storage.old
  roam backup restore --from ~/roam-data/backups --data ~/roam-data/storage
  roam up --data ~/roam-data")]
    Restore(RestoreBackup),
    /// Remove old backups
    #[command(after_help = "Example:\n  roam backup prune --from ~/roam-data/backups --keep 7")]
    Prune(PruneBackups),
}

/// Where backups are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Where the backups are: a directory, or `bucket` for the one on the bus
    #[arg(long, value_name = "DIR|bucket", env = "ROAM_BACKUPS", default_value = BUCKET, value_parser = Repo::from_str)]
    pub(crate) from: Repo,
}

/// A directory or the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repo {
    /// A directory of this machine.
    Directory(PathBuf),
    /// The bucket on the bus.
    Bucket,
}

impl FromStr for Repo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err(format!("name a directory, or {BUCKET}")),
            BUCKET => Ok(Self::Bucket),
            directory => Ok(Self::Directory(directory.into())),
        }
    }
}

/// `roam backup create`.
#[derive(Debug, Args)]
pub(crate) struct CreateBackup {
    /// Which shard one is made of.
    #[command(flatten)]
    pub(crate) only: Only,
    /// Which replica [default: any; where there are several shards, any of each]
    #[arg(long, value_name = "NAME", value_parser = replica)]
    pub(crate) replica: Option<ReplicaName>,
    /// Where it goes
    #[arg(long, value_name = "directory|bucket")]
    pub(crate) to: Option<To>,
}

/// Where a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The directory that the settings of the replica name
    Directory,
    /// The bucket on the bus
    Bucket,
}

impl From<To> for Target {
    fn from(to: To) -> Self {
        match to {
            To::Directory => Self::Directory,
            To::Bucket => Self::Bucket,
        }
    }
}

/// `roam backup list`.
#[derive(Debug, Args)]
pub(crate) struct ListBackups {
    /// Where the backups are.
    #[command(flatten)]
    pub(crate) source: Source,
    /// Of which shard they are. Where there are several, each has backups of its own.
    #[command(flatten)]
    pub(crate) only: Only,
}

/// `roam backup verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyBackup {
    /// Which backup [default: the newest]
    pub(crate) id: Option<BackupId>,
    /// Where the backups are.
    #[command(flatten)]
    pub(crate) source: Source,
    /// Of which shard they are. Where there are several, each has backups of its own.
    #[command(flatten)]
    pub(crate) only: Only,
}

/// `roam backup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreBackup {
    /// Which backup [default: the newest]
    pub(crate) id: Option<BackupId>,
    /// Where the backups are.
    #[command(flatten)]
    pub(crate) source: Source,
    /// Of which shard they are. Where there are several, each has backups of its own.
    #[command(flatten)]
    pub(crate) only: Only,
    /// The directory of the replica
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Leave out the chunks of large values: the bus has them
    #[arg(long)]
    pub(crate) without_chunks: bool,
}

/// `roam backup prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneBackups {
    /// Where the backups are.
    #[command(flatten)]
    pub(crate) source: Source,
    /// Of which shard they are. Where there are several, each has backups of its own.
    #[command(flatten)]
    pub(crate) only: Only,
    /// How many of the newest stay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: u32,
}
