//! An access server is killed: how soon one that is started again at once works, and how soon what the dead one had pulled
//! and not acked is saved.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Figure, Figures, Goal, Times, ready, traffic::Traffic, until};
use crate::site::{Plan, Shape, Site};

const KILLS: usize = 5;
const RATE: f64 = 500.0;
const USERS: usize = 64;
/// How long everything goes well before each kill.
const CALM: Duration = Duration::from_secs(2);
/// More than ever are on their way.
const IN_FLIGHT: usize = 5_000;
const WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    let plan = Plan { access_servers: 1, ..Plan::new(Shape::Single, times.programs.clone()) };
    let mut site = Site::start(plan).await?;
    let traffic = Traffic::start(site.direct(), USERS).await?;
    let (stop, mut offering) = (CancellationToken::new(), JoinSet::new());
    offering.spawn(traffic.clone().offer_until(RATE, stop.clone()));
    let (mut is_ready, mut works, mut redelivered, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..KILLS {
        sleep(CALM).await;
        let member = site.access_servers.first_mut().context("there is an access server")?;
        let killed = Instant::now();
        member.kill().await;
        let before = traffic.count();
        member.start().await?;
        is_ready.push(ready(member, killed, WITHIN).await?);
        let (first, _) = until("a change is saved again", killed, WITHIN, async || {
            traffic.trips(before).iter().filter_map(|trip| trip.saved).min()
        })
        .await?;
        works.push(first - killed);
        // Nothing is on its way for that long.
        let from = before.saturating_sub(IN_FLIGHT);
        // What the stream had accepted before, and was not saved when it died.
        let accepted = |trip: &super::traffic::Trip| trip.accepted.is_some_and(|accepted| accepted < killed);
        let late = || -> Vec<_> {
            let open = |saved: Option<Instant>| saved.is_none_or(|saved| saved > killed);
            traffic.trips(from).into_iter().filter(|trip| accepted(trip) && open(trip.saved)).collect()
        };
        until("what had been pulled is saved", killed, WITHIN, async || {
            late().iter().all(|trip| trip.saved.is_some()).then_some(())
        })
        .await?;
        let late = late();
        most = most.max(late.len());
        redelivered.extend(late.iter().filter_map(|trip| trip.saved).max().map(|last| last - killed));
    }
    stop.cancel();
    while let Some(offered) = offering.join_next().await {
        offered??;
    }
    traffic.come_home(WITHIN).await?;
    let worst = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    let mut figures = Figures::of("access-server");
    figures.time("killed and started again: ready", worst(&is_ready), Goal::None);
    figures.time("the first change since is saved", worst(&works), Goal::AtMost(1.0));
    figures.time("the last of its un-acked deliveries is saved", worst(&redelivered), Goal::AtMost(6.0));
    figures.count("un-acked deliveries at most", most, Goal::None);
    Ok(figures.all)
}
