//! Kept: which versions of one key count, newest first. Readers, digests, the keeper of chunks and compactions all go by this, so
//! that what one of them counts is never what another one drops. Pure: rows pass by, none is read or removed here.
//!
//! **Invariant:** the newest version of a key counts, unless it is a deletion past its term.

use roam_schemas::{Terms, Timestamp};

use super::{Horizon, Place};

/// What versions must be to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// So many versions of a key count, and so many operations that came too late for them. None while it is not known.
    depth: Option<u32>,
    /// A version that was replaced before this does not count any more.
    replaced: Timestamp,
    /// How long a deletion counts, and until when, if the key was not written again.
    deleted: Option<Deleted>,
    /// Since when all that stood is there, but for what is beyond the depth.
    since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deleted {
    /// In seconds.
    stay: u64,
    now: Timestamp,
}

/// Takes the versions of one key, newest first.
#[derive(Debug)]
pub(crate) struct Kept {
    bounds: Bounds,
    /// How many versions counted.
    versions: u32,
    /// How many operations counted that came too late.
    late: u32,
    /// The time of the last version: when the next one was replaced.
    replaced: Option<Timestamp>,
    /// No version that is older than the last one counts.
    over: bool,
}

impl Bounds {
    /// What counts for readers at an instant, under these terms.
    pub(crate) fn of_terms(terms: &Terms, now: Timestamp) -> Self {
        let (replaced, deleted) =
            (now.minus_seconds(terms.history_seconds), now.minus_seconds(terms.tombstone_seconds));
        Self {
            depth: Some(terms.history_versions.max(1)),
            replaced,
            deleted: Some(Deleted { stay: terms.tombstone_seconds, now }),
            since: replaced.max(deleted),
        }
    }

    /// The same without what may be gone already: terms may be wider now than they were.
    pub(crate) fn within(self, horizon: Horizon) -> Self {
        let dropped = Self::of_horizon(horizon);
        let depth = self.depth.into_iter().chain(dropped.depth).min();
        let since = self.since.max(dropped.since);
        Self { depth, replaced: self.replaced.max(dropped.replaced), deleted: self.deleted, since }
    }

    /// What compactions must keep. Whole deletions are the writer's to remove, and none of this.
    pub(crate) fn of_horizon(horizon: Horizon) -> Self {
        Self {
            depth: Some(horizon.depth).filter(|depth| *depth > 0),
            replaced: horizon.versions,
            deleted: None,
            since: horizon.versions.max(horizon.tombstones).max(horizon.deepened),
        }
    }

    /// Since when all that stood is there, but for what is beyond the depth.
    pub(crate) fn since(self) -> Timestamp {
        self.since
    }
}

