//! Listens to every receipt and every notice, whomever it is for. What is lost on the way here is not missed: this shows what
//! was said, not what was heard.

use std::sync::Arc;

use anyhow::Result;
use roam_nats::{Bus, Message};
use roam_schemas::{BulkReceipt, BulkReceipts, Notice, Outcome, Receipt, decode, subjects};
use tokio::task::JoinSet;

use super::{Shared, place_of};
use crate::{history::Wired, site::Site};

const RECEIPTS: &str = "roam.v1.receipt.>";
const NOTICES: &str = "roam.v1.notice.>";

/// What a message says of each change; none if it is not what its subject says.
type Reads = fn(&Message) -> Option<Vec<Wired>>;

/// Listens until it is aborted.
pub(super) async fn listen(site: &Site, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let bus = Bus::connect(&site.direct(), "roam-faults wire").await?;
    let kinds: [(&str, Reads); 2] = [(RECEIPTS, receipts), (NOTICES, notice)];
    for (subject, read) in kinds {
        let mut messages = bus.subscribe(subject.to_owned()).await?;
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            while let Some(message) = messages.next().await {
                shared.recorder.history().wired.extend(read(&message).into_iter().flatten());
            }
        });
    }
    Ok(())
}

fn receipts(message: &Message) -> Option<Vec<Wired>> {
    let encoding = message.headers.encoding()?;
    if !subjects::is_receipt_of_bulk(&message.subject) {
        return Some(vec![receipt(&message.subject, decode(&message.payload, encoding).ok()?)?]);
    }
    let BulkReceipts { receipts } = decode(&message.payload, encoding).ok()?;
    let one = |of: BulkReceipt| receipt(&subjects::receipt_of_one(&message.subject, &of.user)?, of.receipt);
    Some(receipts.into_iter().filter_map(one).collect())
}

fn receipt(subject: &str, receipt: Receipt) -> Option<Wired> {
    let (profile, device) = subjects::parse_receipt(subject).ok()?;
    let outcome = match receipt.outcome {
        // A change that came too late whole takes no revision of its own.
        Outcome::Applied(applied) => Ok((applied.revision.get(), applied.time.as_nanos())),
        Outcome::Rejected(problem) => Err(problem.code.as_str().to_owned()),
    };
    Some(Wired::Receipt {
        profile: place_of(&profile)?,
        device: device.as_str().to_owned(),
        change: receipt.id?,
        outcome,
    })
}

fn notice(message: &Message) -> Option<Vec<Wired>> {
    let profile = subjects::parse_notice(&message.subject).ok()?;
    let notice: Notice = decode(&message.payload, message.headers.encoding()?).ok()?;
    Some(vec![Wired::Notice {
        profile: place_of(&profile)?,
        revision: notice.revision.get(),
        time: notice.time.as_nanos(),
        change: notice.change,
        device: notice.device.as_str().to_owned(),
    }])
}
