//! `roam mappings`: prints what the servers of a deployment of several shards map.

use roam_nats::mappings_conf;

use crate::{cli::Mappings, failure::Failure, output::Output};

pub(super) fn run(args: &Mappings, out: Output) -> Result<(), Failure> {
    let conf = mappings_conf(args.shards);
    out.object(&serde_json::json!({ "shards": args.shards.get(), "mappings": conf }))?;
    match conf.is_empty() {
        true => out.row("# One shard: nothing is mapped."),
        false => out.row(conf.trim()),
    }
}
