//! What every measurement needs: a pace that does not wait for whoever is measured, and a count of how long things took. A
//! thing belongs here if both `roam bench` and the benchmarks of this repository measure with it.
//!
//! **Architecture Invariant:** it knows nothing of Roam, of NATS, or of what is measured.

mod latencies;
mod pace;

pub use latencies::{Latencies, LatenciesError, Spread};
pub use pace::Pace;
