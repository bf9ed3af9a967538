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
            if fs::remove_dir_all(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a destructor cannot wait otherwise, and the test is over")]
            std::thread::sleep(PAUSE);
        }
        eprintln!("{} could not be removed", self.path.display());
    }
}
