//! A program that is measured, as a process of its own: started, waited for, killed, and asked how much memory it and its
//! children hold.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::process::{Child as Process, Command};

/// How long a program may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// How often it is looked whether something has happened.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts a program, which logs into a file named after it in that directory.
    pub(crate) fn start(program: &Path, arguments: &[String], directory: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let log = directory.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", program.display()))?;
        Ok(Self { name, process, log })
    }

    /// Waits until something is so, as long as the program lives.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        is_so: impl AsyncFn() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        while !is_so().await {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended ({status}); its log ends with:\n{}", self.name, self.log_tail());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{}: not within {within:?}: {what}\n{}",
                self.name,
                self.log_tail()
            );
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Asks it to stop, and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = tokio::time::timeout(STOP_WITHIN, self.process.wait()).await;
        let status = status.with_context(|| format!("{} does not stop", self.name))??;
        ensure!(status.success(), "{} stopped badly ({status}):\n{}", self.name, self.log_tail());
        Ok(())
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// How many bytes of memory it and its children hold.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        resident(self.pid()?.as_raw_nonzero().get())
    }

    /// How many bytes of memory it holds itself.
    pub(crate) fn resident_alone(&self) -> anyhow::Result<u64> {
        resident_alone(self.pid()?.as_raw_nonzero().get())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        pid.with_context(|| format!("{} does not run", self.name))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// How many bytes of memory a process and its children hold, see proc(5).
pub(crate) fn resident(pid: i32) -> anyhow::Result<u64> {
    let mut bytes = resident_alone(pid)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            bytes += resident(child.parse()?)?;
        }
    }
    Ok(bytes)
}

fn resident_alone(pid: i32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("memory is looked up as Linux shows it")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// Lets this process and its children have as many connections as the system allows.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// A port of the loopback address that nobody listens on.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A program that was built with this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let path = here.parent().unwrap_or(Path::new(".")).join(name);
    ensure!(path.exists(), "{} is missing: scripts/bench builds it", path.display());
    Ok(path)
}

/// A program of the system, if it is installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}
