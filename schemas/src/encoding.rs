//! The two encodings of a payload and the content types that name them. How messages are written in them is in
//! `message.rs`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a payload is encoded. A reply, a receipt and a notice use the encoding of what caused them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// postcard 1.x: compact, the default of the Rust client.
    Postcard,
    /// JSON (RFC 8259): for everything else.
    Json,
}

impl Encoding {
    /// The value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Postcard => "application/vnd.roam.v1+postcard",
            Self::Json => "application/json",
        }
    }

    /// The encoding that a `Content-Type` header names, if it is one of ours.
    pub fn from_content_type(text: &str) -> Option<Self> {
        [Self::Postcard, Self::Json].into_iter().find(|encoding| encoding.content_type() == text)
    }
}
