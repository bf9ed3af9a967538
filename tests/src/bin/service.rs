//! One service as a process of its own, the same as the program of that name: for tests that kill it. Which one is said
//! by the variable [`roam_tests::SERVICE_VARIABLE`]. Never started by hand.

use std::process::ExitCode;

use roam_tests::{ACCESS_SERVER, AGENT, AUTH, COMMAND_LINE, SERVICE_VARIABLE, STORAGE};

fn main() -> ExitCode {
    match std::env::var(SERVICE_VARIABLE).as_deref() {
        Ok(ACCESS_SERVER) => {
            roam_process::main::<roam_access_server::Settings, _, _>(ACCESS_SERVER, roam_access_server::run)
        }
        Ok(AUTH) => roam_process::main::<roam_auth::Settings, _, _>(AUTH, roam_auth::run),
        Ok(AGENT) => roam_process::main::<roam_agent::Settings, _, _>(AGENT, roam_agent::run),
        Ok(STORAGE) => roam_process::main::<roam_storage::Settings, _, _>(STORAGE, roam_storage::run),
        Ok(COMMAND_LINE) => roam::run(),
        _ => ExitCode::from(roam_process::EXIT_CONFIGURATION),
    }
}
