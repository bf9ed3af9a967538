//! Damage: one bit of a file is flipped while its process is down, in RocksDB's log or tables, or in a block of a stream.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::Rng;

use super::{Doing, Fault, Hazard, Stage, processes::Who};
use crate::site::Shape;

/// A flipped bit in a file of a kind.
struct Flip {
    name: &'static str,
    who: Who,
    /// What the names of such files end with.
    ending: &'static str,
    index: usize,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(Flip { name: "flip-wal", who: Who::Replica, ending: ".log", index: 0 }));
    all.push(Box::new(Flip { name: "flip-sst", who: Who::Replica, ending: ".sst", index: 0 }));
    all.push(Box::new(Flip { name: "flip-blk", who: Who::Server, ending: ".blk", index: 0 }));
}

impl Fault for Flip {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shapes(&self) -> &'static [Shape] {
        match self.who {
            Who::Server => &Shape::ALL,
            _ => &[Shape::Single, Shape::Cluster, Shape::Sharded],
        }
    }

    fn hazard(&self, _shape: Shape) -> Hazard {
        if self.who == Who::Server { Hazard::BusLoses } else { Hazard::StoreDamaged }
    }

    fn lasts(&self) -> (u64, u64) {
        (0, 500)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.index = stage.any(self.who);
            stage.kill(self.who, self.index).await?;
            let directory = match self.who {
                Who::Server => Some(stage.site.servers.all()[self.index].dir().join("jetstream")),
                _ => stage.site.replicas[self.index].directory.clone(),
            };
            let mut files = Vec::new();
            gather(&directory.unwrap_or_default(), self.ending, &mut files)?;
            // Which files there are differs from run to run; which of them it is does not.
            files.sort();
            if !files.is_empty() {
                let file = stage.dice.random_range(0..files.len());
                let size = fs::metadata(&files[file])?.len();
                flip(&files[file], stage.dice.random_range(0..size), stage.dice.random_range(0..8))?;
                if self.who == Who::Replica {
                    stage.site.replicas[self.index].damaged = true;
                }
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let started = stage.start(self.who, self.index).await;
            match self.who {
                Who::Server => {
                    started?;
                    stage.site.repair().await
                }
                // One that refuses to open what is damaged does as it should: the supervisor sees to it.
                _ => Ok(()),
            }
        })
    }
}

fn gather(directory: &Path, ending: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), ending, files)?;
        } else if name.to_string_lossy().ends_with(ending) && entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Flips one bit of a byte of a file.
pub(crate) fn flip(path: &Path, place: u64, bit: u8) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << bit;
    file.seek(SeekFrom::Start(place))?;
    file.write_all(&byte)?;
    Ok(file.sync_all()?)
}
