//! The words of Roam: names, subjects, limits, messages, errors, and how each is written on the wire.
//!
//! Rule of admission: a type belongs here only if it crosses a process boundary. Everything is pure data; nothing
//! here opens a socket, a file or a clock, and nothing knows which bus or which store is used.
//!
//! A change moves through [`Draft`] (decoded, believed in nothing) -> [`Change`] (valid) -> [`StampedChange`]
//! (with time and origin) -> [`Outcome`] -> [`Receipt`] and [`Notice`].

mod bounded;
mod bulk;
mod change;
mod chunk;
mod control;
mod cursor;
mod device;
mod encoding;
mod grant;
pub mod headers;
mod journal;
mod json;
mod key;
pub mod limits;
mod message;
mod names;
mod notice;
mod operate;
mod problem;
mod profile;
mod query;
mod receipt;
mod record;
mod rejected;
mod revision;
pub mod schema;
mod shard;
mod strict;
pub mod subjects;
mod terms;
mod value;

pub use bulk::{Bulk, BulkChange, BulkReceipt, BulkReceipts};
pub use change::{Action, Change, ChangeId, Draft, DraftOperation, Expect, Operation, Put};
pub use chunk::{
    Chunk, ChunkReply, ChunkRequest, ContentHash, ContentHasher, HaveReply, HaveRequest, MANIFEST_CONTENT_TYPE,
    Manifest, counted_bytes,
};
pub use control::{Control, ControlEntry, Epoch, Erase, Resume, Skip};
pub use cursor::Cursor;
pub use device::Device;
pub use encoding::Encoding;
pub use grant::{Access, Apps, Bearer, Grant, GrantError, TokenId};
pub use journal::{BatchId, JournalBatch, Origin, Quota, RULES, Stamp, StampedChange, TenantQuota, Terms};
pub use json::text_len as json_text_len;
pub use key::Key;
pub use message::{DecodeError, EncodeError, Kind, Message, VERSION, decode, encode, payload_hash};
pub use names::{App, NameError, ReplicaName, ServiceName, Tenant, User};
pub use notice::{Notice, NoticeOperation};
pub use operate::{
    Halted, HoldingsReply, HoldingsRequest, JournalPosition, Missing, ProfileStanding, ProfilesReply, ProfilesRequest,
    Remedy, StatusReply, TableRows,
};
pub use problem::{Code, Failed, Problem};
pub use profile::{Profile, ProfileError};
pub use query::{ChangesReply, ChangesRequest, HistoryReply, HistoryRequest, LatestReply, LatestRequest, Select};
pub use receipt::{Applied, Conflict, Outcome, Receipt, Superseded};
pub use record::{Record, State, Stored, Version};
pub use rejected::RejectedEntry;
pub use revision::{Revision, Timestamp};
pub use shard::{Shard, ShardError, Shards};
pub use terms::{Term, TermsEntry};
pub use value::{ContentType, Value};
