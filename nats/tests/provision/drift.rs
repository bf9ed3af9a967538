//! What differs from the definitions is named, setting by setting, and nothing is made or changed then.

use std::collections::BTreeSet;

use roam_nats::{
    Bus, Deployment, Difference, Overrides, ProvisionError, StateError, provision, provision_auth, stream_state,
};
use serde_json::{Value, json};

use super::{World, must, small};

fn drift(error: ProvisionError) -> Vec<Difference> {
    match error {
        ProvisionError::Drift(differences) => differences,
        other => panic!("{other}"),
    }
}

/// Changes of one stream that the server takes, and the settings that have to be named then.
fn altered_streams() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        ("ROAM_CHANGES", json!({"subjects": ["roam.v1.change.acme.>"]}), &["subjects"]),
        ("ROAM_CHANGES", json!({"storage": "memory"}), &["storage"]),
        ("ROAM_CHANGES", json!({"retention": "limits"}), &["retention"]),
        ("ROAM_CHANGES", json!({"retention": "interest"}), &["retention"]),
        (
            "ROAM_CHANGES",
            json!({"discard": "old", "discard_new_per_subject": false}),
            &["discard", "discard_new_per_subject"],
        ),
        ("ROAM_CHANGES", json!({"discard_new_per_subject": false}), &["discard_new_per_subject"]),
        ("ROAM_CHANGES", json!({"max_msgs": 60_001}), &["max_msgs"]),
        ("ROAM_CHANGES", json!({"max_msgs_per_subject": 255}), &["max_msgs_per_subject"]),
        ("ROAM_CHANGES", json!({"max_bytes": -1}), &["max_bytes"]),
        ("ROAM_CHANGES", json!({"max_age": 1_000_000_000_u64}), &["max_age"]),
        ("ROAM_CHANGES", json!({"max_msg_size": 1000}), &["max_msg_size"]),
        ("ROAM_CHANGES", json!({"max_consumers": 3}), &["max_consumers"]),
        ("ROAM_CHANGES", json!({"compression": "s2"}), &["compression"]),
        ("ROAM_CHANGES", json!({"duplicate_window": 120_000_000_000_u64}), &["duplicate_window"]),
        ("ROAM_CHANGES", json!({"deny_delete": false}), &["deny_delete"]),
        ("ROAM_CHANGES", json!({"deny_purge": false}), &["deny_purge"]),
        ("ROAM_CHANGES", json!({"allow_direct": true}), &["allow_direct"]),
        ("ROAM_CHANGES", json!({"no_ack": true}), &["no_ack"]),
        ("ROAM_CHANGES", json!({"allow_atomic": true}), &["allow_atomic"]),
        ("ROAM_CHANGES", json!({"metadata": {"roam.format": "2"}}), &["metadata.roam.format"]),
        ("ROAM_CHANGES", json!({"metadata": {}}), &["metadata.roam.format"]),
        ("ROAM_JOURNAL", json!({"max_age": 86_400_000_000_000_u64}), &["max_age"]),
        ("ROAM_JOURNAL", json!({"discard": "new"}), &["discard"]),
        ("ROAM_JOURNAL", json!({"allow_rollup_hdrs": true, "deny_purge": false}), &["allow_rollup_hdrs", "deny_purge"]),
        ("ROAM_JOURNAL", json!({"allow_msg_ttl": true}), &["allow_msg_ttl"]),
        ("ROAM_JOURNAL", json!({"first_seq": 1000}), &["first_seq"]),
        ("ROAM_JOURNAL", json!({"republish": {"src": ">", "dest": "copy.>"}}), &["republish"]),
        ("ROAM_JOURNAL", json!({"sources": [{"name": "ROAM_REJECTED"}]}), &["sources"]),
        ("ROAM_JOURNAL", json!({"persist_mode": "async"}), &["persist_mode"]),
        ("ROAM_JOURNAL", json!({"subject_transform": {"src": ">", "dest": "x.>"}}), &["subject_transform"]),
        (
            "ROAM_JOURNAL",
            json!({"metadata": {"roam.format": "1", "roam.storage_replicas": "2"}}),
            &["metadata.roam.storage_replicas"],
        ),
        ("ROAM_REJECTED", json!({"allow_msg_counter": true}), &["allow_msg_counter"]),
        (
            "ROAM_REJECTED",
            json!({"allow_msg_schedules": true, "allow_rollup_hdrs": true, "deny_delete": false}),
            &["allow_msg_schedules", "allow_rollup_hdrs", "deny_delete"],
        ),
        ("ROAM_CHUNKS", json!({"allow_direct": true}), &["allow_direct"]),
        ("ROAM_CHUNKS", json!({"deny_delete": true}), &["deny_delete"]),
        ("ROAM_CHUNKS", json!({"max_msgs_per_subject": 100}), &["max_msgs_per_subject"]),
        (
            "ROAM_CHUNKS",
            json!({"metadata": {"roam.format": "1", "roam.chunk_grace_seconds": "1"}}),
            &["metadata.roam.chunk_grace_seconds"],
        ),
        // A setting that this program does not know.
        ("ROAM_REJECTED", json!({"allow_batched": true}), &["allow_batched"]),
        ("OBJ_ROAM_BACKUPS", json!({"discard": "old"}), &["discard"]),
        ("OBJ_ROAM_BACKUPS", json!({"max_age": 3_600_000_000_000_u64}), &["max_age"]),
    ]
}

