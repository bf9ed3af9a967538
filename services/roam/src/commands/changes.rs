//! `roam changes`: prints what changed since a cursor, and the cursor for the next time.

use serde_json::json;

use crate::{
    cli::{Changes, Global},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    show::RecordLine,
};

pub(super) async fn run(args: Changes, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("changes", &args.profile, "");
    let delta = with_profile(global, &args.profile, &what, async |profile| {
        profile.changes(args.cursor).await.map_err(|error| not_answered(&what, &error))
    })
    .await?;
    for record in &delta.records {
        out.object(record)?;
        out.row(RecordLine(record))?;
    }
    out.object(&json!({ "cursor": delta.cursor, "head": delta.head }))?;
    out.row(format_args!("cursor {}", delta.cursor.to_text()))
}
