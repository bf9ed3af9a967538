//! Table `large`: the keys that have, or once had, a version whose value lies in chunks; so that the chunks that are
//! needed are found without reading every version of every key.
//!
//! | part | layout |
//! |---|---|
//! | key | profile, key |
//! | value | empty |
//! | lifetime | until all versions of the key go with its tombstone |

use std::collections::HashSet;

use roam_schemas::{ContentHash, MANIFEST_CONTENT_TYPE, Manifest, Tenant, User};

use super::{
    Snapshot, StoreError,
    forget::VersionFilter,
    keys::UserKey,
    meta::Horizon,
    version::{self, RowState, VersionRow},
};

/// The name of the column family.
pub(super) const TABLE: &str = "large";

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
    pub(crate) fn needed_chunks(
        &self,
        tenant: &Tenant,
        user: &User,
        horizon: Horizon,
    ) -> Result<HashSet<ContentHash>, StoreError> {
        let mut keys = Vec::new();
        self.rows_of(TABLE, UserKey::new(tenant, user).as_bytes(), |key, _| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        let mut needed = HashSet::new();
        for key in keys {
            let mut filter = VersionFilter::new(horizon);
            self.rows_of(version::TABLE, &key, |row_key, value| {
                if !filter.is_gone(row_key, value)
                    && let RowState::Value { content_type: MANIFEST_CONTENT_TYPE, value, .. } =
                        VersionRow::read(value)?.state
                    && let Ok(manifest) = Manifest::parse(value)
                {
                    needed.extend(manifest.chunks.iter().map(|chunk| chunk.hash));
                }
                Ok(())
            })?;
        }
        Ok(needed)
    }
}
