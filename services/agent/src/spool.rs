//! Where large values wait, whole, until the files have them. What is fetched goes into a file of another name first, so that
//! a file of the spool is whole or not there; nothing in it outlives a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use roam_schemas::ContentHash;

/// A directory of the agent's own.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// Opens it, empty. No other profile has it.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&directory)?,
        }
        Ok(Self { directory })
    }

    /// Where a value is, if it is there.
    pub(crate) fn fetched(&self, hash: ContentHash) -> Option<PathBuf> {
        Some(self.directory.join(hash.to_string())).filter(|path| path.is_file())
    }

    /// Where a value is to be written while it is fetched.
    pub(crate) fn partial(&self, hash: ContentHash) -> PathBuf {
        self.directory.join(format!("{hash}.part"))
    }

    /// A value is whole.
    pub(crate) fn keep(&self, hash: ContentHash) -> io::Result<()> {
        fs::rename(self.partial(hash), self.directory.join(hash.to_string()))
    }

    /// A value is not needed any more. If it cannot be removed, that is done with the next start.
    pub(crate) fn forget(&self, path: &Path) {
        let _ = fs::remove_file(path);
    }
}
