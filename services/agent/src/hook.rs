//! A command of the user's that is run for each event, told of it by JSON on its standard input and by variables of its
//! environment. So a desktop's notification, a mail or a log needs nothing of the agent. Roaming never waits for it: what
//! it does not keep up with is left out, and what goes wrong with it is logged.

use std::{process::Stdio, sync::Arc, time::Duration};

use roam_schemas::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use crate::desk::HeldBack;

/// Events that wait for a command to have its turn.
const QUEUE: usize = 256;
/// Most names in one event; the rest is counted.
const NAMES: usize = 100;
/// The longest that a command may be given, in seconds.
pub(crate) const MOST_SECONDS: u64 = 3_600;
/// Most commands at once.
pub(crate) const MOST_AT_ONCE: usize = 64;

/// The command that is told of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookSettings {
    /// The program and its arguments; no shell is in between. None: nothing is run.
    pub command: Vec<String>,
    /// How many seconds it may take until it is ended.
    pub seconds: u64,
    /// How many may run at once.
    pub at_once: usize,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self { command: Vec::new(), seconds: 30, at_once: 2 }
    }
}

/// Something that a user may want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The files took over what another device wrote.
    Applied { keys: Names },
    /// Two edits of one file: the local one was set aside under these names.
    Conflict { files: Names },
    /// The system refused an edit for good.
    Parked { key: String, why: String },
    /// The files cannot hold a key of the profile.
    Refused { key: String, why: String },
    /// Deletions wait to be confirmed.
    HeldBack { held_back: HeldBack },
    /// What others changed waits for another program to end.
    Waits { why: String },
    /// The profile does not roam now.
    Trouble { why: String },
}

/// Some names, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Names {
    names: Vec<String>,
    more: usize,
}

impl Names {
    pub(crate) fn of(names: impl IntoIterator<Item = String>) -> Self {
        let mut names = names.into_iter();
        Self { names: names.by_ref().take(NAMES).collect(), more: names.count() }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Conflict { .. } => "conflict",
            Self::Parked { .. } => "parked",
            Self::Refused { .. } => "refused",
            Self::HeldBack { .. } => "held_back",
            Self::Waits { .. } => "waits",
            Self::Trouble { .. } => "trouble",
        }
    }
}

/// An event of a profile.
#[derive(Debug, Serialize)]
struct Told {
    app: String,
    time: Timestamp,
    #[serde(flatten)]
    event: Event,
}

/// Where events are told. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    /// None: nobody wants to know.
    events: Option<mpsc::Sender<Told>>,
}

/// Runs the commands.
#[derive(Debug)]
pub(crate) struct Runner {
    settings: Arc<HookSettings>,
    events: mpsc::Receiver<Told>,
}

impl Hook {
    /// Without a command there is nothing to run.
    pub(crate) fn new(settings: &HookSettings) -> (Self, Option<Runner>) {
        if settings.command.is_empty() {
            return (Self { events: None }, None);
        }
        let (sender, events) = mpsc::channel(QUEUE);
        (Self { events: Some(sender) }, Some(Runner { settings: Arc::new(settings.clone()), events }))
    }

    /// Tells of an event, and waits for nothing.
    pub(crate) fn tell(&self, app: &str, event: Event) {
        let Some(events) = &self.events else { return };
        let name = event.name();
        let time = Timestamp::from_nanos(roam_process::clock::now_ns());
        if events.try_send(Told { app: app.to_owned(), time, event }).is_err() {
            tracing::warn!(%app, event = name, "the hook does not keep up: it is not told of an event");
        }
    }
}

impl Runner {
    /// Runs the command for each event, until nobody tells any more. Dropping it ends those that run.
    pub(crate) async fn run(mut self) {
        let turns = Arc::new(Semaphore::new(self.settings.at_once));
        let mut running = JoinSet::new();
        while let Some(told) = self.events.recv().await {
            while running.try_join_next().is_some() {}
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let settings = Arc::clone(&self.settings);
            running.spawn(async move {
                let (app, event) = (told.app.clone(), told.event.name());
                if let Err(why) = run(&settings, told).await {
                    tracing::warn!(%app, event, why, "the hook failed");
                }
                drop(turn);
            });
        }
        while running.join_next().await.is_some() {}
    }
}

async fn run(settings: &HookSettings, told: Told) -> Result<(), String> {
    let (program, arguments) = settings.command.split_first().ok_or("it has no command")?;
    let line = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
    let child = Command::new(program)
        .args(arguments)
        .env("ROAM_EVENT", told.event.name())
        .env("ROAM_APP", &told.app)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let work = async {
        if let Some(mut input) = child.stdin.take() {
            // One that does not read it is told by its environment.
            let _ = input.write_all(&line).await;
            let _ = input.write_all(b"\n").await;
        }
        child.wait().await
    };
    match timeout(Duration::from_secs(settings.seconds), work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it took over {} s, and was ended", settings.seconds)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    fn settings(script: &str, seconds: u64) -> HookSettings {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        HookSettings { command, seconds, ..HookSettings::default() }
    }

    fn told(event: Event) -> Told {
        Told { app: "editor".to_owned(), time: Timestamp::default(), event }
    }

    fn parked() -> Event {
        Event::Parked { key: "k; rm -rf \"x\"\n".to_owned(), why: "over_quota".to_owned() }
    }

    fn read(path: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_command_is_told_by_its_input_and_its_environment() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        let script = format!("test \"$ROAM_EVENT $ROAM_APP\" = 'parked editor' && cat > {}", out.display());
        run(&settings(&script, 30), told(parked())).await.unwrap();
        let found = read(&out);
        assert_eq!((&found["event"], &found["app"]), (&"parked".into(), &"editor".into()));
        assert_eq!(found["key"], "k; rm -rf \"x\"\n");
    }

    #[tokio::test]
    async fn one_that_fails_hangs_or_is_not_there_is_an_error_and_no_more() {
        let missing = HookSettings { command: vec!["/nowhere/hook".to_owned()], ..HookSettings::default() };
        assert!(run(&missing, told(parked())).await.is_err());
        assert!(run(&settings("exit 3", 30), told(parked())).await.unwrap_err().contains('3'));
        assert!(run(&settings("exec sleep 1000", 1), told(parked())).await.unwrap_err().contains("took over"));
        // It does not read what it is told.
        run(&settings("exec <&-; exit 0", 30), told(parked())).await.unwrap();
    }

    #[tokio::test]
    async fn roaming_goes_on_while_the_hook_does_not_keep_up() {
        let (hook, runner) = Hook::new(&settings("exec sleep 1000", 1_000));
        for _ in 0..2 * QUEUE {
            hook.tell("editor", parked());
        }
        let runner = runner.unwrap();
        assert_eq!(runner.events.len(), QUEUE);
        let (none, runner) = Hook::new(&HookSettings::default());
        none.tell("editor", parked());
        assert!(runner.is_none());
    }

    #[tokio::test]
    async fn every_event_that_was_taken_is_told_a_few_at_once() {
        let place = tempfile::tempdir().unwrap();
        let script = format!("echo x >> {}", place.path().join("out").display());
        let (hook, runner) = Hook::new(&settings(&script, 30));
        for _ in 0..20 {
            hook.tell("editor", parked());
        }
        drop(hook);
        runner.unwrap().run().await;
        assert_eq!(std::fs::read_to_string(place.path().join("out")).unwrap().lines().count(), 20);
    }

    #[test]
    fn an_event_names_at_most_so_many() {
        let names = Names::of((0..250).map(|number| number.to_string()));
        assert_eq!((names.names.len(), names.more), (NAMES, 150));
    }
}
