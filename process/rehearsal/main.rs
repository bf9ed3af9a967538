//! A whole service in one file: how a `main.rs` uses this crate. It does no work; it ends as its
//! settings say, which the tests of this crate use to see how a process ends.

use std::process::ExitCode;
use std::time::Duration;

use roam_process::{Context, Problem, ProcessSettings, Settings, Tasks, TasksError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RehearsalSettings {
    process: ProcessSettings,
    rehearsal: Rehearsal,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rehearsal {
    ending: Ending,
    greeting: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ending {
    #[default]
    Orderly,
    Slow,
    Blocked,
    Error,
    Panic,
    Early,
}

impl Settings for RehearsalSettings {
    const ABOUT: &'static str = "Does nothing, and ends as it is told to";
    const EXAMPLE: &'static str = include_str!("rehearsal.toml");

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }
}

fn main() -> ExitCode {
    roam_process::main("roam-rehearsal", run)
}

async fn run(settings: RehearsalSettings, context: Context) -> Result<(), TasksError> {
    let ready = context.health.condition("rehearsal");
    if let Some(greeting) = settings.rehearsal.greeting {
        tracing::info!(greeting);
    }
    let mut tasks = Tasks::new(&context);
    tasks.spawn("play", play(settings.rehearsal.ending, context.shutdown.clone()));
    ready.set_ready();
    tasks.join(context.grace).await
}

async fn play(ending: Ending, shutdown: CancellationToken) -> Result<(), std::io::Error> {
    println!("playing");
    match ending {
        Ending::Error => return Err(std::io::Error::other("forgot the text")),
        Ending::Panic => panic!("stage fright"),
        Ending::Early => return Ok(()),
        Ending::Orderly | Ending::Slow | Ending::Blocked => shutdown.cancelled().await,
    }
    println!("asked to stop");
    match ending {
        Ending::Slow => std::future::pending().await,
        Ending::Blocked => {
            // More than the runtime has threads.
            let mut others = JoinSet::new();
            others.extend((0..256).map(|_| async { block() }));
            block()
        }
        _ => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "to block a worker of the runtime is what is rehearsed")]
fn block() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
