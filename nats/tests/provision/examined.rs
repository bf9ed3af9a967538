//! What a doctor finds on a server: all is well, and then each thing that was spoilt, with what to do about it.

use roam_nats::{BusSettings, Finding, Soundness, examine};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{World, must, small};

/// Looks at everything, by a clock that is so many seconds ahead of that of the server.
async fn findings(world: &World, ahead: u64) -> Vec<Finding> {
    let settings = BusSettings { servers: vec![world.server.client_url()], ..BusSettings::default() };
    let told = must(&world.bus, "STREAM.INFO.ROAM_JOURNAL", &json!({})).await["ts"].take();
    let told = OffsetDateTime::parse(told.as_str().unwrap(), &Rfc3339).unwrap();
    let now = u64::try_from(told.unix_timestamp_nanos()).unwrap() + ahead * 1_000_000_000;
    let monitor = world.server.monitor_url().replace("http://", "");
    examine(&world.bus, &settings, Some(&monitor), || now).await
}

fn problems(findings: Vec<Finding>) -> Vec<(&'static str, String, String)> {
    let bad = findings.into_iter().filter(|finding| finding.state == Soundness::Problem);
    bad.map(|Finding { check, found, remedy, .. }| (check, found, remedy.expect("each problem has a remedy"))).collect()
}

#[tokio::test]
async fn a_doctor_names_what_is_wrong_and_what_to_do_about_it() {
    let world = World::provisioned(&small(1)).await;
    let found = findings(&world, 0).await;
    for check in ["version", "max_payload", "streams", "backlog", "clock", "sync_interval", "disk"] {
        let of_check: Vec<_> = found.iter().filter(|finding| finding.check == check).collect();
        assert!(matches!(of_check[..], [finding] if finding.state == Soundness::Sound), "{check}: {of_check:?}");
    }

    let mut config = must(&world.bus, "STREAM.INFO.ROAM_REJECTED", &json!({})).await["config"].take();
    config["allow_rollup_hdrs"] = Value::Bool(true);
    must(&world.bus, "STREAM.UPDATE.ROAM_REJECTED", &config).await;
    must(&world.bus, "STREAM.DELETE.ROAM_CHUNKS", &json!({})).await;
    must(&world.bus, "CONSUMER.DELETE.ROAM_CHANGES.access", &json!({})).await;
    let problems = problems(findings(&world, 60).await);
    for (check, found, remedy) in [
        ("streams", "stream ROAM_CHUNKS does not exist", "roam provision"),
        ("streams", "consumer ROAM_CHANGES/access does not exist", "roam provision"),
        ("streams", "stream ROAM_REJECTED: allow_rollup_hdrs should be false, and is true", "nats stream edit"),
        ("clock", "s apart", "NTP"),
    ] {
        let named = problems.iter().any(|(c, f, r)| *c == check && f.contains(found) && r.contains(remedy));
        assert!(named, "{check}, {found}: {problems:#?}");
    }
}
