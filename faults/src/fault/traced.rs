//! Faults of system calls: an fsync that fails, and a disk that is slow to sync. `strace` makes them, from outside.

use std::process::Stdio;

use anyhow::Result;
use tokio::process::{Child, Command};

use super::{Doing, Fault, Need, Stage, processes::Who};

/// The syncs of one process are interfered with.
struct Traced {
    name: &'static str,
    who: Who,
    /// What `strace` does to them.
    injection: &'static str,
    strace: Option<Child>,
}

const FAILS: &str = "inject=fsync,fdatasync:error=EIO";
/// In microseconds.
const IS_SLOW: &str = "inject=fsync,fdatasync:delay_enter=80000";

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(Traced { name: "fsync-error", who: Who::Replica, injection: FAILS, strace: None }));
    all.push(Box::new(Traced { name: "slow-disk-store", who: Who::Replica, injection: IS_SLOW, strace: None }));
    all.push(Box::new(Traced { name: "slow-disk-nats", who: Who::Server, injection: IS_SLOW, strace: None }));
}

impl Traced {
    fn trace(&self, pid: i32) -> Result<Child> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", self.injection, "-o", "/dev/null"])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(strace)
    }
}

impl Fault for Traced {
    fn name(&self) -> &'static str {
        self.name
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Root, Need::Strace]
    }

    fn lasts(&self) -> (u64, u64) {
        (1_000, 3_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let index = stage.any(self.who);
            if let Some(pid) = stage.pid(self.who, index) {
                self.strace = Some(self.trace(pid.as_raw_nonzero().get())?);
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, _stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            if let Some(mut strace) = self.strace.take() {
                strace.kill().await?;
            }
            Ok(())
        })
    }
}
