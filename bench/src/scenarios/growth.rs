//! More and more records: what saving, reading and memory come to, beside a bucket with as many; then a crash with all of
//! them, and a replica that begins with nothing.

use std::{fs, time::Instant};

use roam_nats::SyncInterval;

use super::load;
use crate::{
    asking::Asking,
    drive::Drive,
    jetstream::KvGet,
    keys::Keys,
    lab::{Lab, Peer},
    plot::{Curve, Figure},
    report::{Goal, Race},
    roam::{Names, Point, Saving, Until},
    system::OneMachine,
};

const KV: &str = "NATS KV, default";
/// The size from which on the goal for memory counts: below it, what is there without any record weighs more.
const LARGE: u64 = 10_000_000;
/// No profile holds more.
const PROFILE_RECORDS: u64 = 40_000;
const MIB: f64 = 1024.0 * 1024.0;

/// All sizes, the smallest first, each on top of the one before.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let mut ours = OneMachine::start(&lab.directory("roam")).await?;
    let peer = lab.peer(SyncInterval::Default).await?;
    let mut curves = ["saved, 256 in flight", "points read, 256 in flight"]
        .map(|name| Curve { name: name.to_owned(), points: Vec::new() });
    let mut records = 0;
    for size in lab.scale.growth {
        let keys = keys(lab, *size);
        records = keys.records();
        let took = load::into_roam(&ours.servers(), &keys).await?;
        load::into_bucket(&peer.servers(), &keys).await?;
        let mut loaded = Race::default();
        loaded.ours(records as f64 / took.as_secs_f64());
        lab.found(loaded.alone(&format!("load {}", short(*size)), "op/s", None));
        let (saved, read) = measure(lab, &ours, &peer, &keys).await?;
        curves[0].points.push((records as f64, saved));
        curves[1].points.push((records as f64, read));
    }
    lab.figures.push(Figure {
        file: "growth",
        title: "A second, by how many records there are".to_owned(),
        horizontal: "records (log)",
        vertical: "a second (log)",
        logarithmic: true,
        curves: curves.into(),
    });
    ours = recover(lab, ours, records).await?;
    ours.stop().await?;
    Ok(())
}

/// As few profiles as can hold that many records, but no fewer than usual.
fn keys(lab: &Lab, records: u64) -> Keys {
    let profiles = records.div_ceil(PROFILE_RECORDS).max(lab.scale.profiles);
    Keys::new(profiles, records.div_ceil(profiles), 128)
}

/// Changes saved and points read a second, and what both sides hold in memory.
async fn measure(lab: &mut Lab, ours: &OneMachine, peer: &Peer, keys: &Keys) -> anyhow::Result<(f64, f64)> {
    let (scale, size) = (lab.scale, short(keys.records()));
    let saving = Saving::open(&ours.servers(), keys.clone(), 1, Until::Receipt).await?;
    let (mut saving, point) = (Drive::new(saving, 0)?, Point::new(keys.clone())?);
    let inbox = Names::new(1)?.inbox_prefix();
    let mut point = Drive::new(Asking::open(&ours.servers(), Some(inbox), point).await?, 0)?;
    let mut get = Drive::new(Asking::open(&peer.servers(), None, KvGet(keys.clone())).await?, 0)?;
    let (mut saved, mut read, mut memory) = (Race::default(), Race::default(), Race::default());
    for _ in 0..scale.pairs {
        saved.ours(saving.closed(256, scale.duration / 2).await?.per_second);
        read.ours(point.closed(256, scale.duration / 2).await?.per_second);
        read.peer(KV, get.closed(256, scale.duration / 2).await?.per_second);
    }
    memory.ours(ours.resident()? as f64 / MIB);
    memory.peer(KV, peer.resident()? as f64 / MIB);
    let goal = (keys.records() >= LARGE).then_some(Goal::AtMost(0.25));
    let (saved, point) = (saved.alone(&format!("save at {size} records"), "op/s", None), {
        read.against(&format!("latest, point, at {size} records"), KV, "1/s", None)
    });
    let found = (saved.ours, point.as_ref().map_or(0.0, |row| row.ours));
    lab.found(saved);
    lab.found(point);
    lab.found(memory.against(&format!("memory at {size} records"), KV, "MiB", goal));
    Ok(found)
}

/// Kills the whole system, and waits until it serves again; then takes the replica's directory away, and waits until the new
/// one has made all of it again from the journal.
async fn recover(lab: &mut Lab, ours: OneMachine, records: u64) -> anyhow::Result<OneMachine> {
    let directory = ours.kill().await?;
    let begun = Instant::now();
    let ours = OneMachine::start(&directory).await?;
    let (mut again, mut anew) = (Race::default(), Race::default());
    again.ours(begun.elapsed().as_secs_f64());
    let size = short(records);
    lab.found(again.alone(&format!("killed with {size} records, serves"), "s", None));
    let directory = ours.stop().await?;
    fs::remove_dir_all(directory.join("data/storage"))?;
    let begun = Instant::now();
    let ours = OneMachine::start(&directory).await?;
    anew.ours(records as f64 / begun.elapsed().as_secs_f64());
    lab.found(anew.alone(&format!("new replica of {size} records"), "rec/s", None));
    Ok(ours)
}

fn short(records: u64) -> String {
    match records {
        records if records >= 1_000_000 => format!("{} M", (records as f64 / 1e5).round() / 10.0),
        records => format!("{} k", (records as f64 / 1e2).round() / 10.0),
    }
}
