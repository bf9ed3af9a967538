//! Worlds: the system under test as it is deployed, with a real nats-server, real files and the services as they are. A
//! thing belongs here if several suites in `tests/` need it to set up a world, to break it, or to look at it.
//!
//! **Architecture Invariant:** nothing here reaches into a service. A world knows settings, the bus, the pages over HTTP
//! and the files, as an operator does; faults are made from outside.
//!
//! ```no_run
//! # async fn example() {
//! use roam_tests::{World, app, key, text};
//!
//! let world = World::new().access_servers(2).replicas(2).start().await;
//! let laptop = world.device("acme", "alice", "laptop").await;
//! laptop.profile(app("editor")).put(key("theme"), "dark", text()).await.unwrap();
//! # }
//! ```
//!
//! `ROAM_TESTS_LOG` (such as `info` or `roam_storage=debug`) says what the services log into the output of a test, and
//! `ROAM_TESTS_SEED` (a number that a test printed) has its dice fall again as they did.

// A world that cannot be made is a failed test, and says why.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dice;
mod eventually;
mod names;
mod pages;
mod part;
mod place;
mod post;
mod probe;
mod provider;
mod shell;
mod socket;
mod wire;
mod world;

pub use dice::{dice, noise};
pub use eventually::{PATIENCE, eventually};
pub use names::{app, device, key, keys, profile, tenant, text, user};
pub use pages::Pages;
pub use part::{ACCESS_SERVER, AGENT, AUTH, Part, Program, SERVICE_VARIABLE, STORAGE};
pub use post::{Filed, Mailbox, Post, envelope};
pub use probe::Probe;
pub use provider::{Kind, Provider};
pub use shell::{COMMAND_LINE, Ran};
pub use socket::Socket;
pub use wire::{Fate, Frame, Side, Wire};
pub use world::{Blueprint, World};