/// Changes of one durable that the server takes.
fn altered_durables() -> Vec<(&'static str, &'static str, Value, &'static [&'static str])> {
    vec![
        ("ROAM_CHANGES", "access", json!({"ack_wait": 30_000_000_000_u64}), &["ack_wait"]),
        ("ROAM_CHANGES", "access", json!({"max_ack_pending": 1000}), &["max_ack_pending"]),
        ("ROAM_CHANGES", "access", json!({"max_deliver": 5}), &["max_deliver"]),
        ("ROAM_CHANGES", "access", json!({"max_waiting": 1}), &["max_waiting"]),
        ("ROAM_CHANGES", "access", json!({"filter_subject": "roam.v1.change.acme.>"}), &["filter_subject"]),
        ("ROAM_CHANGES", "access", json!({"inactive_threshold": 5_000_000_000_u64}), &["inactive_threshold"]),
        ("ROAM_CHANGES", "access", json!({"headers_only": true}), &["headers_only"]),
        ("ROAM_CHANGES", "access", json!({"max_batch": 10}), &["max_batch"]),
        ("ROAM_JOURNAL", "announce", json!({"headers_only": false}), &["headers_only"]),
        ("ROAM_JOURNAL", "announce", json!({"ack_policy": "none"}), &["ack_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"deliver_policy": "new"}), &["deliver_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"replay_policy": "original"}), &["replay_policy"]),
        ("ROAM_JOURNAL", "announce", json!({"priority_timeout": 60_000_000_000_u64}), &["priority_timeout"]),
        ("ROAM_JOURNAL", "announce", json!({"priority_groups": ["other"]}), &["priority_groups"]),
        (
            "ROAM_JOURNAL",
            "announce",
            json!({"priority_policy": "none", "priority_groups": [], "priority_timeout": 0}),
            &["priority_groups", "priority_policy", "priority_timeout"],
        ),
        ("ROAM_JOURNAL", "announce", json!({"mem_storage": true}), &["mem_storage"]),
        ("ROAM_JOURNAL", "announce", json!({"num_replicas": 1}), &["num_replicas"]),
    ]
}

fn altered(settings: &Value, change: &Value) -> Value {
    let mut altered = settings.clone();
    altered.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    altered
}

/// Provisions, and expects to be refused for exactly these settings of this object.
async fn expect_drift(bus: &Bus, object: &str, change: &Value, settings: &[&str]) {
    let Err(error) = provision(bus, &small(1)).await else { panic!("not refused: {object} {change}") };
    let text = error.to_string();
    let differences = drift(error);
    let named: BTreeSet<_> = differences.iter().map(|difference| difference.setting.as_str()).collect();
    assert_eq!(named, settings.iter().copied().collect(), "{object} {change}: {text}");
    assert!(differences.iter().all(|difference| difference.object == object), "{object} {change}: {text}");
}

