//! How to reach the bus: the servers, the credentials and TLS, as an operator writes them down. Plain data; nothing here
//! opens a file or a socket.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Role;

/// Where the bus is and who we are on it. The default is `nats://127.0.0.1:4222` without credentials.
///
/// At most one way of authenticating may be given: `credentials`, `nkey_seed`, `user` with `password`, `token`, or
/// `token_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// The URLs of the servers: `nats://host:port`, or `tls://host:port` where TLS is required.
    pub servers: Vec<String>,
    /// A credentials file (JWT and seed). It is read again at each connect, so that it may be renewed in place.
    pub credentials: Option<PathBuf>,
    /// A file that holds an nkey seed. It is read again at each connect.
    pub nkey_seed: Option<PathBuf>,
    /// The user's name, with `password`.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<Secret>,
    /// A bearer token.
    pub token: Option<Secret>,
    /// A file that holds a bearer token and nothing else. It is read again at each connect.
    pub token_file: Option<PathBuf>,
    /// Refuse to speak without TLS. Without it TLS is used only where the server demands it.
    pub tls: bool,
    /// A PEM file with the certificate authorities to trust instead of those of the system.
    pub ca: Option<PathBuf>,
    /// A PEM file with our own certificate, with `key`, for servers that ask for one (mutual TLS).
    pub certificate: Option<PathBuf>,
    /// A PEM file with the private key of `certificate`.
    pub key: Option<PathBuf>,
    /// What reply subjects begin with, for a user who may subscribe to nothing but inboxes of its own. The server's
    /// permissions decide it; the default is `_INBOX`.
    pub inbox_prefix: Option<String>,
}

/// The address of a server that listens where NATS does by default.
pub const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

impl Default for BusSettings {
    fn default() -> Self {
        Self::at(DEFAULT_SERVER)
    }
}

impl BusSettings {
    /// The settings for one server without credentials.
    pub fn at(server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            credentials: None,
            nkey_seed: None,
            user: None,
            password: None,
            token: None,
            token_file: None,
            tls: false,
            ca: None,
            certificate: None,
            key: None,
            inbox_prefix: None,
        }
    }

    /// The same for a service that signs in with an nkey: its inbox is where the permissions of its role have it, unless
    /// something else is set.
    #[must_use]
    pub fn signed_in_as(mut self, role: Role) -> Self {
        if self.nkey_seed.is_some() {
            self.inbox_prefix.get_or_insert_with(|| role.inbox_prefix());
        }
        self
    }

    /// Everything that is wrong with these settings, so that an operator can mend it in one go. Files are not opened.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.servers.is_empty() {
            problems.push("servers: at least one is needed".to_owned());
        }
        for server in &self.servers {
            if server.parse::<async_nats::ServerAddr>().is_err() {
                problems.push(format!("servers: {:?} is not a NATS URL", without_secret(server)));
            }
        }
        if self.user.is_some() != self.password.is_some() {
            problems.push("user and password: one is given without the other".to_owned());
        }
        let ways = [
            self.credentials.is_some(),
            self.nkey_seed.is_some(),
            self.user.is_some() || self.password.is_some(),
            self.token.is_some(),
            self.token_file.is_some(),
        ];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            problems.push("credentials, nkey_seed, user, token and token_file: more than one is given".to_owned());
        }
        if self.certificate.is_some() != self.key.is_some() {
            problems.push("certificate and key: one is given without the other".to_owned());
        }
        if let Some(prefix) = &self.inbox_prefix
            && !is_literal_subject(prefix)
        {
            problems.push(format!("inbox_prefix: {prefix:?} is not a subject without wildcards"));
        }
        problems
    }
}

/// Whether `text` is a subject that names one place: no empty token, no wildcard, no white space.
fn is_literal_subject(text: &str) -> bool {
    text.split('.')
        .all(|token| !token.is_empty() && !token.contains(['*', '>']) && !token.contains(char::is_whitespace))
}

/// The URL of a server as it may be shown: without the user, the password or the token that may stand in it.
pub fn without_secret(url: &str) -> String {
    // Without a scheme a password may hold what looks like the end of one.
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(':') => (Some(scheme), rest),
        _ => (None, url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    scheme.map_or_else(|| host.to_owned(), |scheme| format!("{scheme}://{host}"))
}

/// A text that must not be shown: it prints as `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for handing to the server.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn problems_of(toml: &str) -> Vec<String> {
        toml::from_str::<BusSettings>(toml).expect("a document").problems()
    }

    #[test]
    fn the_default_is_one_local_server_without_credentials() {
        let settings: BusSettings = toml::from_str("").unwrap();
        assert_eq!(settings, BusSettings::default());
        assert_eq!(settings.servers, [DEFAULT_SERVER]);
        assert!(settings.problems().is_empty());
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<BusSettings>("server = 'nats://a'").is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let settings: BusSettings = toml::from_str("user = 'u'\npassword = 'hunter2'\ntoken = 'hunter3'").unwrap();
        assert!(!format!("{settings:?}").contains("hunter"));
        assert_eq!(settings.password.unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("tls://a:4222", "tls://a:4222"),
            ("nats://alice:hunter2@a:4222", "nats://a:4222"),
            ("nats://hunter2@a", "nats://a"),
            ("alice:hun@ter@a", "a"),
            ("alice:hun://ter@a", "a"),
            ("::", "::"),
        ] {
            assert_eq!(without_secret(url), shown);
        }
        let problems = BusSettings::at("nats://alice:hunter2@:::").problems();
        assert_eq!(problems, ["servers: \"nats://:::\" is not a NATS URL"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = problems_of("servers = ['::']\nuser = 'u'\ntoken = 't'\nkey = 'k'\ninbox_prefix = 'a.*'");
        let expected = ["servers", "user and password", "more than one", "certificate and key", "inbox_prefix"];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem}");
        }
    }
}
