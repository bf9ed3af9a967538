//! Ten times as much as the services can do is offered, whose share of the processors is cut down so that it can be offered
//! at all: how soon what is refused is refused, how much is saved meanwhile, and how soon all is as before.

use std::{array, fs, iter::Sum, ops::Range, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use tokio::time::{Instant, sleep};

use super::{
    Figure, Figures, Goal, Times, processes,
    traffic::{Traffic, Trip},
};
use crate::{
    quota::Quota,
    site::{Plan, Shape, Site},
};

/// What the services may take of one processor together, in percent.
const SHARE: u64 = 7;
/// Of whom the changes are.
const USERS: usize = 128;
/// How many changes may wait: about two seconds of work, as a deployment of such a machine is provisioned.
const WAITING: u64 = 1_500;
/// What is offered, and for how long, while the services may still take what they want: a store that holds nothing has nothing to flush
/// and to compact either, and would be found to bear more than one that is in use.
const IN_USE: (f64, Duration) = (5_000.0, Duration::from_secs(20));
/// Services that worked for less than this in a second do nothing any more.
const LITTLE: Duration = Duration::from_millis(50);
/// The kernel counts the work of a process in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);
/// What is offered to find out how much can be done: more than that.
const TOO_MUCH: f64 = 4_000.0;
/// How often what can be done is offered, one after the other, and as what it is told how much was saved meanwhile.
const LEVELS: [(f64, &str); 3] = [
    (1.0, "saved while as much is offered"),
    (3.0, "saved while three times as much is offered"),
    (10.0, "saved while ten times as much is offered"),
];
/// The last of them.
const OVERLOAD: usize = LEVELS.len() - 1;
/// How often all of these are gone through. Of each level counts what was saved in all of its steps: a compaction of one of the tables comes
/// each minute or two and takes a seventh of the share for up to two minutes, so that a single step has one or has none.
const ROUNDS: usize = 4;
/// Long enough for each table to be flushed once or twice.
const STEP: Duration = Duration::from_secs(30);
/// How long it is looked, right after the first step, what can be saved for long.
const FOR_LONG: Duration = Duration::from_secs(90);
/// How often an overload ends, and it is looked how soon all is as before: one time a compaction is in the way, another time none is.
const ENDS: [&str; 4] = [
    "as before again after the rounds",
    "as before again after one more overload",
    "as before again after two more",
    "as before again after three more",
];
/// How long it is looked each time.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// A change that is saved as soon as this is one as in good times.
const USUAL: Duration = Duration::from_secs(1);
/// How long all has to be as before.
const A_WHILE: Duration = Duration::from_secs(5);
const HOME_WITHIN: Duration = Duration::from_secs(60);
/// How much of what was to be offered has to be: else the figures are of something else.
const OFFERED: f64 = 0.9;

/// How much was saved, and in which time.
#[derive(Clone, Copy, Default)]
struct Saved {
    changes: usize,
    time: Duration,
}

/// For some time, so much was offered.
struct Step {
    /// How much was offered a second.
    offered: f64,
    /// How much was saved.
    saved: Saved,
    /// The places of what was offered.
    changes: Range<usize>,
}

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    // A server that syncs whatever it takes in would be what is overloaded, by its disk, and the services would wait for it.
    let plan = Plan { changes: Some(WAITING), ..Plan::new(Shape::Lazy, times.programs.clone()) };
    let mut site = Site::start(plan).await?;
    let traffic = Traffic::start(site.direct(), USERS).await?;
    let (rate, lasts) = IN_USE;
    traffic.offer(rate, lasts).await?;
    traffic.come_home(HOME_WITHIN).await?;
    let before = processes(&mut site).into_iter().collect::<Option<Vec<_>>>().context("all services run")?;
    rested(&before).await?;
    let quota = Quota::new(SHARE)?;
    before.iter().try_for_each(|process| quota.hold(*process))?;
    // From rest there is nothing to compact for a while: that is more than can be borne for long.
    let capacity = Step::take(&traffic, TOO_MUCH, STEP).await?.saved.a_second();
    let sustained = Step::take(&traffic, TOO_MUCH, FOR_LONG).await?.saved.a_second();
    traffic.come_home(HOME_WITHIN).await?;
    let mut levels: [Vec<Step>; LEVELS.len()] = array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (steps, (times, _)) in levels.iter_mut().zip(LEVELS) {
            steps.push(Step::take(&traffic, times * capacity, STEP).await?);
        }
    }
    // What was saved in overload counts from the rounds only; how it was refused, and how soon all was as before, from these too.
    let (most, _) = LEVELS[OVERLOAD];
    let (mut more, mut ends) = (Vec::new(), Vec::new());
    for (place, _) in ENDS.iter().enumerate() {
        if place > 0 {
            more.push(Step::take(&traffic, most * capacity, STEP).await?);
        }
        let ended = Instant::now();
        ends.push((ended, Step::take(&traffic, capacity / 2.0, AFTERWARDS).await?));
    }
    traffic.come_home(HOME_WITHIN).await?;

    let all = traffic.trips(0);
    let overload = || levels[OVERLOAD].iter().chain(&more);
    let offered = overload().map(|step| step.offered / capacity).fold(f64::INFINITY, f64::min);
    ensure!(offered >= OFFERED * most, "only {offered:.1} times the capacity could be offered");
    let mut figures = Figures::of("overload");
    figures.add("capacity, with 7 % of a processor, from rest", "/s", capacity, Goal::None);
    figures.add("saved in the minute and a half after that", "/s", sustained, Goal::None);
    figures.add("offered, as often as that", "", offered, Goal::None);
    let during: Vec<Trip> = overload().flat_map(|step| &all[step.changes.clone()]).copied().collect();
    refusals(&mut figures, &during);
    let saved = levels.each_ref().map(|steps| steps.iter().map(|step| step.saved).sum::<Saved>().a_second());
    let for_long = saved.into_iter().fold(sustained, f64::max);
    // The first stretch counts too, although it comes right after all was compacted.
    let peak = for_long.max(capacity);
    LEVELS.iter().zip(saved).for_each(|((_, what), saved)| figures.add(what, "/s", saved, Goal::None));
    figures.add("saved in overload, of the peak", "%", 100.0 * saved[OVERLOAD] / peak, Goal::AtLeast(80.0));
    figures.add("the same, of what is saved for long", "%", 100.0 * saved[OVERLOAD] / for_long, Goal::None);
    let saved = all.iter().filter_map(|trip| Some(trip.saved? - trip.accepted?.min(trip.saved?))).max();
    figures.time("from PubAck to receipt at most", saved.unwrap_or_default(), Goal::AtMost(10.0));
    for ((ended, after), what) in ends.into_iter().zip(ENDS) {
        let normal = as_before(&all[after.changes]).map_or(AFTERWARDS, |sent| sent - ended);
        figures.time(what, normal, Goal::AtMost(10.0));
    }
    figures.count(
        "started again",
        processes(&mut site).iter().zip(&before).filter(|(now, then)| **now != Some(**then)).count(),
        Goal::AtMost(0.0),
    );
    Ok(figures.all)
}

