//! The client library, against a real nats-server and a server made up by the tests: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "durable")]
mod durable;
mod publish;
mod read;
mod support;
mod watch;
