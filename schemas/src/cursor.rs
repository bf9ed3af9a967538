//! The cursor: an opaque token for "all that changed since I last looked".

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Problem, Profile, Revision, Timestamp};

/// A place in a profile's order: its fingerprint, a revision, and the time of that revision. Clients pass it back as
/// they got it (24 bytes in postcard, 32 characters of base64url in JSON) and look at nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    fingerprint: u64,
    revision: Revision,
    time: Timestamp,
}

impl Cursor {
    /// The place just after `revision`.
    pub fn new(profile: &Profile, revision: Revision, time: Timestamp) -> Self {
        Self { fingerprint: profile.fingerprint(), revision, time }
    }

    /// The place that this cursor names in that profile.
    ///
    /// # Errors
    /// `invalid` if it is the cursor of another profile.
    pub fn open(self, profile: &Profile) -> Result<(Revision, Timestamp), Problem> {
        if self.fingerprint != profile.fingerprint() {
            return Err(Problem::invalid("the cursor belongs to another profile"));
        }
        Ok((self.revision, self.time))
    }

    /// The token as text.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.to_bytes())
    }

    /// Reads the text form back.
    ///
    /// # Errors
    /// `invalid`.
    pub fn from_text(text: &str) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| not_a_cursor())?;
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| not_a_cursor())?)
    }

    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.fingerprint.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.revision.get().to_be_bytes());
        bytes[16..].copy_from_slice(&self.time.as_nanos().to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 24]) -> Result<Self, Problem> {
        let number = |at: usize| bytes[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self {
            fingerprint: number(0),
            revision: Revision::checked(number(8)).ok_or_else(not_a_cursor)?,
            time: Timestamp::from_nanos(number(16)),
        })
    }
}

fn not_a_cursor() -> Problem {
    Problem::invalid("that is not a cursor")
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_text())
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_text(&text).map_err(de::Error::custom)
        } else {
            let bytes = <[u8; 24]>::deserialize(deserializer)?;
            Self::from_bytes(bytes).map_err(de::Error::custom)
        }
    }
}

impl JsonSchema for Cursor {
    fn schema_name() -> Cow<'static, str> {
        "Cursor".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 32, "maxLength": 32, "description": "Opaque." })
    }
}
