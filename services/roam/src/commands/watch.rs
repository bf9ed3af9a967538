//! `roam watch`: prints what happens to a profile, until it is asked to stop.

use roam_client::{Event, WatchError, WatchFrom};
use roam_schemas::Cursor;
use serde_json::json;

use super::Stop;
use crate::{
    cli::{Global, Watch},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    show::RecordLine,
};

pub(super) async fn run(args: Watch, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("watch", &args.profile, "");
    let from = begin(args.cursor, args.from_beginning);
    with_profile(global, &args.profile, &what, async |profile| {
        let mut stop = Stop::new()?;
        let mut watch = profile.watch(from).await.map_err(|error| not_answered(&what, &error))?;
        out.note("watching; Ctrl-C ends it");
        loop {
            tokio::select! {
                event = watch.next() => print(&event.map_err(|error| not_watched(&what, &error))?, out)?,
                () = stop.asked() => break,
            }
        }
        out.note(format_args!("go on with --cursor {}", watch.cursor().to_text()));
        Ok(())
    })
    .await
}

/// Why a watch ended.
pub(super) fn not_watched(what: &str, error: &WatchError) -> Failure {
    match error {
        WatchError::Read(error) => not_answered(what, error),
        WatchError::Closed => Failure::because(what, error),
    }
}

fn begin(cursor: Option<Cursor>, from_beginning: bool) -> WatchFrom {
    match cursor {
        Some(cursor) => WatchFrom::Cursor(cursor),
        None if from_beginning => WatchFrom::Beginning,
        None => WatchFrom::Now,
    }
}

fn print(event: &Event, out: Output) -> Result<(), Failure> {
    let records = match event {
        Event::Revision { revision, time, device, change, records, cursor } => {
            out.object(&json!({ "revision": {
                "revision": revision, "time": time, "device": device, "change": change, "records": records,
                "cursor": cursor,
            }}))?;
            records
        }
        Event::State { records, head, cursor } => {
            out.object(&json!({ "state": { "records": records, "head": head, "cursor": cursor } }))?;
            records
        }
        Event::Reset => {
            out.object(&json!({ "reset": {} }))?;
            return out.row("reset: forget what you hold; all of it follows");
        }
    };
    records.iter().try_for_each(|record| out.row(RecordLine(record)))
}
