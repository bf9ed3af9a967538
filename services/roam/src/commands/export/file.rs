//! A file that appears whole or not at all. It may be read by its owner only: what it holds is somebody's configuration.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What the name of the file ends with while it is being written.
const UNFINISHED: &str = ".roam-export";

/// A file that is being written.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    /// Where it is until it is whole; none if `path` is no regular file, but a pipe or a terminal.
    beside: Option<PathBuf>,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        if is_special {
            let file = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            return Ok(Self { path: path.to_owned(), beside: None, file });
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(UNFINISHED);
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        Ok(Self { path: path.to_owned(), beside: Some(beside), file: BufWriter::new(file) })
    }

    /// Adds to it.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// It is whole: puts it in its place.
    pub(super) fn keep(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(beside) = &self.beside {
            self.file.get_ref().sync_all()?;
            fs::rename(beside, &self.path)?;
            self.beside = None;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // What is left over harms nobody, and the failure that left it is told already.
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_appears_once_it_is_whole_for_its_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("profile");
        let names = || fs::read_dir(root.path()).unwrap().count();
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(names(), 0);

        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"whole"[..], 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
