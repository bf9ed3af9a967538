//! Where measurements are made: how large they are, where the systems keep their data, and what was found so far.

use std::{path::PathBuf, time::Duration};

use roam_nats::{BusSettings, NatsServer, ServerSettings, SyncInterval};
use tempfile::TempDir;

use crate::{
    asking::connect,
    cli::Options,
    jetstream,
    plot::Figure,
    report::{Report, Row},
};

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Pairs of ours and a peer's.
    pub(crate) pairs: u32,
    /// How long one measurement takes.
    pub(crate) duration: Duration,
    /// Over how many profiles records are spread, and how many each holds.
    pub(crate) profiles: u64,
    pub(crate) keys: u64,
    /// How many records the one large profile holds.
    pub(crate) large_profile: u64,
    /// How many other profiles there are beside it.
    pub(crate) others: u64,
    /// At how many records the growth is looked at.
    pub(crate) growth: &'static [u64],
    /// How many devices watch, and how many are connected and idle.
    pub(crate) watching: usize,
    pub(crate) idle: usize,
    /// Whether goals count.
    pub(crate) goals: bool,
}

/// The place and the findings.
pub(crate) struct Lab {
    pub(crate) scale: Scale,
    pub(crate) report: Report,
    pub(crate) figures: Vec<Figure>,
    place: TempDir,
    systems: u32,
}

/// A nats-server of a peer, with a bucket.
#[derive(Debug)]
pub(crate) struct Peer {
    server: NatsServer,
}

impl Scale {
    /// As the options say.
    pub(crate) fn new(options: &Options) -> Self {
        let usual = Self {
            pairs: options.pairs.unwrap_or(5),
            duration: Duration::from_millis(options.millis.unwrap_or(1_000)),
            profiles: 64,
            keys: 1_000,
            large_profile: 50_000,
            others: 10_000,
            growth: &[10_000, 1_000_000],
            watching: 1_000,
            idle: 10_000,
            goals: true,
        };
        if options.full {
            return Self { growth: &[10_000, 1_000_000, 10_000_000], ..usual };
        }
        if options.quick {
            let duration = Duration::from_millis(options.millis.unwrap_or(100));
            let (large_profile, growth) = (5_000, [1_000, 10_000].as_slice());
            let others = 100;
            return Self {
                pairs: options.pairs.unwrap_or(1),
                duration,
                keys: 100,
                large_profile,
                others,
                growth,
                watching: 50,
                idle: 500,
                goals: false,
                ..usual
            };
        }
        usual
    }
}

impl Lab {
    /// An empty one. What is put into it goes when it is dropped.
    pub(crate) fn new(scale: Scale) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("roam-bench-").tempdir()?;
        Ok(Self { scale, report: Report::default(), figures: Vec::new(), place, systems: 0 })
    }

    /// A directory for one more system.
    pub(crate) fn directory(&mut self, name: &str) -> PathBuf {
        self.systems += 1;
        self.place.path().join(format!("{}-{name}", self.systems))
    }

    /// Keeps a line and shows it.
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    pub(crate) fn found(&mut self, row: impl Into<Option<Row>>) {
        let Some(mut row) = row.into() else { return };
        if !self.scale.goals {
            (row.goal, row.holds) = (None, None);
        }
        println!("{row}");
        self.report.rows.push(row);
    }

    /// Starts a nats-server with an empty bucket.
    pub(crate) async fn peer(&mut self, sync: SyncInterval) -> anyhow::Result<Peer> {
        let settings = ServerSettings { sync, ..ServerSettings::new(self.directory("nats")) };
        let server = NatsServer::start(settings).await?;
        let bus = connect(&[server.client_url()], None).await?;
        jetstream::make_bucket(&bus, 1).await?;
        jetstream::make_raw_stream(&bus).await?;
        bus.close().await;
        Ok(Peer { server })
    }
}

impl Peer {
    /// Where clients connect.
    pub(crate) fn servers(&self) -> Vec<String> {
        vec![self.server.client_url()]
    }

    /// The same as settings.
    pub(crate) fn bus(&self) -> BusSettings {
        BusSettings::at(self.server.client_url())
    }

    /// How many bytes of memory it holds.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.server.pid().and_then(|pid| i32::try_from(pid).ok());
        crate::child::resident(anyhow::Context::context(pid, "the server does not run")?)
    }
}
