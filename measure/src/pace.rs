//! Keeping a rate. A timer of the runtime is good for a millisecond, which is as much as what is measured; a thread that
//! parks is good for some ten microseconds.

use std::{
    io,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

/// How many beats may be waiting for whoever is to act on them.
const AHEAD: usize = 4_096;

/// Beats at a fixed rate. Each is due at a time that does not depend on how late those before were.
#[derive(Debug)]
pub struct Pace {
    beats: mpsc::Receiver<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Pace {
    /// That many beats, so many a second, from now on.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(beats: u64, rate: u32) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let thread = std::thread::Builder::new().name("pace".to_owned()).spawn(move || beat(beats, rate, &sender))?;
        Ok(Self { beats: receiver, thread: Some(thread) })
    }

    /// When the next beat is due, once it is; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Instant> {
        self.beats.recv().await
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.beats.close();
        if let Some(thread) = self.thread.take() {
            // It sees at its next beat that nobody listens; it panicked, if at all, with nothing left to do about it.
            let _ = thread.join();
        }
    }
}

fn beat(beats: u64, rate: u32, listener: &mpsc::Sender<Instant>) {
    let start = Instant::now();
    for number in 0..beats {
        let due = start + due_after(number, rate);
        loop {
            let now = Instant::now();
            match due.checked_duration_since(now) {
                None | Some(Duration::ZERO) => break,
                Some(early) => std::thread::park_timeout(early),
            }
        }
        if listener.blocking_send(due).is_err() {
            return;
        }
    }
}

fn due_after(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn beats_are_due_at_equal_distances_however_many_there_are() {
        assert_eq!(due_after(0, 2_000), Duration::ZERO);
        assert_eq!(due_after(1, 2_000), Duration::from_micros(500));
        assert_eq!(due_after(3, 3), Duration::from_secs(1));
        assert_eq!(due_after(2_000 * 3_600, 2_000), Duration::from_secs(3_600));
    }

    #[tokio::test]
    async fn no_beat_comes_before_it_is_due_and_none_is_left_out() {
        let mut pace = Pace::start(50, 1_000).unwrap();
        let mut due = Vec::new();
        while let Some(beat) = pace.next().await {
            assert!(Instant::now() >= beat);
            due.push(beat);
        }
        assert_eq!(due.len(), 50);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(1)));
    }

    #[test]
    fn a_pace_that_nobody_keeps_ends() {
        drop(Pace::start(u64::MAX, 1_000).unwrap());
    }
}
