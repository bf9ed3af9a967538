//! What security costs: reading with a token over TLS beside reading without either, and each apart: tokens and permissions
//! without encryption, and encryption for an echo, which is what nats-server itself pays for it. Then signing in, and a thousand
//! devices that come back at once.

use std::{path::Path, time::Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use roam_client::ClientSettings;
use roam_nats::{Bus, BusSettings, NatsServer, SecurityConf, ServerSettings};

use crate::{
    asking::{Asking, connect_by},
    calling::{Calling, RoamClient, Verb},
    drive::Drive,
    jetstream::{Echo, EchoServer},
    keys::Keys,
    lab::Lab,
    report::{Goal, Race},
    roam::{Names, Point},
    system::{OneMachine, Services},
};

const PLAIN: &str = "without security";
const WITHOUT_TLS: &str = "without TLS";
/// How many devices ask at once, each for one record at a time.
const DEVICES: usize = 256;
/// How many sign in one after the other in each measurement.
const SIGN_INS: usize = 100;

/// Points at 256 and at 1 in flight, and connections.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let keys = Keys::new(lab.scale.profiles, lab.scale.keys, 128);
    let directory = lab.directory("secure");
    let (secure, bus) = OneMachine::start_secure(&directory).await?;
    let plain = OneMachine::start(&lab.directory("plain")).await?;
    let without = BusSettings::at(plain.servers().remove(0));
    gets(lab, "secured get", &bus, &without, &keys).await?;
    devices(lab, (&secure, &bus), &without, &keys).await?;
    plain.stop().await?;
    sign_in(lab, &bus).await?;
    secure.stop().await?;

    let (_tokens, bus) = Services::with_tokens(&lab.directory("tokens")).await?;
    let plain = Services::over_one(1, &lab.directory("plain")).await?;
    let without = BusSettings { servers: plain.servers().to_vec(), ..BusSettings::default() };
    gets(lab, "get with token, no TLS", &bus, &without, &keys).await?;
    echo(lab, &OneMachine::keys(&directory), keys).await
}

/// Points of both, by the client library.
async fn gets(lab: &mut Lab, name: &str, secure: &BusSettings, plain: &BusSettings, keys: &Keys) -> anyhow::Result<()> {
    let scale = lab.scale;
    let client = async |bus: &BusSettings, verb| {
        let settings = ClientSettings { bus: bus.clone(), ..ClientSettings::default() };
        Drive::new(Calling::new(RoamClient::connect(settings, keys.clone(), verb).await?), 0)
    };
    for side in [secure, plain] {
        client(side, Verb::Put).await?.run(keys.records(), 512).await?;
    }
    let (mut get, mut plain_get) = (client(secure, Verb::Get).await?, client(plain, Verb::Get).await?);
    for in_flight in [256, 1] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(get.closed(in_flight, scale.duration).await?.per_second);
            race.peer(PLAIN, plain_get.closed(in_flight, scale.duration).await?.per_second);
        }
        let goal = (in_flight == 256).then_some(Goal::AtLeast(0.9));
        lab.found(race.against(&format!("{name}, {in_flight} in flight"), PLAIN, "1/s", goal));
    }
    Ok(())
}

/// Points as devices ask for them, each over a connection of its own with a token of its own user.
async fn devices(
    lab: &mut Lab,
    (system, secure): (&OneMachine, &BusSettings),
    plain: &BusSettings,
    keys: &Keys,
) -> anyhow::Result<()> {
    let (scale, names) = (lab.scale, Names::new(keys.profiles)?);
    let fleet = async |users: Vec<BusSettings>| {
        let connect = users.iter().cycle().take(DEVICES).map(connect_by);
        Drive::new(Asking::over_each(try_join_all(connect).await?, Point::new(keys.clone())?).await?, 0)
    };
    let service = BusSettings { token_file: None, ..secure.clone() };
    let mut ours = fleet(system.devices(&service, &names).await?).await?;
    let mut peer = fleet(names.devices(plain)?).await?;
    let mut race = Race::default();
    for _ in 0..scale.pairs {
        race.ours(ours.closed(DEVICES, scale.duration).await?.per_second);
        race.peer(PLAIN, peer.closed(DEVICES, scale.duration).await?.per_second);
    }
    lab.found(race.against(&format!("secured latest, {DEVICES} devices"), PLAIN, "1/s", None));
    Ok(())
}

/// An echo over TLS beside one without, with the certificates of a secure system: no service can be nearer to what it is without
/// TLS than one that does nothing.
async fn echo(lab: &mut Lab, certificates: &Path, keys: Keys) -> anyhow::Result<()> {
    let scale = lab.scale;
    let file = |name: &str| certificates.join(name);
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let text = format!(
        "\ntls {{ cert_file: \"{}\", key_file: \"{}\", min_version: \"1.3\" }}\n",
        certificate.display(),
        key.display()
    );
    let security = Some(SecurityConf { text, tls: true, routes: String::new() });
    let encrypted = NatsServer::start(ServerSettings { security, ..ServerSettings::new(lab.directory("tls")) }).await?;
    let plain = NatsServer::start(ServerSettings::new(lab.directory("nats"))).await?;
    let over_tls = BusSettings { ca: Some(file("ca.pem")), tls: true, ..BusSettings::at(encrypted.client_url()) };
    let without = BusSettings::at(plain.client_url());
    let _serving = [EchoServer::start(over_tls.clone()).await?, EchoServer::start(without.clone()).await?];
    let mut ours = Drive::new(Asking::over(connect_by(&over_tls).await?, Echo(keys.clone())).await?, 0)?;
    let mut peer = Drive::new(Asking::over(connect_by(&without).await?, Echo(keys)).await?, 0)?;
    for in_flight in [256, 1] {
        let mut race = Race::default();
        for _ in 0..scale.pairs {
            race.ours(ours.closed(in_flight, scale.duration).await?.per_second);
            race.peer(WITHOUT_TLS, peer.closed(in_flight, scale.duration).await?.per_second);
        }
        lab.found(race.against(&format!("NATS echo over TLS, {in_flight} in flight"), WITHOUT_TLS, "1/s", None));
    }
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
