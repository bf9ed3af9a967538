//! Waiting for what happens elsewhere: by looking again and again until a deadline, never by sleeping and hoping.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything may take that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// What `look` finds, as soon as it finds something.
///
/// # Panics
/// If it has not found anything after [`PATIENCE`]; `what` says what was waited for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?} still not so: {what}");
        sleep(PAUSE).await;
    }
}
