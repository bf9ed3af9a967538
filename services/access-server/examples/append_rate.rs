//! Measures one access server alone: fills ROAM_CHANGES first, then starts the server and takes the time until all is in
//! the journal. Prints changes a second, the processor time a change (of this process, which holds nothing else but an
//! announcer of a few batches), and the size of the batches. Needs a nats-server, found as tests find it.
//!
//! `cargo run --release -p roam-access-server --example append_rate`

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_access_server::{Settings, run};
use roam_nats::{
    ANNOUNCE_DURABLE, Bus, BusSettings, CHANGES_STREAM, Deployment, Headers, JOURNAL_STREAM, NatsServer,
    PinnedDeliveries, PublishSettings, Publisher, ServerSettings, SyncInterval, provision, stream_state,
};
use roam_process::Context;
use roam_schemas::{
    App, Change, ChangeId, ContentType, Device, Encoding, Key, Operation, Profile, Tenant, User, encode, subjects,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Below what ROAM_CHANGES holds.
const CHANGES: usize = 55_000;
const DEVICES: usize = 256;
const VALUE_BYTES: usize = 128;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("append_rate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
    let server = NatsServer::start(settings).await?;
    let bus_settings = BusSettings::at(server.client_url());
    let bus = Bus::connect(&bus_settings, "append_rate").await?;
    provision(&bus, &Deployment::new(1, 1)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(announce(PinnedDeliveries::open(&bus, JOURNAL_STREAM, ANNOUNCE_DURABLE, 256).await?));
    for encoding in [Encoding::Postcard, Encoding::Json] {
        for _ in 0..ROUNDS {
            fill(&bus, encoding).await?;
            drain(&bus, &bus_settings, encoding).await?;
        }
    }
    Ok(())
}

async fn announce(mut journal: PinnedDeliveries) {
    while let Ok(delivery) = journal.next().await {
        delivery.ack();
    }
}

async fn fill(bus: &Bus, encoding: Encoding) -> Result<()> {
    let publisher = Publisher::new(bus, PublishSettings::default());
    let mut pending = FuturesUnordered::new();
    for index in 0..CHANGES {
        let headers = Headers::new().with_content_type(encoding);
        let payload = encode(&change(index)?, encoding)?.into();
        pending.push(publisher.publish(subject(index % DEVICES)?, headers, payload).await);
        while pending.len() >= 512 {
            pending.next().await.transpose()?;
        }
    }
    while pending.next().await.transpose()?.is_some() {}
    Ok(())
}

fn subject(device: usize) -> Result<String> {
    let (tenant, user) = (Tenant::parse("acme")?, User::parse(format!("user-{}@example.com", device / 4))?);
    let profile = Profile { tenant, user, app: App::parse("mail")? };
    Ok(subjects::change(&profile, &Device::parse(&format!("device-{device}"))?))
}

fn change(index: usize) -> Result<Change> {
    let op = Operation::put(Key::parse(format!("settings/{index}"))?, vec![b'v'; VALUE_BYTES], ContentType::text());
    Ok(Change::new(ChangeId::random(), None, vec![op])?)
}

async fn drain(bus: &Bus, bus_settings: &BusSettings, encoding: Encoding) -> Result<()> {
    let context = Context::new(Duration::from_secs(10));
    context.metrics.register_process();
    let mut server = JoinSet::new();
    let (begun, used) = (Instant::now(), read(&context, "process_cpu_seconds_total")?);
    server.spawn(run(Settings { bus: bus_settings.clone(), ..Settings::default() }, context.clone()));
    while stream_state(bus, CHANGES_STREAM).await?.messages > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let (took, used) = (begun.elapsed(), read(&context, "process_cpu_seconds_total")? - used);
    let batches = read(&context, "roam_access_server_batch_changes_count")?;
    context.shutdown.cancel();
    server.join_next().await.context("the server has a task")???;
    let changes = CHANGES as f64;
    println!(
        "{encoding:?}: {:.0} changes/s, {:.1} us of processor time a change, {:.0} changes a batch",
        changes / took.as_secs_f64(),
        used * 1e6 / changes,
        changes / batches
    );
    Ok(())
}

fn read(context: &Context, name: &str) -> Result<f64> {
    let text = context.metrics.encode()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("there is no {name}"))?;
    Ok(line.trim().parse()?)
}
