//! The options of what makes a deployment, checks it and mends it: `up`, `provision`, `mappings`, `doctor`, `repair`. Nothing is done
//! here.

#[cfg(feature = "embedded")]
use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use roam_schemas::Shards;

use super::{
    Room, parse,
    room::{HEADING, LEAST},
};

/// The options of `roam provision`, by their ids, that are about other streams than those of the auth services.
const NOT_OF_AUTH: [&str; 10] = [
    "storage_replicas",
    "shards",
    "changes_max_messages",
    "changes_max_bytes",
    "journal_max_bytes",
    "journal_days",
    "rejected_max_bytes",
    "chunks_max_bytes",
    "chunk_grace",
    "backups_max_bytes",
];

/// `roam up`.
#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where everything is kept [default: roam in the XDG data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Let nobody in without a token, and encrypt: keys, certificates and a first token are made in the data directory
    #[arg(long)]
    pub(crate) secure: bool,
    /// A further host name or address for the certificate of the server, again for each
    #[arg(long = "host", value_name = "HOST", requires = "secure")]
    pub(crate) hosts: Vec<String>,
    /// Ask clients for a certificate too
    #[arg(long, requires = "secure")]
    pub(crate) mutual_tls: bool,
    /// Where clients connect. Without --secure there is no password: let nobody else reach it
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4222")]
    pub(crate) listen: SocketAddr,
    /// Where /livez, /readyz and /metrics answer; port 0 takes a free one, which the log names
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9600")]
    pub(crate) metrics: SocketAddr,
    /// Where nats-server tells about itself, on this machine alone, for `roam doctor --monitor`; port 0 takes a free one, which
    /// is said once ready
    #[arg(long, value_name = "127.0.0.1:PORT", default_value = "127.0.0.1:0", value_parser = parse::on_this_machine)]
    pub(crate) monitor: SocketAddr,
    /// When NATS asks the disk to keep what it took in. A change with a receipt survives a power cut either way; with
    /// `always` also one that has only been accepted does, at a small part of the speed
    #[arg(long, value_name = "WHEN", default_value = "default")]
    pub(crate) sync: Sync,
    /// Over how many shards users are split, each with an access server and a replica of its own: for ever
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse::shards)]
    pub(crate) shards: Shards,
    /// How much of the disk is set aside.
    #[command(flatten)]
    pub(crate) room: Room,
    /// With --secure: the audit, whose oldest goes when it is full [default: 1 GiB]
    #[arg(long, value_name = "BYTES", help_heading = HEADING, requires = "secure")]
    #[arg(value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) audit_max_bytes: Option<u64>,
    /// With --secure: what is known of tokens; when it is full none can be made [default: 256 MiB]
    #[arg(long, value_name = "BYTES", help_heading = HEADING, requires = "secure")]
    #[arg(value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) tokens_max_bytes: Option<u64>,
    /// Write this file once ready, and remove it at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// When NATS asks the disk to keep what it took in.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Every two minutes
    Default,
    /// Before it is called accepted
    Always,
}

/// `roam provision`.
#[derive(Debug, Args)]
pub(crate) struct Provision {
    /// On how many NATS servers each stream is kept: 1, or 3 in a cluster
    #[arg(long, value_name = "1|3", default_value = "1", value_parser = parse::stream_replicas)]
    pub(crate) replicas: usize,
    /// How many storage replicas the deployment has
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) storage_replicas: u16,
    /// Over how many shards users are split: for ever, and as the subject mappings of the NATS servers have it (`roam
    /// mappings`)
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse::shards)]
    pub(crate) shards: Shards,
    /// How much of the disk is set aside.
    #[command(flatten)]
    pub(crate) room: Room,
    /// The bucket of backups [default: 4 GiB]; 0: there is none, and backups go into directories
    #[arg(long, value_name = "BYTES", help_heading = HEADING)]
    pub(crate) backups_max_bytes: Option<u64>,
    /// With --auth: the audit, whose oldest goes when it is full [default: 1 GiB]
    #[arg(long, value_name = "BYTES", help_heading = HEADING, requires = "auth")]
    #[arg(conflicts_with_all = NOT_OF_AUTH, value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) audit_max_bytes: Option<u64>,
    /// With --auth: what is known of tokens; when it is full none can be made [default: 256 MiB]
    #[arg(long, value_name = "BYTES", help_heading = HEADING, requires = "auth")]
    #[arg(conflicts_with_all = NOT_OF_AUTH, value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) tokens_max_bytes: Option<u64>,
    /// Prepare what the auth services work with instead: the streams of tokens and audit, in an account of their own, with
    /// the key of the registrar
    #[arg(long, conflicts_with_all = NOT_OF_AUTH)]
    pub(crate) auth: bool,
}

/// `roam mappings`.
#[derive(Debug, Args)]
pub(crate) struct Mappings {
    /// How many shards the deployment has
    #[arg(long, value_name = "N", value_parser = parse::shards)]
    pub(crate) shards: Shards,
}

/// `roam doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The monitoring port of a NATS server
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) monitor: Option<String>,
}

/// `roam repair`.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// What is to be mended
    #[arg(value_name = "WHAT")]
    pub(crate) what: Mendable,
}

/// What can be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mendable {
    /// Durable consumers that stand ahead of their stream
    Consumers,
}
