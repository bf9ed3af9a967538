//! The whole system, against a real nats-server: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod attacks;
mod audit;
mod auth;
mod backup;
mod bad_input;
mod canary;
mod control;
mod device;
mod duplicates;
mod expiry;
mod forgotten;
mod interop;
mod journal_trouble;
mod kill;
mod large;
mod lost_notices;
mod oidc;
mod operations;
mod operators;
mod order;
mod permissions;
mod restore;
mod roams;
mod shards;
