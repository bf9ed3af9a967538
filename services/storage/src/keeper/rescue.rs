//! Backups that replicas help each other with: one that begins a line by an order makes one of it, and one that the journal
//! does not carry forward takes one.

use std::{error::Error, path::Path, sync::atomic::Ordering};

use super::{KeepError, Keeper};
use crate::{
    backup::{BackupError, Progress, Restored},
    journal::Wanted,
};

impl Keeper {
    /// Has a backup made as soon as this replica is on that line of the journal.
    pub(crate) fn want(&self, line: u64) {
        self.inner.wanted.store(line, Ordering::Relaxed);
    }

    /// Makes a backup if one is wanted, and it is time for it. One that fails is tried again at the next look.
    pub(super) async fn make_if_wanted(&self) {
        let wanted = self.inner.wanted.load(Ordering::Relaxed);
        if wanted == 0 {
            return;
        }
        // A store that cannot be read ends the process elsewhere.
        let stands = self.inner.reader.snapshot().position().ok().flatten();
        if stands.is_none_or(|position| position.line < wanted) {
            return;
        }
        match self.make(self.usual(), &Progress::default()).await {
            Ok(_) => {
                let _ = self.inner.wanted.compare_exchange(wanted, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "no backup was made of a new line of the journal");
            }
        }
    }

    /// Brings the newest backup that is wanted back into a directory. None if there is none.
    ///
    /// # Errors
    /// See [`KeepError`]. One that is damaged is passed over.
    pub(crate) async fn take(&self, wanted: &Wanted, target: &Path) -> Result<Option<Restored>, KeepError> {
        let taken = self.with_repository(self.usual(), async |repository| {
            let listed = match repository.list().await {
                Err(BackupError::NoRepository { .. }) => return Ok(None),
                listed => listed?,
            };
            let wanted = listed.into_iter().filter_map(|listed| listed.manifest.ok()).filter(|found| wanted.is(found));
            for manifest in wanted {
                // Others live, and so does the bus: it has the chunks.
                match repository.fetch_records(&manifest.id, target, &Progress::default()).await {
                    Err(
                        error @ (BackupError::Damaged { .. }
                        | BackupError::Manifest { .. }
                        | BackupError::NoSuchBackup { .. }),
                    ) => tracing::warn!(id = %manifest.id, %error, "a backup that is wanted cannot be used"),
                    taken => return Ok(Some(taken?)),
                }
            }
            Ok(None)
        });
        taken.await
    }
}
