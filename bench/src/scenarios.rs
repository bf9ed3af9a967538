//! What is measured, a file a group. Each starts what it needs, measures ours and the peers in turn, and says what it
//! found.

mod delta;
mod fan_out;
mod growth;
mod latest;
mod load;
mod roam;
mod save;
mod scale_out;
mod secure;
mod whole;

use clap::ValueEnum;

use crate::lab::Lab;

/// A group of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Changes saved a second
    Save,
    /// The same over three servers
    Cluster,
    /// Records read a second
    Latest,
    /// Whole profiles
    Whole,
    /// What changed since a cursor
    Delta,
    /// From one device to another, at fixed rates
    Roam,
    /// Many devices
    FanOut,
    /// More and more records, memory, and starting again
    Growth,
    /// More and more access servers
    ScaleOut,
    /// With tokens and TLS, beside without
    Secure,
}

impl Group {
    /// Runs all of it.
    pub(crate) async fn run(self, lab: &mut Lab) -> anyhow::Result<()> {
        match self {
            Self::Save => save::run(lab).await,
            Self::Cluster => save::cluster(lab).await,
            Self::Latest => latest::run(lab).await,
            Self::Whole => whole::run(lab).await,
            Self::Delta => delta::run(lab).await,
            Self::Roam => roam::run(lab).await,
            Self::FanOut => fan_out::run(lab).await,
            Self::Growth => growth::run(lab).await,
            Self::ScaleOut => scale_out::run(lab).await,
            Self::Secure => secure::run(lab).await,
        }
    }
}
