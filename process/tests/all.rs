//! What every process has: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod http;
mod metrics_page;
mod process;
mod settings;
mod tasks;
