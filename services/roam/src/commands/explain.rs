//! `roam explain`: how a key came to be what it is: who wrote each kept version, knowing what, and what that took the
//! place of.

use roam_schemas::{HistoryReply, Revision, Version};
use serde::Serialize;

use crate::{
    cli::{Explain, Global},
    connect::{named, not_answered, with_profile},
    failure::{Exit, Failure},
    output::Output,
    past::{Beaten, Outline, beaten},
    show::{self, VersionLine},
};

pub(super) async fn run(args: Explain, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("explain", &args.profile, args.key.as_str());
    let history = with_profile(global, &args.profile, &what, async |profile| {
        profile.history_page(args.key, None).await.map_err(|error| not_answered(&what, &error))
    })
    .await?;
    if history.versions.is_empty() {
        return Err(Failure { exit: Exit::NotFound, ..Failure::new(what, "not found: the profile has no such key") });
    }
    print(&history, out)
}

/// What there is to say of a version.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    outline: Outline<'a>,
    /// Whether it won over a version that its writer had not seen.
    conflict: bool,
    /// The version that it took the place of.
    beat: Option<Beaten<'a>>,
    /// The revision that had been applied before it came.
    superseded_by: Option<Revision>,
}

fn print(history: &HistoryReply, out: Output) -> Result<(), Failure> {
    for version in &history.versions {
        let explained = Explained {
            outline: Outline::of(version),
            conflict: version.conflict,
            beat: beaten(&history.versions, version),
            superseded_by: (version.rank > 0).then_some(version.revision),
        };
        out.object(&explained)?;
        out.row(VersionLine(version))?;
        for line in lines(version, explained.beat.as_ref()) {
            out.row(format_args!("          {line}"))?;
        }
    }
    match history.more {
        true => out.say("older versions are kept that did not fit in the answer"),
        false => Ok(()),
    }
}

/// What is said below a version.
fn lines(version: &Version, beat: Option<&Beaten<'_>>) -> [String; 3] {
    let base = match version.base {
        Some(base) => format!("base    revision {base}: what its writer had seen"),
        None => "base    none: its writer did not say what it had seen".to_owned(),
    };
    [format!("change  {}", version.change), base, effect(version, beat)]
}

/// What became of a version when it came.
fn effect(version: &Version, beat: Option<&Beaten<'_>>) -> String {
    if version.rank > 0 {
        let by = version.revision;
        return format!(
            "beat    nothing: superseded by revision {by}, which was published later and applied before it"
        );
    }
    let Some(beat) = beat else { return "beat    nothing that is kept".to_owned() };
    let mut text = format!("beat    revision {} by {}, {}", beat.revision, show::text(beat.device.as_str()), beat.time);
    if version.conflict {
        text.push_str("; its writer had not seen that: a conflict");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ChangeId, Device, State, Timestamp};

    use super::*;

    fn version(revision: u64, rank: u32, base: Option<u64>, conflict: bool) -> Version {
        Version {
            revision: Revision::new(revision),
            rank,
            time: Timestamp::from_nanos(revision),
            device: Device::parse(if rank == 0 { "laptop" } else { "phone" }).unwrap(),
            change: ChangeId::from_bytes([0; 16]),
            base: base.map(Revision::new),
            conflict,
            state: State::Deleted,
        }
    }

    #[test]
    fn each_version_says_what_became_of_it_when_it_came() {
        let versions = [version(9, 0, Some(3), true), version(9, 1, Some(4), false), version(5, 0, None, false)];
        let said = versions.each_ref().map(|v| lines(v, beaten(&versions, v).as_ref()));
        assert_eq!(said[0][0], "change  00000000-0000-0000-0000-000000000000");
        assert_eq!(said[0][1], "base    revision 3: what its writer had seen");
        let beat =
            "beat    revision 5 by laptop, 1970-01-01T00:00:00.000000005Z; its writer had not seen that: a conflict";
        assert_eq!(said[0][2], beat);
        assert!(said[1][2].starts_with("beat    nothing: superseded by revision 9,"), "{}", said[1][2]);
        assert_eq!(said[2][1], "base    none: its writer did not say what it had seen");
        assert_eq!(said[2][2], "beat    nothing that is kept");
    }
}
