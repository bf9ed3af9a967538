//! JSON, also with comments and trailing commas as editors allow them in their settings: leaves become entries. A leaf is
//! whatever is no object, or an object without members. What does not change keeps its bytes, its comments and its place.

use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstNode, CstObject, CstRootNode},
};
use roam_schemas::Key;

use super::{Entries, Reading, pointer};

const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
};

/// The leaves of a document.
pub(super) fn read(file: &[u8]) -> Result<Reading, String> {
    let (_, object) = parse(file)?;
    let mut reading = Reading::default();
    collect(&object, &mut Vec::new(), &mut reading)?;
    Ok(reading)
}

/// The document with exactly these leaves.
pub(super) fn write(file: &[u8], wanted: &Entries) -> Result<Vec<u8>, String> {
    let (root, object) = parse(file)?;
    let mut held = Reading::default();
    collect(&object, &mut Vec::new(), &mut held)?;
    let held = held.without_large_values();
    for key in held.entries.keys().filter(|key| !wanted.contains_key(key)) {
        remove(&object, &place(key)?);
    }
    for (key, value) in wanted.iter().filter(|(key, value)| held.entries.get(*key) != Some(*value)) {
        set(&object, &place(key)?, input(&value_node(value)?)?)?;
    }
    Ok(root.to_string().into_bytes())
}

/// Of the entries those that a document can hold.
pub(super) fn fitting(wanted: &Entries) -> Reading {
    pointer::fitting(wanted, |value| Ok(text(&value_node(value)?)?.into_bytes()))
}

fn parse(file: &[u8]) -> Result<(CstRootNode, CstObject), String> {
    let text = std::str::from_utf8(file).map_err(|error| error.to_string())?;
    let root = CstRootNode::parse(text, &OPTIONS).map_err(|error| error.to_string())?;
    match (root.value(), root.object_value()) {
        (_, Some(object)) => Ok((root, object)),
        // Comments and nothing else.
        (None, None) => {
            let object = root.object_value_or_set();
            Ok((root, object))
        }
        (Some(_), None) => Err("its root is no object".to_owned()),
    }
}

fn place(key: &Key) -> Result<Vec<String>, String> {
    pointer::path(key).ok_or_else(|| format!("{key} is no JSON Pointer"))
}

fn collect(object: &CstObject, path: &mut Vec<String>, reading: &mut Reading) -> Result<(), String> {
    let mut names = std::collections::BTreeSet::new();
    for property in object.properties() {
        let name = property.decoded_name().ok_or("a name in it is no text")?;
        let value = property.value().ok_or("a name in it has no value")?;
        path.push(name.clone());
        match value.as_object().filter(|object| !object.properties().is_empty()) {
            Some(object) => collect(&object, path, reading)?,
            None => match pointer::key(path) {
                Ok(key) => drop(reading.entries.insert(key, text(&value)?.into_bytes())),
                Err(long) => reading.leave_out(long, "its place is too long for a key"),
            },
        }
        path.pop();
        if !names.insert(name.clone()) {
            return Err(format!("it names {name:?} twice"));
        }
    }
    Ok(())
}

/// Removes a leaf, and the objects above it that hold nothing then.
fn remove(object: &CstObject, path: &[String]) {
    let [name, below @ ..] = path else { return };
    let Some(property) = object.get(name) else { return };
    if below.is_empty() {
        property.remove();
    } else if let Some(inner) = property.object_value() {
        remove(&inner, below);
        if inner.properties().is_empty() {
            property.remove();
        }
    }
}

fn set(object: &CstObject, path: &[String], value: CstInputValue) -> Result<(), String> {
    match path {
        [] => Err("a key is empty".to_owned()),
        [name] => {
            match object.get(name) {
                Some(property) => property.set_value(value),
                None => drop(object.append(name, value)),
            }
            Ok(())
        }
        [name, below @ ..] => {
            let inner = object.object_value_or_create(name);
            set(&inner.ok_or_else(|| format!("{name:?} is no object"))?, below, value)
        }
    }
}

fn value_node(value: &[u8]) -> Result<CstNode, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    let strict = ParseOptions { allow_comments: false, allow_trailing_commas: false, ..OPTIONS };
    let root = CstRootNode::parse(text, &strict).map_err(|error| error.to_string())?;
    let node = root.value().ok_or("it is no JSON value")?;
    match node.as_object() {
        Some(object) if !object.properties().is_empty() => Err("it is an object, whose members have keys".to_owned()),
        _ => Ok(node),
    }
}

/// The one spelling of a value: no white space, no comments; names in their order, numbers as they are written.
fn text(node: &CstNode) -> Result<String, String> {
    let unreadable = || "a text in it has a wrong escape".to_owned();
    let quoted = |text: &str| serde_json::to_string(text).map_err(|error| error.to_string());
    if let Some(literal) = node.as_string_lit() {
        return quoted(&literal.decoded_value().map_err(|_| unreadable())?);
    }
    if let Some(array) = node.as_array() {
        let elements: Result<Vec<_>, _> = array.elements().iter().map(text).collect();
        return Ok(format!("[{}]", elements?.join(",")));
    }
    if let Some(object) = node.as_object() {
        let member = |property: jsonc_parser::cst::CstObjectProp| {
            let name = quoted(&property.decoded_name().ok_or_else(unreadable)?)?;
            Ok(format!("{name}:{}", text(&property.value().ok_or_else(unreadable)?)?))
        };
        let members: Result<Vec<_>, String> = object.properties().into_iter().map(member).collect();
        return Ok(format!("{{{}}}", members?.join(",")));
    }
    match (node.as_number_lit(), node.as_boolean_lit(), node.as_null_keyword()) {
        (Some(number), ..) => Ok(number.to_string()),
        (_, Some(boolean), _) => Ok(boolean.value().to_string()),
        (.., Some(_)) => Ok("null".to_owned()),
        _ => Err("it holds something that is no JSON".to_owned()),
    }
}

fn input(node: &CstNode) -> Result<CstInputValue, String> {
    let unreadable = || "a text in it has a wrong escape".to_owned();
    if let Some(literal) = node.as_string_lit() {
        return literal.decoded_value().map(CstInputValue::String).map_err(|_| unreadable());
    }
    if let Some(array) = node.as_array() {
        let elements: Result<Vec<_>, _> = array.elements().iter().map(input).collect();
        return elements.map(CstInputValue::Array);
    }
    if let Some(object) = node.as_object() {
        let member = |property: jsonc_parser::cst::CstObjectProp| {
            let name = property.decoded_name().ok_or_else(unreadable)?;
            Ok((name, input(&property.value().ok_or_else(unreadable)?)?))
        };
        let members: Result<Vec<_>, String> = object.properties().into_iter().map(member).collect();
        return members.map(CstInputValue::Object);
    }
    match (node.as_number_lit(), node.as_boolean_lit(), node.as_null_keyword()) {
        (Some(number), ..) => Ok(CstInputValue::Number(number.to_string())),
        (_, Some(boolean), _) => Ok(CstInputValue::Bool(boolean.value())),
        (.., Some(_)) => Ok(CstInputValue::Null),
        _ => Err("it holds something that is no JSON".to_owned()),
    }
}
