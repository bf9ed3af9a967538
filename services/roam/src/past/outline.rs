//! Which version of a key beat which, and what a version is without its value.

use roam_schemas::{ChangeId, Device, Revision, State, Timestamp, Version};
use serde::Serialize;

/// A version of a key without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outline<'a> {
    /// The revision that wrote it; if it came too late, the one that beat it.
    pub(crate) revision: Revision,
    /// 0, or the how manieth that came too late for that revision.
    pub(crate) rank: u32,
    /// Its time.
    pub(crate) time: Timestamp,
    /// Who wrote it.
    pub(crate) device: &'a Device,
    /// The change that wrote it.
    pub(crate) change: ChangeId,
    /// What its writer had seen.
    pub(crate) base: Option<Revision>,
    /// `put`, `deleted` or `expired`.
    pub(crate) state: &'static str,
    /// The size of its value.
    pub(crate) bytes: Option<usize>,
    /// What its value is.
    pub(crate) content_type: Option<&'a str>,
}

impl<'a> Outline<'a> {
    /// Of a version.
    pub(crate) fn of(version: &'a Version) -> Self {
        let stored = match &version.state {
            State::Value(stored) => Some(stored),
            State::Deleted | State::Expired => None,
        };
        Self {
            revision: version.revision,
            rank: version.rank,
            time: version.time,
            device: &version.device,
            change: version.change,
            base: version.base,
            state: crate::show::verb(&version.state),
            bytes: stored.map(|stored| stored.value.len()),
            content_type: stored.map(|stored| stored.content_type.as_str()),
        }
    }
}

/// The version that another one took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Beaten<'a> {
    /// Its revision.
    pub(crate) revision: Revision,
    /// Its time.
    pub(crate) time: Timestamp,
    /// Who wrote it.
    pub(crate) device: &'a Device,
    /// Whether the writer of the other one had seen it; none if that did not say what it had seen.
    pub(crate) seen: Option<bool>,
}

/// What a version of a history took the place of: the version before it. None for one that came too late, which beat
/// nothing, and for the oldest that is kept.
pub(crate) fn beaten<'a>(versions: &'a [Version], version: &Version) -> Option<Beaten<'a>> {
    if version.rank > 0 {
        return None;
    }
    let before = versions.iter().find(|other| other.rank == 0 && other.revision < version.revision)?;
    let seen = version.base.map(|base| before.revision <= base || before.device == version.device);
    Some(Beaten { revision: before.revision, time: before.time, device: &before.device, seen })
}

/// The kept versions that lost a conflict to this one, newest first: those of other devices that its writer had not seen.
pub(crate) fn lost<'a>(versions: &'a [Version], winner: &Version) -> Vec<&'a Version> {
    let Some(base) = winner.base.filter(|_| winner.conflict) else { return Vec::new() };
    let unseen = |other: &&Version| {
        other.rank == 0 && other.revision < winner.revision && other.revision > base && other.device != winner.device
    };
    versions.iter().filter(unseen).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn version(revision: u64, rank: u32, device: &str, base: Option<u64>, conflict: bool) -> Version {
        Version {
            revision: Revision::new(revision),
            rank,
            time: Timestamp::from_nanos(revision),
            device: Device::parse(device).unwrap(),
            change: ChangeId::from_bytes([0; 16]),
            base: base.map(Revision::new),
            conflict,
            state: State::Deleted,
        }
    }

    #[test]
    fn the_losers_are_what_other_devices_wrote_and_the_winner_had_not_seen() {
        let versions = [
            version(9, 0, "laptop", Some(3), true),
            version(9, 1, "tablet", Some(4), false),
            version(7, 0, "phone", None, false),
            version(5, 0, "laptop", None, false),
            version(4, 0, "tablet", None, false),
            version(3, 0, "phone", None, false),
        ];
        let revisions =
            |winner: &Version| lost(&versions, winner).iter().map(|lost| lost.revision.get()).collect::<Vec<_>>();
        assert_eq!(revisions(&versions[0]), [7, 4]);
        assert!(revisions(&versions[2]).is_empty(), "without a conflict there is no loser");
    }

    #[test]
    fn a_version_takes_the_place_of_the_one_before_it() {
        let versions = [
            version(9, 0, "laptop", Some(3), true),
            version(9, 1, "tablet", Some(4), false),
            version(7, 0, "phone", Some(5), false),
            version(5, 0, "laptop", None, false),
            version(4, 0, "laptop", Some(1), false),
            version(3, 0, "laptop", None, false),
        ];
        let seen = versions.each_ref().map(|v| beaten(&versions, v).map(|b| (b.revision.get(), b.seen)));
        let expected =
            [Some((7, Some(false))), None, Some((5, Some(true))), Some((4, None)), Some((3, Some(true))), None];
        assert_eq!(seen, expected);
    }
}
