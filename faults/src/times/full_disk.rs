//! The disk of a replica fills while changes come: how soon it says so, how soon publishers are told `busy`, and whether all
//! that was accepted is there once there is room again.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use roam_client::{Client, Identity, Select, ServiceName};
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Figure, Figures, Goal, Times, processes,
    traffic::{Traffic, Trip},
    until,
};
use crate::{
    fault::Need,
    history::seen,
    site::{Plan, Shape, Site},
    workload::{app, owner, tenant},
};

const USERS: usize = 64;
const RATE: f64 = 500.0;
/// How many changes may wait, so that the pipeline is full soon.
const WAITING: u64 = 2_000;
const CALM: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_secs(60);
/// What the replica has to say.
const FULL: &str = "storage_full";
/// After this no receipt is given any more.
const NO_RECEIPT_AFTER: Duration = Duration::from_secs(1);
/// How long the disk is full at least.
const LASTS: Duration = Duration::from_secs(15);

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    if let Some(why) = Need::Root.missing() {
        bail!("it cannot be: {why}");
    }
    let plan = Plan { disks: true, changes: Some(WAITING), ..Plan::new(Shape::Single, times.programs.clone()) };
    let mut site = Site::start(plan).await?;
    let before = processes(&mut site);
    let traffic = Traffic::start(site.direct(), USERS).await?;
    let (stop, mut offering) = (CancellationToken::new(), JoinSet::new());
    offering.spawn(traffic.clone().offer_until(RATE, stop.clone()));
    tokio::time::sleep(CALM).await;
    disk(&site)?.fill().await?;
    let full = Instant::now();
    let pages = site.replicas[0].part.pages();
    let readyz = until("readyz says so", full, WITHIN, async || {
        let (_, body) = pages.try_get("/readyz").await.ok()?;
        body.contains(FULL).then_some(())
    });
    let server = site.servers.all()[0].client_url();
    let status = until("roam status says so", full, WITHIN, async || says(&times.programs, &server).await);
    let busy = until("a publisher is told busy", full, WITHIN, async || {
        traffic.trips(0).iter().filter_map(|trip| trip.busy).min()
    });
    let ((_, readyz), (_, status), (busy, _)) = tokio::try_join!(readyz, status, busy)?;
    sleep_until(full + LASTS).await;
    let healed = Instant::now();
    disk(&site)?.free()?;
    let mut ready = Duration::ZERO;
    for member in site.members() {
        ready = ready.max(super::ready(member, healed, WITHIN).await?);
    }
    stop.cancel();
    while let Some(offered) = offering.join_next().await {
        offered??;
    }
    traffic.come_home(WITHIN).await?;
    let all = traffic.trips(0);
    let meanwhile = |trip: &&Trip| trip.saved.is_some_and(|saved| (full + NO_RECEIPT_AFTER..healed).contains(&saved));
    let mut figures = Figures::of("full-disk");
    figures.time("readyz says storage_full", readyz, Goal::AtMost(1.0));
    figures.time("roam status says storage_full", status, Goal::AtMost(1.0));
    figures.count("receipts from 1 s on while it is full", all.iter().filter(meanwhile).count(), Goal::AtMost(0.0));
    figures.time("the first publisher is told busy", busy - full, Goal::None);
    figures.time("all ready once there is room", ready, Goal::AtMost(10.0));
    figures.count(
        "started again",
        processes(&mut site).iter().zip(&before).filter(|(now, then)| now != then).count(),
        Goal::AtMost(0.0),
    );
    figures.count("accepted", all.iter().filter(|trip| trip.accepted.is_some()).count(), Goal::AtLeast(1.0));
    figures.count(
        "accepted and without a receipt",
        all.iter().filter(|trip| trip.is_under_way()).count(),
        Goal::AtMost(0.0),
    );
    figures.count("with a receipt and not there", missing(&site, &all).await?, Goal::AtMost(0.0));
    Ok(figures.all)
}

fn disk(site: &Site) -> Result<&crate::disk::Disk> {
    site.replicas[0].disk.as_ref().context("the replica has a disk")
}

/// Asks as an operator does.
async fn says(programs: &Path, server: &str) -> Option<()> {
    let output = Command::new(programs.join("roam")).args(["status", "--server", server]).output().await.ok()?;
    String::from_utf8_lossy(&output.stdout).contains(FULL).then_some(())
}

/// How many changes have a receipt and are not to be read.
async fn missing(site: &Site, trips: &[Trip]) -> Result<usize> {
    let identity = Identity::Service { tenant: tenant()?, name: ServiceName::parse("reader")? };
    let mut settings = site.client_settings(0);
    settings.bus = site.direct();
    let client = Client::connect(settings, identity).await?;
    let mut there = HashMap::new();
    for user in 0..USERS {
        let profile = client.profile_of(owner(user)?, app()?);
        let records: Vec<_> = profile.records(Select::All).try_collect().await?;
        there.extend(
            seen(&records).into_iter().map(|seen| (seen.key.to_string(), seen.value.map(|value| value.to_string()))),
        );
    }
    client.close().await;
    let is_missing = |trip: &&Trip| {
        let (key, value) = trip.record();
        trip.saved.is_some() && there.get(&key) != Some(&Some(value))
    };
    Ok(trips.iter().filter(is_missing).count())
}
