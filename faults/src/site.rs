//! The site: one deployment of Roam as it is shipped, each part a process of its own, with links between the parts and the
//! bus and, where faults need them, disks of their own. It is started, watched over as a supervisor does it, and mended as an
//! operator does it. It breaks nothing by itself: that is what `fault` does.

mod bus;
mod member;
mod resume;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use roam_client::{BusSettings, ClientSettings};
use roam_nats::{Deployment, Overrides};
use roam_process::ProcessSettings;
use roam_schemas::{ReplicaName, Shard, Shards};
use roam_tests::{ACCESS_SERVER, Part, Program, STORAGE};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub(crate) use self::{
    bus::{Route, Servers},
    member::Member,
};
use crate::{disk::Disk, link::Link, planted};

const MIB: u64 = 1024 * 1024;
/// How large a disk of a server and of a replica is, in MiB.
const SERVER_DISK: u64 = 1_024;
const REPLICA_DISK: u64 = 512;
/// How many shards there are where there are several.
const SHARDS: u16 = 2;
/// Clients share this many lines to the bus.
pub(crate) const CLIENT_LINES: usize = 4;
const POLL: Duration = Duration::from_millis(100);
/// How long replicas may be not ready until somebody looks whether they have to be told something.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// One server that syncs always, and one replica.
    Single,
    /// The same with the server's own interval of syncing, so that a power cut costs what has no receipt.
    Lazy,
    /// Three servers, streams with three replicas that sync always, and two storage replicas.
    Cluster,
    /// One server that syncs always, and two shards with a replica each.
    Sharded,
}

/// What a site is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// Whether servers and replicas have disks of their own.
    pub(crate) disks: bool,
    /// Whether the clocks of services can be set: the library that does it.
    pub(crate) clocks: Option<PathBuf>,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
    /// The planted bug, if there is to be one.
    pub(crate) planted: Option<String>,
    /// How many access servers there are.
    pub(crate) access_servers: usize,
    /// How many changes may wait for them; none: as many as is usual.
    pub(crate) changes: Option<u64>,
    /// What caches and write buffers of a replica take, in MiB.
    pub(crate) memory_mib: usize,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Single, Self::Lazy, Self::Cluster, Self::Sharded];

    /// How many storage replicas each shard has.
    pub(crate) fn replicas(self) -> usize {
        if self == Self::Cluster { 2 } else { 1 }
    }

    pub(crate) fn shards(self) -> Shards {
        if self == Self::Sharded { Shards::new(SHARDS).unwrap_or_default() } else { Shards::ONE }
    }

    /// The shard of the service with that number: each shard has one in turn.
    pub(crate) fn shard_of(self, index: usize) -> Shard {
        let mut shards = self.shards().each();
        shards.nth(index % shards.len()).unwrap_or(Shard::ONLY)
    }
}

impl Plan {
    /// Two access servers and little memory, without disks and clocks of its own.
    pub(crate) fn new(shape: Shape, programs: PathBuf) -> Plan {
        Plan {
            shape,
            disks: false,
            clocks: None,
            programs,
            planted: None,
            access_servers: 2,
            changes: None,
            memory_mib: 64,
        }
    }
}

/// A running deployment. All of it ends with this.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) access_servers: Vec<Member>,
    pub(crate) replicas: Vec<Member>,
    pub(crate) servers: Servers,
    /// The lines of clients: for each, a link to each server.
    pub(crate) client_lines: Vec<Vec<Link>>,
    /// What goes between the servers of a cluster.
    pub(crate) routes: Vec<Route>,
    /// The disks of the servers, if they have any.
    pub(crate) server_disks: Vec<Disk>,
    /// How often one of several replicas had to be told that it counts.
    pub(crate) resumed: usize,
    deployment: Deployment,
    /// Whether a replica whose store is damaged may begin anew from the journal, which is whole.
    pub(crate) may_begin_anew: bool,
    /// Whether the bus loses things, so that several replicas may have to be told which of them counts.
    pub(crate) may_resume: bool,
    dir: TempDir,
}

