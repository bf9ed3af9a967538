//! The program under test, as a shell starts it that exports none of the variables that it reads.

use std::process::Command;

/// What the variables of all options begin with, and those of the settings of an agent.
const OURS: &str = "ROAM_";
/// The one by which `roam up` finds nats-server. It is no option.
const KEPT: &str = "ROAM_NATS_SERVER";

/// `roam`, whatever the shell that runs the tests exports.
pub(crate) fn roam() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roam"));
    for (name, _) in std::env::vars_os() {
        if name != KEPT && name.to_string_lossy().starts_with(OURS) {
            command.env_remove(name);
        }
    }
    command
}
