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
    #[command(after_help = "\
Of the options of every command it takes --device, or ROAM_DEVICE, for the name of this device. How to reach the servers is
written into the settings.

Example:
  roam agent init
  roam agent init --device laptop --config agent.toml")]
    Init,
    /// Run the agent until it is asked to stop
    #[command(after_help = "\
The settings count, and over them variables such as ROAM_AGENT__BUS__SERVERS. Over both counts what stands on the command line:
--server, --device, how to sign in, --ca, --certificate, and --log, which is process.log_filter. Variables that stand for these
options elsewhere (ROAM_SERVER, ROAM_TOKEN_FILE and so on) do not count here.

Example:
  roam agent run --config agent.toml
  roam agent run --server tls://roam.example.com --token-file laptop.token --ca ca.pem")]
    Run,
    /// Say how each profile is: what waits, what is held back, what has no place here. Of an agent that does not run, what
    /// it knew
    #[command(after_help = "Example:\n  roam agent status\n  roam agent status --config agent.toml --json")]
    Status,
    /// Let the deletions of an app go on that the agent holds back because they look like a mistake
    #[command(after_help = "Example:\n  roam agent confirm vscode")]
    Confirm {
        /// The app
        app: String,
    },
    /// List the edits that the system refused for good
    #[command(after_help = "Example:\n  roam agent parked\n  roam agent parked --json")]
    Parked,
    /// Try again what of an app the system refused
    #[command(after_help = "Example:\n  roam agent retry vscode")]
    Retry {
        /// The app
        app: String,
    },
    /// Let go of what of an app the system refused: it stays as it is on this device, and is published no more until it is
    /// edited
    #[command(after_help = "Example:\n  roam agent drop vscode\n  roam agent drop vscode /editor.fontSize")]
    Drop {
        /// The app
        app: String,
        /// Only what is parked under this key
        #[arg(value_parser = super::parse::key)]
        key: Option<Key>,
    },
}
