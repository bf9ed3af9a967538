//! The process `roam-storage`. All that it does is in the library.

use std::process::ExitCode;

use roam_storage::{Settings, run};

fn main() -> ExitCode {
    roam_process::main::<Settings, _, _>("roam-storage", run)
}
