//! Orders of operators: a backup of this replica, or of any one. Answers go only into inboxes of operators.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_nats::{Bus, Headers, Message, SubscribeError};
use roam_schemas::{Encoding, subjects};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::{KeepError, Keeper};
use crate::backup::{Order, Progress, Target, Told, part_of};

/// How often somebody who waits hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// How many orders are looked at at once; further ones wait.
const AT_ONCE: usize = 4;
/// The queue group of the replicas of a shard that take what any one may do.
const ANY: &str = "backup";

impl Keeper {
    /// Does what operators order, until shutdown.
    pub(crate) async fn take_orders(self, bus: Bus, shutdown: CancellationToken) -> Result<(), SubscribeError> {
        let name = &self.inner.replica;
        let mut ours = bus.subscribe_shared(subjects::order_backup(name), ANY).await?;
        let mut anybodys = bus.subscribe_shared(subjects::order_backup_of_any(self.inner.shard), ANY).await?;
        let mut working = FuturesUnordered::new();
        loop {
            let has_room = working.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(()) = working.next(), if !working.is_empty() => {}
                Some(order) = ours.next(), if has_room => working.push(self.heed(&bus, order)),
                Some(order) = anybodys.next(), if has_room => working.push(self.heed(&bus, order)),
            }
        }
    }

    /// Makes the backup, and tells how far it is.
    async fn heed(&self, bus: &Bus, order: Message) {
        let Some(reply) = order.reply.filter(|reply| subjects::may_answer_operator(reply)) else { return };
        let target = match Order::read(&order.payload) {
            Ok(order) => order.to.unwrap_or_else(|| self.usual()),
            Err(error) => {
                let why = format!("the order does not read: {error}");
                return tell(bus, &reply, &Told::Failed { why, retry: false }).await;
            }
        };
        let progress = Progress::default();
        let making = self.make(target, &progress);
        tokio::pin!(making);
        let mut ticks = interval(TELL_EVERY);
        let made = loop {
            tokio::select! {
                biased;
                made = &mut making => break made,
                _ = ticks.tick() => tell(bus, &reply, &Told::working(progress.seen())).await,
            }
        };
        let told = match made {
            Ok(created) => Told::made(&created, self.place(target)),
            Err(error) => Told::Failed { why: in_words(&error), retry: error.retry() },
        };
        tell(bus, &reply, &told).await;
    }

    /// What a place is called to an operator.
    fn place(&self, target: Target) -> String {
        match (target, &self.inner.settings.directory) {
            (Target::Directory, Some(directory)) => match part_of(self.inner.shard) {
                Some(part) => directory.join(part).display().to_string(),
                None => directory.display().to_string(),
            },
            _ => "bucket".to_owned(),
        }
    }
}

impl KeepError {
    fn retry(&self) -> bool {
        match self {
            Self::Busy | Self::Connect(_) => true,
            Self::NoDirectory => false,
            Self::Backup(error) => error.retry(),
        }
    }
}

/// An error with its sources on one line.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

async fn tell(bus: &Bus, reply: &str, told: &Told) {
    let Ok(payload) = serde_json::to_vec(told) else { return };
    let headers = Headers::new().with_content_type(Encoding::Json);
    if let Err(error) = bus.send(reply.to_owned(), headers, Bytes::from(payload)).await {
        tracing::warn!(%error, "an operator was not told of a backup");
    }
}
