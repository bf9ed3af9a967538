//! Files that are there whole or not at all: a database is made beside its place and then put there, since one whose making is
//! interrupted is no database, and would be refused ever after. It never replaces a file that is there.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// What the names of files that are being made have behind that of the file.
const BEING_MADE: &str = ".new-";

/// Makes a file unless it is there: `make` makes it whole at the path that it is given, and closes it. If somebody else was
/// faster, theirs stays.
///
/// # Errors
/// What `make` fails with, and what the file system does, as `failed` puts it; nothing is left in the place then.
#[doc(hidden)]
pub fn make_whole<E>(
    path: &Path,
    make: impl FnOnce(&Path) -> Result<(), E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<(), E> {
    if path.exists() {
        return Ok(());
    }
    let (directory, name) = place(path).map_err(&failed)?;
    let new = directory.join(new_name(name));
    let made = make(&new).and_then(|()| put(&new, path).map_err(&failed));
    // Gone already where it was put there by a rename.
    let _ = fs::remove_file(&new);
    made?;
    sweep(&directory, name);
    // Where directories cannot be synced, nothing more can be done.
    let _ = fs::File::open(&directory).and_then(|directory| directory.sync_all());
    Ok(())
}

fn place(path: &Path) -> io::Result<(PathBuf, &OsStr)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or_else(|| Path::new(".")).to_owned(), name))
}

/// One that nobody else makes.
fn new_name(name: &OsStr) -> OsString {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut new = name.to_owned();
    new.push(format!("{BEING_MADE}{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    new
}

/// Puts it where it belongs, unless something is there.
fn put(new: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(new, path) {
        Err(_) if path.exists() => Ok(()),
        // A file system without links: two that start at once may both rename, and one of them then has no file of a name.
        Err(_) => fs::rename(new, path),
        linked => linked,
    }
}

/// Removes what was being made when its maker was killed. Whoever still makes one finds the file in its place.
fn sweep(directory: &Path, name: &OsStr) {
    let mut prefix = name.to_owned();
    prefix.push(BEING_MADE);
    let prefix = prefix.as_encoded_bytes();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn make(path: &Path, text: &str) -> io::Result<()> {
        make_whole(path, |new| fs::write(new, text), |error| error)
    }

    #[test]
    fn a_file_is_made_once_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        make(&path, "one").unwrap();
        make(&path, "other").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), names(directory.path())),
            ("one".into(), vec!["a.redb".into()])
        );
    }

    #[test]
    fn one_whose_making_is_interrupted_is_not_there_and_is_made_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        let half = |new: &Path| {
            fs::write(new, "ha")?;
            Err(io::Error::other("no room"))
        };
        let failed: io::Result<()> = make_whole(&path, half, |error| error);
        assert_eq!((failed.unwrap_err().to_string(), names(directory.path())), ("no room".into(), vec![]));
        // Of one that was killed something is left.
        fs::write(directory.path().join("a.redb.new-1-0"), "ha").unwrap();
        fs::write(directory.path().join("b.redb"), "another").unwrap();
        make(&path, "whole").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(names(directory.path()), ["a.redb", "b.redb"]);
        assert!(make(Path::new("/"), "no file").is_ok(), "it is there");
        assert_eq!(make(&directory.path().join("lacks/a"), "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn of_many_who_make_one_at_once_all_find_the_same() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.redb");
            let found = thread::scope(|scope| {
                let makers = ["a", "b", "c", "d"].map(|text| {
                    let path = &path;
                    scope.spawn(move || {
                        make(path, text).unwrap();
                        fs::read_to_string(path).unwrap()
                    })
                });
                makers.map(|maker| maker.join().unwrap())
            });
            assert!(found.iter().all(|text| *text == found[0]), "{found:?}");
            assert_eq!(names(directory.path()), ["a.redb"]);
        }
    }
}
