//! The messages, from outside: one program for all of these tests, since each program would compile and link the same things again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod error_pages;
mod fuzz;
mod goldens;
mod json_schemas;
mod manifests;
mod names;
mod protocol_page;
mod refusals;
mod round_trips;
mod subjects;
mod support;
mod validation;
mod values;
