//! When a change in flight is sent again, and when it is given up. Pure: the time, the generation of the connection and
//! the dice are parameters.
//!
//! **Invariant:** a change that was handed to the bus counts as one that may take effect, until the stream or a receipt
//! has said of every copy of it that nothing was stored or decided.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// A receipt that was under way when the connection broke may be lost. After a reconnect a change whose PubAck is older
/// than this is sent again, which brings its first outcome; a younger one's receipt may still come by itself.
const OVERDUE_AFTER_RECONNECT: Duration = Duration::from_secs(10);

/// How long somebody waits for a receipt, and how soon a change is sent again meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// When it is given up.
    deadline: Duration,
    /// How long after its PubAck a change without a receipt is sent again: at first, and at last. It doubles in between.
    overdue: (Duration, Duration),
    /// By how much of itself that is lengthened at most, by dice.
    spread: f64,
    /// The longest mean of the pauses after a copy that is nowhere.
    pause: Duration,
    /// How long a change is held back of which the bus refuses further copies.
    held: Duration,
}

impl Patience {
    /// Of somebody who waits for this long, and asks once more halfway.
    pub(crate) fn within(timeout: Duration) -> Self {
        let overdue = (timeout / 2, timeout / 2);
        Self { deadline: timeout, overdue, spread: 0.0, pause: Backoff::LONGEST, held: timeout }
    }

    /// Of an outbox, which waits for as long as it may and is in no hurry.
    #[cfg(feature = "durable")]
    pub(crate) fn of_outbox(deadline: Duration, overdue: (Duration, Duration), pause: Duration) -> Self {
        Self { deadline, overdue, spread: 0.5, pause, held: pause }
    }
}

/// Where a change in flight stands.
#[derive(Debug)]
pub(crate) struct Timeline {
    deadline: Instant,
    patience: Patience,
    /// How long after its PubAck a change without a receipt is sent again, the next time.
    overdue: Duration,
    stage: Stage,
    /// An earlier copy may still take effect.
    doubt: bool,
    /// The sequence of a copy of which a receipt said `busy` before its PubAck was seen.
    busy: Option<u64>,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A copy is under way to the stream.
    Handed,
    /// The stream holds a copy, or an access server has it, or storage.
    Accepted { sequence: u64, at: Instant, overdue: Duration, generation: u64 },
    /// The last copy is known, or supposed, to be nowhere.
    Paused { until: Instant },
}

/// What a decision may look at besides the change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// Whether the connection stands. What is sent while it does not piles up before it.
    pub(crate) connected: bool,
    /// Of the connection to the bus: [`roam_nats::BusState::generation`].
    pub(crate) generation: u64,
    /// In 0 to 1; spreads the pauses.
    pub(crate) dice: f64,
}

/// What to do with a change now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Wait,
    SendAgain,
    GiveUp,
}

impl Timeline {
    /// A change that is being handed to the bus for the first time.
    pub(crate) fn new(now: Instant, patience: Patience) -> Self {
        Self {
            deadline: now + patience.deadline,
            overdue: patience.overdue.0,
            stage: Stage::Handed,
            doubt: false,
            busy: None,
            backoff: Backoff::up_to(patience.pause),
            patience,
        }
    }

    /// The sequence that the last copy has in the stream.
    pub(crate) fn sequence(&self) -> Option<u64> {
        match self.stage {
            Stage::Accepted { sequence, .. } => Some(sequence),
            Stage::Handed | Stage::Paused { .. } => None,
        }
    }

    /// Whether a copy is under way to the stream.
    pub(crate) fn is_handed(&self) -> bool {
        self.stage == Stage::Handed
    }

    /// A PubAck came: the stream has it under this sequence.
    pub(crate) fn accepted(&mut self, moment: Moment, sequence: u64) {
        if self.busy == Some(sequence) {
            return self.refused(moment);
        }
        let overdue = self.overdue.mul_f64(1.0 + self.patience.spread * moment.dice.clamp(0.0, 1.0));
        self.stage = Stage::Accepted { sequence, at: moment.now, overdue, generation: moment.generation };
    }

    /// The stream says that it stored nothing.
    pub(crate) fn refused(&mut self, moment: Moment) {
        self.stage = Stage::Paused { until: moment.now + self.backoff.next(moment.dice) };
    }

    /// No PubAck came: the stream may have stored it.
    pub(crate) fn unanswered(&mut self, moment: Moment) {
        self.doubt = true;
        self.refused(moment);
    }

