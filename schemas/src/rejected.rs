//! What is kept in ROAM_REJECTED of a change that was refused: the original, cut, with what is known of it in the headers.

use std::borrow::Cow;

use crate::{
    Encoding, Problem, Profile, headers,
    limits::REJECTED_BYTES,
    message::payload_hash,
    subjects::{rejected, rejected_of_nobody},
};

/// A refused change.
#[derive(Debug, Clone, Copy)]
pub struct RejectedEntry<'a> {
    /// Whose it is; none if its subject names nobody.
    pub profile: Option<&'a Profile>,
    /// The subject that it was published on.
    pub subject: &'a str,
    /// Its sequence in ROAM_CHANGES.
    pub sequence: u64,
    /// The encoding of the payload.
    pub encoding: Encoding,
    /// The change, whole.
    pub payload: &'a [u8],
    /// Why it was refused.
    pub problem: &'a Problem,
}

impl<'a> RejectedEntry<'a> {
    /// The subject that it is filed on.
    pub fn filed_on(&self) -> String {
        self.profile.map_or_else(rejected_of_nobody, |profile| rejected(&profile.tenant, &profile.user))
    }

    /// The headers of the entry.
    pub fn headers(&self) -> [(&'static str, Cow<'static, str>); 7] {
        [
            (headers::CONTENT_TYPE, self.encoding.content_type().into()),
            (headers::CODE, self.problem.code.as_str().into()),
            (headers::REASON, self.problem.to_string().into()),
            (headers::SUBJECT, self.subject.to_owned().into()),
            (headers::SEQUENCE, self.sequence.to_string().into()),
            (headers::HASH, payload_hash(self.payload).into()),
            (headers::SIZE, self.payload.len().to_string().into()),
        ]
    }

    /// As much of the payload as is kept.
    pub fn kept(&self) -> &'a [u8] {
        &self.payload[..self.payload.len().min(REJECTED_BYTES)]
    }
}
