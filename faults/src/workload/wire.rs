//! Listens to every receipt and every notice, whomever it is for. What is lost on the way here is not missed: this shows what
//! was said, not what was heard.

use std::sync::Arc;

use anyhow::Result;
use roam_nats::{Bus, Message};
use roam_schemas::{Notice, Outcome, Receipt, decode, subjects};
use tokio::task::JoinSet;

use super::{Shared, place_of};
use crate::{history::Wired, site::Site};

const RECEIPTS: &str = "roam.v1.receipt.>";
const NOTICES: &str = "roam.v1.notice.>";

/// What a message says; none if it is not what its subject says.
type Reads = fn(&Message) -> Option<Wired>;

/// Listens until it is aborted.
pub(super) async fn listen(site: &Site, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let bus = Bus::connect(&site.direct(), "roam-faults wire").await?;
    let kinds: [(&str, Reads); 2] = [(RECEIPTS, receipt), (NOTICES, notice)];
    for (subject, read) in kinds {
        let mut messages = bus.subscribe(subject.to_owned()).await?;
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            while let Some(message) = messages.next().await {
                if let Some(wired) = read(&message) {
                    shared.recorder.history().wired.push(wired);
                }
            }
        });
    }
    Ok(())
}

fn receipt(message: &Message) -> Option<Wired> {
    let (profile, device) = subjects::parse_receipt(&message.subject).ok()?;
    let receipt: Receipt = decode(&message.payload, message.headers.encoding()?).ok()?;
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

fn notice(message: &Message) -> Option<Wired> {
    let profile = subjects::parse_notice(&message.subject).ok()?;
    let notice: Notice = decode(&message.payload, message.headers.encoding()?).ok()?;
    Some(Wired::Notice {
        profile: place_of(&profile)?,
        revision: notice.revision.get(),
        time: notice.time.as_nanos(),
        change: notice.change,
        device: notice.device.as_str().to_owned(),
    })
}
