//! The faults: what can be broken in a site, what each takes, and how it is healed. A fault does what it does to a running
//! site and undoes it; when, and beside which others, is for the nemesis to say.

mod bus;
mod clocks;
mod damage;
mod disks;
mod network;
mod processes;
mod traced;
mod workload;

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
pub(crate) use damage::flip;
use futures_util::future::LocalBoxFuture;
use rand::rngs::StdRng;

use crate::{
    site::{Shape, Site},
    workload::Shared,
};

/// What a fault takes that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be root, for disks of one's own.
    Root,
    /// `strace`, which has system calls fail or take long.
    Strace,
    /// `libfaketime`, which sets the clock of a process.
    Clocks,
}

/// What a fault does to what may be taken for granted afterwards. Two that do different things are never in one act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hazard {
    Nothing,
    /// The bus loses what it had acked.
    BusLoses,
    /// A store is damaged, and begins anew from the journal, which must be whole.
    StoreDamaged,
}

/// What a fault has to do with: the site, the clients, and chance.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) shared: Arc<Shared>,
    pub(crate) dice: StdRng,
}

/// Something that is under way.
pub(crate) type Doing<'a> = LocalBoxFuture<'a, Result<()>>;

/// A fault.
pub(crate) trait Fault {
    fn name(&self) -> &'static str;

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn shapes(&self) -> &'static [Shape] {
        &Shape::ALL
    }

    /// What it does to what may be taken for granted, in a shape.
    fn hazard(&self, _shape: Shape) -> Hazard {
        Hazard::Nothing
    }

    /// How long it lasts at least and at most, in milliseconds.
    fn lasts(&self) -> (u64, u64) {
        (300, 3_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a>;

    /// Undoes it. Called once after each injection, also after one that failed.
    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a>;
}

/// Every fault that there is.
pub(crate) fn all() -> Vec<Box<dyn Fault>> {
    let mut all = Vec::new();
    processes::add(&mut all);
    bus::add(&mut all);
    network::add(&mut all);
    disks::add(&mut all);
    traced::add(&mut all);
    damage::add(&mut all);
    clocks::add(&mut all);
    workload::add(&mut all);
    all
}

/// Where the library is that sets clocks, as Debian's package `libfaketime` installs it.
pub(crate) fn clock_library() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let paths = places.map(|place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1")));
    paths.into_iter().find(|path| path.exists())
}

impl Need {
    /// Why it is not met here; none if it is.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let met = match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Strace => is_installed("strace"),
            Self::Clocks => clock_library().is_some(),
        };
        (!met).then_some(match self {
            Self::Root => "it takes root",
            Self::Strace => "strace is not installed",
            Self::Clocks => "libfaketime is not installed",
        })
    }
}

/// Why a fault cannot be made on this machine; none if it can.
pub(crate) fn skipped(fault: &dyn Fault) -> Option<&'static str> {
    fault.needs().iter().find_map(|need| need.missing())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|place| place.join(program).exists())
}