impl Site {
    /// Starts all of it, and returns once it is ready.
    pub(crate) async fn start(plan: Plan) -> Result<Site> {
        let dir = TempDir::with_prefix("roam-faults-")?;
        let mut server_disks = Vec::new();
        if plan.disks {
            for place in server_directories(&plan, dir.path()) {
                let image = place.with_extension("img");
                fs::create_dir_all(&place)?;
                server_disks.push(Disk::mount(image, place.join("jetstream"), SERVER_DISK).await?);
            }
        }
        let (mut servers, routes) = bus::start(&plan, dir.path()).await?;
        let deployment = deployment(&plan);
        servers.provision(&deployment).await?;
        servers.sync_to_disk().await?;
        let mut client_lines = Vec::new();
        for _ in 0..CLIENT_LINES {
            client_lines.push(servers.links().await?);
        }
        let (access_servers, replicas) = (Vec::new(), Vec::new());
        let mut site = Site {
            plan,
            access_servers,
            replicas,
            servers,
            client_lines,
            routes,
            server_disks,
            resumed: 0,
            deployment,
            may_begin_anew: false,
            may_resume: false,
            dir,
        };
        for index in 0..site.plan.shape.replicas() * site.plan.shape.shards().each().len() {
            let member = site.replica(index).await?;
            site.replicas.push(member);
        }
        for index in 0..site.plan.access_servers {
            let member = site.access_server(index).await?;
            site.access_servers.push(member);
        }
        for member in site.members() {
            member.start().await?;
        }
        site.ready(Duration::from_secs(30)).await?;
        Ok(site)
    }

    /// All services.
    pub(crate) fn members(&mut self) -> impl Iterator<Item = &mut Member> {
        self.replicas.iter_mut().chain(&mut self.access_servers)
    }

    /// How a client connects over one of the lines.
    pub(crate) fn client_settings(&self, line: usize) -> ClientSettings {
        let mut settings = ClientSettings::default();
        settings.bus.servers = urls(&self.client_lines[line % CLIENT_LINES]);
        settings.bulk = Some(self.plan.shape.shards());
        settings
    }

    /// How whoever is no part of the experiment connects: straight to the servers.
    pub(crate) fn direct(&self) -> BusSettings {
        self.servers.bus_settings()
    }

    /// Does what a supervisor does: starts again what has ended by itself. A replica whose store was damaged on purpose and
    /// that noticed gets the operator's help: an empty directory, which the journal fills again.
    pub(crate) async fn supervise(&mut self) -> Vec<String> {
        let anew = self.may_begin_anew;
        let mut done = Vec::new();
        for member in self.members() {
            if let Some(what) = member.supervise(anew).await {
                done.push(what);
            }
        }
        done
    }

    /// Goes on supervising for so long.
    pub(crate) async fn supervise_for(&mut self, duration: Duration) -> Vec<String> {
        let until = Instant::now() + duration;
        let mut done = Vec::new();
        while Instant::now() < until {
            done.extend(self.supervise().await);
            sleep(POLL.min(until.saturating_duration_since(Instant::now()))).await;
        }
        done
    }

    /// Provisions once more what was lost, sets back durables that stand ahead of their streams, and decides which of several
    /// replicas counts if they have to be told. What was made or copied is on the disk then.
    pub(crate) async fn repair(&mut self) -> Result<()> {
        self.servers.provision(&self.deployment).await?;
        self.servers.repair().await?;
        self.servers.sync_to_disk().await?;
        if self.plan.shape.replicas() > 1 { self.resume().await } else { Ok(()) }
    }

