//! The settings that every process has.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::telemetry::{LogFormat, parse_filter};

/// What every process is told, in the section `process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// Where `/livez`, `/readyz` and `/metrics` answer. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged: directives such as `info,roam_storage=debug`.
    pub log_filter: String,
    /// How many seconds stopping may take, from 1 to [`ProcessSettings::LONGEST_GRACE`]. Whoever
    /// starts the process must wait two seconds longer before killing it.
    pub grace_seconds: u64,
}

impl ProcessSettings {
    /// The most that `grace_seconds` may be.
    pub const LONGEST_GRACE: u64 = 600;

    /// The defaults, listening on this port of the loopback address. Each service has its own
    /// port, so that all of them can run on one machine.
    pub fn on_port(port: u16) -> ProcessSettings {
        ProcessSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            // Container engines kill ten seconds after they ask.
            grace_seconds: 7,
        }
    }

    /// How long stopping may take.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// What is wrong, with paths inside the section.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = parse_filter(&self.log_filter) {
            let message = format!("cannot be {:?}: {error}", self.log_filter);
            problems.push(Problem::new("log_filter", message));
        }
        let (longest, grace) = (ProcessSettings::LONGEST_GRACE, self.grace_seconds);
        if !(1..=longest).contains(&grace) {
            let message = format!("must be from 1 to {longest}, not {grace}");
            problems.push(Problem::new("grace_seconds", message));
        }
        problems
    }
}

impl Default for ProcessSettings {
    /// [`ProcessSettings::on_port`] 9600.
    fn default() -> ProcessSettings {
        ProcessSettings::on_port(9600)
    }
}
