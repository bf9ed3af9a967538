//! What every Roam process does the same, whatever its service does: settings, logs, health,
//! metrics, signals, tasks. Something belongs here only if each service would otherwise write it
//! again in the same words. It knows nothing of NATS, of storage or of changes, and holds no
//! globals: all that a service is given comes in its [`Context`], so that several services can
//! live in one process. Only [`main`] and [`launch`] touch what a process has once (the tracing
//! subscriber, signals, the exit code), beside its allocator.

pub mod clock;
pub mod health;
pub mod http;
pub mod metrics;
pub mod settings;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator;
mod context;
mod entry;
mod flags;
mod kill;
mod runtime;

pub use context::Context;
pub use entry::{EXIT_CONFIGURATION, EXIT_FAILED, launch, main};
pub use health::{Condition, Health};
pub use kill::kill_point;
pub use metrics::Metrics;
pub use runtime::{half_of_the_processors, runtime};
pub use settings::{Problem, Problems, ProcessSettings, Settings};
pub use tasks::{Tasks, TasksError};
