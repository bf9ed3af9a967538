//! Publishing again, with growing and jittered pauses, until there is an answer that a retry would not change, or the
//! time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Attempt;
use super::ack::{Failure, PubAck, PublishError, Verdict, judge, unsent};
use crate::bus::{Reply, SendError};

/// The mean of the first pause, and of the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(1);

/// `why` is the reason of the attempt that came first. No attempt begins after `deadline`. Of an attempt that may have been
/// stored it is not forgotten that it may, whatever is said of those after it.
pub(super) async fn until_final(attempt: Attempt, deadline: Instant, mut why: Failure) -> Result<PubAck, PublishError> {
    let mut mean = PAUSE_FIRST;
    loop {
        let pause = mean.mul_f64(rand::random_range(0.5..1.5));
        if Instant::now() + pause >= deadline {
            return Err(PublishError::Unavailable { source: why });
        }
        sleep(pause).await;
        mean = (mean * 2).min(PAUSE_LAST);
        let Ok(handed_over) = timeout_at(deadline, begin_once_connected(&attempt)).await else {
            return Err(PublishError::Unavailable { source: Failure::Disconnected });
        };
        match judge(handed_over.map_err(unsent)?.await) {
            // The one that takes the last place may be ours.
            Verdict::Final(Err(PublishError::Busy { .. })) if why.is_open() => {
                return Err(PublishError::Unavailable { source: why });
            }
            Verdict::Final(result) => return result,
            Verdict::Again(failure) if failure.is_open() || !why.is_open() => why = failure,
            Verdict::Again(_) => {}
        }
    }
}

/// What is handed to a connection that is down waits there and is sent later: one copy for each attempt. So an attempt
/// begins only when the connection stands.
async fn begin_once_connected(attempt: &Attempt) -> Result<Reply, SendError> {
    let mut state = attempt.inner.bus.watch_state();
    state.wait_for(|state| state.connected || state.closed).await.map_err(|_| SendError::Closed)?;
    attempt.begin().await
}
