//! The server that leads the journal is killed under devices that have an outbox: how long the longest wait was from a write
//! to its receipt, and whether any of them was told of an error.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use roam_client::{ClientSettings, ContentType, Identity, Key, LocalEvent, LocalEvents, LocalProfile, LocalStore};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Figure, Figures, Goal, Times};
use crate::{
    site::{Plan, Shape, Site},
    workload::{app, device_named, owner, profile_of, tenant},
};

const KILLS: usize = 5;
const DEVICES: usize = 32;
/// How long all goes well before each kill, and after all are well again.
const CALM: Duration = Duration::from_secs(4);
/// How long a device rests between one write that is saved and the next.
const REST: Duration = Duration::from_millis(50);
const WITHIN: Duration = Duration::from_secs(60);

/// What the devices saw.
#[derive(Debug, Default)]
struct Seen {
    /// Which device wrote, when, and how long it took until that was saved.
    saved: Vec<(usize, Instant, Duration)>,
    /// Errors that a call gave, and changes that were parked.
    errors: Vec<String>,
    /// How often a device was told that it is offline for a while, and that all goes on.
    offline: usize,
}

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    let mut site = Site::start(Plan::new(Shape::Cluster, times.programs.clone())).await?;
    let place = TempDir::with_prefix("roam-faults-devices-")?;
    let seen = Arc::<Mutex<Seen>>::default();
    let (stop, mut devices) = (CancellationToken::new(), JoinSet::new());
    for device in 0..DEVICES {
        let path = place.path().join(format!("{device}.redb"));
        let identity =
            Identity::Device { tenant: tenant()?, user: owner(profile_of(device))?, device: device_named(device)? };
        let settings = ClientSettings { bus: site.direct(), ..site.client_settings(device) };
        let store = LocalStore::open(path, settings, identity).await?;
        let profile = store.profile(app()?).await?;
        devices.spawn(hear(profile.events(), Arc::clone(&seen), stop.clone()));
        devices.spawn(work(device, profile, Arc::clone(&seen), stop.clone()));
    }
    let (mut first, mut usual) = (None, Duration::ZERO);
    for _ in 0..KILLS {
        sleep(CALM).await;
        let killed = Instant::now();
        if first.is_none() {
            usual = longest(&seen, killed - CALM / 2, killed);
        }
        first = first.or(Some(killed - CALM / 2));
        let leader = site.servers.leader().await?;
        site.servers.all()[leader].kill().await?;
        // Every device has saved something that it wrote since.
        timeout(WITHIN, async {
            while devices_since(&seen, killed) < DEVICES {
                sleep(REST).await;
            }
        })
        .await
        .context("not every device saves again")?;
        tell_longest(&seen, killed);
        site.servers.all()[leader].restart().await?;
    }
    sleep(CALM).await;
    stop.cancel();
    while let Some(ended) = devices.join_next().await {
        ended?;
    }
    let worst = longest(&seen, first.context("it was killed")?, Instant::now());
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut figures = Figures::of("leader");
    figures.time("longest wait for a receipt before it is killed", usual, Goal::None);
    figures.time("longest wait for a receipt as it is killed", worst, Goal::AtMost(10.0));
    figures.count("errors that a device was told of", seen.errors.len(), Goal::AtMost(0.0));
    figures.count("times that a device was told that it is offline", seen.offline, Goal::None);
    figures.count("writes", seen.saved.len(), Goal::None);
    tell(&seen.errors);
    Ok(figures.all)
}

#[expect(clippy::print_stderr, reason = "this program tells people what it found")]
fn tell(errors: &[String]) {
    errors.iter().take(5).for_each(|error| eprintln!("  a device was told: {error}"));
}

/// When the write that waited longest was made, and when it was saved.
#[expect(clippy::print_stderr, reason = "this program tells people how far it is")]
fn tell_longest(seen: &Mutex<Seen>, killed: Instant) {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let since = killed.checked_sub(CALM / 2).unwrap_or(killed);
    let longest = seen.saved.iter().filter(|(_, at, _)| *at > since).max_by_key(|(.., took)| *took);
    if let Some((device, at, took)) = longest {
        let (made, saved) = (at.duration_since(since).as_secs_f64(), (*at + *took - killed).as_secs_f64());
        let made = made - (CALM / 2).as_secs_f64();
        eprintln!(
            "  killed; the longest wait: device {device} wrote {made:+.2} s from then, and it was saved at {saved:+.2} s"
        );
    }
}

/// The longest that a write took which was made between two instants.
fn longest(seen: &Mutex<Seen>, from: Instant, to: Instant) -> Duration {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let between = seen.saved.iter().filter(|(_, at, _)| (from..to).contains(at));
    between.map(|(_, _, took)| *took).max().unwrap_or_default()
}

/// How many devices have saved what they wrote since.
fn devices_since(seen: &Mutex<Seen>, since: Instant) -> usize {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let devices: BTreeSet<_> = seen.saved.iter().filter(|(_, at, _)| *at > since).map(|(device, ..)| device).collect();
    devices.len()
}

/// Writes again and again, each time once the last write is saved.
async fn work(device: usize, profile: LocalProfile, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    for number in 0.. {
        if stop.run_until_cancelled(sleep(REST)).await.is_none() {
            return;
        }
        let at = Instant::now();
        let saved = stop.run_until_cancelled(write(&profile, device, number)).await;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match saved {
            Some(Ok(())) => seen.saved.push((device, at, at.elapsed())),
            Some(Err(error)) => seen.errors.push(format!("{error:#}")),
            None => return,
        }
    }
}

async fn write(profile: &LocalProfile, device: usize, number: u64) -> Result<()> {
    let key = Key::parse(format!("device/{device}/{}", number % 10))?;
    profile.put(key, number.to_string(), ContentType::text()).await?;
    profile.synced().await?;
    Ok(())
}

/// Takes note of what a device is told.
async fn hear(mut events: LocalEvents, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    // How it stands at first, before it has connected, is no news.
    let mut was_well = false;
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            LocalEvent::Parked { problem, .. } => seen.errors.push(format!("a change was parked: {problem}")),
            LocalEvent::ParkedMuch => seen.errors.push("many changes were parked".to_owned()),
            LocalEvent::Offline { .. } => seen.offline += usize::from(was_well),
            LocalEvent::Synced { .. } => was_well = true,
            _ => {}
        }
    }
}
