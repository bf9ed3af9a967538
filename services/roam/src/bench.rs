//! Measuring a running system from outside, as a publisher and a watcher see it: throughput in a closed loop, latency at
//! a fixed rate. It shares its machine with what it measures, so it is lean: two connections, no task for each change,
//! nothing kept but a start time.

mod bulks;
mod load;
#[cfg(feature = "embedded")]
mod own;
mod plan;
mod report;
mod run;
mod tracker;
mod wire;

pub(crate) use load::load;
#[cfg(feature = "embedded")]
pub(crate) use own::{Own, OwnError};
pub(crate) use plan::Plan;
pub(crate) use report::{Measured, Report, Settings};
#[cfg(feature = "embedded")]
pub(crate) use report::{Memory, Restart, Restarts};
pub(crate) use run::{latency, throughput};
pub(crate) use wire::{BenchError, Wire};
