//! A message in JSON: an object with one key, which names its kind and version. What the kinds are is in `message.rs`.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{Message, strict::Strict};

/// Writes a message under its key.
pub(crate) fn write<M: Message>(message: &M) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Keyed(message))
}

/// Reads the message of the type that is asked for; only white space may follow it.
pub(crate) fn read<M: Message>(payload: &[u8]) -> Result<M, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let Keyed(message) = Keyed::deserialize(Strict(&mut deserializer))?;
    deserializer.end()?;
    Ok(message)
}

/// The first key of an object, whatever follows it.
pub(crate) fn first_key(payload: &[u8]) -> Option<String> {
    let mut key = None;
    // Leaves the object in its middle, which the reader reports as an error.
    let _ = serde_json::Deserializer::from_slice(payload).deserialize_map(FirstKey(&mut key));
    key
}

/// How many bytes JSON takes for a text, quotes not counted (RFC 8259, section 7, as `serde_json` writes it).
pub fn text_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// A message under its one top-level key.
struct Keyed<M>(M);

impl<M: Message> Serialize for Keyed<&M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(M::KIND.key(), self.0)?;
        map.end()
    }
}

impl<'de, M: Message> Deserialize<'de> for Keyed<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeyedVisitor(PhantomData))
    }
}

struct KeyedVisitor<M>(PhantomData<M>);

impl<'de, M: Message> Visitor<'de> for KeyedVisitor<M> {
    type Value = Keyed<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the one key `{}`", M::KIND.key())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keyed<M>, A::Error> {
        let expected = || Error::custom(format_args!("expected the one key `{}`", M::KIND.key()));
        let key: String = map.next_key()?.ok_or_else(expected)?;
        if key != M::KIND.key() {
            return Err(expected());
        }
        let message = map.next_value()?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(Keyed(message)),
            Some(_) => Err(expected()),
        }
    }
}

struct FirstKey<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for FirstKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        *self.0 = map.next_key()?;
        Ok(())
    }
}
