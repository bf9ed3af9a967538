//! Back-pressure: whether anything may be pulled, and how long to rest before more is. Access servers pull nothing while the journal is ahead of its
//! announcer, so the journal never discards what nobody applied, and a full pipeline shows up at publishers as `busy`.
//!
//! [`Gate`] decides, from what was seen and nothing else. What is seen comes from the watcher in `look.rs`.

mod look;
mod pace;

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use crate::append::Appended;
#[cfg(test)]
use look::Seen;
pub(crate) use look::{Look, watch};
use pace::Pace;

/// Nothing is pulled while more batches than this wait to be announced.
pub(crate) const BACKLOG: u64 = 256;
/// How long the oldest batch had waited, if it was not less at any of so many looks, is how long a standing queue is, which only more
/// throughput takes away; a burst is none (the minimum over an interval of the time that is spent in a queue, as in RFC 8289, section 3.2).
const LOOKS: usize = 3;
/// Behind a standing queue of this, small batches are of no use to anybody: each costs the replica an entry, an announcement and a share of
/// an fsync, however little is in it.
const STANDING: Duration = Duration::from_millis(50);
/// So long is waited behind it before the next pull, so that more comes together.
const REST: Duration = Duration::from_millis(20);
/// A pull of so many changes is a batch that is worth what it costs.
const WORTH_A_BATCH: usize = 64;
/// Nothing is pulled while a batch that this server appended has waited for its announcement for this long, or one that it appended now
/// would: what is behind so much work waits where a full stream turns more of it away, not where it keeps everybody waiting.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// What one appended now would wait is foretold only behind one that has waited for this long: the interval of looks.
const NOTICEABLE: Duration = Duration::from_millis(200);
/// The gate may be closed by back-pressure for this long before the service counts as not ready: until then that is
/// ordinary work.
const ORDINARY: Duration = Duration::from_secs(5);

/// Why nothing is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is not known how far the announcer is.
    Unknown,
    /// A consumer stands ahead of its stream.
    Ahead,
    /// More than [`BACKLOG`] batches wait to be announced.
    Backlog,
    /// One of our batches has waited for [`PATIENCE`], or the next one would.
    Waiting,
}

/// Decides whether anything may be pulled.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Our batches that are not announced yet, as far as was seen, and when they had their PubAcks.
    unannounced: VecDeque<(Appended, Instant)>,
    /// How many changes they hold.
    waiting: usize,
    pace: Pace,
    closed: Option<(Closed, Instant)>,
    /// How long the oldest of our batches had waited to be announced at each of the last looks.
    waits: [Duration; LOOKS],
}

