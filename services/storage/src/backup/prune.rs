//! Removing old backups: first manifests, then the files that no manifest names any more.

use std::collections::BTreeSet;

use super::{BackupError, BackupId, Hash, Repository};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The backups that are gone, newest first.
    pub removed: Vec<BackupId>,
    /// How many backups are left.
    pub kept: usize,
    /// How many files are gone.
    pub files: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// Files were left alone, because a backup is being made or read; the next pruning removes them.
    pub busy: bool,
}

impl Repository {
    /// Keeps the newest backups, so many of them and at least one, and removes what belongs to the others alone.
    ///
    /// # Errors
    /// See [`BackupError`]. While the manifest or the list of chunks of a backup that stays does not read, no file is
    /// removed: it may be named there.
    pub async fn prune(&self, keep: usize) -> Result<Pruned, BackupError> {
        let ids = self.ids().await?;
        let (kept, old) = ids.split_at(keep.max(1).min(ids.len()));
        let mut pruned = Pruned { kept: kept.len(), ..Pruned::default() };
        for id in old {
            self.remove_manifest(id).await?;
            pruned.removed.push(id.clone());
        }
        let Some(mut guard) = self.begin_prune().await? else {
            return Ok(Pruned { busy: true, ..pruned });
        };
        let removed = self.remove_unnamed(&mut guard, &mut pruned).await;
        guard.end().await;
        removed.map(|()| pruned)
    }

    async fn remove_unnamed(&self, guard: &mut super::Guard, pruned: &mut Pruned) -> Result<(), BackupError> {
        // Looked up again: one may have come since.
        let mut named: BTreeSet<Hash> = BTreeSet::new();
        for id in self.ids().await? {
            let manifest = self.manifest(&id).await?;
            named.extend(manifest.files.iter().map(|file| file.blake3));
            named.extend(manifest.chunks.map(|chunks| chunks.list));
            let chunks = self.chunks_of(&manifest).await?;
            named.extend(chunks.values().flatten().map(|(hash, _)| Hash::from(*hash)));
        }
        for hash in self.files().await? {
            if !named.contains(&hash) {
                guard.renew().await?;
                pruned.bytes += self.remove_file(hash).await?;
                pruned.files += 1;
            }
        }
        Ok(())
    }
}
