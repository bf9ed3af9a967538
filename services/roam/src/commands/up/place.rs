//! Where `roam up` keeps what it holds.

use std::{
    env,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use roam_schemas::Shard;

/// A directory for everything.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) root: PathBuf,
}

/// There is no such directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The environment does not say where data goes.
    #[error("neither XDG_DATA_HOME nor HOME says where data is kept")]
    Nowhere,
    /// It cannot be made.
    #[error("{} cannot be made", path.display())]
    Make { path: PathBuf, source: io::Error },
}

impl Place {
    /// The directory that was named, or `roam` in the XDG data directory. It is made if it is missing, for its owner alone.
    pub(super) fn of(named: Option<&Path>) -> Result<Self, PlaceError> {
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let root = match named {
            Some(named) => named.to_owned(),
            None => xdg_data(variable("XDG_DATA_HOME"), variable("HOME")).ok_or(PlaceError::Nowhere)?.join("roam"),
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&root);
        // Made absolute, so that it can be shown to somebody who is elsewhere.
        let absolute = made.and_then(|()| std::path::absolute(&root));
        Ok(Self { root: absolute.map_err(|source| PlaceError::Make { path: root, source })? })
    }

    /// Where NATS keeps the streams.
    pub(super) fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    /// Where backups of the replica go.
    pub(super) fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// Where the keys, certificates and the first token are.
    pub(super) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Where the replica of a shard keeps its tables.
    pub(super) fn storage(&self, shard: Shard) -> PathBuf {
        self.root.join(match shard.is_only() {
            true => "storage".to_owned(),
            false => format!("storage-{}", shard.number()),
        })
    }
}

/// The base directory for data (XDG Base Directory Specification 0.8): relative paths in the variable do not count.
fn xdg_data(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let named = xdg.filter(|path| path.is_absolute());
    named.or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(".local/share")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn data_goes_where_the_specification_says() {
        for (xdg, home, expected) in [
            (Some("/x"), Some("/home/a"), Some("/x")),
            (Some("x"), Some("/home/a"), Some("/home/a/.local/share")),
            (Some(""), Some("/home/a"), Some("/home/a/.local/share")),
            (None, Some("/home/a"), Some("/home/a/.local/share")),
            (None, Some(""), None),
            (None, None, None),
        ] {
            assert_eq!(xdg_data(xdg.map(Into::into), home.map(Into::into)), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn a_new_place_is_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::of(Some(&root.path().join("a/b"))).unwrap();
        assert_eq!(place.root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Place::of(Some(&place.root)).unwrap().root, place.root, "one that is there is taken as it is");
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(matches!(Place::of(Some(&root.path().join("file/x"))), Err(PlaceError::Make { .. })));
    }
}
