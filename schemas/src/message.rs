//! How messages are written: what the first byte (postcard) or the one top-level key (JSON) says, and strict reading.
//!
//! Bytes of one kind never decode as another, and a message of another version is told apart from rubbish. Nothing may
//! follow a message. In postcard a message has exactly one spelling. In JSON there is some freedom (white space, the order
//! of keys, left-out defaults, how an id, a time or a value is spelled), but none that the schemas do not give.

use postcard::ser_flavors::Size;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Code, Encoding, Problem, json, limits::REASON_BYTES};

/// The version of every message of this build.
pub const VERSION: u8 = 1;

/// The kinds of messages. On the wire and in goldens: never renumber. 0 is never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A change, from a client.
    Change = 1,
    /// A batch of stamped changes, from an access server.
    JournalBatch = 2,
    /// What an operator orders, beside the batches.
    ControlEntry = 3,
    /// The answer to a change.
    Receipt = 4,
    /// What the other devices are told.
    Notice = 5,
    /// Asks for records.
    LatestRequest = 6,
    /// Answers with records.
    LatestReply = 7,
    /// Asks for a delta.
    ChangesRequest = 8,
    /// Answers with a delta.
    ChangesReply = 9,
    /// Asks for versions.
    HistoryRequest = 10,
    /// Answers with versions.
    HistoryReply = 11,
    /// Answers a request that was refused.
    Problem = 12,
    /// Changes of several users, from a service.
    Bulk = 13,
    /// The answer to a bulk.
    BulkReceipts = 14,
    /// The value of a record whose real value lies in chunks.
    Manifest = 20,
    /// Asks which chunks are not there.
    HaveRequest = 21,
    /// Names them.
    HaveReply = 22,
    /// Asks for a chunk.
    ChunkRequest = 23,
    /// Answers with it.
    ChunkReply = 24,
    /// How a replica stands.
    StatusReply = 25,
    /// Asks a replica for profiles.
    ProfilesRequest = 26,
    /// Answers with profiles.
    ProfilesReply = 27,
    /// Asks a replica what it holds of a user.
    HoldingsRequest = 28,
    /// Answers with that.
    HoldingsReply = 29,
    /// What access servers go by.
    TermsEntry = 30,
}

impl Kind {
    const ALL: [Self; 25] = [
        Self::Change,
        Self::Bulk,
        Self::JournalBatch,
        Self::ControlEntry,
        Self::Receipt,
        Self::BulkReceipts,
        Self::Notice,
        Self::LatestRequest,
        Self::LatestReply,
        Self::ChangesRequest,
        Self::ChangesReply,
        Self::HistoryRequest,
        Self::HistoryReply,
        Self::Problem,
        Self::StatusReply,
        Self::ProfilesRequest,
        Self::ProfilesReply,
        Self::HoldingsRequest,
        Self::HoldingsReply,
        Self::Manifest,
        Self::HaveRequest,
        Self::HaveReply,
        Self::ChunkRequest,
        Self::ChunkReply,
        Self::TermsEntry,
    ];

    /// The first byte in postcard: the version in the upper three bits, the kind in the lower five.
    pub const fn tag(self) -> u8 {
        VERSION << 5 | self as u8
    }

    /// The top-level key in JSON.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Change => "change_v1",
            Self::Bulk => "bulk_v1",
            Self::JournalBatch => "journal_batch_v1",
            Self::ControlEntry => "control_entry_v1",
            Self::Receipt => "receipt_v1",
            Self::BulkReceipts => "bulk_receipts_v1",
            Self::Notice => "notice_v1",
            Self::LatestRequest => "latest_request_v1",
            Self::LatestReply => "latest_reply_v1",
            Self::ChangesRequest => "changes_request_v1",
            Self::ChangesReply => "changes_reply_v1",
            Self::HistoryRequest => "history_request_v1",
            Self::HistoryReply => "history_reply_v1",
            Self::Problem => "problem_v1",
            Self::StatusReply => "status_reply_v1",
            Self::ProfilesRequest => "profiles_request_v1",
            Self::ProfilesReply => "profiles_reply_v1",
            Self::HoldingsRequest => "holdings_request_v1",
            Self::HoldingsReply => "holdings_reply_v1",
            Self::Manifest => "manifest_v1",
            Self::HaveRequest => "have_request_v1",
            Self::HaveReply => "have_reply_v1",
            Self::ChunkRequest => "chunk_request_v1",
            Self::ChunkReply => "chunk_reply_v1",
            Self::TermsEntry => "terms_entry_v1",
        }
    }

    fn name(self) -> &'static str {
        self.key().trim_end_matches("_v1")
    }

    /// The kind that the first byte or key of a payload names, if it is of this version.
    pub fn peek(payload: &[u8], encoding: Encoding) -> Option<Self> {
        match encoding {
            Encoding::Postcard => {
                let tag = payload.first()?;
                Self::ALL.into_iter().find(|kind| kind.tag() == *tag)
            }
            Encoding::Json => {
                let key = json::first_key(payload)?;
                Self::ALL.into_iter().find(|kind| kind.key() == key)
            }
        }
    }
}

