//! What can go wrong with a connection, shaped by what the caller must do about it.

use async_nats::ConnectErrorKind;

use super::credentials::CredentialsError;
use super::replies::Lost;
use crate::settings::{BusSettings, without_secret};

/// The first connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings contradict themselves: mend them. All problems are listed.
    #[error("the bus settings are wrong: {}", .0.join("; "))]
    Settings(Vec<String>),
    /// The credentials cannot be read: mend them.
    #[error("the bus credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The server does not let us in: mend the credentials.
    #[error("the server refuses our credentials")]
    Denied(#[source] async_nats::ConnectError),
    /// No server can be reached: try again later.
    #[error("no server can be reached at {}", .servers.join(", "))]
    Unreachable {
        /// Where it was tried, without passwords.
        servers: Vec<String>,
        /// The last reason.
        source: async_nats::ConnectError,
    },
    /// The connection was lost while it was being made: try again later.
    #[error("the connection was lost at once")]
    Lost,
}

/// A message could not be handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It exceeds what the server takes. Never try again.
    #[error("the message exceeds the server's limit of {limit} bytes")]
    TooLarge {
        /// The server's `max_payload`, headers included.
        limit: usize,
    },
    /// The subject is empty or holds white space. Never try again.
    #[error("the subject is malformed")]
    Subject,
    /// The connection did not come back, or the server did not answer, in time. Whether it was sent is unknown.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server does not let us publish there.
    #[error("publishing is denied")]
    Denied,
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

/// A request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens on the subject now: nobody has seen the request.
    #[error("nobody listens there")]
    NoResponders,
    /// No answer in time. Whether the request was seen is unknown.
    #[error("no answer in time")]
    TimedOut,
    /// The server does not let us publish there: nobody has seen the request.
    #[error("asking is denied")]
    Denied,
    /// The request exceeds what the server takes. Never try again.
    #[error("the request exceeds the server's limit of {limit} bytes")]
    TooLarge {
        /// The server's `max_payload`, headers included.
        limit: usize,
    },
    /// The subject is empty or holds white space. Never try again.
    #[error("the subject is malformed")]
    Subject,
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

impl ConnectError {
    pub(super) fn of(settings: &BusSettings, source: async_nats::ConnectError) -> Self {
        match source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => Self::Denied(source),
            ConnectErrorKind::ServerParse => Self::Settings(vec![source.to_string()]),
            _ => {
                let servers = settings.servers.iter().map(|server| without_secret(server)).collect();
                Self::Unreachable { servers, source }
            }
        }
    }
}

impl From<Lost> for SendError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Closed => Self::Closed,
            Lost::Denied => Self::Denied,
            Lost::TimedOut => Self::TimedOut,
        }
    }
}

impl From<SendError> for RequestError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { limit } => Self::TooLarge { limit },
            SendError::Subject => Self::Subject,
            SendError::TimedOut => Self::TimedOut,
            SendError::Denied => Self::Denied,
            SendError::Closed => Self::Closed,
        }
    }
}
