//! Background: how much of the processors RocksDB's compactions take from the rest of a replica (ADR 0036). What compactions keep and
//! forget is not decided here.

use std::{fs, io};

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// By how much the niceness of a thread that compacts is above that of the thread that opens the store. Where the processors are full such a
/// thread has 335 parts beside the 1,024 of any other (`sched_prio_to_weight` of Linux): enough not to fall behind for long, and little
/// enough that a replica works off what waits while it compacts.
const ABOVE_THE_OTHERS: i32 = 5;
/// What niceness ends at, by `setpriority(2)`.
const NICEST: i32 = 19;
/// How RocksDB calls its threads that compact, on glibc (`ThreadPoolImpl::Impl::StartBGThreads`). Those that flush are `rocksdb:high`: nothing
/// may be written while a flush is late, so they stay as they are.
const THAT_COMPACT: &str = "rocksdb:low";

/// Has the threads that compact stand back behind all others of the process. RocksDB starts them when a store is opened, and shares them
/// among the stores of the process: to be called whenever one was opened; once more changes nothing. That takes no rights, and could not be taken back without.
///
/// Where threads have no names or no niceness of their own (both are matters of Linux with glibc) compactions go on as they were. So they do
/// if the system refuses: that is logged, since a replica is right without.
pub(super) fn compactions_stand_back() {
    if let Err(error) = try_to() {
        tracing::warn!(error = &error as &dyn std::error::Error, "compactions keep the priority of everything else");
    }
}

fn try_to() -> io::Result<()> {
    let niceness = (getpriority_process(None)? + ABOVE_THE_OTHERS).min(NICEST);
    threads(THAT_COMPACT)?.into_iter().try_for_each(|thread| Ok(setpriority_process(Some(thread), niceness)?))
}

/// The threads of the process that have this name. None elsewhere than on Linux.
fn threads(name: &str) -> io::Result<Vec<Pid>> {
    if cfg!(not(target_os = "linux")) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        // One that has ended meanwhile is none of these.
        let is_meant = fs::read_to_string(thread.path().join("comm")).is_ok_and(|it| it.trim_end() == name);
        let number = thread.file_name().to_str().and_then(|number| number.parse().ok());
        found.extend(number.and_then(Pid::from_raw).filter(|_| is_meant));
    }
    Ok(found)
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{StoreSettings, open};

    #[test]
    fn only_threads_that_compact_stand_back_however_many_stores_are_opened() {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let usual = getpriority_process(None).unwrap();
        let niceness = |name| {
            let of_all: Vec<_> =
                threads(name).unwrap().into_iter().map(|thread| getpriority_process(Some(thread)).unwrap()).collect();
            assert!(!of_all.is_empty(), "RocksDB calls no thread {name} any more");
            of_all
        };
        let _first = open(first.path(), &StoreSettings::default()).unwrap();
        for opened in ["once", "twice"] {
            assert!(niceness("rocksdb:low").iter().all(|it| *it == usual + 5), "opened {opened}");
            assert!(niceness("rocksdb:high").iter().all(|it| *it == usual), "opened {opened}");
            let _second = open(second.path(), &StoreSettings::default()).unwrap();
        }
        assert_eq!(getpriority_process(None).unwrap(), usual);
    }
}
