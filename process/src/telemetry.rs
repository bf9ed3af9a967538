//! Logs: one line an event on standard error, as text for people or as JSON for collectors. It
//! sets the process' tracing subscriber and nothing else; it is called by whoever owns `main`.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, its fields at the top level.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter is not understood")]
    Filter(#[source] ParseError),
    /// The process has a subscriber already: somebody else called this before.
    #[error("logging was set up before")]
    AlreadySet(#[source] TryInitError),
}

/// Sets the log of the process. `filter` is a list of directives, such as
/// `info,roam_storage=debug`.
///
/// # Errors
/// A filter that cannot be read, or a process that has its log already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = parse_filter(filter).map_err(TelemetryError::Filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.finish().with(filter_fn(tells_no_payload)).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().with(filter_fn(tells_no_payload)).try_init(),
    }
    .map_err(TelemetryError::AlreadySet)
}

/// Whatever the filter asks for: the library that speaks NATS traces whole messages, and no payload is ever logged.
fn tells_no_payload(event: &Metadata<'_>) -> bool {
    !(*event.level() == Level::TRACE && event.target().starts_with("async_nats"))
}

/// Reads a filter without setting anything. Strict: a directive that is not understood is refused.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_log_of_a_process_is_set_once() {
        let refused = init(LogFormat::Text, "info,=?").unwrap_err();
        assert!(matches!(refused, TelemetryError::Filter(_)), "{refused:?}");
        init(LogFormat::Json, "off").unwrap();
        let again = init(LogFormat::Text, "info").unwrap_err();
        assert!(matches!(again, TelemetryError::AlreadySet(_)), "{again:?}");
    }
}
