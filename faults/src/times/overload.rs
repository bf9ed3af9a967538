//! Ten times as much as the services can do is offered, whose share of the processors is cut down so that it can be offered
//! at all: how soon what is refused is refused, how much is saved meanwhile, and how soon all is as before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

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
/// What is offered to find out how much can be done: more than that.
const TOO_MUCH: f64 = 4_000.0;
/// How often what can be done is offered, one after the other.
const STEPS: [f64; 4] = [0.5, 1.0, 3.0, 10.0];
/// Long enough for what is written meanwhile to be flushed and compacted once or twice, which takes up to a third of the share for some
/// seconds.
const STEP: Duration = Duration::from_secs(30);
/// How long it is looked whether all is as before.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// A change that is saved as soon as this is one as in good times.
const USUAL: Duration = Duration::from_secs(1);
/// How long all has to be as before.
const A_WHILE: Duration = Duration::from_secs(5);
const HOME_WITHIN: Duration = Duration::from_secs(60);
/// How much of what was to be offered has to be: else the figures are of something else.
const OFFERED: f64 = 0.9;

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    let quota = Quota::new(SHARE)?;
    let plan = Plan { changes: Some(WAITING), ..Plan::new(Shape::Single, times.programs.clone()) };
    let mut site = Site::start(plan).await?;
    let before = processes(&mut site);
    for process in &before {
        quota.hold(process.context("all services run")?)?;
    }
    let traffic = Traffic::start(site.direct(), USERS).await?;
    let capacity = goodput(&traffic, TOO_MUCH).await?;
    traffic.come_home(HOME_WITHIN).await?;
    let (mut peak, mut last, mut overload) = (capacity, 0.0, 0);
    for step in STEPS {
        overload = traffic.count();
        last = goodput(&traffic, step * capacity).await?;
        peak = peak.max(last);
    }
    let ended = Instant::now();
    let sent = traffic.count();
    let offered = (sent - overload) as f64 / STEP.as_secs_f64() / capacity;
    traffic.offer(capacity / 2.0, AFTERWARDS).await?;
    traffic.come_home(HOME_WITHIN).await?;
    ensure!(offered >= OFFERED * STEPS[STEPS.len() - 1], "only {offered:.1} times the capacity could be offered");
    let all = traffic.trips(0);
    let (during, after) = (&all[overload..sent], &all[sent..]);
    let normal = as_before(after).map_or(AFTERWARDS, |sent| sent - ended);
    let mut figures = Figures::of("overload");
    figures.add("capacity, with 7 % of a processor", "/s", capacity, Goal::None);
    figures.add("offered, as often as that", "", offered, Goal::None);
    refusals(&mut figures, during);
    figures.add("saved meanwhile, of the peak", "%", 100.0 * last / peak, Goal::AtLeast(80.0));
    let saved = all.iter().filter_map(|trip| Some(trip.saved? - trip.accepted?.min(trip.saved?))).max();
    figures.time("from PubAck to receipt at most", saved.unwrap_or_default(), Goal::AtMost(10.0));
    figures.time("as before again after", normal, Goal::AtMost(10.0));
    figures.count(
        "started again",
        processes(&mut site).iter().zip(&before).filter(|(now, then)| now != then).count(),
        Goal::AtMost(0.0),
    );
    Ok(figures.all)
}

/// Offers so much for a step, and says how many a second had their receipts meanwhile.
async fn goodput(traffic: &Traffic, rate: f64) -> Result<f64> {
    let began = Instant::now();
    traffic.offer(rate, STEP).await?;
    let ended = Instant::now();
    Ok(traffic.saved_within(began..ended) as f64 / (ended - began).as_secs_f64())
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
