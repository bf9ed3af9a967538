//! Tenant, user, app and service: names that are parsed once and written on subjects as one token each. Devices, whose
//! tokens may be system names, are in `device.rs`.
//!
//! A token keeps `A-Z a-z 0-9 _ -` and writes every other byte as `%XX` with upper-case digits. Decoding refuses
//! whatever encoding would not have produced, so a token has exactly one spelling and never a wildcard in it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use crate::limits::NAME_BYTES;

/// Why a text is not a name, or a token is not the encoding of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Names have at least one byte.
    #[error("a name is empty")]
    Empty,
    /// Names have at most [`NAME_BYTES`] bytes.
    #[error("a name has {actual} bytes, more than {NAME_BYTES}")]
    TooLong {
        /// Its length in bytes.
        actual: usize,
    },
    /// The token holds a byte that encoding would have escaped, such as `*`, `>` or `.`.
    #[error("a subject token holds a byte that must be percent-encoded")]
    Unescaped,
    /// The token holds an escape that encoding would not have written: cut off, not hexadecimal, lower-case, or of a
    /// byte that needs none.
    #[error("a subject token holds an escape that is not canonical")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("a subject token does not decode to UTF-8")]
    NotUtf8,
    /// The token begins with `$` and is not one of the system names.
    #[error("a subject token is not a known system name")]
    UnknownSystemName,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name: any UTF-8 of 1 to 128 bytes.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check_length(&text)?;
                Ok(Self(text))
            }

            /// The name as its user wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as one subject token.
            pub fn token(&self) -> String {
                let mut token = String::with_capacity(self.0.len());
                push_token(&mut token, &self.0);
                token
            }

            /// Reads a subject token back.
            pub fn from_token(token: &str) -> Result<Self, NameError> {
                decode_token(token).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES })
            }
        }
    };
}

name! {
    /// An organisation that shares the bus with others.
    Tenant
}
name! {
    /// A person (or an account) of a tenant.
    User
}
name! {
    /// An application whose configuration roams.
    App
}
name! {
    /// The name of a storage replica, by which operators call it.
    ReplicaName
}
name! {
    /// The name of a service that writes as the device `$svc-<name>`.
    ServiceName
}

impl Default for ReplicaName {
    /// The name of the replica of a deployment that has only one.
    fn default() -> Self {
        Self("storage".to_owned())
    }
}

pub(crate) fn check_length(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        1..=NAME_BYTES => Ok(()),
        actual => Err(NameError::TooLong { actual }),
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Appends the token of a name to a subject that is being built.
pub(crate) fn push_token(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(digits(byte));
        }
    }
}

/// What follows the token of a name in `text`, if that begins with it. Does not allocate.
pub(crate) fn strip_token<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    name.bytes().try_fold(text, |rest, byte| {
        if is_plain(byte) {
            return rest.strip_prefix(char::from(byte));
        }
        let [high, low] = digits(byte);
        rest.strip_prefix('%')?.strip_prefix(high)?.strip_prefix(low)
    })
}

/// Reads the token of a name back.
pub(crate) fn decode_token(token: &str) -> Result<String, NameError> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match first {
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return Err(NameError::Escape);
                };
                let byte = digit(*high)? << 4 | digit(*low)?;
                if is_plain(byte) {
                    return Err(NameError::Escape);
                }
                bytes.push(byte);
                tail
            }
            byte if is_plain(*byte) => {
                bytes.push(*byte);
                tail
            }
            _ => return Err(NameError::Unescaped),
        };
    }
    let text = String::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
    check_length(&text)?;
    Ok(text)
}

fn digits(byte: u8) -> [char; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]))
}

fn digit(byte: u8) -> Result<u8, NameError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(NameError::Escape),
    }
}
