//! Which changes are in flight since when, and what each of them still waits for. Pure; told what time it is.

use std::time::{Duration, Instant};

/// How many changes can be told apart that are in flight. What is older than that when its place is needed counts as lost.
const PLACES: u64 = 1 << 18;

/// What a change waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awaits(u8);

impl Awaits {
    /// Nothing more.
    const NOTHING: Self = Self(0);
    /// Its receipt.
    pub(super) const RECEIPT: Self = Self(1);
    /// Its notice.
    pub(super) const NOTICE: Self = Self(2);
    /// Both.
    pub(super) const BOTH: Self = Self(3);

    fn contains(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    fn without(self, what: Self) -> Self {
        Self(self.0 & !what.0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    started: Instant,
    awaits: Awaits,
}

/// Changes in flight, by their numbers, which rise.
#[derive(Debug)]
pub(super) struct Tracker {
    places: Vec<Option<Place>>,
    in_flight: u64,
    lost: u64,
}

impl Tracker {
    /// Nothing in flight.
    pub(super) fn new() -> Self {
        Self { places: vec![None; usize::try_from(PLACES).unwrap_or_default()], in_flight: 0, lost: 0 }
    }

    /// How many changes still wait for something.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// How many never got what they waited for.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// A change began at this time.
    pub(super) fn start(&mut self, number: u64, started: Instant, awaits: Awaits) {
        let place = place(&mut self.places, number);
        if place.replace(Place { number, started, awaits }).is_some() {
            self.lost += 1;
        } else {
            self.in_flight += 1;
        }
    }

    /// Something came for a change. How long that took; `None` if the change did not wait for it (any more).
    pub(super) fn came(&mut self, number: u64, what: Awaits, now: Instant) -> Option<Duration> {
        let place = place(&mut self.places, number);
        let change = place.as_mut().filter(|change| change.number == number && change.awaits.contains(what))?;
        change.awaits = change.awaits.without(what);
        let took = now.saturating_duration_since(change.started);
        if change.awaits == Awaits::NOTHING {
            *place = None;
            self.in_flight -= 1;
        }
        Some(took)
    }

    /// A change was refused: it waits for nothing any more.
    pub(super) fn forget(&mut self, number: u64) {
        let place = place(&mut self.places, number);
        if place.take_if(|change| change.number == number).is_some() {
            self.in_flight -= 1;
        }
    }

    /// Gives up on all that is in flight: it is lost.
    pub(super) fn give_up(&mut self) {
        self.lost += self.in_flight;
        self.in_flight = 0;
        self.places.fill(None);
    }
}

fn place(places: &mut [Option<Place>], number: u64) -> &mut Option<Place> {
    let at = usize::try_from(number % PLACES).unwrap_or_default();
    &mut places[at]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_change_is_in_flight_until_all_came_that_it_waits_for() {
        let mut tracker = Tracker::new();
        let start = Instant::now();
        tracker.start(7, start, Awaits::BOTH);
        assert_eq!(tracker.came(7, Awaits::RECEIPT, start + 2 * MS), Some(2 * MS));
        assert_eq!(tracker.in_flight(), 1);
        assert_eq!(tracker.came(7, Awaits::RECEIPT, start + 3 * MS), None, "a second receipt counts for nothing");
        assert_eq!(tracker.came(7, Awaits::NOTICE, start + 5 * MS), Some(5 * MS));
        assert_eq!((tracker.in_flight(), tracker.lost()), (0, 0));
        assert_eq!(tracker.came(7, Awaits::NOTICE, start + 6 * MS), None);
        assert_eq!(tracker.came(8, Awaits::NOTICE, start), None, "it was never sent");
    }

    #[test]
    fn a_refused_change_waits_for_nothing() {
        let mut tracker = Tracker::new();
        tracker.start(1, Instant::now(), Awaits::BOTH);
        tracker.forget(1);
        tracker.forget(1);
        tracker.forget(2);
        assert_eq!((tracker.in_flight(), tracker.lost()), (0, 0));
    }

    #[test]
    fn what_never_came_is_lost() {
        let mut tracker = Tracker::new();
        let start = Instant::now();
        tracker.start(1, start, Awaits::RECEIPT);
        tracker.start(2, start, Awaits::RECEIPT);
        tracker.start(1 + PLACES, start, Awaits::RECEIPT);
        assert_eq!((tracker.in_flight(), tracker.lost()), (2, 1), "its place was needed");
        assert_eq!(tracker.came(1, Awaits::RECEIPT, start), None);
        tracker.give_up();
        assert_eq!((tracker.in_flight(), tracker.lost()), (0, 3));
    }
}
