//! The servers of a site: one, or a cluster of three, and what an operator asks of them and does to them.

use std::{fmt, net::SocketAddr, path::Path, slice, time::Duration};

use anyhow::{Context, Result, ensure};
use roam_client::BusSettings;
use roam_nats::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, Bus, Cluster, ConsumerState, Deployment, Headers, JOURNAL_STREAM, NatsServer,
    SecurityConf, ServerSettings, StreamState, SyncInterval, changes_stream, consumer_state, journal_stream, provision,
    repair_consumers, stream_state,
};
use roam_schemas::Shard;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Plan, Shape};
use crate::link::Link;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a cluster may be without a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Where servers of a cluster say that they are: nobody is there.
const NOWHERE: &str = "127.0.0.1:9";

/// The servers.
#[derive(Debug)]
pub(crate) enum Servers {
    One(Box<NatsServer>),
    Three(Cluster),
}

/// What waits for access servers and for the announcer of a shard.
#[derive(Debug)]
pub(crate) struct Backlog {
    changes: StreamState,
    access: ConsumerState,
    announce: ConsumerState,
}

impl Backlog {
    /// Whether all is worked off. A server that was killed may hold a message on that was acked, of which it gives nobody a
    /// copy any more (seen: all delivered and acked to 4,000, and message 1,515 still there).
    pub(crate) fn is_none(&self) -> bool {
        [&self.access, &self.announce].iter().all(|consumer| consumer.pending + consumer.unacked == 0)
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, access, announce } = self;
        write!(
            f,
            "{} changes, from sequence {} of {} (delivered to {}, acked to {}, {} unacked, {} pending), and {} batches",
            changes.messages,
            changes.first_sequence,
            changes.last_sequence,
            access.delivered,
            access.ack_floor,
            access.unacked,
            access.pending,
            announce.pending + announce.unacked
        )
    }
}

/// What goes over the routes that one server of a cluster makes to another.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) link: Link,
}

/// Starts the servers. Those of a cluster reach each other over links, and in no other way.
pub(super) async fn start(plan: &Plan, dir: &Path) -> Result<(Servers, Vec<Route>)> {
    if plan.shape == Shape::Cluster {
        // Clients that are told of all servers would go around their links, and so would servers.
        let conf = SecurityConf { text: String::new(), tls: false, routes: "    no_advertise: true\n".to_owned() };
        let mut made = Ok(Vec::new());
        let routes = async |listening: &[SocketAddr]| {
            made = routes(listening).await;
            let of = |from| made.iter().flatten().filter(move |route| route.from == from);
            (0..listening.len()).map(|from| of(from).map(|route| route.link.url()).collect()).collect()
        };
        let cluster = Cluster::start_through(dir, Some(&conf), Some(NOWHERE), routes).await?;
        return Ok((Servers::Three(cluster), made?));
    }
    let sync = if plan.shape == Shape::Lazy { SyncInterval::Default } else { SyncInterval::Always };
    let settings = ServerSettings {
        sync,
        shards: plan.shape.shards(),
        ready_within: Duration::from_secs(30),
        ..ServerSettings::new(dir.join("nats"))
    };
    Ok((Servers::One(Box::new(NatsServer::start(settings).await?)), Vec::new()))
}

async fn routes(listening: &[SocketAddr]) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for from in 0..listening.len() {
        for (to, address) in listening.iter().enumerate().filter(|(to, _)| *to != from) {
            routes.push(Route { from, to, link: Link::to(&format!("nats://{address}")).await? });
        }
    }
    Ok(routes)
}

impl Servers {
    pub(crate) fn all(&mut self) -> &mut [NatsServer] {
        match self {
            Self::One(server) => slice::from_mut(server),
            Self::Three(cluster) => cluster.servers(),
        }
    }

    fn urls(&self) -> Vec<String> {
        match self {
            Self::One(server) => vec![server.client_url()],
            Self::Three(cluster) => cluster.client_urls(),
        }
    }

    /// A link to each.
    pub(crate) async fn links(&self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for url in self.urls() {
            links.push(Link::to(&url).await?);
        }
        Ok(links)
    }

    pub(crate) fn bus_settings(&self) -> BusSettings {
        BusSettings { servers: self.urls(), ..BusSettings::default() }
    }

    /// A connection of an operator.
    pub(crate) async fn operator(&self) -> Result<Bus> {
        let settings =
            BusSettings { inbox_prefix: Some(roam_schemas::subjects::operator_inbox()), ..self.bus_settings() };
        Ok(Bus::connect(&settings, "roam-faults operator").await?)
    }

    /// Makes what is missing. A cluster may need a moment to find its leader.
    pub(crate) async fn provision(&self, deployment: &Deployment) -> Result<()> {
        let until = Instant::now() + LEADER_WITHIN;
        let bus = self.operator().await?;
        loop {
            match provision(&bus, deployment).await {
                Ok(_) => break,
                Err(error) if Instant::now() > until => return Err(error).context("provisioning"),
                Err(_) => sleep(PAUSE).await,
            }
        }
        bus.close().await;
        Ok(())
    }

    /// As `roam up` does after it has made streams.
    pub(crate) async fn sync_to_disk(&mut self) -> Result<()> {
        for server in self.all() {
            server.sync_to_disk().await.context("the disk of a server cannot be synced")?;
        }
        Ok(())
    }

    /// Sets back durables that stand ahead of their streams.
    pub(crate) async fn repair(&self) -> Result<()> {
        let until = Instant::now() + LEADER_WITHIN;
        let bus = self.operator().await?;
        loop {
            match repair_consumers(&bus).await {
                Ok(_) => break,
                Err(error) if Instant::now() > until => return Err(error).context("repairing durables"),
                Err(_) => sleep(PAUSE).await,
            }
        }
        bus.close().await;
        Ok(())
    }

    /// What is not worked off in a shard.
    pub(crate) async fn backlog(&self, shard: Shard) -> Result<Backlog> {
        let bus = self.operator().await?;
        let (stream, journal) = (changes_stream(shard), journal_stream(shard));
        let changes = stream_state(&bus, &stream).await?;
        let access = consumer_state(&bus, &stream, ACCESS_DURABLE).await?;
        let announce = consumer_state(&bus, &journal, ANNOUNCE_DURABLE).await?;
        bus.close().await;
        Ok(Backlog { changes, access, announce })
    }

    /// Asks JetStream for something, which it must not refuse.
    pub(crate) async fn ask(&self, subject: &str) -> Result<Value> {
        let bus = self.operator().await?;
        let answer = bus.request(subject.to_owned(), Headers::new(), "{}".into(), ANSWER_WITHIN).await?;
        bus.close().await;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer.get("error").is_none(), "{subject}: {}", answer["error"]);
        Ok(answer)
    }

    /// Which server leads the journal, by its place.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{JOURNAL_STREAM}")).await?;
        let name = info["cluster"]["leader"].as_str().context("the journal has no leader")?;
        let number: usize = name.trim_start_matches("nats-").parse()?;
        Ok(number - 1)
    }
}
