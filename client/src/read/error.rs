//! Why there is no answer, told apart by what the asker must do about it.

use roam_nats::{RequestError, SubscribeError};
use roam_schemas::{Code, DecodeError, Problem};

use crate::IdentityError;

/// A question has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The question breaks a rule of the protocol: mend it.
    #[error("the request is not valid: {0}")]
    Invalid(#[source] Problem),
    /// The asker has no right to it.
    #[error("reading is denied: {0}")]
    Denied(#[source] Problem),
    /// The cursor is too old, or of another epoch: fetch the whole profile.
    #[error("the cursor is too old: fetch the whole profile")]
    Reset,
    /// No replica that was asked had what this client has seen. Try again.
    #[error("the replicas are behind: {0}")]
    Behind(#[source] Problem),
    /// The responders cannot answer now. Try again later.
    #[error("the responders are busy: {0}")]
    Busy(#[source] Problem),
    /// A chunk of a large value is not there. Ask for the record again: a newer one may have taken its place.
    #[error("a part of the value is not there: {0}")]
    Missing(#[source] Problem),
    /// The value cannot be written where the caller wants it.
    #[error("the value cannot be written: {0}")]
    Sink(std::io::ErrorKind),
    /// There was no answer in time. Try again later.
    #[error("there is no answer: {0}")]
    Unanswered(#[source] Silence),
    /// The answer cannot be read: another version, perhaps. Upgrade this client.
    #[error("the answer cannot be read")]
    Malformed(#[from] DecodeError),
    /// The profile is not this client's to read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// No storage replica listens, or the connection is on the way to none.
    #[error("no storage replica listens")]
    NoResponders,
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimedOut,
    /// The connection was lost meanwhile.
    #[error("the connection was lost")]
    ConnectionLost,
    /// What came was not Roam's.
    #[error("what came was not Roam's")]
    Foreign,
}

impl ReadError {
    /// Whether asking again later can help.
    pub fn retry(&self) -> bool {
        matches!(self, Self::Behind(_) | Self::Busy(_) | Self::Unanswered(_))
    }

    /// The code of the problem, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Invalid(problem)
            | Self::Denied(problem)
            | Self::Behind(problem)
            | Self::Busy(problem)
            | Self::Missing(problem) => Some(problem.code),
            Self::Reset => Some(Code::Reset),
            Self::Unanswered(_) | Self::Sink(_) | Self::Malformed(_) | Self::Identity(_) | Self::Closed => None,
        }
    }

    pub(crate) fn malformed(what: &str) -> Self {
        Self::Malformed(DecodeError::Malformed(what.to_owned()))
    }
}

impl From<Problem> for ReadError {
    fn from(problem: Problem) -> Self {
        match problem.code {
            Code::Denied => Self::Denied(problem),
            Code::Reset => Self::Reset,
            Code::Behind => Self::Behind(problem),
            Code::Missing => Self::Missing(problem),
            code if code.retry() => Self::Busy(problem),
            _ => Self::Invalid(problem),
        }
    }
}

impl From<RequestError> for ReadError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoResponders => Self::Unanswered(Silence::NoResponders),
            RequestError::TimedOut => Self::Unanswered(Silence::TimedOut),
            RequestError::Denied => Self::Denied(Problem::new(Code::Denied, "the server does not let us ask there")),
            RequestError::TooLarge { .. } => Self::Invalid(Problem::new(Code::TooLarge, error.to_string())),
            RequestError::Subject => Self::Invalid(Problem::invalid(error.to_string())),
            RequestError::Closed => Self::Closed,
        }
    }
}

impl From<SubscribeError> for ReadError {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Malformed => Self::Invalid(Problem::invalid(error.to_string())),
            SubscribeError::Closed => Self::Closed,
        }
    }
}
