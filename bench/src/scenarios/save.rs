//! Saving: how many changes a second are durable, beside what a bucket takes in, durable or not. In bulks, as the client library of a
//! service sends what it has at once, and each change in a message of its own, as devices do.

use roam_client::ClientSettings;
use roam_nats::{Cluster, SyncInterval};

use crate::{
    asking::{Asking, connect},
    calling::{Calling, KvClient, RoamClient, Verb},
    drive::Drive,
    jetstream::{KvPut, RawPublish, make_bucket},
    keys::Keys,
    lab::Lab,
    others::{Etcd, Redis},
    report::{Goal, Race},
    roam::{Saving, Until},
    system::{OneMachine, Services},
};

/// A scenario: so many in flight, values of that size, so many operations a change.
struct Case {
    in_flight: usize,
    value_bytes: usize,
    operations: u64,
    /// Goals against a bucket that syncs always, and against one that does not.
    goals: (Option<Goal>, Option<Goal>),
}

const SMALL: usize = 128;
const LARGE: usize = 4_096;

const CASES: [Case; 6] = [
    Case { in_flight: 256, value_bytes: SMALL, operations: 1, goals: (at_least(7.0), at_least(0.5)) },
    Case { in_flight: 1_024, value_bytes: SMALL, operations: 1, goals: (at_least(10.0), None) },
    Case { in_flight: 256, value_bytes: LARGE, operations: 1, goals: (None, None) },
    Case { in_flight: 1_024, value_bytes: LARGE, operations: 1, goals: (None, None) },
    Case { in_flight: 256, value_bytes: SMALL, operations: 10, goals: (None, at_least(1.0)) },
    Case { in_flight: 256, value_bytes: LARGE, operations: 10, goals: (None, None) },
];

const ALWAYS: &str = "NATS KV, always";
const DEFAULT: &str = "NATS KV, default";
const RAW: &str = "JetStream, default";
const REDIS: &str = "Redis, AOF always";
const ETCD: &str = "etcd";
const CLUSTER: &str = "NATS KV R3, always";

const fn at_least(ratio: f64) -> Option<Goal> {
    Some(Goal::AtLeast(ratio))
}

/// On one machine.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    for case in &CASES {
        one(lab, case).await?;
    }
    by_library(lab).await
}

async fn one(lab: &mut Lab, case: &Case) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles, scale.keys, case.value_bytes);
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let (default, always) = (lab.peer(SyncInterval::Default).await?, lab.peer(SyncInterval::Always).await?);
    let (servers, operations) = (ours.servers(), case.operations);
    let mut in_bulks =
        Drive::new(Saving::open(&servers, keys.clone(), operations, Until::Receipt).await?.in_bulks(), 0)?;
    // How they are sent shows most for small changes of one operation. Of large values the disk decides.
    let mut besides = match (case.value_bytes, case.operations) {
        (LARGE, _) | (_, 2..) => None,
        _ => Some((
            Drive::new(Saving::open(&servers, keys.clone(), operations, Until::Receipt).await?, 0)?,
            Drive::new(Asking::open(&default.servers(), None, RawPublish(keys.clone())).await?, 0)?,
        )),
    };
    let mut kv_default = Drive::new(Asking::open(&default.servers(), None, KvPut(keys.clone())).await?, 0)?;
    let mut kv_always = Drive::new(Asking::open(&always.servers(), None, KvPut(keys)).await?, 0)?;
    let (mut bulks, mut singles) = (Race::default(), Race::default());
    for _ in 0..scale.pairs {
        let changes = in_bulks.closed(case.in_flight, scale.duration).await?;
        bulks.ours(changes.per_second * operations as f64);
        let always = kv_always.closed(case.in_flight, scale.duration).await?.per_second;
        let default = kv_default.closed(case.in_flight, scale.duration).await?.per_second;
        if let Some((singly, raw)) = &mut besides {
            let changes = singly.closed(case.in_flight, scale.duration).await?;
            singles.ours(changes.per_second * operations as f64);
            bulks.peer(RAW, raw.closed(case.in_flight, scale.duration).await?.per_second);
        }
        for race in [&mut bulks, &mut singles] {
            race.peer(ALWAYS, always);
            race.peer(DEFAULT, default);
        }
    }
    let name = case.name();
    for (peer, goal) in [(ALWAYS, case.goals.0), (DEFAULT, case.goals.1)] {
        lab.found(bulks.against(&name, peer, "op/s", goal));
    }
    if besides.is_some() {
        lab.found(bulks.against(&name, RAW, "op/s", None));
        for peer in [ALWAYS, DEFAULT] {
            lab.found(singles.against(&format!("{name}, singly"), peer, "op/s", None));
        }
    }
    ours.stop().await?;
    Ok(())
}

