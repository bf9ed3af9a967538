//! Many devices of one user: how long one change takes to all that watch, and what a connected idle device costs.

use std::time::Instant;

use anyhow::Context;
use roam_schemas::subjects;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    PATIENCE, device,
    drive::Drive,
    keys::Keys,
    lab::Lab,
    report::{Goal, Race},
    roam::{Names, Saving, Until},
    system::OneMachine,
};

/// How many changes are told.
const CHANGES: u32 = 40;
/// How many connections are made at once.
const AT_ONCE: usize = 64;

/// Watching devices, then idle ones.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    watching(lab, &ours).await?;
    idle(lab, &ours).await?;
    ours.stop().await?;
    Ok(())
}

async fn watching(lab: &mut Lab, ours: &OneMachine) -> anyhow::Result<()> {
    let (names, devices) = (Names::new(1)?, lab.scale.watching);
    let (told, mut heard) = mpsc::channel(devices);
    let mut watchers = JoinSet::new();
    for _ in 0..devices {
        let device = device::connect(ours.address(), &subjects::notice(names.profile(0)?)).await?;
        watchers.spawn(device.tell(told.clone()));
    }
    let keys = Keys::new(1, 100, 128);
    let mut saving = Drive::new(Saving::open(&ours.servers(), keys, 1, Until::Receipt).await?, 0)?;
    let (mut first, mut last) = (Race::default(), Race::default());
    for _ in 0..CHANGES {
        let begun = Instant::now();
        let all = async {
            for number in 0..devices {
                heard.recv().await.context("all devices are gone")?;
                if number == 0 {
                    first.ours(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            anyhow::Ok(begun.elapsed())
        };
        let (saved, told) = tokio::join!(saving.run(1, 1), timeout(PATIENCE, all));
        saved?;
        last.ours(told.context("a device was not told")??.as_secs_f64() * 1e3);
    }
    let name = |which| format!("one change to {devices} devices, {which}");
    lab.found(first.alone(&name("first"), "ms", None));
    lab.found(last.alone(&name("last"), "ms", None));
    Ok(())
}

async fn idle(lab: &mut Lab, ours: &OneMachine) -> anyhow::Result<()> {
    let (names, devices) = (Names::new(1)?, lab.scale.idle);
    let before = (ours.resident_alone()?, ours.resident()?);
    let subject = subjects::notice(names.profile(0)?);
    let mut idle = Vec::new();
    while idle.len() < devices {
        let more = (devices - idle.len()).min(AT_ONCE);
        let connecting = (0..more).map(|_| device::connect(ours.address(), &subject));
        idle.extend(futures_util::future::try_join_all(connecting).await?);
    }
    let after = (ours.resident_alone()?, ours.resident()?);
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / devices as f64 / 1024.0;
    let (mut services, mut server) = (Race::default(), Race::default());
    services.ours(each(before.0, after.0));
    server.ours(each(before.1 - before.0, after.1 - after.0));
    let name = |whose| format!("{devices} idle devices, {whose}");
    lab.found(services.alone(&name("services"), "KiB", Some(Goal::AtMost(0.25))));
    lab.found(server.alone(&name("nats"), "KiB", None));
    Ok(())
}
