//! `roam put`: writes one key.

use std::io::{self, Read};

use roam_agent::tree::guess_content_type;
use roam_client::Saved;
use roam_schemas::{Action, Change, ChangeId, ContentType, Operation, Put as PutAction, Value, limits::VALUE_BYTES};

use super::report_saved;
use crate::{
    cli::{Global, Put},
    connect::{named, not_saved, with_profile},
    failure::Failure,
    output::Output,
};

/// The value that means: read it from standard input.
const STANDARD_INPUT: &str = "-";

pub(super) async fn run(args: Put, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("put", &args.profile, args.key.as_str());
    let (bytes, guessed) = value(&args).map_err(|error| Failure::because(what.as_str(), &error))?;
    let content_type = args.content_type.unwrap_or(guessed);
    let put = PutAction { value: Value::new(bytes), content_type, ttl: args.ttl };
    let op = Operation { key: args.key, action: Action::Put(put), expect: args.expect };
    // Checked before connecting, so that a value that is too large says so also without a server.
    let change =
        Change::new(ChangeId::random(), None, vec![op]).map_err(|problem| Failure::problem(&what, &problem))?;
    let saved: Saved = with_profile(global, &args.profile, &what, async |profile| {
        let pending = profile.submit(change).await.map_err(|error| not_saved(&what, &error))?;
        pending.receipt().await.map_err(|error| not_saved(&what, &error))
    })
    .await?;
    report_saved(&saved, out)
}

/// The value, and what it seems to be.
fn value(args: &Put) -> io::Result<(Vec<u8>, ContentType)> {
    match (&args.file, args.value.as_deref()) {
        (Some(file), _) => Ok((read(std::fs::File::open(file)?)?, guess_content_type(file))),
        (None, Some(STANDARD_INPUT)) => {
            let bytes = read(io::stdin().lock())?;
            let is_text = Value::new(bytes.as_slice()).as_text().is_some();
            Ok((bytes, if is_text { ContentType::text() } else { ContentType::octets() }))
        }
        (None, text) => Ok((text.unwrap_or_default().into(), ContentType::text())),
    }
}

/// Reads until the end, or until it is known to be too large.
fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(VALUE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
