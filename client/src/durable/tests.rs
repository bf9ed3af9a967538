//! The tables against a plain model, with a server made of a list; and the file, when it is not as it should be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broken;
mod model;
mod server;
