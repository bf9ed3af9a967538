//! What a service does with its several connections: open them however long it takes, and know whether all stand.

use std::error::Error;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::bus::{Bus, BusState, ConnectError};
use crate::settings::BusSettings;

/// The mean pause between attempts to connect for the first time.
const PAUSE: Duration = Duration::from_secs(1);

/// Connects, however long it takes until there is a server, and says each time that there is none.
///
/// # Errors
/// Only what a person must mend: settings, credentials.
pub async fn connect_patiently(
    settings: &BusSettings,
    name: &str,
    unreachable: impl Fn(),
) -> Result<Bus, ConnectError> {
    loop {
        match Bus::connect(settings, name).await {
            Err(error @ (ConnectError::Unreachable { .. } | ConnectError::Lost)) => {
                unreachable();
                tracing::warn!(error = &error as &dyn Error, "not connected");
                sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            ended => return ended,
        }
    }
}

/// Tells at once, and whenever something changes, whether all of the connections stand. Ends when one is closed by us.
pub async fn all_connected<const N: usize>(
    mut states: [watch::Receiver<BusState>; N],
    mut tell: impl FnMut(bool) + Send,
) {
    loop {
        // All are looked at, also behind one that is down: each must be marked as seen.
        let down = states.iter_mut().filter_map(|state| (!state.borrow_and_update().connected).then_some(())).count();
        tell(down == 0);
        let changes = states.iter_mut().map(|state| Box::pin(state.changed()));
        let (changed, _, _) = select_all(changes).await;
        if changed.is_err() {
            return;
        }
    }
}
