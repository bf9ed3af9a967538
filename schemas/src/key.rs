//! The key of a record inside a profile.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use crate::{Problem, json, limits::KEY_BYTES};

/// A UTF-8 key of 1 to 512 bytes. Any character is allowed; what a key means is the application's business.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(String);

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// `invalid` if it is empty, `too_large` if it is over 512 bytes.
    pub fn parse(text: impl Into<String>) -> Result<Self, Problem> {
        let text = text.into();
        if text.is_empty() {
            return Err(Problem::invalid("a key is empty"));
        }
        if text.len() > KEY_BYTES {
            return Err(Problem::too_large("a key is too long, in bytes", KEY_BYTES, text.len()));
        }
        Ok(Self(text))
    }

    /// How many bytes JSON takes for it, quotes not counted: up to six for a byte that is a control character.
    pub fn json_len(&self) -> usize {
        json::text_len(&self.0)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = Problem;
    fn try_from(text: String) -> Result<Self, Problem> {
        Self::parse(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Key {
    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": KEY_BYTES })
    }
}
