//! What can go wrong with objects, shaped by what the caller must do about it.

use std::io;

use crate::{
    PublishError, Refusal, RequestError,
    streams::api::{ApiError, code},
};

/// Something could not be done with an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such bucket: provision.
    #[error("the bucket {bucket} does not exist: make it with roam provision")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// There is no such object.
    #[error("the bucket {bucket} holds no object {object}")]
    NotFound {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
    },
    /// What came is not what was put: its digest, its size or its pieces differ. Never use what was written of it.
    #[error("the object {object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong.
        what: String,
    },
    /// The bucket is full: remove something, or give it more room.
    #[error("the bucket {bucket} is full")]
    Full {
        /// The bucket.
        bucket: String,
    },
    /// We may not. Mend the credentials.
    #[error("objects of the bucket {bucket} are denied to us")]
    Denied {
        /// The bucket.
        bucket: String,
    },
    /// The server refuses, for the reason that it gives.
    #[error("the server refuses what is done with the bucket {bucket}")]
    Refused {
        /// The bucket.
        bucket: String,
        /// Its words.
        source: Refusal,
    },
    /// Nobody answered for long: try again later.
    #[error("nobody answers for the bucket {bucket}")]
    Unavailable {
        /// The bucket.
        bucket: String,
        /// The last reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was to be sent cannot be read.
    #[error("what was to be put cannot be read")]
    Source(#[source] io::Error),
    /// What came cannot be written.
    #[error("what was got cannot be written")]
    Sink(#[source] io::Error),
}

impl ObjectError {
    pub(super) fn of_api(bucket: &str, error: ApiError) -> Self {
        let bucket = bucket.to_owned();
        match error {
            ApiError::Refused(refusal) if refusal.err_code == code::STREAM_NOT_FOUND => Self::NoBucket { bucket },
            ApiError::Refused(source) => Self::Refused { bucket, source },
            ApiError::Request(RequestError::Denied) => Self::Denied { bucket },
            other => Self::Unavailable { bucket, source: other.into() },
        }
    }

    pub(super) fn of_publish(bucket: &str, error: PublishError) -> Self {
        let bucket = bucket.to_owned();
        match error {
            PublishError::Busy { .. } => Self::Full { bucket },
            PublishError::Denied => Self::Denied { bucket },
            PublishError::Refused { code, text } => {
                Self::Refused { bucket, source: Refusal { err_code: code, description: text } }
            }
            other => Self::Unavailable { bucket, source: other.into() },
        }
    }
}
