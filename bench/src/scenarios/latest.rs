//! Reading single records, beside a bucket and beside the least that any answer over NATS costs.

use roam_client::ClientSettings;
use roam_nats::SyncInterval;

use super::load;
use crate::{
    asking::Asking,
    calling::{Calling, KvClient, RoamClient, Verb},
    drive::Drive,
    jetstream::{Echo, EchoServer, KvGet},
    keys::Keys,
    lab::Lab,
    others::{Etcd, Redis},
    report::{Goal, Race},
    roam::{Names, Point},
    system::OneMachine,
};

const KV: &str = "NATS KV get";
const REDIS: &str = "Redis";
const ETCD: &str = "etcd";
const ECHO: &str = "NATS echo";

/// Points at 1, 16 and 256 in flight.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles, scale.keys, 128);
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let peer = lab.peer(SyncInterval::Default).await?;
    load::into_roam(&ours.servers(), &keys).await?;
    load::into_bucket(&peer.servers(), &keys).await?;
    let _serving = EchoServer::start(peer.bus()).await?;
    let inbox = Names::new(1)?.inbox_prefix();
    let mut point = Drive::new(Asking::open(&ours.servers(), Some(inbox), Point::new(keys.clone())?).await?, 0)?;
    let mut get = Drive::new(Asking::open(&peer.servers(), None, KvGet(keys.clone())).await?, 0)?;
    let mut echo = Drive::new(Asking::open(&peer.servers(), None, Echo(keys.clone())).await?, 0)?;
    for in_flight in [256, 16, 1] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(point.closed(in_flight, scale.duration).await?.per_second);
            race.peer(KV, get.closed(in_flight, scale.duration).await?.per_second);
            race.peer(ECHO, echo.closed(in_flight, scale.duration).await?.per_second);
        }
        let name = format!("latest, point, {in_flight} in flight");
        let goal = |ratio| (in_flight == 256).then_some(Goal::AtLeast(ratio));
        lab.found(race.against(&name, KV, "1/s", goal(1.8)));
        lab.found(race.against(&name, ECHO, "1/s", goal(0.75)));
    }
    by_library(lab, &ours.servers()[0], &peer.servers()[0], keys).await?;
    ours.stop().await?;
    Ok(())
}

/// By the client libraries.
async fn by_library(lab: &mut Lab, ours: &str, peer: &str, keys: Keys) -> anyhow::Result<()> {
    let scale = lab.scale;
    let mut get =
        Drive::new(Calling::new(RoamClient::connect(ClientSettings::at(ours), keys.clone(), Verb::Get).await?), 0)?;
    let mut kv = Drive::new(Calling::new(KvClient::connect(peer, keys.clone(), Verb::Get).await?), 0)?;
    let redis = Redis::start(&lab.directory("redis")).await?;
    let mut redis = match &redis {
        Some(redis) => {
            let mut put = Drive::new(Calling::new(redis.client(keys.clone(), Verb::Put).await?), 0)?;
            put.run(keys.records(), 512).await?;
            Some(Drive::new(Calling::new(redis.client(keys.clone(), Verb::Get).await?), 0)?)
        }
        None => None,
    };
    let etcd = Etcd::start(&lab.directory("etcd")).await?;
    let mut etcd = match &etcd {
        Some(etcd) => {
            let mut put = Drive::new(Calling::new(etcd.client(keys.clone(), Verb::Put).await?), 0)?;
            put.run(keys.records(), 512).await?;
            Some(Drive::new(Calling::new(etcd.client(keys, Verb::Get).await?), 0)?)
        }
        None => None,
    };
    for in_flight in [256, 1] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(get.closed(in_flight, scale.duration).await?.per_second);
            race.peer(KV, kv.closed(in_flight, scale.duration).await?.per_second);
            if let Some(redis) = &mut redis {
                race.peer(REDIS, redis.closed(in_flight, scale.duration).await?.per_second);
            }
            if let Some(etcd) = &mut etcd {
                race.peer(ETCD, etcd.closed(in_flight, scale.duration).await?.per_second);
            }
        }
        for peer in [KV, REDIS, ETCD] {
            lab.found(race.against(&format!("get by library, {in_flight} in flight"), peer, "1/s", None));
        }
    }
    Ok(())
}
