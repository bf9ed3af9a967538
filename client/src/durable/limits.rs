//! Every bound and every pause of the durable side, in one place. What the protocol bounds is in [`roam_schemas::limits`].

use std::time::Duration;

/// What waits is merged into one change up to this many bytes, counted generously. A change that was made larger travels
/// alone.
pub(super) const MERGED_BYTES: usize = 512 * 1024;
/// Most bytes of one profile that may wait, be in flight or be parked, counted generously. What would pass it is refused.
pub(super) const HELD_BYTES: u64 = 256 * 1024 * 1024;
/// What each operation counts for in that, beyond its key and value.
pub(super) const OPERATION_BYTES: usize = 128;
/// Most records that one change offers again after a reset.
pub(super) const OFFERED_RECORDS: usize = 500;

/// Most revisions that are written to disk together.
pub(super) const REVISIONS_AT_ONCE: usize = 256;
/// Most writes on their way to the one task that commits; it commits as many together as there are.
pub(super) const QUEUED_WRITES: usize = 1_024;
/// Memory for pages of the database, in bytes.
pub(super) const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Most keys (and most conflicts, and most parked changes) that one event names; with more it names none.
pub(super) const EVENT_KEYS: usize = 10_000;

/// A change older than this is never sent again. Storage knows what it decided for 30 days.
pub(super) const TOO_OLD: Duration = Duration::from_secs(20 * 24 * 3600);
/// A change that was frozen so much later than now, by a clock that was set right since, is of an age that nobody knows, and
/// counts as too old. No zone that was mistaken for another makes a day.
pub(super) const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// When a change that has its PubAck and no receipt is sent again for the first time; each further pause is twice as long.
pub(super) const RESEND_FIRST: Duration = Duration::from_secs(60);
/// The longest of these pauses.
pub(super) const RESEND_LONGEST: Duration = Duration::from_secs(3600);
/// The bounds of the pauses after `busy`, after a refusal by the bus, and between attempts to connect.
pub(super) const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// Tombstones that the local copy holds longer than this are of no use: the servers forgot them.
pub(super) const TOMBSTONES: Duration = Duration::from_secs(40 * 24 * 3600);
