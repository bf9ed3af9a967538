//! `roam export`: writes the live records of a profile, as they are at one revision, into a file or to standard output.

mod file;

use std::io;

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
    // Not page by page: a delta from the beginning is the state at one revision, whatever is written meanwhile.
    let delta = with_profile(global, &args.profile, &what, async |profile| {
        profile.changes(None).await.map_err(|error| not_answered(&what, &error))
    })
    .await?;
    let (head, time) = delta.cursor.open(&args.profile).map_err(|problem| Failure::problem(&what, &problem))?;
    let mut lines: Vec<Line> = delta.records.into_iter().filter_map(Line::of).collect();
    lines.sort_unstable_by(|one, other| one.key().cmp(other.key()));
    let records = lines.len() as u64;
    let header = Header::new(&args.profile, head, time, records);
    let Some(path) = args.output else {
        return write(&header, &lines, |line| out.bytes(line));
    };
    let failed = |error: io::Error| Failure::because(&*what, &error);
    let mut file = NewFile::create(&path).map_err(failed)?;
    let mut bytes: u64 = 0;
    write(&header, &lines, |line| {
        bytes += line.len() as u64;
        file.write_all(line).map_err(failed)
    })?;
    file.keep().map_err(failed)?;
    out.object(&json!({ "exported": records, "bytes": bytes, "head": head, "time": time, "file": path }))?;
    let (records, bytes, path) = (show::of(records, "record"), show::bytes(bytes), path.display());
    out.say(format_args!("exported {records} of revision {head}, {time}, to {path} ({bytes})"))
}

/// Writes line after line.
fn write(header: &Header, lines: &[Line], mut put: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    put(&json_line(header)?)?;
    lines.iter().try_for_each(|line| put(&json_line(line)?))
}

fn json_line(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(value).map_err(|error| Failure::because("export", &error))?;
    line.push(b'\n');
    Ok(line)
}