    /// Sending it again is of no use; only the receipt of an earlier copy can help.
    pub(crate) fn hold(&mut self, moment: Moment) {
        self.stage = Stage::Paused { until: self.deadline.min(moment.now + self.patience.held) };
    }

    /// A receipt said of the copy with this sequence that nothing was decided.
    pub(crate) fn busy(&mut self, moment: Moment, sequence: u64) {
        match self.stage {
            Stage::Accepted { sequence: last, .. } if last == sequence => self.refused(moment),
            Stage::Handed => self.busy = Some(sequence),
            // An older copy. Others of it may be about, so the doubt stays.
            Stage::Accepted { .. } | Stage::Paused { .. } => {}
        }
    }

    /// Another copy is being handed to the bus.
    pub(crate) fn sent_again(&mut self) {
        if let Stage::Accepted { .. } | Stage::Handed = self.stage {
            self.doubt = true;
        }
        if let Stage::Accepted { .. } = self.stage {
            self.overdue = self.overdue.saturating_mul(2).min(self.patience.overdue.1);
        }
        self.busy = None;
        self.stage = Stage::Handed;
    }

    /// What to do now, under this generation of the connection.
    pub(crate) fn next(&self, Moment { now, connected, generation, .. }: Moment) -> Next {
        if now >= self.deadline {
            return Next::GiveUp;
        }
        let due = match self.stage {
            Stage::Handed => false,
            Stage::Paused { until } => now >= until,
            Stage::Accepted { at, overdue, generation: then, .. } => {
                let age = now.saturating_duration_since(at);
                age >= overdue || (then != generation && age >= OVERDUE_AFTER_RECONNECT)
            }
        };
        if due && connected { Next::SendAgain } else { Next::Wait }
    }

    /// Whether the receipt of a copy that must be the last one has been waited for as long again as until it was overdue.
    pub(crate) fn is_hopeless(&self, Moment { now, .. }: Moment) -> bool {
        match self.stage {
            Stage::Accepted { at, overdue, .. } => now.saturating_duration_since(at) >= overdue.saturating_mul(2),
            Stage::Handed | Stage::Paused { .. } => true,
        }
    }

    /// Whether an earlier copy may take effect than the one that was sent last.
    pub(crate) fn has_doubt(&self) -> bool {
        self.doubt
    }