/// A message of the protocol.
pub trait Message: Serialize + DeserializeOwned {
    /// Which kind it is.
    const KIND: Kind;

    /// Whether reading left items out, because a list was over its limit. The check of the limits refuses such a
    /// message.
    fn is_cut(&self) -> bool {
        false
    }
}

/// Why a payload is not the message that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing in it.
    #[error("the payload is empty")]
    Empty,
    /// It is of another version.
    #[error("the message is of version {found}, this is version {VERSION}")]
    Version {
        /// The version that it names.
        found: u64,
    },
    /// It is not of the kind that was looked for.
    #[error("the message is not a {expected}")]
    Kind {
        /// The kind that was looked for.
        expected: &'static str,
    },
    /// It is of that kind, but broken. The text is one line of at most [`REASON_BYTES`] bytes.
    #[error("the message does not decode: {0}")]
    Malformed(String),
}

impl DecodeError {
    /// Quotes a decoder, which in turn quotes what it did not expect, however long and whatever is in it: cut, and
    /// kept to one line, so that it can stand in a header and in a log.
    fn malformed(error: &impl ToString) -> Self {
        let mut text = error.to_string();
        text.truncate(text.floor_char_boundary(REASON_BYTES));
        Self::Malformed(text.replace(|c: char| c.is_control(), " "))
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Version { found } => {
                Self::new(Code::UnsupportedVersion, error.to_string()).with_limit(VERSION.into(), found)
            }
            _ => Self::invalid(error.to_string()),
        }
    }
}

/// A message that cannot be written. No value that the types of this crate can hold causes it.
#[derive(Debug, thiserror::Error)]
#[error("a message does not encode: {0}")]
pub struct EncodeError(String);

/// Writes a message.
///
/// # Errors
/// None that a value of this crate's types can cause; see [`EncodeError`].
pub fn encode<M: Message>(message: &M, encoding: Encoding) -> Result<Vec<u8>, EncodeError> {
    match encoding {
        Encoding::Postcard => {
            let mut bytes = Vec::with_capacity(256);
            bytes.push(M::KIND.tag());
            postcard::to_extend(message, bytes).map_err(|error| EncodeError(error.to_string()))
        }
        Encoding::Json => json::write(message).map_err(|error| EncodeError(error.to_string())),
    }
}

/// Reads a message, strictly: the right kind, this version, nothing after it.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<M: Message>(payload: &[u8], encoding: Encoding) -> Result<M, DecodeError> {
    match encoding {
        Encoding::Postcard => decode_postcard(payload),
        Encoding::Json => decode_json(payload),
    }
}

/// The hash of a payload as the header [`crate::headers::HASH`] carries it: BLAKE3, in hexadecimal.
pub fn payload_hash(payload: &[u8]) -> String {
    blake3::hash(payload).to_hex().to_string()
}

fn decode_postcard<M: Message>(payload: &[u8]) -> Result<M, DecodeError> {
    let (tag, body) = payload.split_first().ok_or(DecodeError::Empty)?;
    if *tag != M::KIND.tag() {
        let version = tag >> 5;
        let same_kind = tag & 0b1_1111 == M::KIND as u8;
        return Err(match same_kind && version != VERSION && version != 0 {
            true => DecodeError::Version { found: version.into() },
            false => DecodeError::Kind { expected: M::KIND.name() },
        });
    }
    let (message, rest) = postcard::take_from_bytes(body).map_err(|error| DecodeError::malformed(&error))?;
    if !rest.is_empty() {
        return Err(DecodeError::malformed(&format_args!("{} bytes follow it", rest.len())));
    }
    check_canonical(&message, body.len())?;
    Ok(message)
}

/// postcard reads a number that is padded with zeros (`80 00` for 0), and nothing else that writing would spell
/// otherwise: padding is all that can make a message longer than it need be.
fn check_canonical<M: Message>(message: &M, len: usize) -> Result<(), DecodeError> {
    let shortest = postcard::serialize_with_flavor(message, Size::default());
    let shortest = shortest.map_err(|error| DecodeError::malformed(&error))?;
    if shortest != len && !message.is_cut() {
        return Err(DecodeError::malformed(&"a number in it is padded with zeros"));
    }
    Ok(())
}

fn decode_json<M: Message>(payload: &[u8]) -> Result<M, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    json::read(payload).map_err(|error| explain_json::<M>(payload, &error))
}

/// What was wrong, in the words of this module: looked at only once reading has failed.
fn explain_json<M: Message>(payload: &[u8], error: &serde_json::Error) -> DecodeError {
    match json::first_key(payload) {
        Some(key) if key != M::KIND.key() => match other_version(&key, M::KIND) {
            Some(found) => DecodeError::Version { found },
            None => DecodeError::Kind { expected: M::KIND.name() },
        },
        _ => DecodeError::malformed(error),
    }
}

/// The version that a key names if it is that of this kind in another version, written as we write versions.
fn other_version(key: &str, kind: Kind) -> Option<u64> {
    let digits = key.strip_prefix(kind.name())?.strip_prefix("_v")?;
    let found: u64 = digits.parse().ok()?;
    (found != 0 && found != u64::from(VERSION) && found.to_string() == digits).then_some(found)
}
