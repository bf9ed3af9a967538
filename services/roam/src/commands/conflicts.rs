//! `roam conflicts`: lists the records that won over a version that their writer had not seen, and what lost. It decides
//! nothing: an ordinary put does.

use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt, stream};
use roam_schemas::{Key, Revision, Version};
use serde::Serialize;

use super::HISTORIES_AT_ONCE;
use crate::{
    cli::{Conflicts, Global},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    past::{Outline, lost},
    show::{self, VersionLine},
};

pub(super) async fn run(args: Conflicts, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("conflicts", &args.profile, "");
    with_profile(global, &args.profile, &what, async |profile| {
        let delta = profile.changes(None).await.map_err(|error| not_answered(&what, &error))?;
        let keys = delta.records.into_iter().filter(|record| record.conflict).map(|record| record.key);
        let histories = stream::iter(keys).map(|key| {
            let profile = &profile;
            async move { profile.history(key.clone(), None).await.map(|versions| (key, versions)) }
        });
        let mut histories = pin!(histories.buffered(HISTORIES_AT_ONCE));
        let mut found: u64 = 0;
        while let Some((key, versions)) = histories.try_next().await.map_err(|error| not_answered(&what, &error))? {
            found += u64::from(print(&key, &versions, out)?);
        }
        match found {
            0 => out.say("no conflicts"),
            _ => out.say(format_args!(
                "{}; to resolve one, put the value that it should have",
                show::of(found, "conflict")
            )),
        }
    })
    .await
}

/// A record that won.
#[derive(Debug, Serialize)]
struct Won<'a> {
    key: &'a Key,
    revision: Revision,
    winner: Outline<'a>,
    losers: Vec<Outline<'a>>,
}

/// Prints the conflict of a key, and says whether there still is one: it may have been settled a moment ago.
fn print(key: &Key, versions: &[Version], out: Output) -> Result<bool, Failure> {
    let Some(winner) = versions.iter().find(|version| version.rank == 0).filter(|version| version.conflict) else {
        return Ok(false);
    };
    let losers = lost(versions, winner);
    let outlines = losers.iter().map(|version| Outline::of(version)).collect();
    out.object(&Won { key, revision: winner.revision, winner: Outline::of(winner), losers: outlines })?;
    out.row(show::text(key.as_str()))?;
    out.row(format_args!("  won   {}", VersionLine(winner)))?;
    for version in &losers {
        out.row(format_args!("  lost  {}", VersionLine(version)))?;
    }
    if losers.is_empty() {
        out.row("  lost  a version that is not kept any more")?;
    }
    Ok(true)
}
