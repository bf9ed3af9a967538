//! A value and its content type.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{MANIFEST_CONTENT_TYPE, Problem, limits::CONTENT_TYPE_BYTES};

/// The bytes of a record. Their limit is checked by [`crate::Draft::validate`], the one door for changes.
///
/// In JSON, text is a plain string, and anything else `{"base64": "..."}`. Text means: UTF-8 without control
/// characters other than tab, line feed and carriage return; so that escaping never more than doubles it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Value(Vec<u8>);

impl Value {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, by value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value as text, if JSON would write it as text.
    pub fn as_text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let plain = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
        text.chars().all(plain).then_some(text)
    }
}

/// Shows the length only: a value is its user's business and never lands in a log.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&self.0);
        }
        match self.as_text() {
            Some(text) => serializer.serialize_str(text),
            None => Base64 { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(TextOrBase64)
        } else {
            deserializer.deserialize_byte_buf(Bytes)
        }
    }
}

struct TextOrBase64;

impl<'de> de::Visitor<'de> for TextOrBase64 {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an object with the one key `base64`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value(text.as_bytes().to_vec()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value(text.into_bytes()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        let Base64 { base64 } = Base64::deserialize(de::value::MapAccessDeserializer::new(entries))?;
        STANDARD.decode(base64).map(Value).map_err(de::Error::custom)
    }
}

struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value(bytes))
    }
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let binary = generator.subschema_for::<Base64>();
        json_schema!({
            "description": "Text as a string; anything else as {\"base64\": \"...\"} (RFC 4648, section 4, padded).",
            "anyOf": [{ "type": "string" }, binary]
        })
    }
}

/// What a value is, as in HTTP: 1 to 127 bytes of visible ASCII (RFC 9110, section 8.3.1, gives the grammar; Roam
/// looks no closer).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ContentType(String);

impl ContentType {
    /// Parses a content type.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn parse(text: impl Into<String>) -> Result<Self, Problem> {
        let text = text.into();
        if text.len() > CONTENT_TYPE_BYTES {
            let message = "a content type is too long, in bytes";
            return Err(Problem::too_large(message, CONTENT_TYPE_BYTES, text.len()));
        }
        if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Problem::invalid("a content type is not 1 or more bytes of visible ASCII"));
        }
        Ok(Self(text))
    }

    /// `application/octet-stream`: nothing is known of the value.
    pub fn octets() -> Self {
        Self("application/octet-stream".to_owned())
    }

    /// `text/plain`.
    pub fn text() -> Self {
        Self("text/plain".to_owned())
    }

    /// What the record of a large value has: [`crate::MANIFEST_CONTENT_TYPE`].
    pub fn manifest() -> Self {
        Self(MANIFEST_CONTENT_TYPE.to_owned())
    }

    /// Whether the value is a manifest of chunks.
    pub fn is_manifest(&self) -> bool {
        self.0 == MANIFEST_CONTENT_TYPE
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContentType {
    type Error = Problem;
    fn try_from(text: String) -> Result<Self, Problem> {
        Self::parse(text)
    }
}

impl From<ContentType> for String {
    fn from(content_type: ContentType) -> Self {
        content_type.0
    }
}

impl Serialize for ContentType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for ContentType {
    fn schema_name() -> Cow<'static, str> {
        "ContentType".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": CONTENT_TYPE_BYTES })
    }
}
