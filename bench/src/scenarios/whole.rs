//! Reading a whole profile, as a new device does: beside a bucket's two ways, and beside what a NATS server can do if it is
//! asked by hand.

use std::time::Instant;

use roam_nats::SyncInterval;

use super::load;
use crate::{
    asking::{Asking, connect},
    drive::Drive,
    keys::Keys,
    kv_watch::{read_by_batch, read_by_gets, read_by_watch},
    lab::Lab,
    report::{Goal, Race},
    roam::{Names, Whole},
    system::OneMachine,
};

const GETS: &str = "KV keys + gets";
const WATCH: &str = "KV watch";
const BATCH: &str = "KV batch, by hand";
/// How many gets are in flight.
const AT_ONCE: usize = 256;
/// Fewest records of a profile, with `--quick` too.
const RECORDS: u64 = 1_000;

/// Profiles a second, one after the other.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles.min(16), RECORDS, 128);
    let records = usize::try_from(keys.keys)?;
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let peer = lab.peer(SyncInterval::Default).await?;
    load::into_roam(&ours.servers(), &keys).await?;
    load::into_bucket(&peer.servers(), &keys).await?;
    let inbox = Names::new(1)?.inbox_prefix();
    let whole = Whole::new(keys.profiles, records)?;
    let mut whole = Drive::new(Asking::open(&ours.servers(), Some(inbox), whole).await?, 0)?;
    let bus = connect(&peer.servers(), None).await?;
    let mut race = Race::default();
    for _ in 0..scale.pairs {
        race.ours(whole.closed(1, scale.duration / 2).await?.per_second);
        race.peer(GETS, rate(lab, keys.profiles, |profile| read_by_gets(&bus, profile, records, AT_ONCE)).await?);
        race.peer(WATCH, rate(lab, keys.profiles, |profile| read_by_watch(&bus, profile, records)).await?);
        race.peer(BATCH, rate(lab, keys.profiles, |profile| read_by_batch(&bus, profile, records)).await?);
    }
    let name = "whole profile of 1,000 records";
    for (peer, goal) in [(GETS, Some(Goal::AtLeast(10.0))), (WATCH, Some(Goal::AtLeast(10.0))), (BATCH, None)] {
        lab.found(race.against(name, peer, "1/s", goal));
    }
    bus.close().await;
    ours.stop().await?;
    Ok(())
}

/// How often a second something can be done, one after the other.
async fn rate<F>(lab: &Lab, profiles: u64, read: impl Fn(u64) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let begun = Instant::now();
    let mut done = 0_u32;
    while begun.elapsed() < lab.scale.duration / 2 {
        read(u64::from(done) % profiles).await?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}
