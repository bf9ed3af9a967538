//! Putting a backup in the place of the store that a replica has, while that is closed. The backup was brought back into
//! [`place`] before, so that the store stays as it is until all of the other is there and checked.
//!
//! It goes in steps that a crash may come between; [`settle`] goes on with whatever is left of it. The directory does not
//! open as a store meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    BackupError, RESTORED,
    directory::{names_in, sync_directory},
    fetch::{RESTORING, write_note},
};

/// Where a backup waits, below the directory of the store: on the same file system.
const COMING: &str = "adopt";
/// What that is called once nothing of the store before is left.
const COME: &str = "adopted";

/// Where a backup is to be brought back that takes the place of the store in a directory.
pub(crate) fn place(directory: &Path) -> PathBuf {
    directory.join(COMING)
}

/// Puts the backup that waits in the place of the store, if there is one that is whole. Says whether there was.
///
/// # Errors
/// A file that cannot be removed or moved: tried again it goes on from there.
pub(crate) fn settle(directory: &Path) -> Result<bool, BackupError> {
    let (coming, come) = (directory.join(COMING), directory.join(COME));
    if !come.exists() {
        if !coming.join(RESTORED).exists() || coming.join(RESTORING).exists() {
            // None, or one that is there in part: that one is begun anew when it is wanted.
            return Ok(false);
        }
        write_note(directory, RESTORING, b"{}")?;
        for name in names_in(directory)? {
            if name != COMING && name != RESTORING {
                remove(&directory.join(name))?;
            }
        }
        fs::rename(&coming, &come).map_err(BackupError::path(&coming))?;
        sync_directory(directory)?;
    }
    for name in names_in(&come)? {
        // It was no person who brought it back, so it is no reason to begin an epoch.
        if name == RESTORED {
            continue;
        }
        let from = come.join(&name);
        fs::rename(&from, directory.join(&name)).map_err(BackupError::path(from))?;
    }
    sync_directory(directory)?;
    // What says that there is something to do goes last.
    let restoring = directory.join(RESTORING);
    if restoring.exists() {
        remove(&restoring)?;
        sync_directory(directory)?;
    }
    remove(&come)?;
    sync_directory(directory)?;
    Ok(true)
}

fn remove(path: &Path) -> Result<(), BackupError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(BackupError::path(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{self, StoreError, StoreSettings};

    /// A directory with an old store, and a whole backup beside it.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["CURRENT", "000007.sst", "LOCK"] {
            fs::write(directory.path().join(name), "old").unwrap();
        }
        let coming = place(directory.path());
        fs::create_dir(&coming).unwrap();
        for name in ["CURRENT", "000012.sst", RESTORED] {
            fs::write(coming.join(name), "new").unwrap();
        }
        directory
    }

    fn check(directory: &Path) {
        let mut names = names_in(directory).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["000012.sst", "CURRENT"]);
        assert_eq!(fs::read_to_string(directory.join("CURRENT")).unwrap(), "new");
    }

    #[test]
    fn a_whole_backup_takes_the_place_of_the_store_and_one_in_part_does_not() {
        let directory = directory();
        let note = place(directory.path()).join(RESTORING);
        fs::write(&note, "{}").unwrap();
        assert!(!settle(directory.path()).unwrap());
        assert_eq!(fs::read_to_string(directory.path().join("CURRENT")).unwrap(), "old");
        fs::remove_file(note).unwrap();
        assert!(settle(directory.path()).unwrap());
        check(directory.path());
        assert!(!settle(directory.path()).unwrap(), "it is done once");
        check(directory.path());
    }

    #[test]
    fn a_crash_between_any_two_steps_is_made_good() {
        // While old files go.
        let first = directory();
        let path = first.path();
        fs::write(path.join(RESTORING), "{}").unwrap();
        fs::remove_file(path.join("CURRENT")).unwrap();
        let opened = store::open(path, &StoreSettings::default());
        assert!(matches!(opened, Err(StoreError::Unfinished)));
        assert!(settle(path).unwrap());
        check(path);
        // While new ones come.
        let second = directory();
        let path = second.path();
        for name in ["CURRENT", "000007.sst", "LOCK"] {
            fs::remove_file(path.join(name)).unwrap();
        }
        fs::write(path.join(RESTORING), "{}").unwrap();
        fs::rename(place(path), path.join(COME)).unwrap();
        fs::rename(path.join(COME).join("CURRENT"), path.join("CURRENT")).unwrap();
        assert!(settle(path).unwrap());
        check(path);
        // When all are there, and what says that they come is not gone yet.
        fs::create_dir(path.join(COME)).unwrap();
        fs::write(path.join(RESTORING), "{}").unwrap();
        assert!(settle(path).unwrap());
        check(path);
    }
}
