//! Ways to spoil one object inside a JSON text. Holds no test.

use serde_json::{Map, Value};

/// Every rendering of the value in which exactly one object, at whatever depth, has a field that nobody knows.
pub(crate) fn with_an_unknown_field(value: &Value) -> Vec<String> {
    spoiled(value, &|object| vec![with_entry(object, r#""unknown":null"#)])
}

/// Every rendering of the value in which exactly one key of one object, at whatever depth, stands twice.
pub(crate) fn with_a_key_twice(value: &Value) -> Vec<String> {
    spoiled(value, &|object| object.iter().map(|(key, value)| with_entry(object, &entry(key, value))).collect())
}

fn spoiled(value: &Value, spoil: &dyn Fn(&Map<String, Value>) -> Vec<String>) -> Vec<String> {
    match value {
        Value::Object(object) => {
            let mut found = spoil(object);
            for key in object.keys() {
                found.extend(spoiled(&object[key], spoil).iter().map(|text| replaced(object, key, text)));
            }
            found
        }
        Value::Array(items) => {
            let spoil_item = |at: usize| {
                spoiled(&items[at], spoil).into_iter().map(move |text| {
                    let texts = items.iter().enumerate();
                    let texts = texts.map(|(i, item)| if i == at { text.clone() } else { item.to_string() });
                    format!("[{}]", texts.collect::<Vec<_>>().join(","))
                })
            };
            (0..items.len()).flat_map(spoil_item).collect()
        }
        _ => Vec::new(),
    }
}

fn entry(key: &str, value: &Value) -> String {
    format!("{}:{value}", Value::from(key))
}

fn with_entry(object: &Map<String, Value>, more: &str) -> String {
    let mut entries: Vec<String> = object.iter().map(|(key, value)| entry(key, value)).collect();
    entries.push(more.to_owned());
    format!("{{{}}}", entries.join(","))
}

fn replaced(object: &Map<String, Value>, at: &str, text: &str) -> String {
    let entries = object.iter().map(|(key, value)| match key == at {
        true => format!("{}:{text}", Value::from(key.as_str())),
        false => entry(key, value),
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}
