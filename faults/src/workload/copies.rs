//! Sends changes again, as a client or a network may that knows no better: the same bytes on the same subject, at once and
//! seconds later. Nobody waits for what becomes of a copy.

use std::{collections::BinaryHeap, sync::atomic::Ordering as Memory, time::Duration};

use anyhow::Result;
use roam_client::{Change, Encoding};
use roam_nats::{Bus, Headers};
use roam_schemas::{encode, subjects};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Shared, profile_named, profile_of, writer};
use crate::site::Site;

/// Most copies that wait. What comes beyond is not copied.
const WAITING: usize = 10_000;
const AT_ONCE: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(700);
const LATE: Duration = Duration::from_secs(4);

/// A copy of a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    due: Instant,
    subject: String,
    payload: Vec<u8>,
}

impl PartialOrd for Copy {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Copy {
    /// The one that is due first is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due).then_with(|| other.payload.cmp(&self.payload))
    }
}

pub(super) fn queue() -> (mpsc::Sender<Copy>, mpsc::Receiver<Copy>) {
    mpsc::channel(WAITING)
}

/// Has a change sent again as the switches say. Says whether it may be.
pub(super) fn offer(shared: &Shared, client: usize, change: &Change) -> bool {
    let mut delays = Vec::new();
    if shared.switches.duplicate.load(Memory::Relaxed) {
        delays.extend([AT_ONCE, SOON]);
    }
    if shared.switches.delay.load(Memory::Relaxed) {
        delays.push(LATE);
    }
    if delays.is_empty() {
        return false;
    }
    let (Ok(profile), Ok(device)) = (profile_named(profile_of(client)), writer(client)) else { return false };
    let Ok(payload) = encode(change, Encoding::Postcard) else { return false };
    let subject = subjects::change(&profile, &device);
    let now = Instant::now();
    for delay in delays {
        let _ = shared.copies.try_send(Copy { due: now + delay, subject: subject.clone(), payload: payload.clone() });
    }
    true
}

/// Sends copies when they are due, until it is aborted.
pub(super) async fn send(site: &Site, queue: mpsc::Receiver<Copy>, tasks: &mut JoinSet<()>) -> Result<()> {
    let bus = Bus::connect(&site.client_settings(0).bus, "roam-faults copies").await?;
    tasks.spawn(send_due(bus, queue));
    Ok(())
}

async fn send_due(bus: Bus, mut queue: mpsc::Receiver<Copy>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let due = waiting.peek().map(|copy: &Copy| copy.due);
        tokio::select! {
            copy = queue.recv(), if waiting.len() < WAITING => match copy {
                Some(copy) => waiting.push(copy),
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(copy) = waiting.pop() {
                    let headers = Headers::new().with_content_type(Encoding::Postcard);
                    let _ = bus.send(copy.subject, headers, copy.payload.into()).await;
                }
            }
        }
    }
}
