//! The bus, against a real nats-server: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bus;
mod consume;
mod journal;
mod leaving;
mod lost;
mod objects;
mod provision;
mod publish;
mod secure;
mod server;
mod service;
mod shards;
mod support;
