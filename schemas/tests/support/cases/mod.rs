//! The table of golden messages: each row a value in Rust, whose two files lie in `golden/<key>/<case>.{json,postcard}`.
//! A row, once released, is never changed and never leaves; new ones are added.

mod answers;
mod changes;
mod chunks;
mod controls;
mod operate;
mod problems;
mod queries;

use std::fmt::Debug;

use roam_schemas::{
    ChangeId, Cursor, Device, Encoding, Key, Message, Profile, Record, Revision, ServiceName, State, Stored, Timestamp,
    Value, decode,
};

use super::Spelling;

/// One row of the table.
pub(crate) struct Case {
    /// The kind of the message, as its key in JSON.
    pub(crate) key: &'static str,
    /// The name of its files.
    pub(crate) name: &'static str,
    /// What the value encodes to.
    pub(crate) spelling: Spelling,
    /// Whether a payload decodes to the very value of this row.
    pub(crate) reads: Reads,
}

type Reads = Box<dyn Fn(&[u8], Encoding) -> Result<(), String>>;

/// The whole table.
pub(crate) fn all() -> Vec<Case> {
    [changes::all(), controls::all(), answers::all(), queries::all(), problems::all(), chunks::all(), operate::all()]
        .into_iter()
        .flatten()
        .collect()
}

fn case<M: Message + PartialEq + Debug + 'static>(name: &'static str, value: M) -> Case {
    Case {
        key: M::KIND.key(),
        name,
        spelling: Spelling::of(&value),
        reads: Box::new(move |payload, encoding| match decode::<M>(payload, encoding) {
            Ok(read) if read == value => Ok(()),
            Ok(read) => Err(format!("decodes to {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// Bytes that are no text: a zero, both ends of a byte, half of a UTF-8 sequence.
const BINARY: [u8; 5] = [0x00, 0x7F, 0x80, 0xFF, 0xC3];

fn profile() -> Profile {
    "acme/alice@example.com/editor".parse().unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn laptop() -> Device {
    Device::parse("laptop").unwrap()
}

/// A device of a user whose name looks like a system writer's.
fn odd_device() -> Device {
    Device::parse("$expiry").unwrap()
}

fn directory_service() -> Device {
    Device::service(&ServiceName::parse("directory sync").unwrap())
}

fn id(last: u8) -> ChangeId {
    ChangeId::from_bytes([
        0x01, 0x9C, 0xA8, 0x5E, 0x40, 0x7B, 0x7D, 0x3A, 0x9F, 0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, last,
    ])
}

/// Some milliseconds after half past eight on the first of March 2026.
fn time(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_772_353_800_000_000_007 + millis * 1_000_000)
}

const fn revision(number: u64) -> Revision {
    Revision::new(number)
}

/// A revision of the second epoch.
const fn late_revision() -> Revision {
    Revision::new((1 << 40) + 17)
}

fn cursor(number: u64) -> Cursor {
    Cursor::new(&profile(), revision(number), time(number))
}

fn text(text: &str) -> Value {
    Value::new(text)
}

fn live(value: Value, content_type: &str, expires: Option<Timestamp>) -> State {
    State::Value(Stored { value, content_type: roam_schemas::ContentType::parse(content_type).unwrap(), expires })
}

fn records() -> Vec<Record> {
    let at = |number: u64, name: &str, device: Device, conflict: bool, state: State| Record {
        key: key(name),
        revision: revision(number),
        time: time(number),
        device,
        conflict,
        state,
    };
    vec![
        at(39, "theme", laptop(), false, live(text("dark"), "text/plain", None)),
        at(40, "avatar", directory_service(), false, live(Value::new(BINARY), "application/octet-stream", None)),
        at(41, "Grüße/日本語", odd_device(), true, live(text("\"ja\"\n"), "application/json", Some(time(60_000)))),
    ]
}

fn gone() -> Vec<Record> {
    let at = |number: u64, name: &str, device: Device, state: State| Record {
        key: key(name),
        revision: revision(number),
        time: time(number),
        device,
        conflict: false,
        state,
    };
    vec![
        at(42, "bookmarks/7", laptop(), State::Deleted),
        at(43, "session", Device::expiry(), State::Deleted),
        at(44, "draft", laptop(), State::Expired),
    ]
}
