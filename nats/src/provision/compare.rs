//! What differs between the settings that we want and the settings that a server has. Pure. Never decides what to do
//! about it.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::definition::{Settings, shown};

/// Ours among the metadata. The server adds `_nats.…`, and operators may add what they like.
const OUR_METADATA: &str = "roam.";
/// Settings that change nothing about what is kept, delivered or refused, and are the operator's to choose.
const NOT_COMPARED: [&str; 2] = ["description", "placement"];

/// A setting that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `stream NAME` or `consumer STREAM/NAME`.
    pub object: String,
    /// The setting, by its name in the JetStream API; `metadata.KEY` for an entry of the metadata.
    pub setting: String,
    /// What it should be.
    pub expected: String,
    /// What the server has.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { object, setting, expected, found } = self;
        write!(f, "{object}: {setting} should be {expected}, and is {found}")
    }
}

/// All differences of one object. Every setting is looked at that either side has, also one that this program does not
/// know: what is not expected has to be off.
pub(crate) fn differences(object: &str, expected: &Settings, found: &Settings) -> Vec<Difference> {
    let (expected, found) = (flat(expected), flat(found));
    let settings: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let mut differences = Vec::new();
    for setting in settings {
        let ours = expected.get(setting).unwrap_or(&Value::Null);
        let theirs = found.get(setting).unwrap_or(&Value::Null);
        if ours != theirs && !(is_off(ours) && is_off(theirs)) {
            differences.push(Difference {
                object: object.to_owned(),
                setting: setting.clone(),
                expected: shown(setting, ours),
                found: shown(setting, theirs),
            });
        }
    }
    differences
}

/// The settings that are compared, with our metadata one by one.
fn flat(settings: &Settings) -> Settings {
    let mut flat = Settings::new();
    for (setting, value) in settings {
        match (setting.as_str(), value) {
            (name, _) if NOT_COMPARED.contains(&name) => {}
            ("metadata", Value::Object(entries)) => {
                let ours = entries.iter().filter(|(key, _)| key.starts_with(OUR_METADATA));
                flat.extend(ours.map(|(key, value)| (format!("metadata.{key}"), value.clone())));
            }
            _ => drop(flat.insert(setting.clone(), value.clone())),
        }
    }
    flat
}

/// Whether it is what the server leaves out or fills in when a setting is not given.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(entries) => entries.values().all(is_off),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// The differences of two objects as lines.
    fn check(expected: Value, found: Value) -> Vec<String> {
        let (Value::Object(expected), Value::Object(found)) = (expected, found) else { unreachable!() };
        differences("x", &expected, &found).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_server_fills_in_is_no_difference() {
        let found = json!({
            "name": "A", "max_age": 0, "sealed": false, "consumer_limits": {}, "template_owner": "",
            "metadata": {"_nats.ver": "2.15.1", "team": "ours", "roam.format": "1"}, "description": "the queue",
            "placement": {"tags": ["ssd"]},
        });
        let expected = json!({"name": "A", "allow_direct": false, "metadata": {"roam.format": "1"}});
        assert_eq!(check(expected, found), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named_with_both_sides() {
        let expected = json!({
            "max_msgs": 5, "max_age": 604_800_000_000_000_u64, "subjects": ["a"], "deny_purge": true,
            "metadata": {"roam.format": "1", "roam.storage_replicas": "2"},
        });
        let found = json!({
            "max_msgs": -1, "max_age": 60_000_000_000_u64, "subjects": ["a", "b"], "allow_something_new": true,
            "mirror": {"name": "B"}, "metadata": {"roam.format": "2"},
        });
        let lines = check(expected, found);
        assert_eq!(
            lines,
            [
                "x: allow_something_new should be unset, and is true",
                "x: deny_purge should be true, and is unset",
                "x: max_age should be 7d, and is 1m",
                "x: max_msgs should be 5, and is -1",
                "x: metadata.roam.format should be 1, and is 2",
                "x: metadata.roam.storage_replicas should be 2, and is unset",
                "x: mirror should be unset, and is {\"name\":\"B\"}",
                "x: subjects should be [\"a\"], and is [\"a\",\"b\"]",
            ]
        );
    }
}