    /// Waits until all parts say that they are ready, supervising.
    /// Replicas may find out late that somebody has to decide which of them counts, so whoever did that looks again.
    pub(crate) async fn ready(&mut self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        let mut looked = Instant::now();
        loop {
            self.supervise().await;
            let mut waiting = Vec::new();
            for member in self.members() {
                if let Err(why) = member.is_ready().await {
                    waiting.push(why);
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("after {within:?} not ready: {}", waiting.join("; "));
            }
            if self.may_resume && looked.elapsed() > LOOK_AGAIN {
                self.resume().await?;
                looked = Instant::now();
            }
            sleep(POLL).await;
        }
    }

    /// Keeps the logs, for whoever looks into what was found.
    pub(crate) fn keep_logs(&self, into: &Path) -> Result<()> {
        for entry in fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::copy(&path, into.join(path.file_name().context("a log has a name")?))?;
            }
        }
        Ok(())
    }

    async fn replica(&self, index: usize) -> Result<Member> {
        let name = format!("{STORAGE}-{index}");
        let directory = self.dir.path().join(&name);
        let disk = match self.plan.disks {
            true => {
                Some(Disk::mount(self.dir.path().join(format!("{name}.img")), directory.clone(), REPLICA_DISK).await?)
            }
            false => None,
        };
        let links = self.servers.links().await?;
        let shard = self.plan.shape.shard_of(index);
        let mut settings = roam_storage::Settings {
            process: ProcessSettings::on_port(0),
            shard: shard.number(),
            shards: shard.shards().get(),
            bus: self.bus_over(&links),
            name: Some(ReplicaName::parse(&name).map_err(|error| anyhow::anyhow!("{error}"))?),
            directory: directory.clone(),
            ..roam_storage::Settings::default()
        };
        settings.store.memory_mib = self.plan.memory_mib;
        // Where one that has to begin anew finds what another left for it.
        settings.backup.directory = Some(self.dir.path().join("backups"));
        let part = self.part(name, Program::Storage(settings));
        let mut member = Member::new(part, links);
        (member.directory, member.disk) = (Some(directory), disk);
        Ok(member)
    }

    async fn access_server(&self, index: usize) -> Result<Member> {
        let links = self.servers.links().await?;
        let shard = self.plan.shape.shard_of(index);
        let settings = roam_access_server::Settings {
            process: ProcessSettings::on_port(0),
            shard: shard.number(),
            shards: shard.shards().get(),
            bus: self.bus_over(&links),
            ..roam_access_server::Settings::default()
        };
        let part = self.part(format!("{ACCESS_SERVER}-{index}"), Program::AccessServer(settings));
        Ok(Member::new(part, links))
    }

    fn bus_over(&self, links: &[Link]) -> BusSettings {
        BusSettings { servers: urls(links), ..BusSettings::default() }
    }

    fn part(&self, name: String, program: Program) -> Part {
        let mut environment = Vec::new();
        if let Some(library) = &self.plan.clocks {
            let variables = [
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE", self.clock_file().display().to_string()),
                ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ];
            environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        }
        // A replica that differs is one beside another that does not.
        let here = |bug: &String| bug != planted::REPLICA_DIFFERS || name.ends_with("-1");
        environment.extend(self.plan.planted.clone().filter(here).map(|bug| (planted::VARIABLE.to_owned(), bug)));
        Part::process(name, program, &self.plan.programs, self.dir.path()).environment(environment)
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// Sets the clocks of all services off by so many seconds.
    pub(crate) fn set_clocks(&self, seconds: i64) -> Result<()> {
        Ok(fs::write(self.clock_file(), format!("{seconds:+}"))?)
    }

    /// A place for copies.
    pub(crate) fn aside(&self) -> PathBuf {
        self.dir.path().join("aside")
    }
}

fn server_directories(plan: &Plan, dir: &Path) -> Vec<PathBuf> {
    let names: &[&str] = if plan.shape == Shape::Cluster { &["nats-1", "nats-2", "nats-3"] } else { &["nats"] };
    names.iter().map(|name| dir.join(name)).collect()
}

fn deployment(plan: &Plan) -> Deployment {
    // JetStream sets the whole of a stream's bound aside, and an act needs little.
    let shards = plan.shape.shards();
    let overrides = Overrides {
        changes_max_messages: plan.changes,
        changes_max_bytes: Some(128 * MIB / u64::from(shards.get())),
        journal_max_bytes: Some(384 * MIB / u64::from(shards.get())),
        rejected_max_bytes: Some(32 * MIB),
        backups_max_bytes: Some(0),
        chunks_max_bytes: Some(32 * MIB),
        ..Overrides::default()
    };
    let servers = if plan.shape == Shape::Cluster { 3 } else { 1 };
    Deployment { overrides, shards, ..Deployment::new(servers, plan.shape.replicas()) }
}

fn urls(links: &[Link]) -> Vec<String> {
    links.iter().map(Link::url).collect()
}
