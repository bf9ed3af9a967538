//! What an operator says of a provider: plain data.

use std::{net::IpAddr, path::PathBuf};

use roam_schemas::Tenant;
use serde::{Deserialize, Serialize};
use ureq::http::Uri;

/// An OpenID Connect provider whose tokens let devices of users in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderSettings {
    /// Its name: the `iss` of its tokens, and the URL below which it says where its keys are.
    pub issuer: String,
    /// Whom its tokens must be for: one `aud` of theirs.
    pub audience: String,
    /// The tenants that it may speak for.
    pub tenants: Vec<Tenant>,
    /// Which claims say who somebody is.
    pub claims: ClaimNames,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// A PEM file with the certificate authorities to trust instead of those of the system.
    pub ca: Option<PathBuf>,
    /// How often it is asked for its keys, in seconds.
    pub refresh_seconds: u64,
    /// How soon it may be asked again, in seconds, when a token is signed with a key that is not known.
    pub refetch_seconds: u64,
    /// For how long its keys are good, in seconds, while it cannot be reached.
    pub keep_seconds: u64,
}

/// Names of claims. One that begins with `/` is a JSON pointer (RFC 6901) into the claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimNames {
    /// The tenant. Without it, the provider speaks for one tenant alone.
    pub tenant: Option<String>,
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// The apps: an array of names, or names with spaces between. Without it, a token is for all apps.
    pub apps: Option<String>,
}

/// What a token is signed with (RFC 7518, RFC 8037). That is closed: no algorithm takes a secret that both sides have, and none is
/// no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA of at least 2048 bits, PKCS#1 v1.5, SHA-256.
    RS256,
    /// ECDSA, P-256, SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            tenants: Vec::new(),
            claims: ClaimNames::default(),
            algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            ca: None,
            refresh_seconds: 3_600,
            refetch_seconds: 10,
            keep_seconds: 86_400,
        }
    }
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { tenant: None, user: "sub".to_owned(), device: "device".to_owned(), apps: None }
    }
}

impl ProviderSettings {
    /// Everything that is wrong with it.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Self { issuer, audience, tenants, claims, algorithms, .. } = self;
        let several = tenants.len() != 1 && claims.tenant.is_none();
        let checks = [
            (!is_safe(issuer), format!("issuer {issuer:?} is no https URL (http is for this machine alone)")),
            (audience.is_empty(), "audience is missing: tokens for somebody else would be good".to_owned()),
            (tenants.is_empty(), "tenants is missing: name those that the provider may speak for".to_owned()),
            (!tenants.is_empty() && several, "claims.tenant is missing: which of the tenants is a user of?".to_owned()),
            (algorithms.is_empty(), "algorithms is empty".to_owned()),
            (self.refetch_seconds == 0, "refetch_seconds must be at least 1".to_owned()),
            (self.refresh_seconds < self.refetch_seconds, "refresh_seconds is less than refetch_seconds".to_owned()),
            (self.keep_seconds < self.refresh_seconds, "keep_seconds is less than refresh_seconds".to_owned()),
        ];
        checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, text)| text).collect()
    }
}

impl Algorithm {
    /// As a token names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// Whether what is read there is of whom the URL names: by https, or from this machine.
pub(crate) fn is_safe(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_here(host),
        _ => false,
    })
}

/// Whether a host is this machine.
pub(crate) fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn good() -> ProviderSettings {
        ProviderSettings {
            issuer: "https://login.example.com/realms/acme".to_owned(),
            audience: "roam".to_owned(),
            tenants: vec![Tenant::parse("acme").unwrap()],
            ..ProviderSettings::default()
        }
    }

    #[test]
    fn whatever_would_let_strangers_in_is_a_problem() {
        assert_eq!(good().problems(), Vec::<String>::new());
        let two = vec![Tenant::parse("acme").unwrap(), Tenant::parse("globex").unwrap()];
        for (bad, expected) in [
            (ProviderSettings { issuer: "http://login.example.com".to_owned(), ..good() }, "issuer"),
            (ProviderSettings { issuer: "login.example.com".to_owned(), ..good() }, "issuer"),
            (ProviderSettings { issuer: String::new(), ..good() }, "issuer"),
            (ProviderSettings { audience: String::new(), ..good() }, "audience"),
            (ProviderSettings { tenants: Vec::new(), ..good() }, "tenants"),
            (ProviderSettings { tenants: two, ..good() }, "claims.tenant"),
            (ProviderSettings { algorithms: Vec::new(), ..good() }, "algorithms"),
            (ProviderSettings { refetch_seconds: 0, ..good() }, "refetch_seconds"),
            (ProviderSettings { refresh_seconds: 1, ..good() }, "refresh_seconds"),
            (ProviderSettings { keep_seconds: 1, ..good() }, "keep_seconds"),
        ] {
            let problems = bad.problems();
            assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for (url, safe) in [
            ("https://login.example.com", true),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("ftp://localhost", false),
            ("file:///etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(is_safe(url), safe, "{url}");
        }
    }
}
