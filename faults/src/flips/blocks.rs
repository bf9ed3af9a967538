//! Flips in the files in which a server keeps its streams. A whole deployment with devices that have an outbox: some of what
//! they wrote has its receipt, some has only its PubAck, when a bit is flipped in a block of a stream. What has a receipt must
//! survive, and the outboxes must bring all the rest.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roam_client::{
    App, Client, ClientSettings, ContentType, Identity, Key, LocalProfile, LocalStore, Select, ServiceName,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::Counts;
use crate::{
    fault::flip,
    history::seen,
    site::{Plan, Shape, Site},
    workload::{app, device_named, owner, profile_of, tenant},
};

const DEVICES: usize = 8;
/// What each device writes that is saved, and what it writes then while no replica runs.
const SAVED: usize = 3;
const WAITING: usize = 2;
/// A PubAck that is older than this when the connection comes back is not trusted: an outbox sends its change again.
const PUB_ACK_TRUSTED: Duration = Duration::from_secs(11);
const WITHIN: Duration = Duration::from_secs(90);

/// The devices, and what they wrote.
struct Devices {
    profiles: Vec<LocalProfile>,
    /// The value of each key of a device.
    wrote: BTreeMap<(usize, String), String>,
    _place: TempDir,
}

/// Flips a bit in so many blocks, one after the other, each with changes of its own under way.
pub(crate) async fn sweep(programs: &Path, flips: usize, seed: u64) -> Result<Counts> {
    let mut dice = StdRng::seed_from_u64(seed);
    let plan = Plan { access_servers: 1, ..Plan::new(Shape::Single, programs.to_owned()) };
    let mut site = Site::start(plan).await?;
    let mut devices = Devices::open(&site).await?;
    let mut counts = Counts::default();
    for round in 0..flips {
        let flipped = devices.round(&mut site, round, flips, &mut dice).await;
        let wrong = match flipped {
            Ok((_, wrong)) if wrong.is_empty() => None,
            Ok((place, wrong)) => Some(format!("{place}: {}", wrong.join("; "))),
            Err(error) => return Err(error.context(format!("round {round}"))),
        };
        match wrong {
            None => counts.harmless += 1,
            Some(wrong) => counts.wrong.push(wrong),
        }
    }
    Ok(counts)
}

impl Devices {
    async fn open(site: &Site) -> Result<Devices> {
        let place = TempDir::with_prefix("roam-flips-devices-")?;
        let mut profiles = Vec::new();
        for device in 0..DEVICES {
            let identity =
                Identity::Device { tenant: tenant()?, user: owner(profile_of(device))?, device: device_named(device)? };
            let settings = ClientSettings { bus: site.direct(), ..site.client_settings(device) };
            let store = LocalStore::open(place.path().join(format!("{device}.redb")), settings, identity).await?;
            profiles.push(store.profile(app()?).await?);
        }
        Ok(Devices { profiles, wrote: BTreeMap::new(), _place: place })
    }

    /// One flip: says where it was, and what was wrong afterwards.
    async fn round(
        &mut self,
        site: &mut Site,
        round: usize,
        of: usize,
        dice: &mut StdRng,
    ) -> Result<(String, Vec<String>)> {
        self.write(&format!("saved/{round}"), SAVED).await?;
        self.synced().await?;
        site.replicas[0].kill().await;
        // In every other round they are in the stream of changes still, and not yet in the journal.
        if round % 2 == 1 {
            site.access_servers[0].kill().await;
        }
        self.write(&format!("waiting/{round}"), WAITING).await?;
        sleep(PUB_ACK_TRUSTED).await;
        let server = &mut site.servers.all()[0];
        server.kill().await?;
        let mut blocks = Vec::new();
        blocks_in(&server.dir().join("jetstream"), &mut blocks)?;
        blocks.sort();
        let (block, offset) = place_in(&blocks, round, of, dice)?;
        flip(&block, offset, dice.random_range(0..8))?;
        server.restart().await?;
        site.repair().await?;
        site.replicas[0].start().await?;
        site.access_servers[0].start().await?;
        site.ready(WITHIN).await?;
        self.synced().await?;
        let name = format!("{}, byte {offset}", block.display());
        Ok((name, self.missing(site).await?))
    }

    async fn write(&mut self, name: &str, count: usize) -> Result<()> {
        for (device, profile) in self.profiles.iter().enumerate() {
            for number in 0..count {
                let (key, value) =
                    (format!("{device}/{name}/{number}"), format!("value of {device}, {name}, {number}"));
                profile.put(Key::parse(key.clone())?, value.clone(), ContentType::text()).await?;
                self.wrote.insert((device, key), value);
            }
        }
        Ok(())
    }

    /// Waits until nothing of any device is unsaved.
    async fn synced(&self) -> Result<()> {
        for profile in &self.profiles {
            timeout(WITHIN, profile.synced()).await.context("a device does not get in step with the servers")??;
        }
        Ok(())
    }

    /// What was written and is not on the servers as it was written.
    async fn missing(&self, site: &Site) -> Result<Vec<String>> {
        let identity = Identity::Service { tenant: tenant()?, name: ServiceName::parse("reader")? };
        let client =
            Client::connect(ClientSettings { bus: site.direct(), ..site.client_settings(0) }, identity).await?;
        let (mut there, app): (BTreeMap<_, _>, App) = (BTreeMap::new(), app()?);
        for profile in 0..=profile_of(DEVICES - 1) {
            let records: Vec<_> =
                client.profile_of(owner(profile)?, app.clone()).records(Select::All).try_collect().await?;
            there.extend(seen(&records).into_iter().map(|seen| (seen.key.to_string(), seen.value)));
        }
        client.close().await;
        let lacks = |key: &str, value: &str| there.get(key).and_then(|found| found.as_deref()) != Some(value);
        Ok(self.wrote.iter().filter(|((_, key), value)| lacks(key, value)).map(|((_, key), _)| key.clone()).collect())
    }
}

fn blocks_in(directory: &Path, blocks: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            blocks_in(&entry.path(), blocks)?;
        } else if entry.file_name().to_string_lossy().ends_with(".blk") && entry.metadata()?.len() > 0 {
            blocks.push(entry.path());
        }
    }
    Ok(())
}

/// A place in one of the files: each in turn, and in each of them further on from round to round.
fn place_in(blocks: &[PathBuf], round: usize, of: usize, dice: &mut StdRng) -> Result<(PathBuf, u64)> {
    let block = blocks.get(round % blocks.len().max(1)).context("there is no block")?;
    let size = fs::metadata(block)?.len();
    let part = size * round as u64 / of as u64;
    Ok((block.clone(), (part + dice.random_range(0..=size / of as u64)).min(size - 1)))
}
