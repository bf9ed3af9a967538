//! Table `large`: the keys that have, or once had, a version whose value lies in chunks; so that the chunks that are
//! needed are found without reading every version of every key.
//!
//! | part | layout |
//! |---|---|
//! | key | profile, key |
//! | value | empty |
//! | lifetime | until all versions of the key go with its tombstone |

use std::collections::{BTreeMap, BTreeSet};

use roam_schemas::{ContentHash, MANIFEST_CONTENT_TYPE, Manifest, Tenant, User};

use super::{
    Reader, Snapshot, StoreError,
    forget::VersionFilter,
    keys::{ProfileKey, UserKey},
    meta::Horizon,
    version::{self, RowState, VersionRow},
};

/// The name of the column family.
pub(super) const TABLE: &str = "large";

/// Chunks that records or kept versions need, with their sizes in bytes.
pub(crate) type Chunks = BTreeMap<ContentHash, u32>;
/// The chunks that each user needs who needs any.
pub(crate) type ChunksOfUsers = BTreeMap<(Tenant, User), Chunks>;

/// Whether the value lies in chunks.
pub(super) fn is_large(state: &RowState<'_>) -> bool {
    matches!(state, RowState::Value { content_type, .. } if *content_type == MANIFEST_CONTENT_TYPE)
}

impl Snapshot<'_> {
    /// The chunks of all records of a user and of all versions that are kept. A version that is still on disk and that a
    /// compaction may drop at any moment, by `horizon`, needs none: so what is needed does not depend on compactions.
    ///
    /// # Errors
    /// As all reads.
    pub(crate) fn needed_chunks(&self, tenant: &Tenant, user: &User, horizon: Horizon) -> Result<Chunks, StoreError> {
        let mut keys = Vec::new();
        self.rows_of(TABLE, UserKey::new(tenant, user).as_bytes(), |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        let mut needed = Chunks::new();
        for key in keys {
            let mut filter = VersionFilter::new(horizon);
            self.rows_of(version::TABLE, &key, |row_key, value| {
                if !filter.is_gone(row_key, value)
                    && let RowState::Value { content_type: MANIFEST_CONTENT_TYPE, value, .. } =
                        VersionRow::read(value)?.state
                    && let Ok(manifest) = Manifest::parse(value)
                {
                    needed.extend(manifest.chunks.iter().map(|chunk| (chunk.hash, chunk.length)));
                }
                Ok(())
            })?;
        }
        Ok(needed)
    }
}

impl Reader {
    /// The chunks that all users need, by the horizon of the store.
    ///
    /// # Errors
    /// As all reads.
    pub(crate) fn needed_chunks(&self) -> Result<ChunksOfUsers, StoreError> {
        // An older build, whose files were opened to be read, knew no large values.
        if !self.tables().contains(&TABLE) {
            return Ok(ChunksOfUsers::new());
        }
        let (snapshot, horizon) = (self.snapshot(), self.horizon());
        let mut users = BTreeSet::new();
        snapshot.rows_of(TABLE, &[], |key, _| {
            let damaged = || StoreError::Damaged { table: TABLE, what: "a key".to_owned() };
            let (profile, _) = ProfileKey::split(key).ok_or_else(damaged)?;
            users.insert((profile.tenant, profile.user));
            Ok(())
        })?;
        let mut needed = ChunksOfUsers::new();
        for (tenant, user) in users {
            let chunks = snapshot.needed_chunks(&tenant, &user, horizon)?;
            if !chunks.is_empty() {
                needed.insert((tenant, user), chunks);
            }
        }
        Ok(needed)
    }
}
