//! The command line, as it is run: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "embedded")]
mod archive;
#[cfg(feature = "embedded")]
mod backup;
#[cfg(feature = "embedded")]
mod bench;
mod command_line;
#[cfg(feature = "embedded")]
mod large;
#[cfg(feature = "embedded")]
mod past;
mod program;
#[cfg(feature = "embedded")]
mod secure;
#[cfg(feature = "embedded")]
mod shards;
#[cfg(feature = "embedded")]
mod support;
