//! Keys as paths below a directory, and back. Pure: nothing here looks at a disk. A key comes from whoever may write the
//! profile, so none is believed.

use std::path::{Component, Path};

use roam_schemas::{Key, limits::KEY_BYTES};

use super::TEMPORARY;

/// The longest name of a file, in bytes (NAME_MAX of Linux and of macOS).
const NAME_BYTES: usize = 255;

/// Why a key is no path below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedKey {
    /// It begins with `/`.
    #[error("it is an absolute path")]
    Absolute,
    /// It ends with `/`, or has `//` in it.
    #[error("a name in it is empty")]
    EmptyName,
    /// It has `.` or `..` in it.
    #[error("it has `.` or `..` in it")]
    Dots,
    /// It has a NUL in it.
    #[error("it has a NUL in it")]
    Nul,
    /// A name in it is longer than file systems take.
    #[error("a name in it is over {NAME_BYTES} bytes")]
    LongName,
    /// A name in it is one of those that files have while they are being written.
    #[error("a name in it begins with {TEMPORARY}")]
    Temporary,
}

/// Why a path is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPath {
    /// A name in it is not UTF-8.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// It would be too long.
    #[error("its path has {bytes} bytes, at most {KEY_BYTES} make a key")]
    TooLong {
        /// The length of the path below the directory.
        bytes: usize,
    },
    /// It is a file that is being written.
    #[error("it is a temporary file of roam pull")]
    Temporary,
    /// It does not lie below the directory.
    #[error("it is not below the directory")]
    Outside,
}

/// The names of the directories and the file that a key is, from the top. Each is one plain name, so that following
/// them never leads out of the directory (as long as no symbolic link is followed).
pub fn path_of(key: &Key) -> Result<Vec<&str>, RefusedKey> {
    if key.as_str().starts_with('/') {
        return Err(RefusedKey::Absolute);
    }
    key.as_str().split('/').map(plain_name).collect()
}

/// Whether a path is of a file that is being written.
pub(crate) fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

/// The key of a file, by its path relative to the directory.
pub(crate) fn key_of(path: &Path) -> Result<Key, RefusedPath> {
    let names = path.components().map(|component| match component {
        Component::Normal(name) => name.to_str().ok_or(RefusedPath::NotUtf8),
        _ => Err(RefusedPath::Outside),
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    if names.iter().any(|name| name.starts_with(TEMPORARY)) {
        return Err(RefusedPath::Temporary);
    }
    let text = names.join("/");
    let bytes = text.len();
    Key::parse(text).map_err(|_| if bytes == 0 { RefusedPath::Outside } else { RefusedPath::TooLong { bytes } })
}

fn plain_name(name: &str) -> Result<&str, RefusedKey> {
    match name {
        "" => Err(RefusedKey::EmptyName),
        "." | ".." => Err(RefusedKey::Dots),
        _ if name.contains('\0') => Err(RefusedKey::Nul),
        _ if name.len() > NAME_BYTES => Err(RefusedKey::LongName),
        _ if name.starts_with(TEMPORARY) => Err(RefusedKey::Temporary),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn keys_that_are_no_path_below_the_directory_are_refused() {
        let long = "n".repeat(NAME_BYTES + 1);
        for (hostile, why) in [
            ("/etc/passwd", RefusedKey::Absolute),
            ("/", RefusedKey::Absolute),
            ("//", RefusedKey::Absolute),
            ("..", RefusedKey::Dots),
            ("../x", RefusedKey::Dots),
            ("a/../../x", RefusedKey::Dots),
            ("a/..", RefusedKey::Dots),
            (".", RefusedKey::Dots),
            ("./a", RefusedKey::Dots),
            ("a/./b", RefusedKey::Dots),
            ("a//b", RefusedKey::EmptyName),
            ("a/", RefusedKey::EmptyName),
            ("a\0b", RefusedKey::Nul),
            ("\0", RefusedKey::Nul),
            (&long, RefusedKey::LongName),
            ("a/.roam-pull-1/b", RefusedKey::Temporary),
        ] {
            let key = Key::parse(hostile).unwrap();
            assert_eq!(path_of(&key), Err(why), "{hostile:?}");
        }
    }

    #[test]
    fn plain_keys_are_paths_and_come_back_as_they_were() {
        let longest = "n".repeat(NAME_BYTES);
        for plain in [
            "a",
            "a/b/c",
            ".config/x.toml",
            "...",
            "..a",
            "a..",
            "-rf",
            "~",
            "a b",
            "ключ/값",
            "a\\b",
            "C:",
            "a\nb",
            &longest,
        ] {
            let key = Key::parse(plain).unwrap();
            let names = path_of(&key).unwrap();
            assert_eq!(names.join("/"), plain);
            assert_eq!(key_of(&names.iter().collect::<std::path::PathBuf>()).unwrap(), key, "{plain:?}");
        }
    }

    #[test]
    fn paths_that_are_no_key_are_refused() {
        let long = "d/".repeat(256) + "f";
        for (path, why) in [
            (Path::new(OsStr::from_bytes(b"caf\xe9")), RefusedPath::NotUtf8),
            (Path::new(OsStr::from_bytes(b"\xff/a")), RefusedPath::NotUtf8),
            (Path::new(&long), RefusedPath::TooLong { bytes: 513 }),
            (Path::new("a/.roam-pull-00"), RefusedPath::Temporary),
            (Path::new(""), RefusedPath::Outside),
            (Path::new("../a"), RefusedPath::Outside),
            (Path::new("/a"), RefusedPath::Outside),
        ] {
            assert_eq!(key_of(path), Err(why), "{path:?}");
        }
    }
}