#[tokio::test]
async fn each_drift_of_a_stream_is_named() {
    let world = World::provisioned(&small(1)).await;
    for (stream, change, settings) in altered_streams() {
        let right = must(&world.bus, &format!("STREAM.INFO.{stream}"), &json!({})).await["config"].take();
        must(&world.bus, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
        must(&world.bus, &format!("STREAM.CREATE.{stream}"), &altered(&right, &change)).await;
        expect_drift(&world.bus, &format!("stream {stream}"), &change, settings).await;
        must(&world.bus, &format!("STREAM.DELETE.{stream}"), &json!({})).await;
        provision(&world.bus, &small(1)).await.unwrap();
    }
}

#[tokio::test]
async fn each_drift_of_a_durable_is_named() {
    let world = World::provisioned(&small(1)).await;
    for (stream, durable, change, settings) in altered_durables() {
        let (info, create, delete) = (
            format!("CONSUMER.INFO.{stream}.{durable}"),
            format!("CONSUMER.CREATE.{stream}.{durable}"),
            format!("CONSUMER.DELETE.{stream}.{durable}"),
        );
        let right = must(&world.bus, &info, &json!({})).await["config"].take();
        must(&world.bus, &delete, &json!({})).await;
        let body = json!({"stream_name": stream, "action": "create", "config": altered(&right, &change)});
        // A filter is part of the subject on which a filtered consumer is made.
        let filter = change.get("filter_subject").and_then(Value::as_str);
        let create = filter.map_or(create.clone(), |filter| format!("{create}.{filter}"));
        must(&world.bus, &create, &body).await;
        expect_drift(&world.bus, &format!("consumer {stream}/{durable}"), &change, settings).await;
        must(&world.bus, &delete, &json!({})).await;
        provision(&world.bus, &small(1)).await.unwrap();
    }
}

#[tokio::test]
async fn all_drift_is_reported_at_once_and_nothing_is_made() {
    let world = World::provisioned(&small(1)).await;
    must(&world.bus, "STREAM.DELETE.ROAM_REJECTED", &json!({})).await;
    let wanted = Overrides { changes_max_messages: Some(10), journal_days: Some(1), ..small(1).overrides };
    let error = provision(&world.bus, &Deployment { overrides: wanted, ..Deployment::new(3, 2) }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "what is provisioned differs from what should be:\
         \n  stream ROAM_CHANGES: max_msgs should be 10, and is 60000\
         \n  stream ROAM_CHANGES: num_replicas should be 3, and is 1\
         \n  stream ROAM_JOURNAL: max_age should be 1d, and is 7d\
         \n  stream ROAM_JOURNAL: metadata.roam.storage_replicas should be 2, and is 1\
         \n  stream ROAM_JOURNAL: num_replicas should be 3, and is 1\
         \n  stream ROAM_CHUNKS: num_replicas should be 3, and is 1\
         \n  stream ROAM_TERMS: num_replicas should be 3, and is 1\
         \n  stream OBJ_ROAM_BACKUPS: num_replicas should be 3, and is 1"
    );
    let missing = stream_state(&world.bus, "ROAM_REJECTED").await.unwrap_err();
    assert!(matches!(missing, StateError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn what_operators_add_is_no_drift() {
    let world = World::provisioned(&small(1)).await;
    let mut settings = must(&world.bus, "STREAM.INFO.ROAM_CHANGES", &json!({})).await["config"].take();
    settings["description"] = json!("what devices publish");
    settings["metadata"]["team"] = json!("sync");
    must(&world.bus, "STREAM.UPDATE.ROAM_CHANGES", &settings).await;
    provision(&world.bus, &small(1)).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_version_made_is_put_right_unless_more_differs() {
    let world = World::start().await;
    let few = Some(16 * 1024 * 1024);
    let overrides = Overrides { audit_max_bytes: few, tokens_max_bytes: few, ..Overrides::default() };
    let deployment = Deployment { overrides, ..Deployment::new(1, 1) };
    let both = ["stream ROAM_TOKENS", "stream ROAM_AUDIT"];
    assert_eq!(provision_auth(&world.bus, &deployment).await.unwrap().created, both);
    let config = async || must(&world.bus, "STREAM.INFO.ROAM_AUDIT", &json!({})).await["config"].take();
    let right = config().await;
    let earlier = json!({"duplicate_window": 100_000_000, "description": "kept"});

    let more = altered(&altered(&right, &earlier), &json!({"max_age": 60_000_000_000_u64}));
    must(&world.bus, "STREAM.UPDATE.ROAM_AUDIT", &more).await;
    let differences = drift(provision_auth(&world.bus, &deployment).await.unwrap_err());
    let settings: BTreeSet<_> = differences.iter().map(|difference| difference.setting.as_str()).collect();
    assert_eq!(settings, BTreeSet::from(["duplicate_window", "max_age"]));
    assert_eq!(config().await["duplicate_window"], json!(100_000_000), "nothing was changed");

    must(&world.bus, "STREAM.UPDATE.ROAM_AUDIT", &altered(&right, &earlier)).await;
    let report = provision_auth(&world.bus, &deployment).await.unwrap();
    assert_eq!((report.updated, report.unchanged), (vec![both[1].to_owned()], vec![both[0].to_owned()]));
    let put_right = config().await;
    assert_eq!(put_right["duplicate_window"], right["duplicate_window"]);
    assert_eq!(put_right["description"], json!("kept"), "what is the operator's to choose stays");
    assert_eq!(provision_auth(&world.bus, &deployment).await.unwrap().unchanged, both);

    // No earlier version made this.
    must(&world.bus, "STREAM.UPDATE.ROAM_AUDIT", &altered(&right, &json!({"duplicate_window": 200_000_000}))).await;
    assert_eq!(drift(provision_auth(&world.bus, &deployment).await.unwrap_err()).len(), 1);
}