impl Gate {
    /// A gate that is closed until something is seen.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            unannounced: VecDeque::new(),
            waiting: 0,
            pace: Pace::default(),
            closed: Some((Closed::Unknown, now)),
            waits: [Duration::ZERO; LOOKS],
        }
    }

    /// Takes note that a batch of ours is in the journal.
    pub(crate) fn appended(&mut self, batch: Appended, now: Instant) {
        self.waiting += batch.changes;
        self.unannounced.push_back((batch, now));
    }

    /// Opens or closes the gate after a look. Says why it is closed, if it is.
    pub(crate) fn heed(&mut self, look: &Look, now: Instant) -> Option<Closed> {
        let closed = self.judge(look, now);
        self.waits.rotate_left(1);
        self.waits[LOOKS - 1] = match look {
            Look::Seen(_) => self.waited(now),
            Look::Unknown => Duration::ZERO,
        };
        self.closed = closed.map(|why| match self.closed {
            Some((_, since)) => (why, since),
            None => (why, now),
        });
        closed
    }

    /// Whether nothing may be pulled.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// How long to wait after a pull of so many changes, so that the next batch is worth what it costs a replica that is behind. Without
    /// that, one that is behind after an overload stays so at half of the load that it bears in large batches.
    pub(crate) fn rest(&self, pulled: usize) -> Option<Duration> {
        let stands = self.waits.iter().all(|wait| *wait >= STANDING);
        (stands && pulled < WORTH_A_BATCH).then_some(REST)
    }

    /// Why the service is not ready, if it is not because of the gate.
    pub(crate) fn not_ready(&self, now: Instant) -> Option<Closed> {
        let (why, since) = self.closed?;
        (why.is_alarm() || now.saturating_duration_since(since) >= ORDINARY).then_some(why)
    }

    fn judge(&mut self, look: &Look, now: Instant) -> Option<Closed> {
        let Look::Seen(seen) = look else {
            return Some(Closed::Unknown);
        };
        if seen.ahead {
            return Some(Closed::Ahead);
        }
        if seen.backlog == 0 {
            // Also after the journal was rolled back, when some of ours are gone.
            self.unannounced.clear();
        }
        self.unannounced.retain(|(batch, _)| batch.sequence > seen.announced);
        let waiting = self.unannounced.iter().map(|(batch, _)| batch.changes).sum();
        self.pace.note(self.waiting.saturating_sub(waiting), waiting, now);
        self.waiting = waiting;
        if seen.backlog > BACKLOG {
            Some(Closed::Backlog)
        } else if self.keeps_waiting(now) {
            Some(Closed::Waiting)
        } else {
            None
        }
    }

    /// Whether one of our batches has waited for too long, or one that came now would.
    fn keeps_waiting(&self, now: Instant) -> bool {
        let waited = self.waited(now);
        waited >= PATIENCE || (waited >= NOTICEABLE && self.pace.takes_longer(self.waiting, PATIENCE))
    }

    /// How long the oldest of our batches has waited to be announced.
    fn waited(&self, now: Instant) -> Duration {
        self.unannounced.front().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }
}