impl Kept {
    /// Nothing has passed by.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, versions: 0, late: 0, replaced: None, over: false }
    }

    /// Whether the row that passes by counts, given its time and whether it is a deletion.
    pub(crate) fn takes(&mut self, place: Place, time: Timestamp, is_deletion: bool) -> bool {
        let old = self.replaced.is_some_and(|replaced| replaced < self.bounds.replaced);
        if place.rank > 0 {
            let counts = !self.over && !old && self.bounds.depth.is_none_or(|depth| self.late < depth);
            self.late += u32::from(counts);
            return counts;
        }
        self.over |= old || self.is_deep();
        if let (true, Some(Deleted { stay, now })) = (is_deletion, self.bounds.deleted) {
            // A deletion that was past its term when the key was written again may have been gone by then, with all behind it.
            self.over |= time.plus_seconds(stay) <= self.replaced.unwrap_or(now);
        }
        self.replaced = Some(time);
        self.versions += u32::from(!self.over);
        !self.over
    }

    /// Whether so many versions counted that none behind them does.
    pub(crate) fn is_deep(&self) -> bool {
        self.bounds.depth.is_some_and(|depth| self.versions >= depth)
    }

    /// Whether nothing counts that is older than what passed by.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};
    use roam_schemas::{BatchId, Revision};

    use super::*;
    use crate::store::Position;

    const HOUR: u64 = 3_600;
    const TERMS: Terms = Terms {
        seen_seconds: 0,
        tombstone_seconds: 40 * HOUR,
        history_seconds: 30 * HOUR,
        history_versions: 3,
        profile_records: 0,
        profile_bytes: 0,
        user_profiles: 0,
    };

    fn hours(hours: u64) -> Timestamp {
        crate::fixture::seconds(hours * HOUR)
    }

    fn position() -> Position {
        let (batch, terms) = (BatchId::from_bytes([0; 16]), TERMS);
        Position { incarnation: 0, sequence: 1, batch, published: u64::MAX, line: 1, terms }
    }

    fn place(revision: u64, rank: u32) -> Place {
        Place { revision: Revision::new(revision), rank }
    }

    /// What counts of these, newest first: (revision, rank, time in hours, whether it is a deletion).
    fn counts(bounds: Bounds, rows: &[(u64, u32, u64, bool)]) -> Vec<bool> {
        let mut kept = Kept::new(bounds);
        let takes = |&(revision, rank, time, gone): &_| kept.takes(place(revision, rank), hours(time), gone);
        rows.iter().map(takes).collect()
    }

    #[test]
    fn what_came_too_late_takes_no_version_its_place() {
        let bounds = Bounds::of_terms(&TERMS, hours(100));
        let rows = [
            (9, 0, 100, false),
            (9, 1, 1, false),
            (9, 2, 2, false),
            (8, 0, 99, false),
            (8, 1, 3, false),
            (8, 2, 4, false),
            (7, 0, 98, false),
            (6, 0, 97, false),
            (6, 1, 5, false),
        ];
        assert_eq!(counts(bounds, &rows), [true, true, true, true, true, false, true, false, false]);
    }

    #[test]
    fn a_deletion_ends_with_its_term_and_with_it_all_that_is_behind() {
        let rows = [(9, 0, 90, false), (8, 0, 50, true), (7, 0, 49, false)];
        let terms = Terms { history_seconds: 1_000 * HOUR, ..TERMS };
        assert_eq!(counts(Bounds::of_terms(&terms, hours(100)), &rows), [true, false, false], "40 hours before 90");
        let rows = [(9, 0, 89, false), (8, 0, 50, true), (7, 0, 49, false)];
        assert_eq!(counts(Bounds::of_terms(&terms, hours(100)), &rows), [true, true, true]);
        assert_eq!(counts(Bounds::of_terms(&terms, hours(1_000)), &rows[1..]), [false, false], "it is the newest");
    }

    proptest! {
        #[test]
        fn what_counts_for_readers_is_dropped_by_no_compaction_of_any_part(
            times in vec((1_u64..20, 0_u32..4, any::<bool>()), 0..14),
            now in 0_u64..400,
            parts in vec(any::<bool>(), 14 * 4),
        ) {
            let now = hours(now);
            let horizon = Horizon::default().at(now, &position());
            let mut time = 300;
            let mut rows = Vec::new();
            for (number, (earlier, late, gone)) in times.into_iter().enumerate() {
                time -= earlier;
                let revision = 100 - number as u64;
                rows.push((revision, 0, time, gone));
                rows.extend((1..=late).map(|rank| (revision, rank, time - 1, false)));
            }
            let visible = counts(Bounds::of_terms(&TERMS, now), &rows);
            let some: Vec<_> = rows.iter().zip(&visible).zip(parts.iter().cycle()).filter(|(_, part)| **part).collect();
            let compacted: Vec<_> = some.iter().map(|((row, _), _)| **row).collect();
            let stays = counts(Bounds::of_horizon(horizon), &compacted);
            for (((row, visible), _), stays) in some.into_iter().zip(stays) {
                prop_assert!(stays || !visible, "{:?} is shown and dropped", row);
            }
        }
    }
}
