//! One service of a site with what belongs to it: its links, its directory, its disk, and whether it is meant to run.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, anyhow};
use roam_tests::Part;
use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::{disk::Disk, link::Link};

const STOPS_WITHIN: Duration = Duration::from_secs(10);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// A service.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) part: Part,
    /// To each server.
    pub(crate) links: Vec<Link>,
    /// Where a replica keeps its store.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) disk: Option<Disk>,
    /// Whether it is meant not to run: a fault has it.
    down: bool,
    /// Whether its store was damaged on purpose and it has not begun anew since.
    pub(crate) damaged: bool,
}

impl Member {
    pub(crate) fn new(part: Part, links: Vec<Link>) -> Member {
        Member { part, links, directory: None, disk: None, down: false, damaged: false }
    }

    /// Starts it. From now on it is meant to run.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.down = false;
        if self.part.pid().is_none() {
            self.part.try_start().await.map_err(|error| anyhow!(error))?;
        }
        Ok(())
    }

    /// Ends it at once, until it is started.
    pub(crate) async fn kill(&mut self) {
        self.down = true;
        if self.part.pid().is_some() {
            self.part.kill().await;
        }
    }

    /// Asks it to stop, and waits; it is killed if it does not. Says how long it took.
    pub(crate) async fn stop(&mut self) -> Duration {
        self.down = true;
        let asked = Instant::now();
        self.signal(Signal::TERM);
        while self.part.pid().is_some() && !self.part.has_ended() {
            if asked.elapsed() > STOPS_WITHIN {
                self.part.kill().await;
                break;
            }
            sleep(POLL).await;
        }
        asked.elapsed()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.part.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Starts it again if it has ended by itself. Says what was done.
    pub(super) async fn supervise(&mut self, may_begin_anew: bool) -> Option<String> {
        if self.down || (!self.part.has_ended() && self.part.pid().is_some()) {
            return None;
        }
        let name = self.part.name().to_owned();
        if self.damaged && may_begin_anew {
            self.damaged = false;
            self.empty();
            let started = self.part.try_start().await;
            return Some(format!("{name} noticed its damage and began anew{}", failed(started.err())));
        }
        let started = self.part.try_start().await;
        Some(format!("{name} had ended and was started again{}", failed(started.err())))
    }

    fn empty(&self) {
        let Some(directory) = &self.directory else { return };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let _ =
                if entry.path().is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }

    /// Whether it says that it is ready, else why not.
    pub(crate) async fn is_ready(&mut self) -> Result<(), String> {
        let name = self.part.name().to_owned();
        if self.part.pid().is_none() {
            return Err(format!("{name} does not run"));
        }
        let pages = self.part.pages();
        match timeout(ANSWERS_WITHIN, pages.try_get("/readyz")).await {
            Ok(Ok((200, _))) => Ok(()),
            Ok(Ok((_, body))) => Err(format!("{name}: {body}")),
            Ok(Err(error)) => Err(format!("{name}: {error}")),
            Err(_) => Err(format!("{name} does not answer")),
        }
    }
}

fn failed(error: Option<String>) -> String {
    error.map(|error| format!(", in vain: {}", error.lines().next().unwrap_or_default())).unwrap_or_default()
}
