//! The process `roam-access-server`. All that it does is in the library.

use std::process::ExitCode;

use roam_access_server::{Settings, run};

fn main() -> ExitCode {
    roam_process::main::<Settings, _, _>("roam-access-server", run)
}
