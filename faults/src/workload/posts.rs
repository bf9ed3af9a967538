//! Publishes by hand, each change once: what was accepted has to be decided without anybody sending it again. One in ten is
//! such that nobody can decode it: it has to be in ROAM_REJECTED at the end, and may not hold up what is behind it.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use roam_client::Encoding;
use roam_nats::{Bus, Headers, PublishSettings, Publisher};
use roam_schemas::{encode, subjects};
use tokio::{task::JoinSet, time::sleep};

use super::{Shared, device::change_of, profile_named, writer};
use crate::{
    history::{Op, Told, Wanted, Write},
    site::Site,
};

/// What the keys of these changes begin with.
pub(crate) const POSTED: &str = "posted/";
const PAUSE: Duration = Duration::from_millis(25);
/// One in so many cannot be decoded.
const RUBBISH: u64 = 10;
/// Whose device these are published as, and in whose profile.
pub(crate) const CLIENT: usize = 0;

/// Publishes until it is aborted.
pub(super) async fn send(site: &Site, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let bus = Bus::connect(&site.client_settings(1).bus, "roam-faults posts").await?;
    let subject = subjects::change(&profile_named(CLIENT)?, &writer(CLIENT)?);
    let settings = PublishSettings { retry_for: Duration::ZERO, ..PublishSettings::default() };
    let publisher = Publisher::new(&bus, settings);
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        for count in 1.. {
            sleep(PAUSE).await;
            match count % RUBBISH {
                0 => {
                    if let Some(sequence) = publish(&publisher, &subject, b"\x01rubbish".to_vec()).await {
                        shared.recorder.history().spoiled.push(sequence);
                    }
                }
                _ => post(&publisher, &subject, &shared, count).await,
            }
        }
    });
    Ok(())
}

/// Publishes a change to a key of its own, and leaves it to the end to find out what became of it.
async fn post(publisher: &Publisher, subject: &str, shared: &Shared, count: u64) {
    let op = Op {
        key: format!("{POSTED}{count}").into(),
        value: Some(format!("p{CLIENT}.posted.{count}").into()),
        wanted: Wanted::Any,
    };
    let Some(change) = change_of(std::slice::from_ref(&op)) else { return };
    let Ok(payload) = encode(&change, Encoding::Postcard) else { return };
    // It is recorded before it is sent, since this task may end at any moment.
    let (id, span) = (change.id(), shared.recorder.span_from(shared.recorder.now()));
    let told = Told::Unknown { accepted: false };
    let write = Write { client: CLIENT, profile: CLIENT, id, ops: vec![op], span, in_turn: false, told };
    let place = {
        let mut history = shared.recorder.history();
        history.writes.push(write);
        history.writes.len() - 1
    };
    shared.unsettled(place, change);
    if publish(publisher, subject, payload).await.is_some() {
        shared.recorder.history().writes[place].told = Told::Unknown { accepted: true };
    }
}

/// The sequence, if there was a PubAck.
async fn publish(publisher: &Publisher, subject: &str, payload: Vec<u8>) -> Option<u64> {
    let headers = Headers::new().with_content_type(Encoding::Postcard);
    let pending = publisher.publish(subject.to_owned(), headers, payload.into()).await;
    Some(pending.await.ok()?.sequence)
}
