//! A replica with a large store is killed: how soon it answers `latest` again, and saves changes, once it is started again at
//! once.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use roam_client::{
    Client, ContentType, Encoding, Identity, Key, LatestRequest, Operation, ProfileClient, Select, ServiceName,
};
use roam_nats::{Bus, Headers};
use roam_schemas::{
    LatestReply, decode, encode,
    subjects::{self, Verb},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Figure, Figures, Goal, Times, ready, traffic::Traffic, until};
use crate::{
    site::{Plan, Shape, Site},
    workload::{app, owner, profile_named, tenant},
};

const KILLS: usize = 5;
const MB: u64 = 1_000_000;
/// What is loaded goes to so many users, in changes of so many records of so many bytes.
const USERS: usize = 256;
const RECORDS: usize = 100;
const RECORD_BYTES: usize = 2_000;
const AT_ONCE: usize = 8;
/// What goes on while it is killed.
const RATE: f64 = 500.0;
const CALM: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(60);
/// How long one question waits for an answer.
const ASKED_FOR: Duration = Duration::from_millis(100);

pub(super) async fn measure(times: &Times) -> Result<Vec<Figure>> {
    let usual = roam_storage::Settings::default().store.memory_mib;
    let plan = Plan { memory_mib: usual, ..Plan::new(Shape::Single, times.programs.clone()) };
    let mut site = Site::start(plan).await?;
    let directory = site.replicas[0].directory.clone().context("a replica has a directory")?;
    load(&site, &directory, times.store_mb * MB).await?;
    let traffic = Traffic::start(site.direct(), USERS).await?;
    let asking = asking(&site).await?;
    let (stop, mut offering) = (CancellationToken::new(), JoinSet::new());
    offering.spawn(traffic.clone().offer_until(RATE, stop.clone()));
    let (mut is_ready, mut answers, mut saves) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..KILLS {
        sleep(CALM).await;
        let member = &mut site.replicas[0];
        let killed = Instant::now();
        member.kill().await;
        let before = traffic.count();
        let starting = async {
            member.start().await?;
            ready(member, killed, WITHIN).await
        };
        let answering = until("latest is answered", killed, WITHIN, async || asks(&asking).await);
        let saving = until("a change is saved again", killed, WITHIN, async || {
            traffic.trips(before).iter().filter_map(|trip| trip.saved).min()
        });
        let (ready, (_, answered), (saved, _)) = tokio::try_join!(starting, answering, saving)?;
        (is_ready, answers, saves) = (is_ready.max(ready), answers.max(answered), saves.max(saved - killed));
    }
    stop.cancel();
    while let Some(offered) = offering.join_next().await {
        offered??;
    }
    traffic.come_home(WITHIN).await?;
    let mut figures = Figures::of("replica");
    figures.add("its store", "MB", (size(&directory)? / MB) as f64, Goal::None);
    figures.time("killed and started again: ready", is_ready, Goal::AtMost(2.0));
    figures.time("latest is answered", answers, Goal::AtMost(2.0));
    figures.time("the first change since has its receipt", saves, Goal::AtMost(10.0));
    Ok(figures.all)
}

/// Fills the store until its files take so many bytes.
async fn load(site: &Site, directory: &Path, bytes: u64) -> Result<()> {
    let identity = Identity::Service { tenant: tenant()?, name: ServiceName::parse("loader")? };
    let mut settings = site.client_settings(0);
    settings.bus = site.direct();
    let client = Client::connect(settings, identity).await?;
    let profiles: Vec<ProfileClient> =
        (0..USERS).map(|user| Ok(client.profile_of(owner(user)?, app()?))).collect::<Result<_>>()?;
    let mut dice = StdRng::seed_from_u64(1);
    let mut round = 0;
    // Until it is as large once what was replaced by compactions is gone, too.
    while size(directory)? < bytes || settled(directory).await? < bytes {
        let changes: Vec<_> =
            profiles.iter().map(|profile| Ok((profile, records(round, &mut dice)?))).collect::<Result<_>>()?;
        stream::iter(changes)
            .map(|(profile, ops)| async move { profile.change(ops).await.map(drop) })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        round += 1;
    }
    client.close().await;
    Ok(())
}

/// How many bytes they take after a while without writes.
async fn settled(directory: &Path) -> Result<u64> {
    sleep(CALM).await;
    size(directory)
}

fn records(round: usize, dice: &mut StdRng) -> Result<Vec<Operation>> {
    let put = |number| {
        let mut value = vec![0_u8; RECORD_BYTES];
        dice.fill(&mut value[..]);
        Ok(Operation::put(Key::parse(format!("loaded/{round}/{number}"))?, value, ContentType::octets()))
    };
    (0..RECORDS).map(put).collect()
}

/// How many bytes the files of a directory take.
fn size(directory: &Path) -> Result<u64> {
    // A file may go while it is looked at.
    let sizes = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Ok(sizes.sum())
}

async fn asking(site: &Site) -> Result<Bus> {
    let inbox = subjects::service_inbox(&tenant()?, &ServiceName::parse("reader")?);
    Ok(Bus::connect(&roam_client::BusSettings { inbox_prefix: Some(inbox), ..site.direct() }, "roam-faults reader")
        .await?)
}

/// Asks for a record that was loaded, once. None: there is no answer yet.
async fn asks(bus: &Bus) -> Option<()> {
    let request =
        LatestRequest { select: Select::Keys(vec![Key::parse("loaded/0/0").ok()?]), ..LatestRequest::default() };
    let subject = subjects::request(Verb::Latest, &profile_named(0).ok()?);
    let payload = encode(&request, Encoding::Postcard).ok()?;
    let headers = Headers::new().with_content_type(Encoding::Postcard);
    let answer = bus.request(subject, headers, payload.into(), ASKED_FOR).await.ok()?;
    let reply: LatestReply = decode(&answer.payload, Encoding::Postcard).ok()?;
    (reply.records.len() == 1).then_some(())
}
