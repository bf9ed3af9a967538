//! The command line. Nothing is done here.

use std::path::PathBuf;

use clap::Parser;

/// Measures Roam beside its peers on this machine, and says whether the goals hold.
///
/// Each scenario runs ours and each peer in turn, again and again, with the same keys, sizes and concurrency. Peers that
/// are not installed (redis-server, etcd) are left out, and said to be.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "roam-bench",
    max_term_width = 120,
    after_help = "Example:\n  scripts/bench --only save --only latest\n\n\
    Exit codes: 0 all goals hold, 1 some were missed or something failed, 2 wrong command line."
)]
pub(crate) struct Options {
    /// Everything small, within a minute: shows that it works, and no goal counts
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// With 10 million records as well: about 40 minutes
    #[arg(long)]
    pub(crate) full: bool,
    /// Only scenarios of this group; may be given again
    #[arg(long, value_name = "GROUP")]
    pub(crate) only: Vec<crate::scenarios::Group>,
    /// How many pairs of ours and a peer's each scenario has [default: 5; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: Option<u32>,
    /// How long one measurement takes, in milliseconds [default: 1000; with --quick 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub(crate) millis: Option<u64>,
    /// Where report.json and the plots go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) output: PathBuf,
}
