//! Driving one side: the same two loops for whoever is measured. Closed: an answered request makes room for the next, which
//! tells the throughput. Open: requests are due at fixed times and count from then, whenever they left, so that a side that
//! stalls cannot hide how long by slowing the loop down (no coordinated omission).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::ensure;
use roam_measure::{Latencies, Pace, Spread};
use tokio::time::timeout;

/// How many requests can be told apart that are in flight.
const PLACES: usize = 1 << 17;
/// How long what is in flight at the end has to come home.
const HOME: Duration = Duration::from_secs(20);
/// How often the clock is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait after being told that the other side is full.
const AFTER_BUSY: Duration = Duration::from_millis(5);
/// Into which stretches the latencies over time are cut.
const STRETCH: Duration = Duration::from_millis(250);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was answered as it should be.
    Done(u64),
    /// It was refused because the other side is full.
    Busy(u64),
}

/// Whoever sends requests and hears answers.
pub(crate) trait Driver {
    /// Sends request `number`. Numbers rise.
    async fn send(&mut self, number: u64) -> anyhow::Result<()>;

    /// Waits for something, then gives all that is there. Cancel-safe.
    async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()>;
}

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Requests answered a second.
    pub(crate) per_second: f64,
    /// How long they took.
    pub(crate) spread: Spread,
    /// How many were refused because the other side was full.
    pub(crate) busy: u64,
    /// How many never got an answer.
    pub(crate) lost: u64,
    /// How long they took, by the time at which they were due.
    pub(crate) timeline: Vec<(Duration, Spread)>,
}

/// A driver with what is in flight over it.
pub(crate) struct Drive<D> {
    driver: D,
    next: u64,
    places: Vec<Option<(u64, Instant)>>,
    in_flight: usize,
    answers: Vec<Answer>,
    tally: Tally,
}

struct Tally {
    done: u64,
    busy: u64,
    lost: u64,
    latencies: Latencies,
    begun: Instant,
    stretches: VecDeque<Latencies>,
}

impl<D: Driver> Drive<D> {
    /// Nothing sent as yet; the first request has number `first`.
    pub(crate) fn new(driver: D, first: u64) -> anyhow::Result<Self> {
        Ok(Self {
            driver,
            next: first,
            places: vec![None; PLACES],
            in_flight: 0,
            answers: Vec::new(),
            tally: Tally::new()?,
        })
    }

    /// Throughput with so many in flight, for so long, after a warm-up of a tenth of that.
    pub(crate) async fn closed(&mut self, in_flight: usize, duration: Duration) -> anyhow::Result<Measured> {
        self.keep_full(in_flight, Instant::now() + duration / 10).await?;
        self.tally = Tally::new()?;
        let begun = Instant::now();
        self.keep_full(in_flight, begun + duration).await?;
        // One answer at least, or there is nothing to tell.
        while self.tally.done == 0 && begun.elapsed() < HOME {
            self.hear().await?;
        }
        let took = begun.elapsed();
        let tally = std::mem::replace(&mut self.tally, Tally::new()?);
        self.come_home().await?;
        ensure!(self.tally.lost == 0, "{} requests were never answered", self.tally.lost);
        Ok(tally.measured(took, 0))
    }

    /// Latency at a fixed rate, for so long, after a warm-up of a tenth of that.
    pub(crate) async fn open(&mut self, rate: u32, duration: Duration) -> anyhow::Result<Measured> {
        self.keep_pace(rate, duration / 10).await?;
        self.come_home().await?;
        self.tally = Tally::new()?;
        let begun = Instant::now();
        self.keep_pace(rate, duration).await?;
        // Here the stragglers count: leaving them out would leave out the longest.
        self.come_home().await?;
        let took = begun.elapsed();
        let tally = std::mem::replace(&mut self.tally, Tally::new()?);
        let lost = tally.lost;
        Ok(tally.measured(took, lost))
    }

