//! `roam history`: prints the kept versions of a key.

use crate::{
    cli::{Global, History},
    connect::{named, not_answered, with_profile},
    failure::{Exit, Failure},
    output::Output,
    show::VersionLine,
};

pub(super) async fn run(args: History, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("history", &args.profile, args.key.as_str());
    let versions = with_profile(global, &args.profile, &what, async |profile| {
        profile.history(args.key, args.limit).await.map_err(|error| not_answered(&what, &error))
    })
    .await?;
    if versions.is_empty() {
        return Err(Failure { exit: Exit::NotFound, ..Failure::new(what, "not found: the profile has no such key") });
    }
    for version in &versions {
        out.object(version)?;
        out.row(VersionLine(version))?;
    }
    Ok(())
}
