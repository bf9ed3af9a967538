//! Measures this crate against a nats-server of its own: requests, publishing, deliveries with acks, reading a journal.
//! Prints one line each; nothing here is a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use roam_nats::{
    Bus, BusSettings, Deliveries, EndpointSpec, Headers, JournalReader, NatsServer, PublishSettings, Publisher,
    PullSettings, ServerSettings, Service, ServiceSpec, SyncInterval,
};
use roam_schemas::Encoding;
use tokio::task::JoinSet;

const MESSAGES: usize = 300_000;
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = ServerSettings { sync: SyncInterval::Default, ..ServerSettings::new(dir.path()) };
    let server = NatsServer::start(settings).await?;
    let bus = Bus::connect(&BusSettings::at(server.client_url()), "throughput").await?;
    api(&bus, "STREAM.CREATE.S", r#"{"name":"S","subjects":["S.>"],"storage":"file"}"#).await?;
    let durable =
        r#"{"stream_name":"S","config":{"durable_name":"d","ack_policy":"explicit","max_ack_pending":20000}}"#;
    api(&bus, "CONSUMER.CREATE.S.d", durable).await?;

    publish(&bus).await?;
    consume(&bus).await?;
    journal(&bus).await?;
    requests(&bus, &Bus::connect(&BusSettings::at(server.client_url()), "responder").await?).await
}

async fn api(bus: &Bus, subject: &str, body: &'static str) -> anyhow::Result<()> {
    let answer = bus.request(format!("$JS.API.{subject}"), Headers::new(), Bytes::from(body), WITHIN).await?;
    anyhow::ensure!(!answer.payload.escape_ascii().to_string().contains("error"), "{}", answer.payload.escape_ascii());
    Ok(())
}

async fn publish(bus: &Bus) -> anyhow::Result<()> {
    let publisher = Publisher::new(bus, PublishSettings::default());
    let payload = Bytes::from(vec![b'x'; 128]);
    let clock = Clock::start("publishes with a PubAck, window 512");
    let mut acks = FuturesUnordered::new();
    for number in 0..MESSAGES {
        let headers = Headers::new().with_content_type(Encoding::Postcard);
        acks.push(publisher.publish(format!("S.{}", number % 100), headers, payload.clone()).await);
        while acks.len() > 400 {
            acks.next().await.transpose()?;
        }
    }
    while acks.next().await.transpose()?.is_some() {}
    clock.stop();
    Ok(())
}

async fn consume(bus: &Bus) -> anyhow::Result<()> {
    let settings = PullSettings { max_messages: 2_000, ..PullSettings::default() };
    let mut deliveries = Deliveries::open(bus, "S", "d", settings).await?;
    let clock = Clock::start("deliveries, each acked, in batches");
    let (mut seen, mut batches) = (0, 0);
    while seen < MESSAGES {
        let batch = deliveries.next_ready(1_000, 512 * 1024).await?;
        seen += batch.len();
        batches += 1;
        for delivery in batch {
            delivery.ack();
        }
    }
    clock.stop();
    println!("    {} a batch", seen / batches);
    deliveries.close().await;
    Ok(())
}

async fn journal(bus: &Bus) -> anyhow::Result<()> {
    let mut reader = JournalReader::open(bus, "S", Some("S.>"), 1).await?;
    let clock = Clock::start("journal entries");
    for _ in 0..MESSAGES {
        reader.next().await?;
    }
    clock.stop();
    Ok(())
}

async fn requests(asker: &Bus, responder: &Bus) -> anyhow::Result<()> {
    let endpoint = EndpointSpec { name: "echo".to_owned(), subject: "echo.*".to_owned(), queue_group: "g".to_owned() };
    let spec = ServiceSpec {
        name: "echo".to_owned(),
        version: "0.0.1".to_owned(),
        description: String::new(),
        endpoints: vec![endpoint],
    };
    let (service, mut requests) = Service::start(responder, spec).await?;
    responder.round_trip(WITHIN).await?;
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while let Some(request) = requests.next().await {
            let payload = request.payload.clone();
            let headers = Headers::new().with_content_type(Encoding::Postcard);
            request.respond(headers, payload).await.unwrap();
        }
    });
    let payload = Bytes::from(vec![b'x'; 128]);
    let ask = || {
        let headers = Headers::new().with_content_type(Encoding::Postcard);
        asker.request("echo.x".to_owned(), headers, payload.clone(), WITHIN)
    };
    let clock = Clock::start("requests, 256 in flight");
    let mut asked: FuturesUnordered<_> = (0..256).map(|_| ask()).collect();
    for _ in 0..MESSAGES - 256 {
        asked.next().await.transpose()?;
        asked.push(ask());
    }
    while asked.next().await.transpose()?.is_some() {}
    clock.stop();
    service.stop();
    answering.join_all().await;
    Ok(())
}

struct Clock {
    what: &'static str,
    started: Instant,
    cpu: Duration,
}

impl Clock {
    fn start(what: &'static str) -> Self {
        Self { what, started: Instant::now(), cpu: cpu() }
    }

    fn stop(self) {
        let (took, cpu) = (self.started.elapsed(), cpu() - self.cpu);
        let messages = f64::from(u32::try_from(MESSAGES).unwrap());
        println!(
            "{:>8.0}/s  {:>5.2} us of our CPU each  {}",
            messages / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / messages,
            self.what
        );
    }
}

/// The processor time of this process, in the ticks of 10 ms that Linux counts in.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
