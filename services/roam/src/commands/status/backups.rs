//! How old the newest backup is, where one can be looked for.

use roam_nats::ObjectError;
use roam_storage::backup::{BackupError, Repository};

use super::look::BackupSeen;
use crate::{cli::Repo, failure::chain, operator::Operator};

/// The newest backup of the shard; nothing where there is no bucket to look into.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn newest(from: &Repo, operator: &Operator) -> Result<Option<BackupSeen>, String> {
    let (repository, place) = match from {
        Repo::Directory(path) => (Repository::in_directory(path), path.display().to_string()),
        Repo::Bucket => (Repository::in_bucket(&operator.bus), "the bucket".to_owned()),
    };
    match repository.of_shard(operator.shard).newest().await {
        Ok(Some(manifest)) => {
            let (id, created, replica) = (manifest.id.to_string(), manifest.created, manifest.replica);
            Ok(Some(BackupSeen { id, created, replica, place }))
        }
        Ok(None) | Err(BackupError::NoRepository { .. }) => Err(format!("there is no backup in {place}")),
        // A deployment may do without the bucket: it keeps its backups where we were not told.
        Err(BackupError::Bucket(ObjectError::NoBucket { .. })) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}