impl Closed {
    /// Whether this is never ordinary work.
    fn is_alarm(self) -> bool {
        matches!(self, Self::Unknown | Self::Ahead)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not known how far the journal is announced"),
            Self::Ahead => f.write_str("a consumer stands ahead of its stream: see `roam repair consumers`"),
            Self::Backlog => write!(f, "more than {BACKLOG} batches of the journal wait to be announced"),
            Self::Waiting => write!(f, "batches wait for too long to be announced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate, the instant at which it was made, and a way to name later instants.
    fn gate() -> (Gate, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Gate::new(start), move |millis| start + Duration::from_millis(millis))
    }

    fn batch(sequence: u64, changes: usize) -> Appended {
        Appended { sequence, changes }
    }

    fn seen(backlog: u64, announced: u64) -> Look {
        Look::Seen(Seen { backlog, announced, ahead: false })
    }

    #[test]
    fn the_gate_is_closed_until_something_is_seen_and_while_nothing_is() {
        let (mut gate, at) = gate();
        assert_eq!(gate.not_ready(at(0)), Some(Closed::Unknown));
        assert_eq!(gate.heed(&seen(0, 0), at(1)), None);
        assert_eq!(gate.not_ready(at(1)), None);
        assert_eq!(gate.heed(&Look::Unknown, at(2)), Some(Closed::Unknown));
        assert_eq!(gate.not_ready(at(2)), Some(Closed::Unknown));
    }

    #[test]
    fn behind_a_standing_queue_is_waited_for_batches_that_are_worth_it() {
        // The oldest of ours has waited for so long at each of three looks; of others' any number waits.
        let rest = |waits: [Option<u64>; LOOKS], pulled| {
            let (mut gate, at) = gate();
            for (look, wait) in (1..).zip(waits) {
                gate.appended(batch(look, 1), at(1_000 * look));
                let look_at = wait.map_or(Look::Unknown, |_| seen(200, look - 1));
                gate.heed(&look_at, at(1_000 * look + wait.unwrap_or_default()));
            }
            gate.rest(pulled)
        };
        let (short, standing) = (Some(49), Some(50));
        assert_eq!(rest([short; LOOKS], 1), None);
        assert_eq!(rest([standing, short, standing], 1), None, "it was short for once");
        assert_eq!(rest([standing, None, standing], 1), None, "it is not known");
        assert_eq!(rest([standing; LOOKS], WORTH_A_BATCH - 1), Some(REST));
        assert_eq!(rest([standing; LOOKS], WORTH_A_BATCH), None);
    }

    #[test]
    fn the_gate_closes_beyond_256_batches_and_not_before() {
        let (mut gate, at) = gate();
        assert_eq!(gate.heed(&seen(256, 0), at(1)), None);
        assert_eq!(gate.heed(&seen(257, 0), at(2)), Some(Closed::Backlog));
        assert_eq!(gate.heed(&seen(256, 0), at(3)), None);
    }

    #[test]
    fn the_gate_closes_when_a_batch_of_ours_has_waited_for_half_a_second() {
        let (mut gate, at) = gate();
        gate.appended(batch(7, 1), at(0));
        gate.appended(batch(9, 1), at(250));
        assert_eq!(gate.heed(&seen(2, 6), at(499)), None);
        assert_eq!(gate.heed(&seen(2, 6), at(500)), Some(Closed::Waiting));
        // The first is announced, the second has waited for a quarter of a second.
        assert_eq!(gate.heed(&seen(1, 7), at(501)), None);
        assert_eq!(gate.heed(&seen(1, 8), at(750)), Some(Closed::Waiting));
        assert_eq!(gate.heed(&seen(1, 9), at(751)), None);
    }

    #[test]
    fn the_gate_closes_when_a_batch_that_came_now_would_wait_for_half_a_second() {
        let (mut gate, at) = gate();
        // 300 changes a second are announced: of these, 100 at each look.
        for look in 0..10 {
            gate.appended(batch(look, 100), at(1_000 * look / 3));
            gate.heed(&seen(1, look.saturating_sub(1)), at(1_000 * look / 3));
        }
        assert_eq!(gate.heed(&seen(0, 9), at(3_300)), None);
        gate.appended(batch(10, 160), at(4_000));
        assert_eq!(gate.heed(&seen(1, 9), at(4_199)), None, "nothing has waited for long");
        gate.appended(batch(11, 160), at(4_200));
        assert_eq!(gate.heed(&seen(2, 9), at(4_210)), Some(Closed::Waiting), "320 changes take a second");
        assert_eq!(gate.heed(&seen(1, 10), at(4_410)), None, "half of them are announced");
    }

    #[test]
    fn a_batch_that_a_rolled_back_journal_lost_does_not_close_the_gate_for_ever() {
        let (mut gate, at) = gate();
        gate.appended(batch(1_000, 1), at(0));
        assert_eq!(gate.heed(&seen(1, 3), at(2_000)), Some(Closed::Waiting));
        assert_eq!(gate.heed(&seen(0, 4), at(2_200)), None);
        assert_eq!(gate.heed(&seen(1, 4), at(60_000)), None);
    }

    #[test]
    fn a_consumer_ahead_of_its_stream_closes_the_gate_and_is_never_ordinary() {
        let (mut gate, at) = gate();
        let ahead = Look::Seen(Seen { backlog: 0, announced: 0, ahead: true });
        assert_eq!(gate.heed(&ahead, at(1)), Some(Closed::Ahead));
        assert_eq!(gate.not_ready(at(1)), Some(Closed::Ahead));
        assert_eq!(gate.heed(&seen(0, 0), at(2)), None);
    }

    #[test]
    fn back_pressure_counts_as_not_ready_only_once_it_lasts() {
        let (mut gate, at) = gate();
        assert_eq!(gate.heed(&seen(0, 0), at(0)), None);
        gate.heed(&seen(300, 0), at(1_000));
        assert_eq!(gate.not_ready(at(5_999)), None);
        gate.heed(&seen(301, 0), at(5_999));
        assert_eq!(gate.not_ready(at(6_000)), Some(Closed::Backlog));
        gate.heed(&seen(1, 0), at(6_001));
        assert_eq!(gate.not_ready(at(6_001)), None);
    }
}
