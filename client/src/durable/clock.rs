//! The one door through which wall-clock time enters the client. It tells how old an unsent change is and when a local
//! value has expired, nothing else: order never rests on it.

use std::time::{SystemTime, UNIX_EPOCH};

use roam_schemas::Timestamp;

/// The wall clock. It may jump and run backwards.
#[expect(clippy::disallowed_methods, reason = "this is the one place of the client that reads the clock")]
pub(super) fn now() -> Timestamp {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
