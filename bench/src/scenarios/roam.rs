//! Roaming: from one device's publish to the other device's notice, at fixed rates; and how latency grows with the rate, up
//! to what each side can take.

use std::time::Duration;

use roam_nats::SyncInterval;

use crate::{
    drive::{Drive, Driver, Measured},
    keys::Keys,
    kv_watch::KvRoam,
    lab::{Lab, Scale},
    plot::{Curve, Figure},
    report::{Goal, Race},
    roam::{Saving, Until},
    system::OneMachine,
};

/// What a watcher of a bucket sees is not durable.
const KV: &str = "KV watch, default";
/// Changes a second.
const RATES: [u32; 3] = [500, 2_000, 10_000];
/// Changes a second, for the curves.
const STEPS: [u32; 11] = [250, 500, 1_000, 2_000, 4_000, 7_000, 10_000, 15_000, 20_000, 25_000, 30_000];
/// A side that answers less of what it is sent is full.
const FULL: f64 = 0.95;

/// Ours beside a watched bucket, and the curves.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles, scale.keys, 128);
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let (default, always) = (lab.peer(SyncInterval::Default).await?, lab.peer(SyncInterval::Always).await?);
    let mut roaming = Drive::new(Saving::open(&ours.servers(), keys.clone(), 1, Until::Notice).await?, 0)?;
    let mut watch = Drive::new(KvRoam::open(&default.servers(), keys.clone()).await?, 0)?;
    let mut watch_always = Drive::new(KvRoam::open(&always.servers(), keys).await?, 0)?;
    let mut over_time = Vec::new();
    for rate in RATES {
        let (mut p50, mut p99) = (Race::default(), Race::default());
        for pair in 0..scale.pairs {
            let mine = roaming.open(rate, scale.duration).await?;
            let theirs = watch.open(rate, scale.duration).await?;
            p50.ours(mine.spread.p50);
            p99.ours(mine.spread.p99);
            p50.peer(KV, theirs.spread.p50);
            p99.peer(KV, theirs.spread.p99);
            if rate == 2_000 {
                over_time.push((scale.duration * pair, mine));
            }
        }
        let goal = |ms| (rate == 2_000).then_some(Goal::AtMost(ms));
        let name = |quantile| format!("roam at {rate}/s, {quantile}");
        lab.found(p50.alone(&name("p50"), "ms", goal(1.2)));
        lab.found(p99.alone(&name("p99"), "ms", goal(5.0)));
        lab.found(p50.against(&name("p50"), KV, "ms", None));
        lab.found(p99.against(&name("p99"), KV, "ms", None));
    }
    lab.figures.push(timeline(&over_time));
    let mut curves = curve("Roam, durable", &mut roaming, scale).await?.to_vec();
    curves.extend(curve("KV watch, default", &mut watch, scale).await?);
    curves.extend(curve("KV watch, always", &mut watch_always, scale).await?);
    lab.figures.push(Figure {
        file: "throughput-latency",
        title: "From publish to the other device, by rate".to_owned(),
        horizontal: "changes a second",
        vertical: "ms (log)",
        logarithmic: true,
        curves,
    });
    ours.stop().await?;
    Ok(())
}

/// Latency at rising rates, until the side is full.
async fn curve<D: Driver>(name: &str, drive: &mut Drive<D>, scale: Scale) -> anyhow::Result<[Curve; 2]> {
    let curve = |quantile| Curve { name: format!("{name}, {quantile}"), points: Vec::new() };
    let mut curves = [curve("p50"), curve("p99")];
    for rate in STEPS {
        let measured = drive.open(rate, scale.duration / 2).await?;
        curves[0].points.push((rate.into(), measured.spread.p50));
        curves[1].points.push((rate.into(), measured.spread.p99));
        if measured.lost + measured.busy > 0 || measured.per_second < FULL * f64::from(rate) {
            break;
        }
    }
    Ok(curves)
}

fn timeline(measured: &[(Duration, Measured)]) -> Figure {
    let points = |of: fn(&roam_measure::Spread) -> f64| {
        let points = measured.iter().flat_map(|(start, measured)| {
            measured.timeline.iter().map(move |(at, spread)| ((*start + *at).as_secs_f64(), of(spread)))
        });
        points.collect()
    };
    Figure {
        file: "latency-over-time",
        title: "From publish to the other device at 2,000 a second, over time".to_owned(),
        horizontal: "seconds",
        vertical: "ms (log)",
        logarithmic: false,
        curves: vec![
            Curve { name: "p50".to_owned(), points: points(|spread| spread.p50) },
            Curve { name: "p99".to_owned(), points: points(|spread| spread.p99) },
            Curve { name: "longest".to_owned(), points: points(|spread| spread.max) },
        ],
    }
}
