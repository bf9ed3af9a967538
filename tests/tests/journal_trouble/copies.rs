//! Copies of what JetStream holds on disk, taken and put back while the server is stopped, as a power cut, a damaged block or
//! a restored disk does it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use roam_tests::World;

/// Where a server keeps the streams of its one account, from its directory.
const STREAMS: &str = "jetstream/$G/streams";

/// A copy.
pub(crate) struct Kept {
    streams: PathBuf,
}

impl Kept {
    /// Keeps a copy of what the server holds now, and starts it again.
    pub(crate) async fn of(world: &mut World) -> Self {
        world.nats.stop().await.unwrap();
        let kept = Self { streams: world.dir().join("kept") };
        replace(&streams_of(world), &kept.streams);
        world.nats.restart().await.unwrap();
        kept
    }

    /// Puts parts of it back, such as `ROAM_JOURNAL/msgs`, and starts the server again.
    pub(crate) async fn put_back(&self, world: &mut World, parts: &[&str]) {
        world.nats.stop().await.unwrap();
        for part in parts {
            replace(&self.streams.join(part), &streams_of(world).join(part));
        }
        world.nats.restart().await.unwrap();
    }
}

fn streams_of(world: &World) -> PathBuf {
    world.nats.dir().join(STREAMS)
}

/// Makes `to` what `from` is.
fn replace(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            replace(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
