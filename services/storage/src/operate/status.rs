//! `status`: how this replica stands.

use std::{fs, io, path::Path};

use roam_schemas::{Missing, StatusReply};

use super::{Operated, Refusal};
use crate::room;

impl Operated {
    /// Looks at everything as it is now. Reads the disk.
    pub(super) fn status(&self) -> Result<StatusReply, Refusal> {
        let missing = self.health.not_ready_of_its_own().into_iter();
        let directory = self.reader.directory();
        Ok(StatusReply {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            position: self.reader.snapshot().position()?.as_ref().map(Into::into),
            halted: self.progress.halt(),
            missing: missing.map(|missing| Missing { condition: missing.condition, reason: missing.reason }).collect(),
            announces: self.announces(),
            epoch: self.reader.epoch(),
            used_bytes: used(directory).map_err(|error| Refusal::Failed(error.to_string()))?,
            free_bytes: room::free(directory),
        })
    }
}

/// How many bytes the files in a directory take. RocksDB makes no directories in its own.
fn used(directory: &Path) -> io::Result<u64> {
    // A file may go while it is looked at.
    let sizes = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Ok(sizes.sum())
}
