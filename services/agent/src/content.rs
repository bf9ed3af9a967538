//! What a key holds, in the profile or in a file: a value as it is, or the manifest of a large one, whose bytes are
//! elsewhere. Two contents are the same if their digests are, whichever of the two they are.

use roam_schemas::{Manifest, Record, State};

use crate::reconcile::Digest;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// What names its chunks.
    Large(Manifest),
}

impl Content {
    /// What a record holds; none if it is deleted or has expired.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let State::Value(stored) = &record.state else { return None };
        // Servers take no manifest that cannot be read.
        let manifest = stored.manifest().ok().flatten();
        Some(manifest.map_or_else(|| Self::Whole(stored.value.as_bytes().to_vec()), Self::Large))
    }

    /// The hash of the whole value.
    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::Whole(bytes) => blake3::hash(bytes),
            Self::Large(manifest) => Digest::from_bytes(*manifest.hash.as_bytes()),
        }
    }
}
