//! What was deleted lately, so that a restart does not make anybody forget how much that was.

use std::time::Duration;

use redb::{Durability, ReadTransaction, TableError};
use roam_schemas::{Key, Timestamp};

use super::{DELETED, HELD_BACK, Known, Store, StoreError, each};

impl Store {
    /// These keys are deleted now; what was deleted longer ago than `lately` is forgotten.
    ///
    /// It is synced with the next commit that is, at the latest when file and profile agree that the keys are gone. Before
    /// that the deletions are found again.
    pub(crate) fn deleting<'k>(
        &self,
        app: &str,
        known: &mut Known,
        keys: impl Iterator<Item = &'k Key>,
        now: Timestamp,
        lately: Duration,
    ) -> Result<(), StoreError> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::None)?;
        {
            let mut deleted = write.open_table(DELETED)?;
            let since = now.minus_seconds(lately.as_secs());
            for (key, _) in known.deleted.extract_if(.., |_, at| *at < since) {
                deleted.remove((app, key.as_str()))?;
            }
            known.made.retain(|_, at| *at >= since && !known.deleted.is_empty());
            // What was not there before the first deletion is none of what they took away.
            for key in keys.filter(|key| !known.made.contains_key(*key)) {
                deleted.insert((app, key.as_str()), now.as_nanos().to_le_bytes().as_slice())?;
                known.deleted.insert(key.clone(), now);
            }
        }
        write.commit()?;
        known.deleting = Some(now);
        Ok(())
    }

    /// What was deleted lately counts no more.
    pub(crate) fn forget_deletions(&self, app: &str, known: &mut Known) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut deleted = write.open_table(DELETED)?;
            for key in std::mem::take(&mut known.deleted).keys() {
                deleted.remove((app, key.as_str()))?;
            }
            write.open_table(HELD_BACK)?.remove(app)?;
        }
        write.commit()?;
        known.made.clear();
        (known.deleting, known.holds_back) = (None, false);
        Ok(())
    }

    /// Whether deletions are held back from now on.
    pub(crate) fn hold_back(&self, app: &str, known: &mut Known, holds_back: bool) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut held_back = write.open_table(HELD_BACK)?;
            if holds_back {
                held_back.insert(app, ())?;
            } else {
                held_back.remove(app)?;
            }
        }
        write.commit()?;
        known.holds_back = holds_back;
        Ok(())
    }
}

/// Reads what is known of deletions.
pub(super) fn read(read: &ReadTransaction, app: &str, known: &mut Known) -> Result<(), StoreError> {
    each(read, DELETED, app, |key, value| {
        let nanos = u64::from_le_bytes(value.try_into().map_err(|_| StoreError::Damaged)?);
        known.deleted.insert(key, Timestamp::from_nanos(nanos));
        Ok(())
    })?;
    known.holds_back = match read.open_table(HELD_BACK) {
        // An older agent wrote this.
        Err(TableError::TableDoesNotExist(_)) => false,
        table => table?.get(app)?.is_some(),
    };
    Ok(())
}
