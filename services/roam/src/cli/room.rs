//! How much of the disk of the NATS servers the streams set aside, and what they keep of that: options of `roam provision` and
//! `roam up`.

use clap::Args;

use super::parse::span;

/// The least that a stream is of any use with.
pub(super) const LEAST: u64 = 1_048_576;
/// The most days that the server can reckon with, about.
const MOST_DAYS: i64 = 36_500;
/// What stands above these options.
pub(super) const HEADING: &str =
    "What the streams of NATS keep: room on the disk is set aside in advance; give the same each time";

/// How many bytes each stream may take, of each shard; what is not said of changes, journal and chunks the shards have together.
/// JetStream sets the whole of it aside in advance.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Room {
    /// How many changes wait for an access server; further ones are refused [default: 60,000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) changes_max_messages: Option<u64>,
    /// Changes that wait for an access server [default: 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) changes_max_bytes: Option<u64>,
    /// The journal, from which a replica that was away catches up [default: 8 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) journal_max_bytes: Option<u64>,
    /// How far back the journal reaches at most [default: 7]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=MOST_DAYS))]
    pub(crate) journal_days: Option<u32>,
    /// What was rejected, for operators to look at [default: 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) rejected_max_bytes: Option<u64>,
    /// The chunks of large values [default: 2 GiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST..))]
    pub(crate) chunks_max_bytes: Option<u64>,
    /// How long a chunk stays that no record needs, in seconds, or with a unit: 12h, 2d [default: 2d]. From the upload of a
    /// large value to the change that needs it a device has half of that
    #[arg(long, value_name = "SECONDS", value_parser = span)]
    pub(crate) chunk_grace: Option<u32>,
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
        "ROAM_AUDIT" => "--audit-max-bytes",
        "ROAM_TOKENS" => "--tokens-max-bytes",
        _ => return None,
    })
}
