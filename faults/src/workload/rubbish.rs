//! Publishes changes that nobody can decode, a few a second. Each that is accepted has to be in ROAM_REJECTED at the end, and
//! none may hold up what is behind it.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use roam_client::Encoding;
use roam_nats::{Bus, Headers, PublishSettings, Publisher};
use roam_schemas::subjects;
use tokio::{task::JoinSet, time::sleep};

use super::{Shared, device_named, profile_named};
use crate::site::Site;

const PAUSE: Duration = Duration::from_millis(250);

/// Publishes until it is aborted.
pub(super) async fn send(site: &Site, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let bus = Bus::connect(&site.client_settings(1).bus, "roam-faults rubbish").await?;
    let subject = subjects::change(&profile_named(0)?, &device_named(0)?);
    let settings = PublishSettings { retry_for: Duration::ZERO, ..PublishSettings::default() };
    let publisher = Publisher::new(&bus, settings);
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        loop {
            sleep(PAUSE).await;
            let headers = Headers::new().with_content_type(Encoding::Postcard);
            let pending = publisher.publish(subject.clone(), headers, "\u{1}rubbish".into()).await;
            if let Ok(ack) = pending.await {
                shared.recorder.history().spoiled.push(ack.sequence);
            }
        }
    });
    Ok(())
}
