//! How old the newest backup is, where one can be looked for.

use roam_nats::{Bus, ObjectError};
use roam_storage::backup::{BackupError, Repository};

use super::look::BackupSeen;
use crate::{cli::Repo, failure::chain};

/// The newest backup, or why there is none.
pub(super) async fn newest(from: &Repo, bus: &Bus) -> Option<Result<BackupSeen, String>> {
    let (repository, place) = match from {
        Repo::Directory(path) => (Repository::in_directory(path), path.display().to_string()),
        Repo::Bucket => (Repository::in_bucket(bus), "the bucket".to_owned()),
    };
    let none = || format!("there is no backup in {place}");
    Some(match repository.newest().await {
        Ok(Some(manifest)) => {
            Ok(BackupSeen { id: manifest.id.to_string(), created: manifest.created, replica: manifest.replica, place })
        }
        Ok(None) | Err(BackupError::NoRepository { .. }) => Err(none()),
        // A deployment may do without the bucket: it keeps its backups where we were not told.
        Err(BackupError::Bucket(ObjectError::NoBucket { .. })) => return None,
        Err(error) => Err(chain(&error)),
    })
}