    /// Sends so many requests, so many at a time, and waits for all answers. Gives how long that took.
    pub(crate) async fn run(&mut self, requests: u64, in_flight: usize) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let end = self.next + requests;
        while self.next < end {
            while self.next < end && self.in_flight < in_flight {
                self.send(Instant::now()).await?;
            }
            self.hear().await?;
        }
        self.come_home().await?;
        ensure!(
            self.tally.lost + self.tally.busy == 0,
            "{} requests were never answered",
            self.tally.lost + self.tally.busy
        );
        Ok(begun.elapsed())
    }

    /// The number of the next request.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    async fn keep_full(&mut self, in_flight: usize, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            while self.in_flight < in_flight {
                self.send(Instant::now()).await?;
            }
            self.hear().await?;
        }
        Ok(())
    }

    async fn keep_pace(&mut self, rate: u32, duration: Duration) -> anyhow::Result<()> {
        let beats = u64::try_from(u128::from(rate) * duration.as_millis() / 1_000)?;
        let mut pace = Pace::start(beats, rate)?;
        loop {
            tokio::select! {
                biased;
                due = pace.next() => match due {
                    Some(due) => self.send(due).await?,
                    None => return Ok(()),
                },
                heard = self.driver.hear(&mut self.answers) => {
                    heard?;
                    self.take();
                }
            }
        }
    }

    async fn come_home(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + HOME;
        while self.in_flight > 0 && Instant::now() < until {
            self.hear().await?;
        }
        self.tally.lost += std::mem::take(&mut self.in_flight) as u64;
        self.places.fill(None);
        Ok(())
    }

    async fn send(&mut self, since: Instant) -> anyhow::Result<()> {
        let number = self.next;
        self.next += 1;
        let place = &mut self.places[at(number)];
        if place.replace((number, since)).is_some() {
            // Its place was needed.
            self.tally.lost += 1;
        } else {
            self.in_flight += 1;
        }
        self.driver.send(number).await
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        if let Ok(heard) = timeout(LOOK, self.driver.hear(&mut self.answers)).await {
            heard?;
        }
        let busy = self.tally.busy;
        self.take();
        if self.tally.busy > busy {
            tokio::time::sleep(AFTER_BUSY).await;
        }
        Ok(())
    }

    fn take(&mut self) {
        let now = Instant::now();
        for answer in self.answers.drain(..) {
            let (Answer::Done(number) | Answer::Busy(number)) = answer;
            // A second answer to the same request counts for nothing.
            let Some((_, since)) = self.places[at(number)].take_if(|(place, _)| *place == number) else { continue };
            self.in_flight -= 1;
            match answer {
                Answer::Done(_) => self.tally.done(since, now),
                Answer::Busy(_) => self.tally.busy += 1,
            }
        }
    }
}

fn at(number: u64) -> usize {
    usize::try_from(number % PLACES as u64).unwrap_or_default()
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let (latencies, begun) = (Latencies::new()?, Instant::now());
        Ok(Self { done: 0, busy: 0, lost: 0, latencies, begun, stretches: VecDeque::new() })
    }

    fn done(&mut self, since: Instant, now: Instant) {
        self.done += 1;
        let took = now.saturating_duration_since(since);
        self.latencies.record(took);
        let stretch = since.saturating_duration_since(self.begun).as_millis() / STRETCH.as_millis();
        let stretch = usize::try_from(stretch).unwrap_or(usize::MAX).min(4 * 3_600);
        while self.stretches.len() <= stretch {
            let Ok(latencies) = Latencies::new() else { return };
            self.stretches.push_back(latencies);
        }
        self.stretches[stretch].record(took);
    }

    fn measured(&self, took: Duration, lost: u64) -> Measured {
        let stretches = (0_u32..).zip(&self.stretches).filter(|(_, latencies)| latencies.count() > 0);
        Measured {
            per_second: self.done as f64 / took.as_secs_f64(),
            spread: self.latencies.spread(),
            busy: self.busy,
            lost,
            timeline: stretches.map(|(number, latencies)| (STRETCH * number, latencies.spread())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Answers all that was sent at once, but the third, which it answers a while later.
    #[derive(Default)]
    struct Slow {
        sent: Vec<u64>,
        held: Option<(u64, Instant)>,
    }

    const HELD: Duration = Duration::from_millis(200);

    impl Driver for Slow {
        async fn send(&mut self, number: u64) -> anyhow::Result<()> {
            match number {
                3 => self.held = Some((number, Instant::now() + HELD)),
                _ => self.sent.push(number),
            }
            Ok(())
        }

        async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
            while self.sent.is_empty() && self.held.is_none_or(|(_, until)| Instant::now() < until) {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            answers.extend(self.sent.drain(..).map(Answer::Done));
            answers.extend(
                self.held.take_if(|(_, until)| Instant::now() >= *until).map(|(number, _)| Answer::Done(number)),
            );
            Ok(())
        }
    }

    #[tokio::test]
    async fn all_requests_are_answered_and_each_counts_once() {
        let mut drive = Drive::new(Slow::default(), 0).unwrap();
        let took = drive.run(1_000, 8).await.unwrap();
        assert!(took >= HELD);
        assert_eq!((drive.next(), drive.in_flight, drive.tally.done), (1_000, 0, 1_000));
    }

    #[tokio::test]
    async fn the_open_loop_counts_from_when_a_request_was_due() {
        let mut drive = Drive::new(Slow::default(), 4).unwrap();
        let measured = drive.open(1_000, Duration::from_millis(300)).await.unwrap();
        assert!(measured.per_second > 500.0 && measured.lost == 0, "{measured:?}");
        assert!(measured.timeline.len() >= 2, "{measured:?}");
    }
}
