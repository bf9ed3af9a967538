//! More access servers: each is held back, so that they and not the two cores of a small machine are the bottleneck; then
//! servers come and go while changes are saved, and none may be lost.
//!
//! A server is held back from outside: it is stopped and continued by signals, and runs a small part of the time. Nothing
//! in it knows of that.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::{
    child::Child,
    drive::Drive,
    keys::Keys,
    lab::Lab,
    report::{Goal, Race},
    roam::{Saving, Until},
    system::Services,
};

/// How long a server runs, out of how long: four of them together stay well below what the rest of the system can do.
const RUNS: Duration = Duration::from_millis(1);
const OF: Duration = Duration::from_millis(60);
const SERVERS: [usize; 3] = [1, 2, 4];
/// So many that each server finds work whenever it runs.
const IN_FLIGHT: usize = 4_096;

/// One, two and four servers, then servers that come and go.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let mut alone = Race::default();
    for servers in SERVERS {
        let mut services = Services::over_one(servers, &lab.directory("roam")).await?;
        let mut saving = saving(lab, &services).await?;
        let mut race = Race::default();
        for _ in 0..lab.scale.pairs {
            race.ours(
                held_back(services.access_servers(), saving.closed(IN_FLIGHT, lab.scale.duration)).await?.per_second,
            );
        }
        let name = format!("{servers} access servers, held back");
        if servers == 1 {
            lab.found(race.alone(&name, "op/s", None));
            alone = race;
        } else {
            let goal = Goal::AtLeast(0.8 * servers as f64);
            lab.found(alone.before(&race, &name, "one of them", "op/s", Some(goal)));
        }
        if servers == SERVERS[SERVERS.len() - 1] {
            come_and_go(lab, &mut services, &mut saving).await?;
        }
    }
    Ok(())
}

async fn saving(lab: &Lab, services: &Services) -> anyhow::Result<Drive<Saving>> {
    let keys = Keys::new(lab.scale.profiles, lab.scale.keys, 128);
    Drive::new(Saving::open(services.servers(), keys, 1, Until::Receipt).await?, 0)
}

/// Does something while servers are held back, each in its own part of the time.
async fn held_back<T>(servers: &[Child], work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let done = tokio::select! {
        done = work => done,
        failed = hold_back(servers) => Err(failed.err().unwrap_or_else(|| anyhow::anyhow!("nobody is held back"))),
    };
    for server in servers {
        server.signal(Signal::CONT)?;
    }
    done
}

async fn hold_back(servers: &[Child]) -> anyhow::Result<()> {
    for server in servers {
        server.signal(Signal::STOP)?;
    }
    let apart = OF / u32::try_from(servers.len())?;
    let mut due = Instant::now();
    loop {
        for server in servers {
            server.signal(Signal::CONT)?;
            sleep_until(due + RUNS).await;
            server.signal(Signal::STOP)?;
            due += apart;
            sleep_until(due).await;
        }
    }
}

/// A server is killed, one stops in good order, one is started, while changes are saved: all of them get their receipt.
async fn come_and_go(lab: &mut Lab, services: &mut Services, saving: &mut Drive<Saving>) -> anyhow::Result<()> {
    let steady = saving.closed(IN_FLIGHT, lab.scale.duration).await?;
    let before = saving.next();
    let changing = async {
        for turn in 0..lab.scale.pairs {
            tokio::time::sleep(lab.scale.duration / lab.scale.pairs).await;
            if let Some(server) = services.take_access_server() {
                if turn % 2 == 0 { server.kill().await? } else { server.stop().await? }
            }
            services.add_access_server()?;
        }
        anyhow::Ok(())
    };
    let (measured, changed) = tokio::join!(saving.closed(IN_FLIGHT, lab.scale.duration * 2), changing);
    changed?;
    let measured = measured?;
    ensure!(measured.lost == 0, "{} of {} changes were lost", measured.lost, saving.next() - before);
    let mut race = Race::default();
    race.ours(measured.per_second);
    race.peer("none come or go", steady.per_second);
    lab.found(race.against("4 access servers come and go", "none come or go", "op/s", None));
    Ok(())
}
