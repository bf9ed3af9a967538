//! Devices that save through the client library while the journal is in trouble, and what they were told. A change goes on
//! being sent until it has a receipt, and everything with a receipt is looked for in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::TryStreamExt;
use roam_client::{
    Change, ChangeId, Client, ClientSettings, Identity, LatestRequest, Operation, ProfileClient, Record, Saved, Select,
};
use roam_tests::{PATIENCE, World, app, device, eventually, key, tenant, text, user};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// How many devices save, each in a profile of its own user.
const DEVICES: usize = 3;
/// How many changes of a device are without a receipt at a time.
const LANES: usize = 8;
/// A change is sent again when its receipt has not come after half of this.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(2);

type Ledger = Arc<Mutex<BTreeMap<(usize, String), Saved>>>;

/// The devices.
pub(crate) struct Load {
    clients: Vec<Client>,
    lanes: JoinSet<()>,
    stop: CancellationToken,
    ledger: Ledger,
}

impl Load {
    /// Begins to save.
    pub(crate) async fn on(world: &World) -> Self {
        let mut load = Self {
            clients: Vec::new(),
            lanes: JoinSet::new(),
            stop: CancellationToken::new(),
            ledger: Ledger::default(),
        };
        for writer in 0..DEVICES {
            let settings = ClientSettings { receipt_timeout: RECEIPT_TIMEOUT, ..world.client_settings() };
            let client = world.connect(settings, identity(writer)).await;
            for lane in 0..LANES {
                let profile = client.profile(app("editor"));
                load.lanes.spawn(save(profile, writer, lane, load.ledger.clone(), load.stop.clone()));
            }
            load.clients.push(client);
        }
        load
    }

    /// Returns once so many more changes have a receipt.
    pub(crate) async fn goes_on(&self, more: usize) {
        let before = self.receipts();
        eventually("changes are saved", async || (self.receipts() >= before + more).then_some(())).await;
    }

    /// How many changes have a receipt.
    pub(crate) fn receipts(&self) -> usize {
        self.ledger.lock().unwrap().len()
    }

    /// Begins nothing new. Shows that every change that was begun gets its receipt, that everything with a receipt is
    /// there as the receipt says, that nothing took effect twice, and that times rise with revisions.
    pub(crate) async fn check(mut self, world: &World) {
        self.stop.cancel();
        let done = async { while self.lanes.join_next().await.map(Result::unwrap).is_some() {} };
        timeout(PATIENCE, done).await.expect("every change gets its receipt");
        let ledger = std::mem::take(&mut *self.ledger.lock().unwrap());
        for writer in 0..DEVICES {
            let reader = world.device("acme", &format!("user-{writer}"), "reader").await.profile(app("editor"));
            let own = ledger.iter().filter(|((of, _), _)| *of == writer);
            // A device that has seen nothing of the profile may be answered by a replica that is a moment behind.
            let newest = own.clone().map(|(_, saved)| saved.revision).max();
            reader
                .latest(LatestRequest { min_revision: newest, wait_ms: Some(5_000), ..LatestRequest::default() })
                .await
                .unwrap();
            let mut records: Vec<Record> = reader.records(Select::All).try_collect().await.unwrap();
            let held: BTreeMap<&str, &Record> = records.iter().map(|record| (record.key.as_str(), record)).collect();
            for ((_, name), saved) in own.clone() {
                let record = held.get(name.as_str()).unwrap_or_else(|| panic!("{name} of {writer} is lost: {saved:?}"));
                assert_eq!((record.revision, record.time), (saved.revision, saved.time), "{name} of {writer}");
            }
            assert_eq!(records.len(), own.count(), "nothing is there that has no receipt");
            records.sort_by_key(|record| record.revision);
            let revisions: Vec<u64> = records.iter().map(|record| record.revision.get()).collect();
            assert_eq!(revisions, (1..=records.len() as u64).collect::<Vec<_>>(), "each change took one revision");
            assert!(records.is_sorted_by(|earlier, later| earlier.time < later.time), "times rise with revisions");
        }
        println!("{} changes with a receipt are there", ledger.len());
    }
}

fn identity(writer: usize) -> Identity {
    Identity::Device { tenant: tenant("acme"), user: user(&format!("user-{writer}")), device: device("laptop") }
}

/// Saves one change after the other, each to another key.
async fn save(profile: ProfileClient, writer: usize, lane: usize, ledger: Ledger, stop: CancellationToken) {
    for count in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let name = format!("{lane}-{count:08}");
        let put = Operation::put(key(&name), count.to_string(), text());
        let change = Change::new(ChangeId::random(), None, vec![put]).unwrap();
        let saved = insist(&profile, &change).await;
        ledger.lock().unwrap().insert((writer, name), saved);
        // A load that leaves the machine to others too.
        let _ = stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(2))).await;
    }
}

/// Sends a change until it has a receipt.
pub(crate) async fn insist(profile: &ProfileClient, change: &Change) -> Saved {
    loop {
        let decided = match profile.submit(change.clone()).await {
            Ok(pending) => pending.receipt().await,
            Err(error) => Err(error),
        };
        match decided {
            Ok(saved) => return saved,
            Err(error) => assert!(error.retry(), "{error:?}"),
        }
    }
}
