//! The JSON Schemas in `json/`: they are those that the types give, and they say of the golden messages what decoding says.

use std::{collections::BTreeMap, fs};

use crate::support::{KINDS, bless, cases, files_below, in_crate, objects::with_an_unknown_field};
use jsonschema::Validator;
use roam_schemas::schema;

fn validators() -> BTreeMap<&'static str, Validator> {
    let validator = |schema: &schemars::Schema| {
        jsonschema::options().should_validate_formats(true).build(schema.as_value()).unwrap()
    };
    schema::all().iter().map(|(key, schema)| (*key, validator(schema))).collect()
}

#[test]
fn the_files_are_the_schemas_of_the_types() {
    let directory = in_crate("json");
    let mut expected = BTreeMap::new();
    for (key, schema) in schema::all() {
        expected.insert(format!("{key}.schema.json"), serde_json::to_string_pretty(&schema).unwrap() + "\n");
    }
    if bless() {
        fs::create_dir_all(&directory).unwrap();
        expected.iter().for_each(|(name, text)| fs::write(directory.join(name), text).unwrap());
    }
    let found = files_below(&directory);
    assert_eq!(found, expected.keys().cloned().collect(), "ROAM_BLESS=1 writes them");
    for (name, text) in expected {
        assert_eq!(fs::read_to_string(directory.join(&name)).unwrap(), text, "{name}: ROAM_BLESS=1 writes it");
    }
}

#[test]
fn there_is_a_schema_of_every_kind() {
    let keys: Vec<_> = schema::all().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, KINDS.map(|(key, _)| key));
}

#[test]
fn every_schema_is_a_valid_schema() {
    for (key, schema) in schema::all() {
        assert!(jsonschema::meta::validate(schema.as_value()).is_ok(), "{key}");
    }
}

#[test]
fn every_golden_message_is_of_its_schema_and_of_no_other() {
    let validators = validators();
    for case in cases::all() {
        let message = serde_json::from_slice(&case.spelling.json).unwrap();
        for (key, validator) in &validators {
            let valid = validator.validate(&message);
            assert_eq!(valid.is_ok(), *key == case.key, "{}/{} under {key}: {:?}", case.key, case.name, valid.err());
        }
    }
}

#[test]
fn a_field_that_nobody_knows_is_of_no_schema() {
    let validators = validators();
    for case in cases::all() {
        let message = serde_json::from_slice(&case.spelling.json).unwrap();
        for payload in with_an_unknown_field(&message) {
            let spoiled = serde_json::from_str(&payload).unwrap();
            assert!(!validators[case.key].is_valid(&spoiled), "{}: {payload}", case.key);
        }
    }
}

#[test]
fn what_is_out_of_bounds_is_of_no_schema() {
    let validators = validators();
    let id = "019ca85e-407b-7d3a-9f01-23456789abcd";
    let a_delete = serde_json::json!({ "id": id, "ops": [{ "key": "k", "action": "delete" }] });
    for (key, message) in [
        ("change_v1", serde_json::json!({ "id": id, "ops": [] })),
        ("change_v1", serde_json::json!({ "id": "seven", "ops": [{ "key": "k", "action": "delete" }] })),
        ("change_v1", serde_json::json!({ "id": id, "ops": [{ "key": "", "action": "delete" }] })),
        ("change_v1", serde_json::json!({ "id": id, "ops": [{ "key": "k".repeat(513), "action": "delete" }] })),
        ("change_v1", serde_json::json!({ "id": id, "ops": [{ "key": "k", "action": { "delete": null } }] })),
        (
            "change_v1",
            serde_json::json!({ "id": id, "ops": vec![serde_json::json!({ "key": "k", "action": "delete" }); 1_001] }),
        ),
        ("bulk_v1", serde_json::json!({ "changes": [] })),
        ("bulk_v1", serde_json::json!({ "changes": [{ "user": "alice", "change": { "id": id, "ops": [] } }] })),
        ("bulk_v1", serde_json::json!({ "changes": [{ "user": "", "change": a_delete }] })),
        ("bulk_v1", serde_json::json!({ "changes": vec![serde_json::json!({ "user": "a", "change": a_delete }); 65] })),
        ("latest_request_v1", serde_json::json!({ "min_revision": 9_007_199_254_740_992_u64 })),
        ("latest_request_v1", serde_json::json!({ "select": { "keys": vec!["k"; 1_001] } })),
        ("latest_request_v1", serde_json::json!([])),
        ("changes_request_v1", serde_json::json!({ "cursor": "short" })),
        ("problem_v1", serde_json::json!({ "code": "other", "message": "", "retry": false })),
    ] {
        assert!(!validators[key].is_valid(&serde_json::json!({ key: message })), "{message}");
    }
}
