//! The names of the headers that Roam's messages carry. A message without `Content-Type` is not Roam's.

/// The encoding of the payload: see [`crate::Encoding::content_type`].
pub const CONTENT_TYPE: &str = "Content-Type";
/// The id of a journal batch. An entry of the journal without it was not appended by an access server.
pub const BATCH: &str = "Roam-Batch";
/// Who gave an order in the journal, as the tool of the operator says it: `user@host`.
pub const BY: &str = "Roam-By";
/// The profile revision that a notice announces, so that a reader of the other encoding knows what to fetch.
pub const REVISION: &str = "Roam-Revision";
/// The code of the problem on a reply or on an entry of ROAM_REJECTED.
pub const CODE: &str = "Roam-Code";
/// The text of the problem on an entry of ROAM_REJECTED.
pub const REASON: &str = "Roam-Reason";
/// The subject that a rejected change was published on.
pub const SUBJECT: &str = "Roam-Subject";
/// The sequence that a rejected change had in ROAM_CHANGES.
pub const SEQUENCE: &str = "Roam-Sequence";
/// The BLAKE3 hash, in hexadecimal, of the whole of a rejected payload.
pub const HASH: &str = "Roam-Hash";
/// The BLAKE3 hash of an uploaded chunk, in hexadecimal. (As [`HASH`], which is of a payload as it came.)
pub const CHUNK: &str = "Roam-Chunk";
/// What an entry of storage's own in ROAM_CHUNKS does with the chunks that it names: `keep` or `drop`.
pub const CONTROL: &str = "Roam-Control";
/// The hashes of the chunks that such an entry names, with commas between.
pub const CHUNKS: &str = "Roam-Chunks";
/// Up to which sequence of ROAM_CHUNKS the writer of such an entry had read.
pub const SEEN: &str = "Roam-Seen";
/// The size of the whole of a rejected payload, in bytes.
pub const SIZE: &str = "Roam-Size";
/// Which shard a replica is of, on its answers to operators: see [`crate::Shard`].
pub const SHARD: &str = "Roam-Shard";
