//! Pace: how fast what was appended has been announced lately, so that it can be told how long more of it would wait. It decides nothing.

use std::time::{Duration, Instant};

/// What was seen so long ago weighs a third of what is seen now.
const MEMORY: Duration = Duration::from_secs(2);

/// Looks are not farther apart than this, unless some were missed: then nobody knows when between them was announced what was.
const APART: Duration = Duration::from_secs(1);

/// Changes a second, from looks at both of which some waited to be announced: a mean in which what is older weighs less.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// None before anything was announced.
    per_second: Option<f64>,
    /// When the last look was, if some waited then.
    busy_at: Option<Instant>,
}

impl Pace {
    /// Takes note at a look of how many changes were announced since the last one, and how many wait still.
    pub(super) fn note(&mut self, announced: usize, waiting: usize, now: Instant) {
        let passed = self.busy_at.map(|at| now.saturating_duration_since(at)).filter(|passed| *passed <= APART);
        if let Some(passed) = passed.map(|passed| passed.as_secs_f64()).filter(|passed| *passed > 0.0)
            && waiting > 0
        {
            let seen = announced as f64 / passed;
            let weight = 1.0 - (-passed / MEMORY.as_secs_f64()).exp();
            self.per_second = match self.per_second {
                Some(known) => Some(known + weight * (seen - known)),
                None => (announced > 0).then_some(seen),
            };
        }
        self.busy_at = (waiting > 0).then_some(now);
    }

    /// Whether so many changes take longer than that; no, while nothing is known.
    pub(super) fn takes_longer(&self, changes: usize, than: Duration) -> bool {
        self.per_second.is_some_and(|per_second| changes as f64 > per_second * than.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A pace after so many changes were announced at each of so many looks, five a second, and the time after them.
    fn pace_of(announced: usize, looks: u32) -> (Pace, Instant) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        pace.note(0, 1, now);
        for _ in 0..looks {
            now += SECOND / 5;
            pace.note(announced, 1, now);
        }
        (pace, now)
    }

    #[test]
    fn it_is_what_was_seen() {
        let (pace, _) = pace_of(400, 3);
        assert!(pace.takes_longer(2_020, SECOND) && !pace.takes_longer(1_980, SECOND));
        assert!(pace.takes_longer(1_010, SECOND / 2) && !pace.takes_longer(990, SECOND / 2));
        assert!(!Pace::default().takes_longer(usize::MAX, SECOND), "nothing is known");
    }

    #[test]
    fn it_forgets_what_was_long_ago() {
        let (mut pace, mut now) = pace_of(400, 50);
        for _ in 0..50 {
            now += SECOND / 5;
            pace.note(20, 1, now);
        }
        assert!(pace.takes_longer(130, SECOND) && !pace.takes_longer(100, SECOND));
    }

    #[test]
    fn time_in_which_nothing_waited_or_nobody_looked_does_not_count() {
        let (mut pace, now) = pace_of(400, 50);
        // All was announced at some time before that look.
        pace.note(3, 0, now + SECOND / 5);
        pace.note(0, 1, now + SECOND);
        // No look was answered for nine seconds.
        pace.note(1, 1, now + 10 * SECOND);
        assert!(!pace.takes_longer(1_980, SECOND));
    }

    #[test]
    fn nothing_is_known_before_anything_was_announced() {
        let (pace, _) = pace_of(0, 10);
        assert!(!pace.takes_longer(1, SECOND));
    }
}
