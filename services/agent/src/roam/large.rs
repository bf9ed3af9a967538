//! Values that are too large for a record: uploaded from their files, and fetched into the spool, piece by piece. At no
//! time is one of them in memory as a whole.

use std::{io::ErrorKind, time::Duration};

use roam_client::ReadError;
use roam_schemas::{Action, ContentHash, Key, Manifest, Operation};
use tokio::{
    fs::{self, File},
    time::Instant,
};

use super::{Published, RoamError, Roamer};
use crate::{
    desk::{Fetch, Upload},
    tree,
};

/// How much is fetched before what is fetched takes its place.
const SPOOL_BYTES: u64 = 256 * 1024 * 1024;
/// When a value that could not be had is tried again at the earliest.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

impl Roamer {
    /// Uploads files, and publishes each once its chunks are there.
    pub(super) async fn upload(&mut self, uploads: Vec<Upload>) -> Result<Published, RoamError> {
        let mut done = Published::All;
        for Upload { key, path, digest, content_type, expect } in uploads {
            let opened = self.work(move |_| tree::open(&path)).await?;
            let staged = match opened {
                Ok(file) => self.profile.stage(&mut File::from_std(file), content_type, |_| {}).await,
                Err(_) => {
                    // It was removed or replaced since it was looked at.
                    self.work(move |desk| desk.touch(&key)).await?;
                    done = Published::Edited;
                    continue;
                }
            };
            let put = match staged {
                Ok(put) => put,
                Err(roam_client::ChangeError::Closed) => return Err(RoamError::Closed),
                Err(error) => return Ok(Published::Later(error.to_string())),
            };
            let op = Operation { key, action: Action::Put(put), expect };
            if hash(&op) != Some(ContentHash::from_bytes(*digest.as_bytes())) {
                // Written while it was read. What was uploaded of it is removed in time, as nothing needs it.
                self.work(move |desk| desk.touch(&op.key)).await?;
                done = Published::Edited;
                continue;
            }
            match self.publish(vec![op]).await? {
                Published::All => {}
                other => return Ok(other),
            }
        }
        Ok(done)
    }

    /// Fetches values into the spool, so that the next round has them. One that cannot be had holds up no other, and is
    /// not tried again at once, however often the files are looked at meanwhile.
    pub(super) async fn fetch(&mut self, fetches: Vec<Fetch>) -> Result<Published, RoamError> {
        let (mut done, mut bytes) = (Published::All, 0);
        for Fetch { key, manifest } in fetches {
            if bytes >= SPOOL_BYTES {
                return Ok(done.and(Published::Edited));
            }
            let unfetched = self.unfetched.get(&key).filter(|(until, _)| *until > Instant::now());
            let why = match unfetched {
                Some((_, why)) => why.clone(),
                None => match self.fetch_one(&manifest).await {
                    Ok(()) => {
                        self.unfetched.remove(&key);
                        bytes += manifest.length;
                        done = done.and(Published::Edited);
                        continue;
                    }
                    Err(ReadError::Closed) => return Err(RoamError::Closed),
                    Err(error) => {
                        let why = why(&error, manifest.length);
                        tracing::warn!(app = %self.app, key = ?key, why, "a large value cannot be had now");
                        self.unfetched.insert(key.clone(), (Instant::now() + FETCH_PAUSE, why.clone()));
                        why
                    }
                },
            };
            done = Published::Later(format!("{key}: {why}"));
            self.refuse(key, why).await?;
        }
        Ok(done)
    }

    async fn fetch_one(&self, manifest: &Manifest) -> Result<(), ReadError> {
        let unwritten = |error: std::io::Error| ReadError::Sink(error.kind());
        let desk = self.desk.as_ref().ok_or(ReadError::Closed)?;
        let spool = desk.spool().clone();
        spool.check_room(manifest.length, desk.watched().0).map_err(unwritten)?;
        let partial = spool.partial(manifest.hash);
        let fetched = match File::create(&partial).await {
            Ok(mut file) => self.profile.download(manifest, &mut file, |_| {}).await,
            Err(error) => Err(unwritten(error)),
        };
        let kept = fetched.and_then(|()| spool.keep(manifest.hash).map_err(unwritten));
        if kept.is_err() {
            // It is fetched anew; what is there of it only takes room.
            let _ = fs::remove_file(&partial).await;
        }
        kept
    }

    async fn refuse(&mut self, key: Key, why: String) -> Result<(), RoamError> {
        let refused = self.work(move |desk| {
            desk.unfetched(key, why);
            super::left_out(desk.refused())
        });
        let refused = refused.await?;
        self.board.update(&self.app, |status| status.refused = refused);
        Ok(())
    }
}

fn why(error: &ReadError, bytes: u64) -> String {
    match error {
        ReadError::Sink(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
            format!("the disk is full: there is no room for its {bytes} bytes")
        }
        error => error.to_string(),
    }
}

/// The hash of what a put writes.
fn hash(op: &Operation) -> Option<ContentHash> {
    let Action::Put(put) = &op.action else { return None };
    match put.content_type.is_manifest() {
        true => Manifest::parse(put.value.as_bytes()).ok().map(|manifest| manifest.hash),
        // It shrank, and fits into a record.
        false => Some(ContentHash::of(put.value.as_bytes())),
    }
}