impl Saved {
    fn a_second(self) -> f64 {
        self.changes as f64 / self.time.as_secs_f64()
    }
}

impl Sum for Saved {
    fn sum<I: Iterator<Item = Saved>>(all: I) -> Saved {
        all.fold(Saved::default(), |all, one| Saved { changes: all.changes + one.changes, time: all.time + one.time })
    }
}

impl Step {
    /// Offers so much for so long.
    async fn take(traffic: &Traffic, rate: f64, lasts: Duration) -> Result<Step> {
        let (from, before, began) = (traffic.count(), traffic.saved(), Instant::now());
        traffic.offer(rate, lasts).await?;
        let (changes, time) = (from..traffic.count(), began.elapsed());
        let offered = changes.len() as f64 / time.as_secs_f64();
        Ok(Step { offered, saved: Saved { changes: traffic.saved() - before, time }, changes })
    }
}

/// Waits until what there is to flush and to compact is flushed and compacted.
async fn rested(services: &[Pid]) -> Result<()> {
    let until = Instant::now() + HOME_WITHIN;
    let mut before = worked(services)?;
    loop {
        sleep(Duration::from_secs(1)).await;
        let now = worked(services)?;
        if now - before < LITTLE {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the services still work after {HOME_WITHIN:?}, and nothing is asked of them");
        before = now;
    }
}

/// How long some processes had a processor so far: fields 14 and 15 of `/proc/PID/stat`.
fn worked(services: &[Pid]) -> Result<Duration> {
    let one = |service: &Pid| -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", service.as_raw_nonzero()))?;
        let (_, behind_the_name) = text.rsplit_once(')').context("stat has no name")?;
        let ticks = behind_the_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(TICK * ticks.sum::<Result<u32, _>>()?)
    };
    services.iter().map(one).sum()
}

/// When the first change was sent of a while in which 99 of 100 are saved as soon as usual. Later, as before, a compaction of what was
/// written may take all that the services may take of the processor.
fn as_before(after: &[Trip]) -> Option<Instant> {
    let is_usual = |trip: &Trip| trip.saved.is_some_and(|saved| saved - trip.sent <= USUAL);
    let last = after.last()?.sent;
    let whole = after.iter().enumerate().take_while(|(_, trip)| trip.sent + A_WHILE <= last);
    let mut found = whole.filter(|(place, first)| {
        let while_of = after[*place..].iter().take_while(|trip| trip.sent <= first.sent + A_WHILE);
        let (count, usual) =
            while_of.fold((0, 0), |(count, usual), trip| (count + 1, usual + usize::from(is_usual(trip))));
        (count - usual) * 100 <= count
    });
    found.next().map(|(_, trip)| trip.sent)
}

/// How what was not taken was refused.
fn refusals(figures: &mut Figures, during: &[Trip]) {
    let mut busy: Vec<Duration> = during.iter().filter_map(|trip| Some(trip.busy? - trip.sent)).collect();
    busy.sort_unstable();
    let of = |percent: usize| busy.get(busy.len() * percent / 100).copied().unwrap_or_default();
    figures.count("refused with busy", busy.len(), Goal::AtLeast(1.0));
    figures.count(
        "refused otherwise, or not answered",
        during.iter().filter(|trip| trip.failed).count(),
        Goal::AtMost(0.0),
    );
    figures.time("refused after, at the median", of(50), Goal::None);
    figures.time("refused after, 99 of 100", of(99), Goal::AtMost(0.05));
    figures.time("refused after at most", busy.last().copied().unwrap_or_default(), Goal::AtMost(0.05));
}
