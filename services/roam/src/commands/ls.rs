//! `roam ls`: lists the live records of a profile.

use std::pin::pin;

use futures_util::TryStreamExt;
use roam_schemas::Select;

use crate::{
    cli::{Global, Ls},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    show::RecordLine,
};

pub(super) async fn run(args: Ls, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("ls", &args.profile, args.prefix.as_deref().unwrap_or_default());
    let select = args.prefix.map_or(Select::All, Select::Prefix);
    with_profile(global, &args.profile, &what, async |profile| {
        let mut records = pin!(profile.records(select));
        while let Some(record) = records.try_next().await.map_err(|error| not_answered(&what, &error))? {
            out.object(&record)?;
            out.row(RecordLine(&record))?;
        }
        Ok(())
    })
    .await
}
