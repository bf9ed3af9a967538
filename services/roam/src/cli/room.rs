//! How much of the disk of the NATS servers the streams set aside: options of `roam provision` and `roam up`.

use clap::Args;

/// The least that a stream is of any use with.
const LEAST: u64 = 1_048_576;

/// How many bytes each stream may take, of each shard; what is not said of changes, journal and chunks the shards have together.
/// JetStream sets the whole of it aside in advance.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Room on the disk of NATS, set aside in advance")]
pub(crate) struct Room {
    /// Changes that wait for an access server [default: 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) changes_max_bytes: Option<u64>,
    /// The journal, from which a replica that was away catches up [default: 8 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) journal_max_bytes: Option<u64>,
    /// What was rejected, for operators to look at [default: 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) rejected_max_bytes: Option<u64>,
    /// The chunks of large values [default: 2 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) chunks_max_bytes: Option<u64>,
}

/// The option that changes how much a stream sets aside; none for one that has none.
pub(crate) fn option_of(stream: &str) -> Option<&'static str> {
    // Where there are several shards, the number stands behind the name.
    let name = stream.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    Some(match name {
        "ROAM_CHANGES" => "--changes-max-bytes",
        "ROAM_JOURNAL" => "--journal-max-bytes",
        "ROAM_REJECTED" => "--rejected-max-bytes",
        "ROAM_CHUNKS" => "--chunks-max-bytes",
        "OBJ_ROAM_BACKUPS" => "--backups-max-bytes",
        _ => return None,
    })
}
