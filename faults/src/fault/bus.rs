//! Faults of the bus: its leader dies or steps down, a stream is deleted and made again, and what a server keeps is put back
//! to what it was a while ago.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::Rng;
use roam_nats::{ANNOUNCE_DURABLE, CHANGES_STREAM, JOURNAL_STREAM, NatsServer, changes_stream, journal_stream};
use roam_schemas::Shard;

use super::{Doing, Fault, Hazard, Stage, processes::Who};
use crate::site::Shape;

/// The server that leads the journal dies.
#[derive(Default)]
struct KillLeader {
    index: usize,
}

/// The leaders of the streams and of a durable step down.
struct StepDown;

/// The name of a stream that each shard has one of.
type Stream = fn(Shard) -> String;

/// A stream of one shard is deleted with all that is in it, and made again.
struct Delete {
    name: &'static str,
    stream: Stream,
}

/// What the server keeps, or a stream of one shard, is put back to an older copy.
struct RollBack {
    name: &'static str,
    stream: Option<Stream>,
    /// What that is below the directory of streams, in this act.
    part: String,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(KillLeader::default()));
    all.push(Box::new(StepDown));
    all.push(Box::new(Delete { name: "delete-journal", stream: journal_stream }));
    all.push(Box::new(Delete { name: "delete-changes", stream: changes_stream }));
    let streams: [(_, Option<Stream>); 3] = [
        ("roll-back-bus", None),
        ("roll-back-journal", Some(journal_stream)),
        ("roll-back-changes", Some(changes_stream)),
    ];
    for (name, stream) in streams {
        all.push(Box::new(RollBack { name, stream, part: String::new() }));
    }
}

/// The stream of any shard.
fn of_any_shard(stage: &mut Stage, stream: Stream) -> String {
    let shape = stage.site.plan.shape;
    stream(shape.shard_of(stage.dice.random_range(0..shape.shards().get().into())))
}

impl Fault for KillLeader {
    fn name(&self) -> &'static str {
        "kill-leader"
    }

    fn shapes(&self) -> &'static [Shape] {
        &[Shape::Cluster]
    }

    fn lasts(&self) -> (u64, u64) {
        (1_000, 6_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.index = stage.site.servers.leader().await?;
            stage.kill(Who::Server, self.index).await
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(stage.start(Who::Server, self.index))
    }
}

impl Fault for StepDown {
    fn name(&self) -> &'static str {
        "step-down"
    }

    fn shapes(&self) -> &'static [Shape] {
        &[Shape::Cluster]
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            for what in [
                format!("STREAM.LEADER.STEPDOWN.{JOURNAL_STREAM}"),
                format!("STREAM.LEADER.STEPDOWN.{CHANGES_STREAM}"),
                format!("CONSUMER.LEADER.STEPDOWN.{JOURNAL_STREAM}.{ANNOUNCE_DURABLE}"),
            ] {
                stage.site.servers.ask(&format!("$JS.API.{what}")).await?;
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, _stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async { Ok(()) })
    }
}

impl Fault for Delete {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hazard(&self, _shape: Shape) -> Hazard {
        Hazard::BusLoses
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let stream = of_any_shard(stage, self.stream);
            stage.site.servers.ask(&format!("$JS.API.STREAM.DELETE.{stream}")).await?;
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(stage.site.repair())
    }
}

impl RollBack {
    /// What is put back, on each server, and where its copy is.
    fn places(&self, stage: &mut Stage) -> Vec<(PathBuf, PathBuf)> {
        // In a cluster the past of streams is in what servers keep for their votes, too: all of it goes back.
        let below = if stage.site.plan.shape == Shape::Cluster { "" } else { "$G/streams" };
        let aside = stage.site.aside();
        let place = |(index, server): (usize, &mut NatsServer)| {
            (server.dir().join("jetstream").join(below), aside.join(index.to_string()))
        };
        stage.site.servers.all().iter_mut().enumerate().map(place).collect()
    }

    async fn kill_all(stage: &mut Stage) -> Result<()> {
        for index in 0..stage.count(Who::Server) {
            stage.kill(Who::Server, index).await?;
        }
        Ok(())
    }
}

impl Fault for RollBack {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shapes(&self) -> &'static [Shape] {
        if self.stream.is_none() { &Shape::ALL } else { &[Shape::Single, Shape::Lazy, Shape::Sharded] }
    }

    fn hazard(&self, _shape: Shape) -> Hazard {
        Hazard::BusLoses
    }

    fn lasts(&self) -> (u64, u64) {
        (1_000, 5_000)
    }

    /// Keeps a copy, and lets things go on.
    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.part = self.stream.map(|stream| of_any_shard(stage, stream)).unwrap_or_default();
            Self::kill_all(stage).await?;
            for (place, aside) in self.places(stage) {
                make_same(&place, &aside)?;
            }
            stage.start_all([Who::Server]).await
        })
    }

    /// Puts the copy back.
    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            Self::kill_all(stage).await?;
            for (place, aside) in self.places(stage) {
                if aside.join(&self.part).is_dir() {
                    make_same(&aside.join(&self.part), &place.join(&self.part))?;
                    fs::remove_dir_all(&aside)?;
                }
            }
            stage.start_all([Who::Server]).await?;
            stage.site.repair().await
        })
    }
}

/// Makes `to` what `from` is.
fn make_same(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    // The directory itself may be where a disk is mounted.
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            make_same(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
