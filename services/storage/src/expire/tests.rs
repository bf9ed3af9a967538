//! What is published at a look, on a real bus.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use roam_nats::{CHANGES_STREAM, PublishSettings, stream_state};
use roam_process::Context;
use tokio::time::timeout;

use super::*;
use crate::fixture::{Fixture, Provisioned, put, seconds, with_ttl};

/// How long a look may take before the test fails.
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn more_records_are_deleted_at_a_look_than_may_be_without_an_ack() {
    const PROFILES: usize = 6;
    const EACH: usize = 100;
    let settings = PublishSettings::default();
    assert!(PROFILES * EACH > settings.window, "otherwise this test shows nothing");
    let provisioned = Provisioned::start(1).await;
    let mut fixture = Fixture::new();
    for profile in 0..PROFILES {
        fixture.profile = format!("acme/alice/app-{profile}").parse().unwrap();
        fixture.write_each((0..EACH).map(|number| with_ttl(put(&format!("session {number}"), "v"), 1)));
    }
    let context = Context::new(Duration::from_secs(5));
    let mut expirer = Expirer::new(
        Shard::ONLY,
        Publisher::new(&provisioned.bus, settings),
        fixture.reader.clone(),
        Arc::new(AtomicBool::new(true)),
        Metrics::new(&context.metrics),
        context.shutdown.clone(),
    );
    let now = seconds(10_000);
    let expired = expirer.expired(now).unwrap();
    assert_eq!(expired.len(), PROFILES * EACH);
    timeout(WITHIN, expirer.publish(expired, now)).await.expect("acks make room for the rest").unwrap();
    let changes = stream_state(&provisioned.bus, CHANGES_STREAM).await.unwrap();
    assert_eq!(changes.messages, (PROFILES * EACH) as u64);
    assert!(expirer.expired(now).unwrap().is_empty(), "all of them are under way");
}