    /// Whether a copy may take effect, now or at any time later.
    pub(crate) fn may_take_effect(&self) -> bool {
        self.doubt || !matches!(self.stage, Stage::Paused { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// The dice make every pause exactly its mean. Generation 0 stands for a lost connection.
    fn moment(start: Instant, millis: u64, generation: u64) -> Moment {
        let now = start + Duration::from_millis(millis);
        Moment { now, connected: generation > 0, generation, dice: 0.5 }
    }

    enum Did {
        Accepted(u64),
        Refused,
        Unanswered,
        Busy(u64),
        SentAgain,
        Hold,
    }
    type Steps = Vec<(u64, Did)>;

    use Did::{Accepted, Busy, Hold, Refused, SentAgain, Unanswered};

    /// `steps` are done at their milliseconds, under generation 1.
    fn timeline(start: Instant, steps: &[(u64, Did)]) -> Timeline {
        let mut timeline = Timeline::new(start, Patience::within(TIMEOUT));
        for (at, step) in steps {
            let moment = moment(start, *at, 1);
            match step {
                Accepted(sequence) => timeline.accepted(moment, *sequence),
                Refused => timeline.refused(moment),
                Unanswered => timeline.unanswered(moment),
                Busy(sequence) => timeline.busy(moment, *sequence),
                SentAgain => timeline.sent_again(),
                Hold => timeline.hold(moment),
            }
        }
        timeline
    }

    #[test]
    fn a_change_is_sent_again_when_its_receipt_is_overdue_and_given_up_at_the_deadline() {
        use Next::{GiveUp, SendAgain, Wait};
        let accepted = || vec![(0, Accepted(7))];
        let cases: Vec<(&str, Steps, u64, u64, Next)> = vec![
            ("under way", vec![], 29_999, 1, Wait),
            ("under way for too long", vec![], 30_000, 1, GiveUp),
            ("accepted", accepted(), 14_999, 1, Wait),
            ("accepted half the time ago", accepted(), 15_000, 1, SendAgain),
            ("accepted 9.999 s ago, reconnected", accepted(), 9_999, 2, Wait),
            ("accepted 10 s ago, reconnected", accepted(), 10_000, 2, SendAgain),
            ("accepted 10 s ago, connected all the time", accepted(), 10_000, 1, Wait),
            ("accepted, and over", accepted(), 30_000, 2, GiveUp),
            ("sent again", vec![(0, Accepted(7)), (15_000, SentAgain)], 29_999, 2, Wait),
            ("refused", vec![(0, Refused)], 49, 1, Wait),
            ("refused 50 ms ago", vec![(0, Refused)], 50, 1, SendAgain),
            ("refused twice", vec![(0, Refused), (50, SentAgain), (60, Refused)], 159, 1, Wait),
            (
                "refused twice, the last 100 ms ago",
                vec![(0, Refused), (50, SentAgain), (60, Refused)],
                160,
                1,
                SendAgain,
            ),
            ("unanswered", vec![(2_000, Unanswered)], 2_050, 1, SendAgain),
            ("busy by receipt", vec![(0, Accepted(7)), (5, Busy(7))], 55, 1, SendAgain),
            ("busy by the receipt of another copy", vec![(0, Accepted(7)), (5, Busy(6))], 55, 1, Wait),
            ("busy by receipt before the PubAck", vec![(0, Busy(7)), (5, Accepted(7))], 55, 1, SendAgain),
            ("refused, with the connection lost", vec![(0, Refused)], 29_999, 0, Wait),
            ("overdue, with the connection lost", accepted(), 29_999, 0, Wait),
            ("over, with the connection lost", accepted(), 30_000, 0, GiveUp),
            ("held", vec![(0, Unanswered), (1, SentAgain), (2, Hold)], 29_999, 1, Wait),
        ];
        let start = Instant::now();
        for (name, steps, at, generation, expect) in cases {
            let next = timeline(start, &steps).next(moment(start, at, generation));
            assert_eq!(next, expect, "{name}");
        }
    }

    #[cfg(feature = "durable")]
    #[test]
    fn an_outbox_sends_again_after_a_minute_then_ever_more_rarely_and_at_once_after_a_reconnect() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let patience = Patience::of_outbox(100 * hour, (minute, hour), minute);
        let start = Instant::now();
        let mut timeline = Timeline::new(start, patience);
        let (mut at, mut pause) = (0, 60_000);
        for _ in 0..12 {
            timeline.accepted(moment(start, at, 1), 7);
            // The dice lie in the middle: a quarter is added.
            let due = at + pause * 5 / 4;
            assert_eq!(timeline.next(moment(start, due - 1, 1)), Next::Wait);
            assert_eq!(timeline.next(moment(start, due, 1)), Next::SendAgain);
            assert_eq!(timeline.next(moment(start, at + 9_999, 2)), Next::Wait);
            assert_eq!(timeline.next(moment(start, at + 10_000, 2)), Next::SendAgain);
            timeline.sent_again();
            (at, pause) = (due, (pause * 2).min(3_600_000));
        }
    }

    #[test]
    fn a_copy_that_must_be_the_last_one_is_waited_for_twice_as_long() {
        let cases: Vec<(&str, Steps, u64, bool)> = vec![
            ("overdue", vec![(0, Accepted(7))], 15_000, false),
            ("overdue for long", vec![(0, Accepted(7))], 29_999, false),
            ("overdue for as long again", vec![(0, Accepted(7))], 30_000, true),
            ("nowhere", vec![(0, Refused)], 50, true),
        ];
        let start = Instant::now();
        for (name, steps, at, expect) in cases {
            assert_eq!(timeline(start, &steps).is_hopeless(moment(start, at, 2)), expect, "{name}");
        }
    }

    #[test]
    fn a_change_may_take_effect_unless_every_copy_is_known_to_be_nowhere() {
        let cases: Vec<(&str, Steps, bool)> = vec![
            ("under way", vec![], true),
            ("accepted", vec![(0, Accepted(7))], true),
            ("refused", vec![(0, Refused)], false),
            ("refused twice", vec![(0, Refused), (1, SentAgain), (2, Refused)], false),
            ("unanswered", vec![(0, Unanswered)], true),
            ("unanswered, then refused", vec![(0, Unanswered), (1, SentAgain), (2, Refused)], true),
            ("accepted, then refused", vec![(0, Accepted(7)), (1, SentAgain), (2, Refused)], true),
            ("busy by receipt", vec![(0, Accepted(7)), (1, Busy(7))], false),
            ("busy by receipt before the PubAck", vec![(0, Busy(7)), (1, Accepted(7))], false),
            ("one of two copies busy", vec![(0, Accepted(7)), (1, SentAgain), (2, Accepted(8)), (3, Busy(8))], true),
        ];
        for (name, steps, expect) in cases {
            assert_eq!(timeline(Instant::now(), &steps).may_take_effect(), expect, "{name}");
        }
    }
}
