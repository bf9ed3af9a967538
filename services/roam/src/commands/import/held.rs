//! What a profile holds, as far as an import has to know it: digests instead of values.

use std::collections::BTreeMap;

use roam_client::{ProfileClient, ReadError};
use roam_schemas::{ContentHash, ContentType, Key, Revision, State, Stored};

use crate::{difference::Glance, transfer::Pages};

/// The live records of a profile, without their values.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The revision that all of it is at least as new as.
    pub(super) head: Revision,
    records: BTreeMap<Key, HeldRecord>,
}

/// A record without its value.
#[derive(Debug)]
pub(super) struct HeldRecord {
    /// Of the value; of a large one, of what its chunks come to.
    hash: ContentHash,
    content_type: ContentType,
    expires: bool,
    pub(super) glance: Glance,
}

impl Held {
    /// Reads a profile, page by page.
    pub(super) async fn by(profile: &ProfileClient) -> Result<Self, ReadError> {
        let (mut held, mut first) = (Self::default(), true);
        let mut pages = Pages::of(profile);
        while let Some(page) = pages.next().await? {
            if std::mem::take(&mut first) {
                held.head = page.head;
            }
            for record in page.records {
                if let State::Value(stored) = record.state {
                    held.records.insert(record.key, HeldRecord::of(&stored));
                }
            }
        }
        Ok(held)
    }

    /// The record of a key.
    pub(super) fn get(&self, key: &Key) -> Option<&HeldRecord> {
        self.records.get(key)
    }
}

impl HeldRecord {
    fn of(stored: &Stored) -> Self {
        let glance = Glance::at(&stored.value, &stored.content_type);
        let (hash, content_type) = match stored.manifest() {
            Ok(Some(large)) => (large.hash, large.content_type),
            _ => (ContentHash::of(stored.value.as_bytes()), stored.content_type.clone()),
        };
        Self { hash, content_type, expires: stored.expires.is_some(), glance }
    }

    /// Whether a profile that holds this holds what an archive does.
    pub(super) fn is(&self, stored: &Stored) -> bool {
        self.content_type == stored.content_type
            && self.expires == stored.expires.is_some()
            && self.hash == ContentHash::of(stored.value.as_bytes())
    }
}
