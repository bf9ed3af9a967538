//! The store and what is decided, without a bus: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod apply;
mod backup;
mod crash;
mod damage;
mod decide;
mod store;
mod support;
