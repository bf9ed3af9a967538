//! Who wrote: a device of the user, or a system writer. Holds the text form and the token of both; other names are in
//! `names.rs`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    NameError, ServiceName,
    names::{check_length, decode_token, push_token},
};

/// Who wrote: a device of the user, or one of the closed list of system writers.
///
/// As text (in messages, rows and logs) a device is its name; a system writer begins with one `$`; a device whose own
/// name begins with `$` has that sign doubled. So the two can never be taken for each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Device(String);

const EXPIRY: &str = "$expiry";
const SERVICE: &str = "$svc-";

impl Device {
    /// Parses the name of a user's device: any UTF-8 of 1 to 128 bytes.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check_length(name)?;
        Ok(Self::named(name))
    }

    /// The writer that turns expired records into tombstones.
    pub fn expiry() -> Self {
        Self(EXPIRY.to_owned())
    }

    /// A service that emits changes.
    pub fn service(name: &ServiceName) -> Self {
        Self(format!("{SERVICE}{}", name.as_str()))
    }

    /// Whether this is the expiry writer.
    pub fn is_expiry(&self) -> bool {
        self.0 == EXPIRY
    }

    /// Whether this is a service.
    pub fn is_service(&self) -> bool {
        self.0.starts_with(SERVICE)
    }

    /// The name that its user gave the device; none for a system writer.
    pub fn own_name(&self) -> Option<&str> {
        match self.0.strip_prefix('$') {
            None => Some(&self.0),
            Some(name) => name.starts_with('$').then_some(name),
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device as one subject token.
    pub fn token(&self) -> String {
        let mut token = String::with_capacity(self.0.len());
        self.push_token(&mut token);
        token
    }

    pub(crate) fn push_token(&self, subject: &mut String) {
        if let Some(name) = self.0.strip_prefix(SERVICE) {
            subject.push_str(SERVICE);
            push_token(subject, name);
        } else if self.is_expiry() {
            subject.push_str(EXPIRY);
        } else if self.0.starts_with('$') {
            push_token(subject, &self.0[1..]);
        } else {
            push_token(subject, &self.0);
        }
    }

    /// Reads a subject token back; `$expiry` and `$svc-<name>` are the only tokens that may begin with `$`.
    pub fn from_token(token: &str) -> Result<Self, NameError> {
        if token == EXPIRY {
            return Ok(Self::expiry());
        }
        if let Some(name) = token.strip_prefix(SERVICE) {
            return ServiceName::from_token(name).map(|name| Self::service(&name));
        }
        if token.starts_with('$') {
            return Err(NameError::UnknownSystemName);
        }
        decode_token(token).map(|name| Self::named(&name))
    }

    fn named(name: &str) -> Self {
        if name.starts_with('$') { Self(format!("${name}")) } else { Self(name.to_owned()) }
    }
}

impl TryFrom<String> for Device {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if let Some(name) = text.strip_prefix(SERVICE) {
            check_length(name)?;
        } else if text.starts_with("$$") {
            check_length(&text[1..])?;
        } else if text.starts_with('$') && text != EXPIRY {
            return Err(NameError::UnknownSystemName);
        } else {
            check_length(&text)?;
        }
        Ok(Self(text))
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.0
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Device {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Device".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1,
            "description": "A device's name; `$expiry` and `$svc-<name>` are system writers; a leading `$` of a device's own name is doubled."
        })
    }
}
