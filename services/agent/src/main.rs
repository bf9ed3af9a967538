//! The process `roam-agent`. All that it does is in the library.

use std::process::ExitCode;

use roam_agent::{Settings, run};

fn main() -> ExitCode {
    roam_process::main::<Settings, _, _>("roam-agent", run)
}
