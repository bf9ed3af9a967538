//! The process `roam-auth`. All that it does is in the library.

use std::process::ExitCode;

use roam_auth::{Settings, run};

fn main() -> ExitCode {
    roam_process::main::<Settings, _, _>("roam-auth", run)
}
