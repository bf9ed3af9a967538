//! `roam`, the command line: reads the arguments, runs one command, and says how it went. What each command does is in
//! `commands/`; nothing is decided here.

mod archive;
mod bench;
#[cfg(feature = "embedded")]
mod certificates;
mod cli;
mod commands;
mod connect;
mod difference;
mod failure;
mod operator;
mod output;
mod owner;
mod past;
mod registrar;
mod show;
mod transfer;

use std::process::ExitCode;

/// Runs the command line that this process was started with.
pub fn run() -> ExitCode {
    match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => commands::run(cli),
        Err(refused) => cli::leave(&refused),
    }
}
