//! Every limit of the protocol, in one place. Nothing here is a setting: what an operator may tune travels in
//! [`crate::Terms`].

/// Longest tenant, user, app or device name, in bytes of UTF-8 before encoding.
pub const NAME_BYTES: usize = 128;
/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES: usize = 512;
/// Largest value, in bytes.
pub const VALUE_BYTES: usize = 256 * 1024;
/// Largest value that lies in chunks, in bytes: 100 MiB.
pub const LARGE_VALUE_BYTES: usize = 100 * 1024 * 1024;
/// Largest chunk, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Most chunks of one value. A manifest of so many is still a value.
pub const MANIFEST_CHUNKS: usize = 2_048;
/// Most hashes that one `have` request may name.
pub const HAVE_HASHES: usize = 256;
/// Longest content type, in bytes of visible ASCII.
pub const CONTENT_TYPE_BYTES: usize = 127;
/// Most operations in one change.
pub const CHANGE_OPERATIONS: usize = 1_000;
/// Largest encoded change, and largest bulk, in bytes.
pub const CHANGE_BYTES: usize = 1024 * 1024;
/// Most changes in one bulk.
pub const BULK_CHANGES: usize = 64;
/// Largest answer to a bulk with all of its receipts, in bytes; those of a larger one come each by itself. 4 KiB for each change of a full
/// bulk, and far below what servers take.
pub const BULK_RECEIPTS_BYTES: usize = 256 * 1024;
/// Largest time to live, in seconds: ten years.
pub const TTL_SECONDS: u32 = 10 * 365 * 24 * 3600;

/// Most changes in one journal batch.
pub const BATCH_CHANGES: usize = 1_000;
/// A journal batch takes no further change once it is past this many bytes.
pub const BATCH_BYTES: usize = 512 * 1024;

/// Most records in one page of a reply.
pub const PAGE_RECORDS: u32 = 1_000;
/// A page takes no further record once it is past this many bytes.
pub const PAGE_BYTES: usize = 768 * 1024;
/// Most keys that one `latest` request may name.
pub const REQUEST_KEYS: usize = 1_000;
/// Longest wait of a request with `min_revision`, in milliseconds.
pub const WAIT_MS: u32 = 5_000;

/// A notice carries values only while it stays under this many bytes, else keys only.
pub const NOTICE_BYTES: usize = 64 * 1024;
/// Longest text that a decoder's error takes in a problem, in bytes.
pub const REASON_BYTES: usize = 256;
/// How much of a rejected original is kept in ROAM_REJECTED, in bytes.
pub const REJECTED_BYTES: usize = 64 * 1024;

/// `max_payload` of the NATS servers, in bytes, checked at provisioning.
pub const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// Most un-acked changes that a client keeps in flight on one subject; half of what the stream holds per subject.
pub const CLIENT_WINDOW: usize = 128;

/// Most apps that one token may name.
pub const GRANT_APPS: usize = 32;

/// Revisions stay below 2^53, so that JSON readers keep them exact (RFC 8259, section 6).
pub const REVISION_END: u64 = 1 << 53;
/// The number of the last epoch: 2^13 - 1, so that revisions in it end before [`REVISION_END`].
pub const EPOCHS: u16 = 8_191;
/// How many bits of a revision count within its epoch.
pub const EPOCH_BITS: u32 = 40;
