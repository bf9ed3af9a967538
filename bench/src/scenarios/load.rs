//! Loading records before anything is measured.

use crate::{
    asking::Asking,
    drive::Drive,
    jetstream::KvPut,
    keys::Keys,
    roam::{Saving, Until},
};

/// Operations of a change while loading.
const OPERATIONS: u64 = 100;
/// Changes in flight while loading.
const CHANGES: usize = 64;
/// Puts in flight while loading.
const PUTS: usize = 512;

/// Puts all records of these keys into Roam.
pub(crate) async fn into_roam(servers: &[String], keys: &Keys) -> anyhow::Result<std::time::Duration> {
    let operations = OPERATIONS.min(keys.keys);
    let saving = Saving::open(servers, keys.clone(), operations, Until::Receipt).await?.in_order();
    let changes = keys.keys.div_ceil(operations) * keys.profiles;
    Drive::new(saving, 0)?.run(changes, CHANGES).await
}

/// Puts all records of these keys into a bucket.
pub(crate) async fn into_bucket(servers: &[String], keys: &Keys) -> anyhow::Result<()> {
    let asking = Asking::open(servers, None, KvPut(keys.clone())).await?;
    Drive::new(asking, 0)?.run(keys.records(), PUTS).await?;
    Ok(())
}
