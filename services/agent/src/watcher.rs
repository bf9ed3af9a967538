//! What below a directory has changed. It is a hint where to look: what has changed is found by looking, so an event that
//! comes twice does no harm, and after one that may have been lost everything is looked at.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// With more paths than this it is as quick to look at everything.
const MOST_PATHS: usize = 1_000;

/// What may have changed since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Whatever there is.
    All,
    /// What is at these paths.
    Paths(BTreeSet<PathBuf>),
}

/// Watches one directory.
#[derive(Debug)]
pub(crate) struct Watcher {
    told: Arc<Told>,
    /// Which directory this is, whatever takes its name later.
    inode: u64,
    /// Ends with this.
    _watcher: RecommendedWatcher,
}

#[derive(Debug, Default)]
struct Told {
    notify: Notify,
    changed: Mutex<Changed>,
}

impl Default for Changed {
    fn default() -> Self {
        Self::Paths(BTreeSet::new())
    }
}

impl Changed {
    fn add(&mut self, event: notify::Result<Event>) {
        let Self::Paths(paths) = self else { return };
        match event {
            Ok(event) if !event.need_rescan() && !event.paths.is_empty() => paths.extend(event.paths),
            // Events were lost, or may have been.
            _ => *self = Self::All,
        }
        if matches!(self, Self::Paths(paths) if paths.len() > MOST_PATHS) {
            *self = Self::All;
        }
    }
}

impl Watcher {
    /// Begins to watch; `below` if all directories in it count, too.
    pub(crate) fn start(directory: &Path, below: bool) -> notify::Result<Self> {
        let inode = inode(directory).map_err(notify::Error::io)?;
        let told = Arc::new(Told::default());
        let tell = Arc::clone(&told);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, is_change) {
                tell.changed.lock().unwrap_or_else(PoisonError::into_inner).add(event);
                tell.notify.notify_one();
            }
        })?;
        watcher.watch(directory, if below { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive })?;
        Ok(Self { told, inode, _watcher: watcher })
    }

    /// Whether this is the directory that is being watched, and not one that was made in its place.
    pub(crate) fn watches(&self, directory: &Path) -> bool {
        inode(directory).is_ok_and(|inode| inode == self.inode)
    }

    /// Waits for the next change. Several that come meanwhile are one.
    pub(crate) async fn changed(&self) {
        self.told.notify.notified().await;
    }

    /// What changed since this was asked last.
    pub(crate) fn take(&self) -> Changed {
        std::mem::take(&mut self.told.changed.lock().unwrap_or_else(PoisonError::into_inner))
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

    use notify::event::{Flag, ModifyKind};
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
        assert_eq!(watcher.take(), Changed::default());
        fs::write(root.path().join("d/a"), "two").unwrap();
        timeout(Duration::from_secs(10), watcher.changed()).await.unwrap();
        assert_eq!(watcher.take(), Changed::Paths(BTreeSet::from([root.path().join("d/a")])));
        assert!(watcher.watches(root.path()) && !watcher.watches(&root.path().join("d")));
    }

    #[test]
    fn after_lost_events_or_very_many_everything_may_have_changed() {
        let at = |path: &str| Ok(Event::new(EventKind::Modify(ModifyKind::Any)).add_path(path.into()));
        let mut changed = Changed::default();
        changed.add(at("a"));
        changed.add(at("b"));
        assert_eq!(changed, Changed::Paths(BTreeSet::from(["a".into(), "b".into()])));
        changed.add(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(changed, Changed::All);
        changed.add(at("c"));
        assert_eq!(changed, Changed::All);
        let mut changed = Changed::default();
        (0..=MOST_PATHS).for_each(|number| changed.add(at(&number.to_string())));
        assert_eq!(changed, Changed::All);
        let mut changed = Changed::default();
        changed.add(Err(notify::Error::generic("lost")));
        assert_eq!(changed, Changed::All);
    }
}
