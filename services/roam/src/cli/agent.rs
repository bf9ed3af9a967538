//! `roam agent` and what it can be asked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use roam_schemas::Key;

/// `roam agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The agent's settings [default: roam/agent.toml in the XDG configuration directory]
    #[arg(long, global = true, env = "ROAM_AGENT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub(crate) what: AgentCommand,
}

/// What can be asked of an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Look for files on this machine that could roam, and write settings for you to confirm
    Init,
    /// Run the agent until it is asked to stop
    Run,
    /// Say how each profile is: what waits, what is held back, what has no place here. Of an agent that does not run, what
    /// it knew
    Status,
    /// Let the deletions of an app go on that the agent holds back because they look like a mistake
    Confirm {
        /// The app
        app: String,
    },
    /// List the edits that the system refused for good
    Parked,
    /// Try again what of an app the system refused
    Retry {
        /// The app
        app: String,
    },
    /// Let go of what of an app the system refused: it stays as it is on this device, and is published no more until it is
    /// edited
    Drop {
        /// The app
        app: String,
        /// Only what is parked under this key
        #[arg(value_parser = super::parse::key)]
        key: Option<Key>,
    },
}
