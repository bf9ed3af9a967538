//! What a client may be told: where the bus is, how to write messages, and how long to wait. Plain data; nothing here
//! opens a file or a socket.

use std::time::Duration;

use roam_nats::BusSettings;
use roam_schemas::{App, Encoding, Shards, limits};

/// How a [`crate::Client`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Where the bus is and who we are on it.
    pub bus: BusSettings,
    /// The apps that our token names, if it is not for all of them: nothing else may be asked for then.
    pub apps: Vec<App>,
    /// How changes and requests are written; their receipts and replies come back in the same encoding.
    pub encoding: Encoding,
    /// Most changes of one profile that are in flight (handed to the bus, and without a receipt), 1 to
    /// [`limits::CLIENT_WINDOW`]. A further one waits.
    pub window: usize,
    /// Whether the changes of a service go together while there are several, for a deployment of so many shards; none for each by
    /// itself. If the number is wrong the first bulk is refused, and each goes by itself from then on. A device has no use for it.
    pub bulk: Option<Shards>,
    /// How long a change waits for room in the window, and then again for its receipt.
    pub receipt_timeout: Duration,
    /// How long a request is repeated until there is an answer.
    pub request_timeout: Duration,
}

impl Default for ClientSettings {
    /// A server on this machine; postcard; the whole window; bulks for one shard; 30 seconds for a receipt, 15 for an answer.
    fn default() -> Self {
        Self {
            bus: BusSettings::default(),
            apps: Vec::new(),
            encoding: Encoding::Postcard,
            window: limits::CLIENT_WINDOW,
            bulk: Some(Shards::ONE),
            receipt_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(15),
        }
    }
}

impl ClientSettings {
    /// The default, for the server at this URL.
    pub fn at(server: impl Into<String>) -> Self {
        Self { bus: BusSettings::at(server), ..Self::default() }
    }

    /// Everything that is wrong with these settings beyond [`BusSettings::problems`].
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=limits::CLIENT_WINDOW).contains(&self.window) {
            problems.push(format!("window: {} is not in 1 to {}", self.window, limits::CLIENT_WINDOW));
        }
        for (name, timeout) in [("receipt_timeout", self.receipt_timeout), ("request_timeout", self.request_timeout)] {
            if !(SHORTEST..=LONGEST).contains(&timeout) {
                problems.push(format!("{name}: {timeout:?} is not in {SHORTEST:?} to {LONGEST:?}"));
            }
        }
        problems
    }
}

/// The bounds of both time-outs. A change that must survive for longer than the longest belongs into an outbox on disk.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_no_problems() {
        assert_eq!(ClientSettings::default().problems(), [""; 0]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let settings = ClientSettings {
            window: limits::CLIENT_WINDOW + 1,
            receipt_timeout: Duration::ZERO,
            request_timeout: Duration::MAX,
            ..ClientSettings::default()
        };
        let problems = settings.problems();
        for (problem, part) in problems.iter().zip(["window", "receipt_timeout", "request_timeout"]) {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(problems.len(), 3);
    }
}
