//! One file a command. Each gets its own options, those of every command, and where to print; it returns what went wrong.

mod agent;
mod audit;
#[cfg(feature = "embedded")]
mod backup;
mod bench;
mod changes;
mod completions;
mod conflicts;
mod doctor;
mod effective;
mod erase;
mod explain;
mod export;
mod get;
mod history;
mod import;
#[cfg(feature = "embedded")]
mod keys;
mod ls;
mod mappings;
mod profiles;
mod provision;
mod pull;
mod push;
mod put;
mod repair;
mod restore;
mod rm;
mod status;
mod storage;
mod token;
#[cfg(feature = "embedded")]
mod up;
mod verify;
mod watch;
mod whoami;

use std::{future::Future, process::ExitCode};

use roam_client::Saved;
use roam_process::telemetry::{self, LogFormat};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{Cli, Command, Global},
    failure::Failure,
    output::Output,
    show,
};

/// How many histories are asked for at once.
const HISTORIES_AT_ONCE: usize = 64;

/// Runs the command and says why it failed, if it did.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    let output = Output::new(global.json, global.quiet);
    match dispatch(command, &global, output) {
        Ok(code) => code,
        Err(failure) => {
            output.fail(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(command: Command, global: &Global, out: Output) -> Result<ExitCode, Failure> {
    let done = match command {
        // It is a process of services: it has its own log, runtime and signals.
        #[cfg(feature = "embedded")]
        Command::Up(args) => return Ok(up::run(args, global, out)),
        #[cfg(feature = "embedded")]
        Command::Backup(args) => online(global, backup::run(args, global, out)),
        // The agent is a process of its own kind, too, unless it is only asked.
        Command::Agent(args) => return agent::run(args, global, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Mappings(args) => mappings::run(&args, out),
        #[cfg(feature = "embedded")]
        Command::Keys(args) => keys::run(&args, out),
        Command::Doctor(args) => online(global, doctor::run(&args, global, out)),
        Command::Status(args) => online(global, status::run(args, global, out)),
        Command::Storage(args) => online(global, storage::run(args, global, out)),
        Command::Verify(args) => online(global, verify::run(args, global, out)),
        Command::Profiles(args) => online(global, profiles::run(args, global, out)),
        Command::Erase(args) => online(global, erase::run(args, global, out)),
        Command::Audit(args) => online(global, audit::run(args, global, out)),
        Command::Token(args) => online(global, token::run(args, global, out)),
        Command::Whoami => online(global, whoami::run(global, out)),
        Command::Provision(args) => online(global, provision::run(&args, global, out)),
        Command::Repair(args) => online(global, repair::run(&args, global, out)),
        Command::Put(args) => online(global, put::run(args, global, out)),
        Command::Get(args) => online(global, get::run(args, global, out)),
        Command::Effective(args) => online(global, effective::run(args, global, out)),
        Command::Rm(args) => online(global, rm::run(args, global, out)),
        Command::Ls(args) => online(global, ls::run(args, global, out)),
        Command::Changes(args) => online(global, changes::run(args, global, out)),
        Command::History(args) => online(global, history::run(args, global, out)),
        Command::Explain(args) => online(global, explain::run(args, global, out)),
        Command::Conflicts(args) => online(global, conflicts::run(args, global, out)),
        Command::Restore(args) => online(global, restore::run(args, global, out)),
        Command::Watch(args) => online(global, watch::run(args, global, out)),
        Command::Push(args) => online(global, push::run(args, global, out)),
        Command::Pull(args) => online(global, pull::run(args, global, out)),
        Command::Export(args) => online(global, export::run(args, global, out)),
        Command::Import(args) => online(global, import::run(args, global, out)),
        Command::Bench(args) => online(global, bench::run(args, global, out)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn online(global: &Global, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    start_log(global)?;
    let runtime = roam_process::runtime("roam").map_err(|error| Failure::because("start", &error))?;
    let done = runtime.block_on(command);
    // A thread that still reads a file must not hold the process.
    runtime.shutdown_background();
    done
}

/// The log of a command: none, unless it is asked for.
fn start_log(global: &Global) -> Result<(), Failure> {
    let Some(filter) = &global.log else { return Ok(()) };
    telemetry::init(LogFormat::Text, filter).map_err(|error| Failure::usage("--log", crate::failure::chain(&error)))
}

/// Ctrl-C or SIGTERM, which is how a command that goes on for ever comes to its good end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on the two do not kill the process any more.
    fn new() -> Result<Self, Failure> {
        let handler = |kind| signal(kind).map_err(|error| Failure::because("signals", &error));
        Ok(Self { interrupt: handler(SignalKind::interrupt())?, terminate: handler(SignalKind::terminate())? })
    }

    /// Waits for either.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Says that a change was saved, and what else the receipt tells.
fn report_saved(saved: &Saved, out: Output) -> Result<(), Failure> {
    out.object(&json!({
        "id": saved.id,
        "sequence": saved.sequence,
        "again": saved.again,
        "revision": saved.revision,
        "time": saved.time,
        "conflicts": saved.conflicts,
        "superseded": saved.superseded,
        "nearly_full": saved.nearly_full,
    }))?;
    out.say(format_args!("saved as revision {}, {}", saved.revision, saved.time))?;
    for late in &saved.superseded {
        let key = show::text(late.key.as_str());
        out.say(format_args!("came too late for {key}: revision {} stands", late.revision))?;
    }
    if saved.nearly_full {
        out.say("the profile is nearly full: it holds 80 % or more of what it may")?;
    }
    Ok(())
}
