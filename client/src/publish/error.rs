//! Why a change was not saved, told apart by what the caller must do about it.

use roam_nats::PublishError;
use roam_schemas::{ChangeId, Code, Problem};

use crate::{IdentityError, ReadError};

/// A change was not saved, as far as is known.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// It breaks a rule of the protocol and was not sent: mend it.
    #[error("the change is not valid: {0}")]
    Invalid(#[source] Problem),
    /// It was decided, and refused whole, for good: look at the code, and try again under a new id if at all.
    #[error("the change was rejected: {0}")]
    Rejected(#[source] Problem),
    /// There was no room for it in time. Nothing was decided and nothing will be: send it again later.
    #[error("the system is busy; the change was not taken")]
    Busy,
    /// Its receipt did not come in time. It may have taken effect, or may still: send the very same change again, under
    /// this id, and its first outcome is told. A change under another id could take effect beside it.
    #[error("what became of change {id} is not known yet")]
    Unknown {
        /// Its id.
        id: ChangeId,
    },
    /// The same id is in flight already: wait for that one.
    #[error("change {id} is in flight already")]
    InFlight {
        /// The id.
        id: ChangeId,
    },
    /// The server does not let us publish there: nothing was sent. Mend the permissions.
    #[error("the server does not let us publish changes there")]
    Denied,
    /// The stream refuses it: nothing was stored. Mend the deployment.
    #[error("the stream refuses the change")]
    Refused(#[source] PublishError),
    /// There is no room for the chunks of a large value, for this user or at all. Nothing was published: try again later.
    #[error("there is no room for a large value: {0}")]
    Full(#[source] Problem),
    /// It cannot be learned which chunks of a large value are there, or some are not that must be. Nothing was published.
    #[error("the chunks of a large value are not known to be there: {0}")]
    Chunks(#[source] ReadError),
    /// What was to be uploaded cannot be read. Nothing was published.
    #[error("the value cannot be read: {0}")]
    Source(std::io::ErrorKind),
    /// The profile is not this client's to change.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The client was closed: nothing was sent.
    #[error("the client is closed")]
    Closed,
}

impl ChangeError {
    /// Whether sending the very same change again, under the same id, can help.
    pub fn retry(&self) -> bool {
        match self {
            Self::Busy | Self::Unknown { .. } | Self::Full(_) => true,
            Self::Chunks(error) => error.retry(),
            _ => false,
        }
    }

    /// The code of the problem, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Invalid(problem) | Self::Rejected(problem) | Self::Full(problem) => Some(problem.code),
            Self::Chunks(error) => error.code(),
            Self::Busy => Some(Code::Busy),
            Self::Denied => Some(Code::Denied),
            _ => None,
        }
    }
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Identity(error) => Self::Identity(error),
            ReadError::Closed => Self::Closed,
            error => Self::Chunks(error),
        }
    }
}
