//! The directory of a world, which goes with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

/// How often removing is tried: what was killed a moment ago may still be writing.
const ATTEMPTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { path: TempDir::with_prefix("roam-world-").unwrap().keep() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for _ in 0..ATTEMPTS {
            let gone = fs::remove_dir_all(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if gone && !still_applies() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a destructor cannot wait otherwise, and the test is over")]
            std::thread::sleep(PAUSE);
        }
        eprintln!("{} could not be removed, or is still written to", self.path.display());
    }
}

/// Whether a replica of this process still applies. Its threads end by themselves soon after its task was dropped; if the process ended before them,
/// RocksDB would tear its statics down under them and abort (seen once, after a test that had passed).
fn still_applies() -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return false };
    let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
    threads.flatten().any(|thread| name(thread).is_ok_and(|name| name.trim_end() == "apply"))
}
