//! What security costs: reading with a token over TLS beside reading without either, signing in, and a thousand devices that come
//! back at once.

use std::time::Instant;

use anyhow::Context;
use futures_util::future::try_join_all;
use roam_client::ClientSettings;
use roam_nats::{Bus, BusSettings};

use crate::{
    calling::{Calling, RoamClient, Verb},
    drive::Drive,
    keys::Keys,
    lab::Lab,
    report::{Goal, Race},
    roam::Names,
    system::OneMachine,
};

const PLAIN: &str = "without security";
/// How many sign in one after the other in each measurement.
const SIGN_INS: usize = 100;

/// Points at 256 and at 1 in flight, and connections.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let scale = lab.scale;
    let keys = Keys::new(scale.profiles, scale.keys, 128);
    let (secure, bus) = OneMachine::start_secure(&lab.directory("secure")).await?;
    let plain = OneMachine::start(&lab.directory("plain")).await?;
    let settings = || ClientSettings { bus: bus.clone(), ..ClientSettings::default() };
    let without = || ClientSettings::at(plain.servers().remove(0));
    for side in [settings(), without()] {
        let mut put = Drive::new(Calling::new(RoamClient::connect(side, keys.clone(), Verb::Put).await?), 0)?;
        put.run(keys.records(), 512).await?;
    }
    let mut get = Drive::new(Calling::new(RoamClient::connect(settings(), keys.clone(), Verb::Get).await?), 0)?;
    let mut plain_get = Drive::new(Calling::new(RoamClient::connect(without(), keys, Verb::Get).await?), 0)?;
    for in_flight in [256, 1] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(get.closed(in_flight, scale.duration).await?.per_second);
            race.peer(PLAIN, plain_get.closed(in_flight, scale.duration).await?.per_second);
        }
        let name = format!("secured get, {in_flight} in flight");
        let goal = (in_flight == 256).then_some(Goal::AtLeast(0.9));
        lab.found(race.against(&name, PLAIN, "1/s", goal));
    }
    sign_in(lab, &bus).await?;
    secure.stop().await?;
    plain.stop().await?;
    Ok(())
}

async fn sign_in(lab: &mut Lab, bus: &BusSettings) -> anyhow::Result<()> {
    let bus = &BusSettings { inbox_prefix: Some(Names::new(1)?.inbox_prefix()), ..bus.clone() };
    let (mut alone, mut together) = (Race::default(), Race::default());
    for _ in 0..lab.scale.pairs {
        let mut took = Vec::with_capacity(SIGN_INS);
        for _ in 0..SIGN_INS {
            let began = Instant::now();
            let bus = Bus::connect(bus, "roam-bench").await?;
            took.push(began.elapsed().as_secs_f64() * 1_000.0);
            bus.close().await;
        }
        took.sort_by(f64::total_cmp);
        alone.ours(took[SIGN_INS / 2]);
    }
    let devices = lab.scale.watching;
    let began = Instant::now();
    let connected = try_join_all((0..devices).map(|_| Bus::connect(bus, "roam-bench"))).await;
    let connected = connected.context("not all devices get in at once")?;
    together.ours(began.elapsed().as_secs_f64());
    for bus in connected {
        bus.close().await;
    }
    lab.found(alone.alone("signing in with TLS and token, p50", "ms", Some(Goal::AtMost(5.0))));
    lab.found(together.alone(&format!("{devices} devices sign in at once"), "s", None));
    Ok(())
}
