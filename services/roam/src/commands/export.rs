//! `roam export`: writes the live records of a profile, as they are at one revision, into a file or to standard output.

mod file;

use std::io;

use roam_client::ProfileClient;
use roam_schemas::{Record, State};
use serde::Serialize;
use serde_json::json;

use self::file::NewFile;
use crate::{
    archive::{Header, Line},
    cli::{Export, Global},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    show,
};

pub(super) async fn run(args: Export, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("export", &args.profile, "");
    with_profile(global, &args.profile, &what, async |profile| export(&profile, &args, &what, out).await).await
}

async fn export(profile: &ProfileClient, args: &Export, what: &str, out: Output) -> Result<(), Failure> {
    // Not page by page: a delta from the beginning is the state at one revision, whatever is written meanwhile.
    let delta = profile.changes(None).await.map_err(|error| not_answered(what, &error))?;
    let (head, time) = delta.cursor.open(&args.profile).map_err(|problem| Failure::problem(what, &problem))?;
    let mut live = delta.records;
    live.retain(|record| matches!(record.state, State::Value(_)));
    live.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let records = live.len() as u64;
    let header = Header::new(&args.profile, head, time, records);
    let Some(path) = &args.output else {
        return write(profile, &header, live, what, |line| out.bytes(line)).await;
    };
    let failed = |error: io::Error| Failure::because(what, &error);
    let mut file = NewFile::create(path).map_err(failed)?;
    let mut bytes: u64 = 0;
    let put = |line: &[u8]| {
        bytes += line.len() as u64;
        file.write_all(line).map_err(failed)
    };
    write(profile, &header, live, what, put).await?;
    file.keep().map_err(failed)?;
    out.object(&json!({ "exported": records, "bytes": bytes, "head": head, "time": time, "file": path }))?;
    let (records, bytes, path) = (show::of(records, "record"), show::bytes(bytes), path.display());
    out.say(format_args!("exported {records} of revision {head}, {time}, to {path} ({bytes})"))
}

/// Writes line after line. Large values are fetched one after the other, so that one at most is in memory.
async fn write(
    profile: &ProfileClient,
    header: &Header,
    records: Vec<Record>,
    what: &str,
    mut put: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    put(&json_line(header)?)?;
    for record in records {
        let record = profile.whole(record).await.map_err(|error| not_answered(what, &error))?;
        if let Some(line) = Line::of(record) {
            put(&json_line(&line)?)?;
        }
    }
    Ok(())
}

fn json_line(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(value).map_err(|error| Failure::because("export", &error))?;
    line.push(b'\n');
    Ok(line)
}
