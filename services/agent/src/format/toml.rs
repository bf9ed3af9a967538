//! TOML: leaves become entries, each spelled as a TOML value. A leaf is whatever is no table, or a table without members.
//! What does not change keeps its bytes, its comments and its place.

use roam_schemas::Key;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{Entries, Reading, pointer};

/// The leaves of a document.
pub(super) fn read(file: &[u8]) -> Result<Reading, String> {
    let document = parse(file)?;
    let mut reading = Reading::default();
    collect(document.as_table(), &mut Vec::new(), &mut reading);
    Ok(reading)
}

/// The document with exactly these leaves.
pub(super) fn write(file: &[u8], wanted: &Entries) -> Result<Vec<u8>, String> {
    let mut document = parse(file)?;
    let mut held = Reading::default();
    collect(document.as_table(), &mut Vec::new(), &mut held);
    let held = held.without_large_values();
    for key in held.entries.keys().filter(|key| !wanted.contains_key(key)) {
        remove(document.as_table_mut(), &place(key)?);
    }
    for (key, value) in wanted.iter().filter(|(key, value)| held.entries.get(*key) != Some(*value)) {
        set(document.as_table_mut(), &place(key)?, value_of(value)?)?;
    }
    let text = document.to_string();
    // The library writes line feeds; a file of the other kind stays one.
    let crlf = file.windows(2).any(|pair| pair == b"\r\n");
    Ok(if crlf { text.replace("\r\n", "\n").replace('\n', "\r\n") } else { text }.into_bytes())
}

/// Of the entries those that a document can hold.
pub(super) fn fitting(wanted: &Entries) -> Reading {
    pointer::fitting(wanted, |value| Ok(spell(&value_of(value)?)))
}

fn parse(file: &[u8]) -> Result<DocumentMut, String> {
    let text = std::str::from_utf8(file).map_err(|error| error.to_string())?;
    text.parse::<DocumentMut>().map_err(|error| error.message().to_owned())
}

fn place(key: &Key) -> Result<Vec<String>, String> {
    pointer::path(key).ok_or_else(|| format!("{key} is no JSON Pointer"))
}

fn collect(table: &dyn TableLike, path: &mut Vec<String>, reading: &mut Reading) {
    for (name, item) in table.iter() {
        path.push(name.to_owned());
        match item.as_table_like().filter(|table| table.iter().next().is_some()) {
            Some(table) => collect(table, path, reading),
            None => match (pointer::key(path), leaf(item)) {
                (_, None) => {}
                (Ok(key), Some(value)) => drop(reading.entries.insert(key, spell(&value))),
                (Err(long), _) => reading.leave_out(long, "its place is too long for a key"),
            },
        }
        path.pop();
    }
}

/// Removes a leaf, and the tables above it that hold nothing then.
fn remove(table: &mut dyn TableLike, path: &[String]) {
    let [name, below @ ..] = path else { return };
    if below.is_empty() {
        table.remove(name);
    } else if let Some(inner) = table.get_mut(name).and_then(Item::as_table_like_mut) {
        remove(inner, below);
        if inner.iter().next().is_none() {
            table.remove(name);
        }
    }
}

fn set(table: &mut dyn TableLike, path: &[String], value: Value) -> Result<(), String> {
    let [name, below @ ..] = path else { return Err("a key is empty".to_owned()) };
    if below.is_empty() {
        match table.get_mut(name).and_then(Item::as_value_mut) {
            Some(held) => {
                let decor = held.decor().clone();
                *held = value;
                *held.decor_mut() = decor;
            }
            None => drop(table.insert(name, Item::Value(value))),
        }
        return Ok(());
    }
    if !table.contains_key(name) {
        let mut new = Table::new();
        new.set_implicit(below.len() > 1);
        // In a table that is written within a line, this becomes one, too.
        table.insert(name, Item::Table(new));
    }
    let inner = table.get_mut(name).and_then(Item::as_table_like_mut);
    set(inner.ok_or_else(|| format!("{name:?} is no table"))?, below, value)
}

fn leaf(item: &Item) -> Option<Value> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(plain(value)),
        Item::Table(table) => Some(Value::InlineTable(plain_table(table))),
        Item::ArrayOfTables(tables) => {
            Some(Value::Array(tables.iter().map(|table| Value::InlineTable(plain_table(table))).collect::<Array>()))
        }
    }
}

/// The value without comments and white space, in the spelling that the library chooses.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Boolean(boolean) => (*boolean.value()).into(),
        Value::Datetime(instant) => (*instant.value()).into(),
        Value::Array(array) => Value::Array(array.iter().map(plain).collect::<Array>()),
        Value::InlineTable(table) => Value::InlineTable(plain_table(table)),
    }
}

fn plain_table(table: &dyn TableLike) -> InlineTable {
    table.iter().filter_map(|(name, item)| Some((name, leaf(item)?))).collect()
}

fn spell(value: &Value) -> Vec<u8> {
    let text = plain(value).to_string();
    let text = text.trim();
    // An empty table is spelled without the space that the library puts there.
    if value.as_inline_table().is_some_and(InlineTable::is_empty) { b"{}".to_vec() } else { text.as_bytes().to_vec() }
}

fn value_of(text: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let value = plain(&text.trim().parse::<Value>().map_err(|error| error.message().to_owned())?);
    match value.as_inline_table() {
        Some(table) if !table.is_empty() => Err("it is a table, whose members have keys".to_owned()),
        _ => Ok(value),
    }
}
