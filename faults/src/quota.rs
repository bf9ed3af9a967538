//! A cap on how much of one processor some processes may take together: a control group of its own, of version 1 or 2,
//! whichever the machine has. Takes root. It holds nobody up for longer than a few milliseconds at a time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The period in which the share is given out, in microseconds: so short that a process which has used up its share waits
/// for a moment only.
const PERIOD: u64 = 15_000;
/// Where the controller of processors is, by version of control groups.
const FIRST: &str = "/sys/fs/cgroup/cpu";
const SECOND: &str = "/sys/fs/cgroup";
const MEMBERS: &str = "cgroup.procs";

/// The cap. Dropping it lets the processes go on without, each where it is.
#[derive(Debug)]
pub(crate) struct Quota {
    group: PathBuf,
    parent: &'static str,
}

impl Quota {
    /// So many percent of one processor.
    pub(crate) fn new(percent: u64) -> Result<Quota> {
        let parent = if Path::new(FIRST).join(MEMBERS).exists() { FIRST } else { SECOND };
        let group = Path::new(parent).join(format!("roam-faults-{}", std::process::id()));
        if parent == SECOND {
            // The root of version 2 may have processes and controllers at once.
            fs::write(Path::new(parent).join("cgroup.subtree_control"), "+cpu").context("no control of processors")?;
        }
        fs::create_dir_all(&group).with_context(|| format!("{} cannot be made", group.display()))?;
        let quota = Quota { group, parent };
        let share = (PERIOD * percent / 100).max(1_000);
        // What they may take they are to get, whoever else wants it: hence the greatest weight.
        if parent == FIRST {
            quota.set("cpu.shares", "262144")?;
            quota.set("cpu.cfs_period_us", &PERIOD.to_string())?;
            quota.set("cpu.cfs_quota_us", &share.to_string())?;
        } else {
            quota.set("cpu.weight", "10000")?;
            quota.set("cpu.max", &format!("{share} {PERIOD}"))?;
        }
        Ok(quota)
    }

    /// Holds a process under it, with all its threads, on one processor for good. The kernel gives out the share by processor: on two of them
    /// a thread that never waits, as one that compacts, would get half of it, however many others want the rest.
    pub(crate) fn hold(&self, process: Pid) -> Result<()> {
        self.set(MEMBERS, &process.as_raw_nonzero().to_string())?;
        let allowed = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rfind(|processor| allowed.is_set(*processor)).context("no processor")?;
        let mut one = CpuSet::new();
        one.set(last);
        for thread in fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()))? {
            let thread = thread?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            match sched_setaffinity(Some(thread.context("a thread without a number")?), &one) {
                // It ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set(&self, what: &str, value: &str) -> Result<()> {
        fs::write(self.group.join(what), value).with_context(|| format!("{what} cannot be set to {value}"))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let held = fs::read_to_string(self.group.join(MEMBERS)).unwrap_or_default();
        for process in held.lines() {
            let _ = fs::write(Path::new(self.parent).join(MEMBERS), process);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
