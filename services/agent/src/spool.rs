//! Where large values wait, whole, until the files have them. What is fetched goes into a file of another name first, so that
//! a file of the spool is whole or not there; nothing in it outlives a restart.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use roam_schemas::ContentHash;

/// How many bytes of a disk no large value takes.
const LEFT_FREE: u64 = 32 * 1024 * 1024;

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

    /// Fails if there is no room for a value of so many bytes, here and then where the files are, with some left for whatever
    /// else is written: else the disk would be full for all programs just to find out.
    pub(crate) fn check_room(&self, bytes: u64, files: &Path) -> io::Result<()> {
        // The files' directory is made with the first file in it.
        let files = files.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
        let is_one = fs::metadata(&self.directory)?.dev() == fs::metadata(files)?.dev();
        let copies = if is_one { 2 } else { 1 };
        for directory in [self.directory.as_path(), files] {
            let disk = rustix::fs::statvfs(directory)?;
            let room = disk.f_bavail.saturating_mul(disk.f_frsize);
            if room < bytes.saturating_mul(copies).saturating_add(LEFT_FREE) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
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
