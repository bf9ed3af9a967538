//! Whether something below a directory has changed. Only that: what has changed is found by looking, so an event that is
//! lost or comes twice does no harm, and there is no queue that could overflow.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// Watches one directory.
#[derive(Debug)]
pub(crate) struct Watcher {
    changed: Arc<Notify>,
    /// Which directory this is, whatever takes its name later.
    inode: u64,
    /// Ends with this.
    _watcher: RecommendedWatcher,
}

impl Watcher {
    /// Begins to watch; `below` if all directories in it count, too.
    pub(crate) fn start(directory: &Path, below: bool) -> notify::Result<Self> {
        let inode = inode(directory).map_err(notify::Error::io)?;
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may stand for events that were lost.
            if event.as_ref().map_or(true, is_change) {
                tell.notify_one();
            }
        })?;
        watcher.watch(directory, if below { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive })?;
        Ok(Self { changed, inode, _watcher: watcher })
    }

    /// Whether this is the directory that is being watched, and not one that was made in its place.
    pub(crate) fn watches(&self, directory: &Path) -> bool {
        inode(directory).is_ok_and(|inode| inode == self.inode)
    }

    /// Waits for the next change. Several that come meanwhile are one.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn inode(directory: &Path) -> io::Result<u64> {
    fs::metadata(directory).map(|metadata| metadata.ino())
}

/// Reading a file is none, or looking would wake itself.
fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn writing_below_a_directory_is_told_and_reading_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/a"), "one").unwrap();
        let watcher = Watcher::start(root.path(), true).unwrap();
        fs::read(root.path().join("d/a")).unwrap();
        assert!(timeout(Duration::from_millis(200), watcher.changed()).await.is_err());
        fs::write(root.path().join("d/a"), "two").unwrap();
        timeout(Duration::from_secs(10), watcher.changed()).await.unwrap();
        assert!(watcher.watches(root.path()) && !watcher.watches(&root.path().join("d")));
    }
}