/// By the client libraries.
async fn by_library(lab: &mut Lab) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles, scale.keys, 128);
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let (default, always) = (lab.peer(SyncInterval::Default).await?, lab.peer(SyncInterval::Always).await?);
    let mut put = Drive::new(
        Calling::new(RoamClient::connect(ClientSettings::at(&ours.servers()[0]), keys.clone(), Verb::Put).await?),
        0,
    )?;
    let mut kv_default =
        Drive::new(Calling::new(KvClient::connect(&default.servers()[0], keys.clone(), Verb::Put).await?), 0)?;
    let mut kv_always =
        Drive::new(Calling::new(KvClient::connect(&always.servers()[0], keys.clone(), Verb::Put).await?), 0)?;
    let redis = Redis::start(&lab.directory("redis")).await?;
    let mut redis = match &redis {
        Some(redis) => Some(Drive::new(Calling::new(redis.client(keys.clone(), Verb::Put).await?), 0)?),
        None => None,
    };
    let etcd = Etcd::start(&lab.directory("etcd")).await?;
    let mut etcd = match &etcd {
        Some(etcd) => Some(Drive::new(Calling::new(etcd.client(keys, Verb::Put).await?), 0)?),
        None => None,
    };
    for in_flight in [256, 1_024] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(put.closed(in_flight, scale.duration).await?.per_second);
            race.peer(ALWAYS, kv_always.closed(in_flight, scale.duration).await?.per_second);
            race.peer(DEFAULT, kv_default.closed(in_flight, scale.duration).await?.per_second);
            if let Some(redis) = &mut redis {
                race.peer(REDIS, redis.closed(in_flight, scale.duration).await?.per_second);
            }
            if let Some(etcd) = &mut etcd {
                race.peer(ETCD, etcd.closed(in_flight, scale.duration).await?.per_second);
            }
        }
        let name = format!("put by library, {in_flight} in flight");
        for peer in [ALWAYS, DEFAULT, REDIS, ETCD] {
            lab.found(race.against(&name, peer, "op/s", None));
        }
    }
    ours.stop().await?;
    Ok(())
}

/// Over three servers that sync always.
pub(crate) async fn cluster(lab: &mut Lab) -> anyhow::Result<()> {
    let (scale, in_flight) = (lab.scale, 256);
    let keys = Keys::new(scale.profiles, scale.keys, 128);
    let ours = Services::over_three(&lab.directory("roam-three")).await?;
    let cluster = Cluster::start(&lab.directory("nats-three")).await?;
    let servers = cluster.client_urls();
    let bus = connect(&servers, None).await?;
    make_bucket(&bus, 3).await?;
    bus.close().await;
    let mut in_bulks = Drive::new(Saving::open(ours.servers(), keys.clone(), 1, Until::Receipt).await?.in_bulks(), 0)?;
    let mut singly = Drive::new(Saving::open(ours.servers(), keys.clone(), 1, Until::Receipt).await?, 0)?;
    let mut kv = Drive::new(Asking::open(&servers, None, KvPut(keys)).await?, 0)?;
    let (mut bulks, mut singles) = (Race::default(), Race::default());
    for _ in 0..scale.pairs {
        bulks.ours(in_bulks.closed(in_flight, scale.duration).await?.per_second);
        let peer = kv.closed(in_flight, scale.duration).await?.per_second;
        singles.ours(singly.closed(in_flight, scale.duration).await?.per_second);
        for race in [&mut bulks, &mut singles] {
            race.peer(CLUSTER, peer);
        }
    }
    lab.found(bulks.against("save R3, 256 in flight, 128 B", CLUSTER, "op/s", at_least(0.45)));
    lab.found(singles.against("save R3, 256 in flight, 128 B, singly", CLUSTER, "op/s", None));
    Ok(())
}

impl Case {
    fn name(&self) -> String {
        let Self { in_flight, value_bytes, operations, .. } = self;
        let ops = if *operations == 1 { String::new() } else { format!(" x {operations}") };
        format!("save, {in_flight} in flight, {value_bytes} B{ops}")
    }
}
