//! Room: whether the disk of the store has any left. What RocksDB sets aside for its log lets it go on for a minute on a disk
//! that is full to the last byte, and fail then, with what it has in memory unwritten. So nothing is applied any more once
//! less than a reserve is free, and that is said at once; it is applied when there is room again. Looks, and writes nothing.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use roam_process::Condition;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// How many bytes of the disk stay free: enough for what is in memory, and for a compaction to begin with.
const RESERVE: u64 = 32 * 1024 * 1024;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether there is room. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    short: Arc<AtomicBool>,
}

impl Room {
    /// Whether there is too little.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// Returns once there is room, on a thread that has nothing else to do. False at shutdown.
    pub(crate) fn wait(&self, shutdown: &CancellationToken) -> bool {
        while self.is_short() {
            if shutdown.is_cancelled() {
                return false;
            }
            pause(LOOK_EVERY);
        }
        true
    }

    /// Looks until shutdown. `free` says how many bytes are free, if that can be told.
    pub(crate) async fn watch(
        self,
        free: impl Fn() -> Option<u64>,
        condition: Condition,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut looks = interval(LOOK_EVERY);
        while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
            self.look(free(), &condition);
        }
        Ok(())
    }

    fn look(&self, free: Option<u64>, condition: &Condition) {
        // Where it cannot be told, a write that fails tells it.
        let little = free.filter(|free| *free < RESERVE);
        let was_short = self.short.swap(little.is_some(), Ordering::AcqRel);
        match little {
            None => condition.set_ready(),
            // Said once, and not anew with each byte.
            Some(_) if was_short => {}
            Some(free) => condition.set_not_ready(format!(
                "storage_full: the disk of the store has {} KiB left, and nothing is applied below {} KiB",
                free / 1024,
                RESERVE / 1024
            )),
        }
    }
}

/// How many bytes the disk of a directory has left for us; none where that cannot be told.
pub(crate) fn free(directory: &Path) -> Option<u64> {
    rustix::fs::statvfs(directory).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Waits on a thread that has nothing else to do.
pub(crate) fn pause(duration: Duration) {
    let (_held, silent) = sync_channel::<()>(0);
    if let Err(RecvTimeoutError::Disconnected) = silent.recv_timeout(duration) {
        // Cannot be: the sender is held above.
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use roam_process::Health;

    use super::*;

    #[test]
    fn below_the_reserve_it_is_said_that_the_disk_is_full_until_there_is_room_again() {
        let (health, room) = (Health::new(), Room::default());
        let condition = health.condition("room");
        room.look(Some(RESERVE), &condition);
        assert!(health.is_ready() && !room.is_short());
        for free in [RESERVE - 1, 0] {
            room.look(Some(free), &condition);
            assert!(room.is_short());
            assert!(health.not_ready()[0].reason.starts_with("storage_full: "), "{:?}", health.not_ready());
        }
        room.look(Some(RESERVE), &condition);
        assert!(health.is_ready() && !room.is_short());
        room.look(None, &condition);
        assert!(health.is_ready(), "what cannot be told is no reason to stop");
    }

    #[test]
    fn whoever_writes_waits_for_room_or_for_the_shutdown() {
        for (shut_down, expected) in [(false, true), (true, false)] {
            let (health, room, shutdown) = (Health::new(), Room::default(), CancellationToken::new());
            let condition = health.condition("room");
            room.look(Some(0), &condition);
            let (done, waited) = sync_channel(1);
            thread::scope(|scope| {
                scope.spawn(|| done.send(room.wait(&shutdown)).unwrap());
                let early = waited.recv_timeout(Duration::from_millis(50));
                assert_eq!(early, Err(RecvTimeoutError::Timeout), "it waits");
                if shut_down {
                    shutdown.cancel();
                } else {
                    room.look(Some(u64::MAX), &condition);
                }
                assert_eq!(waited.recv().unwrap(), expected);
            });
        }
    }

    #[test]
    fn a_disk_says_how_much_is_free() {
        assert!(free(Path::new(".")).unwrap() > 0);
        assert_eq!(free(Path::new("there is no such directory")), None);
    }
}
