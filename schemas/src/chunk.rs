//! Large values: a value over the limit of a record lies in chunks, and its record holds a manifest of them. A manifest
//! is JSON in whatever encoding a change or a reply is, because it is a value; its content type tells it from any other.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ContentType, Encoding, Kind, Message, Problem, Stored, Value, bounded, decode, encode,
    limits::{CHUNK_BYTES, HAVE_HASHES, LARGE_VALUE_BYTES, MANIFEST_CHUNKS},
};

/// The content type of a value that is a [`Manifest`]. No other value may have it.
pub const MANIFEST_CONTENT_TYPE: &str = "application/vnd.roam.manifest.v1+json";

/// BLAKE3 of a chunk or of a whole value, 32 bytes; in texts 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

/// Hashes what comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher(blake3::Hasher);

/// A chunk, as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// Its hash, under which it is stored.
    pub hash: ContentHash,
    /// Its size in bytes.
    #[schemars(range(min = 1, max = CHUNK_BYTES))]
    pub length: u32,
}

/// What the record of a large value holds: the chunks that make it up, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How many bytes the value has. The profile's quota counts these.
    #[schemars(range(min = 1, max = LARGE_VALUE_BYTES))]
    pub length: u64,
    /// The hash of the whole value.
    pub hash: ContentHash,
    /// What the value is.
    pub content_type: ContentType,
    /// Its chunks, in order.
    // Of a longer list one more than that is decoded, for `validate` to refuse.
    #[serde(deserialize_with = "bounded::list::<_, _, MANIFEST_CHUNKS>")]
    #[schemars(length(min = 1, max = MANIFEST_CHUNKS))]
    pub chunks: Vec<Chunk>,
}

/// Asks which chunks of the user are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HaveRequest {
    /// The hashes, 1 to 256.
    #[serde(deserialize_with = "bounded::list::<_, _, HAVE_HASHES>")]
    #[schemars(length(min = 1, max = HAVE_HASHES))]
    pub hashes: Vec<ContentHash>,
}

/// Answers [`HaveRequest`]. What is not missing stays for at least half the grace of the deployment (a day unless it is
/// set otherwise), whether or not a record needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HaveReply {
    /// Those that are to be uploaded, in the order in which they were asked for.
    pub missing: Vec<ContentHash>,
}

/// Asks for a chunk of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChunkRequest {
    /// Its hash.
    pub hash: ContentHash,
}

/// Answers [`ChunkRequest`]. The bytes have that hash. An unknown chunk comes as a [`Problem`] `missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChunkReply {
    /// The bytes of the chunk.
    pub bytes: Value,
}

impl Message for Manifest {
    const KIND: Kind = Kind::Manifest;

    fn is_cut(&self) -> bool {
        self.chunks.len() > MANIFEST_CHUNKS
    }
}
impl Message for HaveRequest {
    const KIND: Kind = Kind::HaveRequest;

    fn is_cut(&self) -> bool {
        self.hashes.len() > HAVE_HASHES
    }
}
impl Message for HaveReply {
    const KIND: Kind = Kind::HaveReply;
}
impl Message for ChunkRequest {
    const KIND: Kind = Kind::ChunkRequest;
}
impl Message for ChunkReply {
    const KIND: Kind = Kind::ChunkReply;
}

impl Manifest {
    /// Reads the value of a record that holds a manifest.
    ///
    /// # Errors
    /// `invalid` or `too_large`; see [`Self::validate`].
    pub fn parse(value: &[u8]) -> Result<Self, Problem> {
        let manifest: Self = decode(value, Encoding::Json)?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// Checks the limits, and that the sizes add up.
    ///
    /// # Errors
    /// `invalid` for no chunk, an empty one, sizes that do not add up, or a manifest within a manifest; `too_large` for
    /// more than 2,048 chunks, a chunk over 256 KiB, or a value over 100 MiB.
    pub fn validate(&self) -> Result<(), Problem> {
        let large = |message, limit: usize, actual: u64| Err(too_large(message, limit, actual));
        if self.length > LARGE_VALUE_BYTES as u64 {
            return large("a large value is too large, in bytes", LARGE_VALUE_BYTES, self.length);
        }
        if self.chunks.len() > MANIFEST_CHUNKS {
            return large("a manifest has too many chunks", MANIFEST_CHUNKS, self.chunks.len() as u64);
        }
        if let Some(chunk) = self.chunks.iter().find(|chunk| chunk.length as usize > CHUNK_BYTES) {
            return large("a chunk is too large, in bytes", CHUNK_BYTES, chunk.length.into());
        }
        if self.chunks.is_empty() || self.chunks.iter().any(|chunk| chunk.length == 0) {
            return Err(Problem::invalid("a manifest has no chunk, or an empty one"));
        }
        if self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>() != self.length {
            return Err(Problem::invalid("the sizes of a manifest's chunks do not add up"));
        }
        if self.content_type.is_manifest() {
            return Err(Problem::invalid("a manifest is of a manifest"));
        }
        Ok(())
    }

    /// The value and the content type of a record that holds this.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn to_value(&self) -> Result<(Value, ContentType), Problem> {
        self.validate()?;
        let bytes = encode(self, Encoding::Json).map_err(|error| Problem::invalid(error.to_string()))?;
        Ok((Value::new(bytes), ContentType::manifest()))
    }
}

impl Stored {
    /// The manifest, if the value lies in chunks. The content type of the record says so; what it holds was checked
    /// before it was written.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn manifest(&self) -> Result<Option<Manifest>, Problem> {
        self.content_type.is_manifest().then(|| Manifest::parse(self.value.as_bytes())).transpose()
    }
}

impl HaveRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        match self.hashes.len() {
            0 => Err(Problem::invalid("a request names no chunk")),
            actual if actual > HAVE_HASHES => {
                Err(Problem::too_large("a request names too many chunks", HAVE_HASHES, actual))
            }
            _ => Ok(()),
        }
    }
}

/// How many bytes a value counts for in the quota of its profile: a large one all that its chunks have. The same for
/// whoever counts, whenever: it depends on nothing else.
pub fn counted_bytes(content_type: &str, value: &[u8]) -> u64 {
    let own = value.len() as u64;
    if content_type != MANIFEST_CONTENT_TYPE {
        return own;
    }
    Manifest::parse(value).map_or(own, |manifest| manifest.length)
}

fn too_large(message: &str, limit: usize, actual: u64) -> Problem {
    Problem::new(crate::Code::TooLarge, message).with_limit(limit as u64, actual)
}

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the form that it has in texts. There is one: upper-case digits are refused.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| lower)?;
        Some(Self(*hash.as_bytes()))
    }
}

impl ContentHasher {
    /// Takes the next piece in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    pub fn finish(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("a hash is not 64 lower-case hexadecimal digits"))
    }
}

impl JsonSchema for ContentHash {
    fn schema_name() -> Cow<'static, str> {
        "ContentHash".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "BLAKE3, in lower-case hexadecimal.",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$"
        })
    }
}
