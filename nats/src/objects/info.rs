//! What the bucket says of an object, in the words of ADR-20, and the subjects that objects have. Pure.

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// How large a piece of an object is, in bytes: what the tools of NATS take.
pub(super) const CHUNK: usize = 128 * 1024;
/// As long as the ids that the tools of NATS give.
const ID_LENGTH: usize = 22;
/// The tools write this too: the time that counts is that of the message.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// An object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was put, by the clock of the server.
    pub modified: OffsetDateTime,
}

/// The message that makes an object of pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) bucket: String,
    /// The last token of the subject of its pieces.
    pub(super) nuid: String,
    pub(super) size: u64,
    pub(super) mtime: String,
    pub(super) chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<Options>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_chunk_size: Option<u64>,
}

/// Counts and hashes what an object is made of.
#[derive(Default)]
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    hasher: Sha256,
}

impl Content {
    pub(super) fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.chunks += 1;
        self.hasher.update(chunk);
    }

    pub(super) fn meta(self, bucket: &str, name: &str, nuid: &str) -> Meta {
        Meta {
            name: name.to_owned(),
            bucket: bucket.to_owned(),
            nuid: nuid.to_owned(),
            size: self.bytes,
            mtime: NO_TIME.to_owned(),
            chunks: self.chunks,
            digest: Some(written(self.hasher)),
            deleted: false,
            options: Some(Options { max_chunk_size: Some(CHUNK as u64) }),
        }
    }

    /// Whether this is what was put; if not, what is wrong.
    pub(super) fn check(self, meta: &Meta) -> Result<(), String> {
        if self.bytes != meta.size {
            return Err(format!("it has {} bytes, and should have {}", self.bytes, meta.size));
        }
        match &meta.digest {
            Some(digest) if *digest != written(self.hasher) => Err("its digest is another one".to_owned()),
            _ => Ok(()),
        }
    }
}

fn written(hasher: Sha256) -> String {
    format!("SHA-256={}", BASE64_URL_SAFE.encode(hasher.finalize()))
}

/// An id that nobody else has.
pub(super) fn new_id() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), ID_LENGTH)
}

pub(super) fn stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

pub(super) fn meta_subject(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", BASE64_URL_SAFE.encode(name))
}

pub(super) fn all_metas(bucket: &str) -> String {
    format!("$O.{bucket}.M.>")
}

pub(super) fn chunk_subject(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

pub(super) fn all_chunks(bucket: &str) -> String {
    format!("$O.{bucket}.C.>")
}

/// The name that a subject of [`meta_subject`] was made of.
pub(super) fn name_of(bucket: &str, subject: &str) -> Option<String> {
    let token = subject.strip_prefix(&format!("$O.{bucket}.M."))?;
    String::from_utf8(BASE64_URL_SAFE.decode(token).ok()?).ok()
}

/// The id that a subject of [`chunk_subject`] was made of.
pub(super) fn id_of<'a>(bucket: &str, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix(&format!("$O.{bucket}.C."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_said_of_an_object_is_what_the_tools_of_nats_say() {
        let mut content = Content::default();
        content.add(b"hello ");
        content.add(b"world");
        let meta = content.meta("B", "a/b", "N");
        let expected = serde_json::json!({
            "name": "a/b", "bucket": "B", "nuid": "N", "size": 11, "mtime": "0001-01-01T00:00:00Z", "chunks": 2,
            "digest": "SHA-256=uU0nuZNNPgilLlLX2n2r-sSE7-N6U4DukIj3rOLvzek=", "options": { "max_chunk_size": 131_072 },
        });
        assert_eq!(serde_json::to_value(&meta).unwrap(), expected);
        let by_others = r#"{"name":"x","options":{"link":{"bucket":"c"}},"bucket":"B","nuid":"N","size":0,
            "mtime":"2026-01-01T00:00:00Z","chunks":0,"deleted":true,"headers":{"a":["b"]}}"#;
        assert!(serde_json::from_str::<Meta>(by_others).unwrap().deleted);
    }

    #[test]
    fn names_come_back_from_subjects() {
        for name in ["files/abc", "ü", "a b.*>", ""] {
            assert_eq!(name_of("B", &meta_subject("B", name)).as_deref(), Some(name));
        }
        assert_eq!(name_of("B", "$O.B.M.###"), None);
        assert_eq!(name_of("B", "$O.C.M.YQ=="), None);
        assert_eq!(id_of("B", &chunk_subject("B", "N")), Some("N"));
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn content_that_differs_is_told() {
        let content = |text: &[u8]| {
            let mut content = Content::default();
            content.add(text);
            content
        };
        let meta = content(b"abc").meta("B", "n", "N");
        content(b"abc").check(&meta).unwrap();
        assert!(content(b"abd").check(&meta).unwrap_err().contains("digest"));
        assert!(content(b"ab").check(&meta).unwrap_err().contains("2 bytes"));
    }
}
