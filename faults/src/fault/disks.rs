//! Faults of disks: the power goes, and they fill up. Each server and each replica has a disk of its own for it.

use anyhow::Result;

use super::{Doing, Fault, Hazard, Need, Stage, processes::Who};
use crate::{
    disk::{Disk, cut_power},
    site::Shape,
};

/// The power of the disks of a kind goes, and whoever uses them dies.
struct PowerCut {
    name: &'static str,
    servers: bool,
    replicas: bool,
}

/// The disk of a kind fills up.
struct Full {
    name: &'static str,
    who: Who,
    index: usize,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(PowerCut { name: "power-cut-nats", servers: true, replicas: false }));
    all.push(Box::new(PowerCut { name: "power-cut-store", servers: false, replicas: true }));
    all.push(Box::new(PowerCut { name: "power-cut-both", servers: true, replicas: true }));
    all.push(Box::new(Full { name: "full-store", who: Who::Replica, index: 0 }));
    all.push(Box::new(Full { name: "full-nats", who: Who::Server, index: 0 }));
}

impl PowerCut {
    fn kinds(&self) -> impl Iterator<Item = Who> {
        let servers = self.servers.then_some(Who::Server);
        servers.into_iter().chain(self.replicas.then_some(Who::Replica))
    }
}

impl Fault for PowerCut {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Root]
    }

    /// A server that syncs now and then loses what it acked since.
    fn hazard(&self, shape: Shape) -> Hazard {
        if self.servers && shape == Shape::Lazy { Hazard::BusLoses } else { Hazard::Nothing }
    }

    fn lasts(&self) -> (u64, u64) {
        (0, 1_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let mut disks: Vec<&Disk> = Vec::new();
            if self.servers {
                disks.extend(&stage.site.server_disks);
            }
            if self.replicas {
                disks.extend(stage.site.replicas.iter().filter_map(|replica| replica.disk.as_ref()));
            }
            cut_power(&disks).await?;
            for who in self.kinds() {
                for index in 0..stage.count(who) {
                    stage.kill(who, index).await?;
                }
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            for who in self.kinds() {
                for index in 0..stage.count(who) {
                    stage.kill(who, index).await?;
                    if let Some(disk) = disk_of(stage, who, index) {
                        disk.power_up().await?;
                    }
                }
            }
            stage.start_all(self.kinds()).await?;
            match self.hazard(stage.site.plan.shape) {
                Hazard::BusLoses => stage.site.repair().await,
                _ => Ok(()),
            }
        })
    }
}

impl Fault for Full {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Root]
    }

    fn shapes(&self) -> &'static [Shape] {
        match self.who {
            Who::Server => &[Shape::Single],
            _ => &Shape::ALL,
        }
    }

    fn lasts(&self) -> (u64, u64) {
        (1_000, 5_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.index = stage.any(self.who);
            match disk_of(stage, self.who, self.index) {
                Some(disk) => disk.fill().await,
                None => Ok(()),
            }
        })
    }

    /// A replica goes on by itself. A server does not, and an operator starts it again.
    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            free(stage, self.who, self.index)?;
            if self.who == Who::Server {
                stage.kill(self.who, self.index).await?;
                stage.start(self.who, self.index).await?;
            }
            Ok(())
        })
    }
}

fn disk_of(stage: &Stage, who: Who, index: usize) -> Option<&Disk> {
    match who {
        Who::Server => stage.site.server_disks.get(index),
        _ => stage.site.replicas.get(index)?.disk.as_ref(),
    }
}

fn free(stage: &Stage, who: Who, index: usize) -> Result<()> {
    disk_of(stage, who, index).map_or(Ok(()), Disk::free)
}
