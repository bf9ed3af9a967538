//! The access server, against a real nats-server: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod append;
mod backpressure;
mod busy;
mod reject;
mod scale;
mod support;
