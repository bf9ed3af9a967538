//! The two measurements. Throughput: a closed loop, in which a change that got its receipt and its notice makes room for
//! the next. Latency: an open loop at a fixed rate; a change counts from the moment at which it was due, so that a system
//! that stalls cannot hide how long by slowing the measurement down (no coordinated omission).

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use roam_measure::{Latencies, Pace};
use roam_schemas::Change;
use tokio::time::timeout;

use super::{
    plan::Plan,
    report::Measured,
    tracker::{Awaits, Tracker},
    wire::{BenchError, Heard, Wire},
};

/// Not measured, before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long what is in flight at the end has to come home.
const HOME: Duration = Duration::from_secs(10);
/// How often the clock is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// How long to wait after being told that the stream is full.
const AFTER_BUSY: Duration = Duration::from_millis(10);

/// How many changes a second are saved and told.
pub(crate) async fn throughput(
    wire: &mut Wire,
    plan: &Plan,
    first: u64,
    in_flight: u32,
    seconds: u32,
    bar: &ProgressBar,
) -> Result<(Measured, u64), BenchError> {
    let mut run = Run::new(wire, plan, first)?;
    let warm = Instant::now() + WARM_UP;
    run.closed_loop(in_flight, warm).await?;
    run.tally = Tally::new()?;
    let begun = Instant::now();
    for second in 1..=seconds {
        run.closed_loop(in_flight, begun + Duration::from_secs(second.into())).await?;
        bar.inc(1);
    }
    let measured = begun.elapsed();
    let tally = std::mem::replace(&mut run.tally, Tally::new()?);
    run.come_home().await?;
    Ok((tally.measured(measured, run.tracker.lost()), run.next))
}

/// How long a change takes at a rate that the system is not full with.
pub(crate) async fn latency(
    wire: &mut Wire,
    plan: &Plan,
    first: u64,
    rate: u32,
    seconds: u32,
    bar: &ProgressBar,
) -> Result<(Measured, u64), BenchError> {
    let mut run = Run::new(wire, plan, first)?;
    let mut pace = Pace::start(u64::from(rate) * WARM_UP.as_secs(), rate).map_err(BenchError::Pace)?;
    run.open_loop(&mut pace, None).await?;
    run.come_home().await?;
    run.tally = Tally::new()?;
    let begun = Instant::now();
    let mut pace = Pace::start(u64::from(rate) * u64::from(seconds), rate).map_err(BenchError::Pace)?;
    run.open_loop(&mut pace, Some((bar, rate))).await?;
    let measured = begun.elapsed();
    // Here the stragglers count: leaving them out would leave out the longest.
    run.come_home().await?;
    Ok((run.tally.measured(measured, run.tracker.lost()), run.next))
}

/// What was counted in a stretch of time.
struct Tally {
    sent: u64,
    busy: u64,
    receipts: Latencies,
    notices: Latencies,
}

/// A measurement under way.
pub(super) struct Run<'a> {
    wire: &'a mut Wire,
    plan: &'a Plan,
    tracker: Tracker,
    tally: Tally,
    /// The number of the next change.
    next: u64,
    heard: Vec<Heard>,
}

impl<'a> Run<'a> {
    /// Nothing sent as yet. `first` is above the number of any change of an earlier measurement.
    pub(super) fn new(wire: &'a mut Wire, plan: &'a Plan, first: u64) -> Result<Self, BenchError> {
        Ok(Self { wire, plan, tracker: Tracker::new(), tally: Tally::new()?, next: first, heard: Vec::new() })
    }

    /// How many changes are in flight.
    pub(super) fn in_flight(&self) -> u64 {
        self.tracker.in_flight()
    }

    /// The number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many changes were refused or got no answer.
    pub(super) fn failed(&self) -> u64 {
        self.tally.busy + self.tracker.lost()
    }

    async fn closed_loop(&mut self, in_flight: u32, until: Instant) -> Result<(), BenchError> {
        while Instant::now() < until {
            while self.tracker.in_flight() < in_flight.into() {
                self.send(Instant::now()).await?;
            }
            self.hear().await?;
        }
        Ok(())
    }

    async fn open_loop(&mut self, pace: &mut Pace, bar: Option<(&ProgressBar, u32)>) -> Result<(), BenchError> {
        let mut beats = 0;
        loop {
            self.wire.send_waiting(self.plan).await?;
            tokio::select! {
                biased;
                due = pace.next() => {
                    let Some(due) = due else { return Ok(()) };
                    self.send(due).await?;
                    beats += 1;
                    if let Some((bar, rate)) = bar && beats % u64::from(rate) == 0 {
                        bar.inc(1);
                    }
                }
                heard = self.wire.hear(self.plan, &mut self.heard) => {
                    heard?;
                    self.take();
                }
            }
        }
    }

    /// Waits for what is in flight; what does not come is lost.
    pub(super) async fn come_home(&mut self) -> Result<(), BenchError> {
        let until = Instant::now() + HOME;
        while self.tracker.in_flight() > 0 && Instant::now() < until {
            self.hear().await?;
        }
        self.tracker.give_up();
        // The next run is not to send what of this one still waits, nor to wait for its PubAcks.
        self.wire.give_up();
        Ok(())
    }

    async fn send(&mut self, since: Instant) -> Result<(), BenchError> {
        let (profile, change) = self.plan.change(self.next)?;
        self.send_this(profile, change, since, Awaits::BOTH).await
    }

    /// Sends a change that was made for the number that is next, of the profile of that place.
    pub(super) async fn send_this(
        &mut self,
        profile: usize,
        change: Change,
        since: Instant,
        awaits: Awaits,
    ) -> Result<(), BenchError> {
        let number = self.next;
        self.next += 1;
        self.tracker.start(number, since, awaits);
        self.tally.sent += 1;
        self.wire.send(self.plan, number, profile, change).await
    }

    /// Waits a moment for something to come, and takes all that came.
    pub(super) async fn hear(&mut self) -> Result<(), BenchError> {
        self.wire.send_waiting(self.plan).await?;
        if let Ok(heard) = timeout(LOOK, self.wire.hear(self.plan, &mut self.heard)).await {
            heard?;
        }
        let busy = self.tally.busy;
        self.take();
        if self.tally.busy > busy {
            // Only the time matters, not what comes in it: that is kept for the next look.
            tokio::time::sleep(AFTER_BUSY).await;
        }
        Ok(())
    }

    fn take(&mut self) {
        let now = Instant::now();
        for heard in self.heard.drain(..) {
            match heard {
                Heard::Busy(number) => {
                    self.tracker.forget(number);
                    self.tally.busy += 1;
                }
                Heard::Receipt(number) => {
                    self.tally.receipts.record(self.tracker.came(number, Awaits::RECEIPT, now));
                }
                Heard::Notice(number) => {
                    self.tally.notices.record(self.tracker.came(number, Awaits::NOTICE, now));
                }
            }
        }
    }
}

impl Tally {
    fn new() -> Result<Self, BenchError> {
        Ok(Self { sent: 0, busy: 0, receipts: Latencies::new()?, notices: Latencies::new()? })
    }

    fn measured(&self, took: Duration, lost: u64) -> Measured {
        let seconds = took.as_secs_f64();
        Measured {
            seconds,
            sent: self.sent,
            receipts: self.receipts.count(),
            notices: self.notices.count(),
            receipts_per_second: self.receipts.count() as f64 / seconds,
            notices_per_second: self.notices.count() as f64 / seconds,
            receipt_ms: self.receipts.spread(),
            notice_ms: self.notices.spread(),
            busy: self.busy,
            lost,
        }
    }
}
