//! A system that a bench starts for itself: `roam up` as a process of its own, which can be stopped and killed. It dies with
//! the bench.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Memory, Restart};

/// Where the system keeps everything, below the directory.
const DATA: &str = "data";
/// The file that says that it is ready.
const READY: &str = "ready.json";
/// How often it is looked for that file.
const LOOK: Duration = Duration::from_millis(10);
/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// For how long a start that fails after a kill is tried again: nats-server may have the directory for a moment longer.
const AGAIN_FOR: Duration = Duration::from_secs(10);

/// Why there is no such system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// There is something in the way.
    #[error("{} is not empty", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory cannot be made, looked into or removed.
    #[error("{} cannot be made, read or removed", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be started, asked to stop, or killed.
    #[error("the process of the system cannot be started or stopped")]
    Process(#[source] io::Error),
    /// It ended at once, or badly.
    #[error("the system ended: {status}")]
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// It is not ready, or has not stopped, after a long time.
    #[error("the system is not ready, or does not stop, within {} s", PATIENCE.as_secs())]
    NotReady,
    /// What it says when it is ready does not read.
    #[error("what the system says when it is ready does not read")]
    Told(#[source] serde_json::Error),
    /// The machine does not say.
    #[error("how much memory a process takes is not told here: that takes Linux")]
    Memory,
}

/// The system. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Own {
    directory: PathBuf,
    child: Option<Child>,
    server: String,
}

/// What it says when it is ready.
#[derive(Deserialize)]
struct Ready {
    server: String,
}

impl Own {
    /// One in a directory that is empty or missing. Nothing is started yet.
    pub(crate) fn new(directory: &Path) -> Result<Self, OwnError> {
        let failed = in_directory(directory);
        fs::create_dir_all(directory).map_err(&failed)?;
        if fs::read_dir(directory).map_err(&failed)?.next().is_some() {
            return Err(OwnError::NotEmpty { directory: directory.to_owned() });
        }
        Ok(Self { directory: directory.to_owned(), child: None, server: String::new() })
    }

    /// Where clients connect.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Starts it, and says how soon it was ready.
    pub(crate) async fn start(&mut self) -> Result<Restart, OwnError> {
        // One that never ran has not been killed: what it says is the matter.
        let give_up = Instant::now() + if self.server.is_empty() { Duration::ZERO } else { AGAIN_FOR };
        let begun = loop {
            let begun = Instant::now();
            match self.start_once().await {
                Err(OwnError::Ended { .. }) if Instant::now() < give_up => {}
                started => break started.map(|()| begun)?,
            }
        };
        Ok(Restart { ready_seconds: begun.elapsed().as_secs_f64(), memory: self.memory()? })
    }

    async fn start_once(&mut self) -> Result<(), OwnError> {
        let ready = self.directory.join(READY);
        let _ = fs::remove_file(&ready);
        let program = std::env::current_exe().map_err(OwnError::Process)?;
        let mut command = Command::new(program);
        command.args(["up", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--quiet"]);
        command.arg("--data").arg(self.directory.join(DATA)).arg("--ready-file").arg(&ready);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(OwnError::Process)?;
        let until = Instant::now() + PATIENCE;
        while !ready.exists() {
            if let Some(status) = child.try_wait().map_err(OwnError::Process)? {
                return Err(OwnError::Ended { status });
            }
            if Instant::now() > until {
                return Err(OwnError::NotReady);
            }
            sleep(LOOK).await;
        }
        let told = fs::read(&ready).map_err(in_directory(&self.directory))?;
        let told: Ready = serde_json::from_slice(&told).map_err(OwnError::Told)?;
        (self.server, self.child) = (told.server, Some(child));
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<(), OwnError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, Signal::TERM).map_err(|error| OwnError::Process(error.into()))?;
        }
        let status = timeout(PATIENCE, child.wait()).await.map_err(|_| OwnError::NotReady)?;
        let status = status.map_err(OwnError::Process)?;
        if status.success() { Ok(()) } else { Err(OwnError::Ended { status }) }
    }

    /// Kills it.
    pub(crate) async fn kill(&mut self) -> Result<(), OwnError> {
        match self.child.take() {
            Some(mut child) => child.kill().await.map_err(OwnError::Process),
            None => Ok(()),
        }
    }

    /// What it takes of memory now.
    pub(crate) fn memory(&self) -> Result<Memory, OwnError> {
        let id = self.child.as_ref().and_then(Child::id).ok_or(OwnError::Memory)?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).map_err(|_| OwnError::Memory)?;
        read_memory(&status).ok_or(OwnError::Memory)
    }

    /// What its files take of the disk.
    pub(crate) fn disk_bytes(&self) -> Result<u64, OwnError> {
        disk_bytes(&self.directory).map_err(in_directory(&self.directory))
    }

    /// Removes all that it left in a directory.
    pub(crate) fn remove(directory: &Path) -> Result<(), OwnError> {
        fs::remove_dir_all(directory).map_err(in_directory(directory))
    }
}

fn in_directory(directory: &Path) -> impl Fn(io::Error) -> OwnError {
    let directory = directory.to_owned();
    move |source| OwnError::Directory { directory: directory.clone(), source }
}

/// Reads what Linux says of a process.
fn read_memory(status: &str) -> Option<Memory> {
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory { resident_bytes: of("VmRSS")?, most_resident_bytes: of("VmHWM")? })
}

/// Files may come and go meanwhile.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()).or_else(gone)?,
            Ok(metadata) => metadata.len(),
            Err(error) => gone(error)?,
        };
    }
    Ok(bytes)
}

fn gone(error: io::Error) -> io::Result<u64> {
    if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_first_start_that_fails_is_not_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        // Started as a system, the program of these tests ends at once.
        let mut own = Own::new(directory.path()).unwrap();
        let began = Instant::now();
        assert!(matches!(own.start().await, Err(OwnError::Ended { .. })));
        assert!(began.elapsed() < AGAIN_FOR);
    }

    #[test]
    fn memory_is_read_from_what_linux_says() {
        let status = "Name:\troam\nVmHWM:\t  335872 kB\nVmRSS:\t  307200 kB\nThreads:\t9\n";
        let memory = read_memory(status).unwrap();
        assert_eq!((memory.resident_bytes >> 20, memory.most_resident_bytes >> 20), (300, 328));
        assert!(read_memory("Name:\troam\n").is_none());
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("mine"), "x").unwrap();
        assert!(matches!(Own::new(directory.path()), Err(OwnError::NotEmpty { .. })));
        assert_eq!(disk_bytes(directory.path()).unwrap(), 1);
    }
}
