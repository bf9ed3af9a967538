//! Which files of a tree become keys, and which are left out and why. Only looks, and reads no file.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use roam_schemas::{Key, limits::LARGE_VALUE_BYTES};
use walkdir::{DirEntry, WalkDir};

use super::keys::{RefusedPath, key_of};

/// What a tree holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that become keys, in the order of their names.
    pub files: Vec<Candidate>,
    /// What does not.
    pub left_out: Vec<LeftOut>,
}

/// A file that becomes a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its path below the directory.
    pub key: Key,
    /// Where it is.
    pub path: PathBuf,
    /// Its size as it was seen.
    pub bytes: u64,
}

/// Something that does not become a key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Its path below the directory; what is not UTF-8 in it is replaced.
    pub path: String,
    /// Why.
    #[serde(serialize_with = "as_text")]
    pub reason: Reason,
}

/// Why something does not become a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is a symbolic link.
    #[error("a symbolic link")]
    Link,
    /// It is a socket, a pipe, a device, or became a directory meanwhile.
    #[error("no regular file")]
    NotAFile,
    /// It is larger than a value may be, or than is read of a file.
    #[error("{bytes} bytes, at most {most} are taken")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        most: usize,
    },
    /// There is nothing there.
    #[error("it is gone")]
    Missing,
    /// It cannot be read, or was gone when it was to be read.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// Its path is no key.
    #[error(transparent)]
    Path(#[from] RefusedPath),
}

/// Why a tree cannot be looked at, at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The directory itself cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is no directory.
    #[error("it is no directory")]
    NotADirectory,
}

impl Reason {
    pub(super) fn unreadable(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self::Missing;
        }
        Self::Unreadable(error.to_string())
    }
}

impl Scan {
    /// The keys whose file is gone, of those that a profile holds. A file that is there and was left out is not gone,
    /// and neither is anything below a directory that could not be read.
    pub fn gone<'k>(&self, held: impl Iterator<Item = &'k Key>) -> Vec<&'k Key> {
        let files: BTreeSet<&Key> = self.files.iter().map(|file| &file.key).collect();
        let unknown: BTreeSet<&str> = self.left_out.iter().map(|entry| entry.path.as_str()).collect();
        let is_unknown = |key: &Key| ancestors(key.as_str()).any(|path| unknown.contains(path));
        held.filter(|key| !files.contains(key) && !is_unknown(key)).collect()
    }
}

/// Looks at everything below `root`. Symbolic links are not followed, except that `root` itself may be one.
pub fn scan(root: &Path) -> Result<Scan, ScanError> {
    if !fs::metadata(root).map_err(ScanError::Unreadable)?.is_dir() {
        return Err(ScanError::NotADirectory);
    }
    fs::read_dir(root).map_err(ScanError::Unreadable)?;
    let mut scan = Scan::default();
    let entries = WalkDir::new(root).min_depth(1).follow_links(false).sort_by_file_name();
    // A directory whose name is no UTF-8 is left out once, not once for each file in it.
    let mut entries = entries.into_iter();
    while let Some(entry) = entries.next() {
        match look(root, entry) {
            Ok(Look::File(file)) => scan.files.push(file),
            Ok(Look::Directory) => {}
            Err((left_out, is_directory)) => {
                scan.left_out.push(left_out);
                if is_directory {
                    entries.skip_current_dir();
                }
            }
        }
    }
    Ok(scan)
}

enum Look {
    File(Candidate),
    Directory,
}

/// What an entry is. An error says also whether it is a directory, all of which is left out.
fn look(root: &Path, entry: walkdir::Result<DirEntry>) -> Result<Look, (LeftOut, bool)> {
    let left_out = |path: &Path, reason| {
        let below = path.strip_prefix(root).unwrap_or(path);
        LeftOut { path: below.to_string_lossy().into_owned(), reason }
    };
    let entry = entry.map_err(|error| {
        let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
        (left_out(error.path().unwrap_or(root), Reason::Unreadable(reason)), false)
    })?;
    let path = entry.path();
    let is_directory = entry.file_type().is_dir();
    let key = key_of(path.strip_prefix(root).unwrap_or(path));
    match (is_directory, key) {
        // The path of a directory may be just too long for a key: then so is that of everything in it.
        (_, Err(refused)) => Err((left_out(path, refused.into()), is_directory)),
        (true, Ok(_)) => Ok(Look::Directory),
        (false, Ok(key)) => {
            let bytes = size(&entry).map_err(|reason| (left_out(path, reason), false))?;
            Ok(Look::File(Candidate { key, path: path.to_owned(), bytes }))
        }
    }
}

