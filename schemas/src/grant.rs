//! What a token grants: who its bearer is, and for which apps. Everybody who makes tokens or reads them means the same by
//! it. How a token is signed, and what its bearer may then do on the bus, is not known here.
//!
//! ```json
//! {"tenant": "acme", "user": "alice", "device": "laptop"}
//! {"tenant": "acme", "service": "mailer", "access": "read", "apps": ["mail"]}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{App, Device, NameError, ServiceName, Tenant, User, limits::GRANT_APPS};

/// Who the bearer of a token is, and for which apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Grant {
    /// The organisation.
    pub tenant: Tenant,
    /// Who of it.
    pub bearer: Bearer,
    /// For which apps.
    pub apps: Apps,
}

/// Who of a tenant bears a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// A device of a user. It is never one of the system writers.
    Device {
        /// The person.
        user: User,
        /// The device.
        device: Device,
    },
    /// A service, for all users of its tenant.
    Service {
        /// The service.
        name: ServiceName,
        /// What it may do.
        access: Access,
    },
}

/// What a service may do with profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Ask and listen.
    Read,
    /// That, and change.
    Write,
}

/// The apps that a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apps {
    /// All that there are and will be.
    All,
    /// These: 1 to [`GRANT_APPS`].
    Only(Vec<App>),
}

/// The id of a token, by which it is listed and revoked: a UUIDv7 (RFC 9562, section 5.7), or a UUIDv8 of a token that
/// somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(Uuid);

/// Why a text does not grant anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It names neither a device nor a service, or both.
    #[error("a grant names a user and a device, or a service and its access")]
    Bearer,
    /// It names no app, or too many.
    #[error("a grant is for all apps, or names 1 to {GRANT_APPS}; it names {0}")]
    Apps(usize),
}

impl Grant {
    /// For a device of a user.
    ///
    /// # Errors
    /// If the apps are none or too many.
    pub fn device(tenant: Tenant, user: User, device: Device, apps: Apps) -> Result<Self, GrantError> {
        Self { tenant, bearer: Bearer::Device { user, device }, apps }.checked()
    }

    /// For a service.
    ///
    /// # Errors
    /// As for a device.
    pub fn service(tenant: Tenant, name: ServiceName, access: Access, apps: Apps) -> Result<Self, GrantError> {
        Self { tenant, bearer: Bearer::Service { name, access }, apps }.checked()
    }

    fn checked(self) -> Result<Self, GrantError> {
        match (&self.apps, &self.bearer) {
            (Apps::Only(apps), _) if !(1..=GRANT_APPS).contains(&apps.len()) => Err(GrantError::Apps(apps.len())),
            // A system writer is none of a user's devices.
            (_, Bearer::Device { device, .. }) if device.own_name().is_none() => Err(GrantError::Bearer),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bearer {
            Bearer::Device { user, device } => write!(f, "device {device} of {}/{user}", self.tenant)?,
            Bearer::Service { name, access: Access::Read } => write!(f, "reading service {name} of {}", self.tenant)?,
            Bearer::Service { name, access: Access::Write } => write!(f, "writing service {name} of {}", self.tenant)?,
        }
        match &self.apps {
            Apps::All => Ok(()),
            Apps::Only(apps) => {
                let apps: Vec<_> = apps.iter().map(App::as_str).collect();
                write!(f, ", for {}", apps.join(", "))
            }
        }
    }
}

impl TokenId {
    /// A new id, from the clock and randomness of this process.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of a token that somebody else made, from a digest of it (UUIDv8).
    pub fn of_digest(digest: [u8; 16]) -> Self {
        Self(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }

    /// Reads an id as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A grant as it is written in a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: Tenant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    /// The device's own name. A `$` in it is nothing special, so no token ever names a system writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<ServiceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apps: Option<Vec<App>>,
}

impl TryFrom<Written> for Grant {
    type Error = GrantError;

    fn try_from(written: Written) -> Result<Self, GrantError> {
        let Written { tenant, user, device, service, access, apps } = written;
        let apps = apps.map_or(Apps::All, Apps::Only);
        match (user, device, service, access) {
            (Some(user), Some(device), None, None) => Self::device(tenant, user, Device::parse(&device)?, apps),
            (None, None, Some(name), Some(access)) => Self::service(tenant, name, access, apps),
            _ => Err(GrantError::Bearer),
        }
    }
}

impl From<Grant> for Written {
    fn from(grant: Grant) -> Self {
        let apps = match grant.apps {
            Apps::All => None,
            Apps::Only(apps) => Some(apps),
        };
        let nobody = Self { tenant: grant.tenant, user: None, device: None, service: None, access: None, apps };
        match grant.bearer {
            Bearer::Device { user, device } => {
                Self { user: Some(user), device: device.own_name().map(str::to_owned), ..nobody }
            }
            Bearer::Service { name, access } => Self { service: Some(name), access: Some(access), ..nobody },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Grant, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            r#"{"tenant":"acme","user":"alice","device":"laptop"}"#,
            r#"{"tenant":"acme","user":"*","device":"$expiry","apps":["a.b",">"]}"#,
            r#"{"tenant":"acme","service":"mailer","access":"read"}"#,
            r#"{"tenant":"acme","service":"mailer","access":"write","apps":["mail"]}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn a_device_that_is_called_like_a_system_writer_is_none() {
        let grant = read(r#"{"tenant":"acme","user":"alice","device":"$expiry"}"#).unwrap();
        let Bearer::Device { device, .. } = grant.bearer else { panic!("no device") };
        assert_eq!(device.token(), "%24expiry");
        let (tenant, user) = (Tenant::parse("a").unwrap(), User::parse("u").unwrap());
        assert_eq!(Grant::device(tenant, user, Device::expiry(), Apps::All), Err(GrantError::Bearer));
    }

    #[test]
    fn what_grants_nothing_clear_is_refused() {
        let many: Vec<String> = (0..=GRANT_APPS).map(|number| number.to_string()).collect();
        let many = format!(r#"{{"tenant":"a","user":"u","device":"d","apps":{many:?}}}"#);
        for (text, reason) in [
            (r#"{"tenant":"a"}"#, "names a user and a device"),
            (r#"{"tenant":"a","user":"u"}"#, "names a user and a device"),
            (r#"{"tenant":"a","service":"s"}"#, "names a user and a device"),
            (r#"{"tenant":"a","user":"u","device":"d","service":"s","access":"read"}"#, "names a user and a device"),
            (r#"{"tenant":"","user":"u","device":"d"}"#, "empty"),
            (r#"{"tenant":"a","user":"u","device":""}"#, "empty"),
            (r#"{"tenant":"a","user":"u","device":"d","apps":[]}"#, "it names 0"),
            (r#"{"tenant":"a","user":"u","device":"d","admin":true}"#, "unknown field"),
            (many.as_str(), "it names 33"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
