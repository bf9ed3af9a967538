//! Where the nats-server program is, and whether it is new enough. Never starts a server, never downloads one.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest nats-server that Roam works with: `strict` JetStream requests are on by default from 2.12, and pinned
/// consumers exist from 2.11 (release notes of nats-server).
pub const OLDEST_SERVER: ServerVersion = ServerVersion { major: 2, minor: 12, patch: 0 };

/// Names the program outright, before any search.
pub const SERVER_VARIABLE: &str = "ROAM_NATS_SERVER";

const PROGRAM: &str = if cfg!(windows) { "nats-server.exe" } else { "nats-server" };
const TOOLS: &str = ".tools";

/// A nats-server program that exists and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBinary {
    path: PathBuf,
    version: ServerVersion,
}

/// The version of a nats-server. Ordered; what follows the third number (`-beta.1`) is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// 2 in 2.15.1.
    pub major: u32,
    /// 15 in 2.15.1.
    pub minor: u32,
    /// 1 in 2.15.1.
    pub patch: u32,
}

/// Why there is no nats-server to start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing was found anywhere.
    #[error(
        "no nats-server found; install nats-server {OLDEST_SERVER} or newer (https://nats.io/download), then put it on \
         PATH, or in a directory {TOOLS} here or above, or name it in {SERVER_VARIABLE}"
    )]
    Missing,
    /// A program was named, and it cannot be run.
    #[error("{path} cannot be run as nats-server; name nats-server {OLDEST_SERVER} or newer in {SERVER_VARIABLE}")]
    NotRunnable {
        /// What was tried.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It runs, and says something that is no version.
    #[error("{path} does not say which nats-server it is; it printed: {output}")]
    Unreadable {
        /// What was tried.
        path: PathBuf,
        /// The beginning of what it printed.
        output: String,
    },
    /// It is a nats-server, and too old.
    #[error(
        "{path} is nats-server {found}, which is too old; install nats-server {OLDEST_SERVER} or newer \
         (https://nats.io/download), or name one in {SERVER_VARIABLE}"
    )]
    TooOld {
        /// What was found.
        path: PathBuf,
        /// Its version.
        found: ServerVersion,
    },
}

impl ServerBinary {
    /// Finds nats-server: `ROAM_NATS_SERVER`, then `.tools/nats-server` in the current directory and upwards and beside
    /// this executable, then `PATH`. The first one found counts: if it is too old, that is an error.
    pub fn find() -> Result<ServerBinary, FindError> {
        let place = Places::of_this_process().search().ok_or(FindError::Missing)?;
        ServerBinary::at(&place)
    }

    /// Takes the program at `path`, if it is a nats-server and new enough.
    pub fn at(path: &Path) -> Result<ServerBinary, FindError> {
        let version = ask_version(path)?;
        if version < OLDEST_SERVER {
            return Err(FindError::TooOld { path: path.to_owned(), found: version });
        }
        Ok(ServerBinary { path: path.to_owned(), version })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn version(&self) -> ServerVersion {
        self.version
    }
}

impl ServerVersion {
    /// Reads `2.15.1`, `v2.15.1` or `2.14.0-beta.1`.
    pub fn parse(text: &str) -> Option<ServerVersion> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let version = ServerVersion { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Where to look, taken from the environment at one place so that the order can be tested.
struct Places {
    named: Option<PathBuf>,
    current: Option<PathBuf>,
    executable: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Places {
    fn of_this_process() -> Places {
        Places {
            named: env::var_os(SERVER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from),
            current: env::current_dir().ok(),
            executable: env::current_exe().ok(),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        }
    }

    /// A named program is taken as it is, there or not: whoever named it wants no other.
    fn search(self) -> Option<PathBuf> {
        if self.named.is_some() {
            return self.named;
        }
        let upwards = self.current.iter().flat_map(|dir| dir.ancestors()).map(|dir| dir.join(TOOLS));
        let beside =
            self.executable.iter().filter_map(|file| file.parent()).flat_map(|dir| [dir.join(TOOLS), dir.to_owned()]);
        let mut programs = upwards.chain(beside).chain(self.path.iter().cloned()).map(|dir| dir.join(PROGRAM));
        programs.find(|program| program.is_file())
    }
}

fn ask_version(path: &Path) -> Result<ServerVersion, FindError> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .map_err(|source| FindError::NotRunnable { path: path.to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("nats-server: ").and_then(ServerVersion::parse);
    version.ok_or_else(|| FindError::Unreadable { path: path.to_owned(), output: text.chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn touch(dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        let file = dir.join(PROGRAM);
        fs::write(&file, "").unwrap();
        file
    }

    #[test]
    fn places_are_searched_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let here = at("a/b/c");
        fs::create_dir_all(&here).unwrap();
        let places = |named: Option<PathBuf>| Places {
            named,
            current: Some(here.clone()),
            executable: Some(at("exe/roam")),
            path: vec![at("path-1"), at("path-2")],
        };
        assert_eq!(places(None).search(), None);

        // From the last place to the first: each one found is preferred to all before it.
        let second = touch(&at("path-2"));
        assert_eq!(places(None).search(), Some(second));
        let first = touch(&at("path-1"));
        assert_eq!(places(None).search(), Some(first));
        let beside = touch(&at("exe"));
        assert_eq!(places(None).search(), Some(beside));
        let tools_beside = touch(&at("exe/.tools"));
        assert_eq!(places(None).search(), Some(tools_beside));
        let above = touch(&at("a/.tools"));
        assert_eq!(places(None).search(), Some(above));
        let near = touch(&at("a/b/c/.tools"));
        assert_eq!(places(None).search(), Some(near));
        assert_eq!(places(Some(at("named"))).search(), Some(at("named")));
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |major, minor, patch| Some(ServerVersion { major, minor, patch });
        for (text, expected) in [
            ("v2.15.1", version(2, 15, 1)),
            ("2.12.0", version(2, 12, 0)),
            ("v2.14.0-beta.1", version(2, 14, 0)),
            ("v2.14.3+build", version(2, 14, 3)),
            ("", None),
            ("v2.15", None),
            ("v2.15.1.7", None),
            ("two", None),
        ] {
            assert_eq!(ServerVersion::parse(text), expected, "{text:?}");
        }
        assert!(version(2, 9, 10) < Some(OLDEST_SERVER));
        assert!(version(2, 12, 0) >= Some(OLDEST_SERVER));
        assert!(version(3, 0, 0) > Some(OLDEST_SERVER));
    }
}