fn size(entry: &DirEntry) -> Result<u64, Reason> {
    let kind = entry.file_type();
    if kind.is_symlink() {
        return Err(Reason::Link);
    }
    if !kind.is_file() {
        return Err(Reason::NotAFile);
    }
    let metadata = entry.metadata().map_err(|error| Reason::Unreadable(error.to_string()))?;
    match metadata.len() {
        bytes if bytes > LARGE_VALUE_BYTES as u64 => Err(Reason::TooLarge { bytes, most: LARGE_VALUE_BYTES }),
        bytes => Ok(bytes),
    }
}

/// A path and all directories above it: `a/b/c`, `a`, `a/b`.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once(path).chain(path.match_indices('/').map(|(at, _)| &path[..at]))
}

fn as_text<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    };

    use super::*;

    fn keys(scan: &Scan) -> Vec<&str> {
        scan.files.iter().map(|file| file.key.as_str()).collect()
    }

    fn write(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, *name).unwrap();
        }
    }

    #[test]
    fn regular_files_become_keys_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &["b", "a/z", "a/b/c", ".hidden", "ключ"]);
        fs::create_dir(root.path().join("empty")).unwrap();
        let scan = scan(root.path()).unwrap();
        assert_eq!(keys(&scan), [".hidden", "a/b/c", "a/z", "b", "ключ"]);
        assert_eq!(scan.left_out, []);
        assert_eq!(scan.files[1].bytes, 5);
        assert_eq!(fs::read_to_string(&scan.files[1].path).unwrap(), "a/b/c");
    }

    #[test]
    fn what_is_no_file_or_no_key_is_left_out_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(root.path(), &["kept", ".roam-pull-1", "target/secret"]);
        // Full of holes: it takes no room.
        fs::File::create(at("big")).unwrap().set_len(LARGE_VALUE_BYTES as u64 + 1).unwrap();
        symlink(at("kept"), at("link")).unwrap();
        symlink("target", at("linked-directory")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let latin = root.path().join(OsStr::from_bytes(b"caf\xe9"));
        fs::create_dir(&latin).unwrap();
        fs::write(latin.join("one"), "").unwrap();
        fs::write(latin.join("two"), "").unwrap();

        let scan = scan(root.path()).unwrap();
        assert_eq!(keys(&scan), ["kept", "target/secret"]);
        let left_out: Vec<(&str, Reason)> =
            scan.left_out.iter().map(|entry| (entry.path.as_str(), entry.reason.clone())).collect();
        let expected = [
            (".roam-pull-1", Reason::Path(RefusedPath::Temporary)),
            ("big", Reason::TooLarge { bytes: LARGE_VALUE_BYTES as u64 + 1, most: LARGE_VALUE_BYTES }),
            ("caf\u{fffd}", Reason::Path(RefusedPath::NotUtf8)),
            ("link", Reason::Link),
            ("linked-directory", Reason::Link),
            ("socket", Reason::NotAFile),
        ];
        assert_eq!(left_out, expected);
    }

    #[test]
    fn a_path_over_512_bytes_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let directory = ["d".repeat(200), "e".repeat(200)].join("/");
        write(root.path(), &[&format!("{directory}/{}", "f".repeat(110)), &format!("{directory}/{}", "f".repeat(111))]);
        let scan = scan(root.path()).unwrap();
        assert_eq!(scan.files.len(), 1);
        assert_eq!(scan.left_out[0].reason, Reason::Path(RefusedPath::TooLong { bytes: 513 }));
    }

    #[test]
    fn a_missing_directory_and_a_file_are_refused() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &["file"]);
        assert!(matches!(scan(&root.path().join("none")), Err(ScanError::Unreadable(_))));
        assert!(matches!(scan(&root.path().join("file")), Err(ScanError::NotADirectory)));
    }

    #[test]
    fn a_directory_that_is_reached_by_a_link_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &["real/a"]);
        symlink("real", root.path().join("link")).unwrap();
        assert_eq!(keys(&scan(&root.path().join("link")).unwrap()), ["a"]);
    }

    #[test]
    fn only_a_key_whose_file_is_really_gone_counts_as_gone() {
        let file = |name: &str| Candidate { key: Key::parse(name).unwrap(), path: name.into(), bytes: 0 };
        let left_out = |path: &str, reason| LeftOut { path: path.to_owned(), reason };
        let scan = Scan {
            files: vec![file("here"), file("dir/here")],
            left_out: vec![
                left_out("grown", Reason::TooLarge { bytes: 1 << 20, most: LARGE_VALUE_BYTES }),
                left_out("closed", Reason::Unreadable("permission denied".to_owned())),
            ],
        };
        for (key, gone) in [
            ("here", false),
            ("dir/here", false),
            ("dir/gone", true),
            ("dir", true),
            ("gone", true),
            ("grown", false),
            ("grown2", true),
            ("closed/a/b", false),
            ("closed2/a", true),
        ] {
            let key = Key::parse(key).unwrap();
            assert_eq!(!scan.gone([&key].into_iter()).is_empty(), gone, "{key}");
        }
    }
}
