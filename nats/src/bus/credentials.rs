//! How we prove who we are. Files are read at each connect, so that credentials may be renewed in place; nothing read
//! is kept or logged.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};

use crate::settings::BusSettings;

/// A file of credentials could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no seed, or no JWT and seed.
    #[error("{path} holds no {wanted}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The seed in the file is not one, or cannot sign.
    #[error("the seed in {path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: nkeys::error::Error,
    },
}

/// The options to connect with, complete with whichever way of authenticating is set. What is in the files is checked
/// now, and again whenever the connection is made anew.
pub(super) async fn options(settings: &BusSettings) -> Result<ConnectOptions, CredentialsError> {
    if let Some(path) = &settings.credentials {
        return from_file(path.clone(), sign_with_credentials).await;
    }
    if let Some(path) = &settings.nkey_seed {
        return from_file(path.clone(), sign_with_seed).await;
    }
    if let Some(path) = &settings.token_file {
        return from_file(path.clone(), show_token).await;
    }
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        return Ok(ConnectOptions::with_user_and_password(user.clone(), password.expose().to_owned()));
    }
    if let Some(token) = &settings.token {
        return Ok(ConnectOptions::with_token(token.expose().to_owned()));
    }
    Ok(ConnectOptions::new())
}

type Sign = fn(&Path, &str, &[u8]) -> Result<Auth, CredentialsError>;

async fn from_file(path: PathBuf, sign: Sign) -> Result<ConnectOptions, CredentialsError> {
    sign_nonce(&path, sign, &[]).await?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let path = path.clone();
        async move { sign_nonce(&path, sign, &nonce).await.map_err(AuthError::new) }
    }))
}

async fn sign_nonce(path: &Path, sign: Sign, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| CredentialsError::Unreadable { path: path.to_owned(), source })?;
    sign(path, &text, nonce)
}

fn sign_with_credentials(path: &Path, text: &str, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let malformed = || CredentialsError::Malformed { path: path.to_owned(), wanted: "user JWT and seed" };
    let mut blocks = blocks(text);
    let jwt = blocks.next().ok_or_else(malformed)?.to_owned();
    let mut auth = signed(path, blocks.next().ok_or_else(malformed)?, nonce)?;
    auth.jwt = Some(jwt);
    auth.nkey = None;
    Ok(auth)
}

fn sign_with_seed(path: &Path, text: &str, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    // A bare seed on a line of its own, with or without the decoration of a credentials file.
    let seed = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with('S'))
        .ok_or_else(|| CredentialsError::Malformed { path: path.to_owned(), wanted: "seed" })?;
    signed(path, seed, nonce)
}

fn show_token(path: &Path, text: &str, _nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(CredentialsError::Malformed { path: path.to_owned(), wanted: "token" });
    }
    let mut auth = Auth::new();
    auth.token = Some(token.to_owned());
    Ok(auth)
}

fn signed(path: &Path, seed: &str, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let unusable = |source| CredentialsError::Unusable { path: path.to_owned(), source };
    let pair = nkeys::KeyPair::from_seed(seed).map_err(unusable)?;
    let mut auth = Auth::new();
    auth.signature = Some(pair.sign(nonce).map_err(unusable)?);
    auth.nkey = Some(pair.public_key());
    Ok(auth)
}

/// The lines between a `-----BEGIN ...` and a `------END ...` line, in order.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().map(str::trim).filter(move |line| {
        if line.starts_with("---") {
            inside = line.contains("BEGIN");
            return false;
        }
        inside && !line.is_empty()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn credentials_file(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\nNKEYs are sensitive.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_credentials_file_yields_its_jwt_and_a_signature_of_its_seed() {
        let pair = nkeys::KeyPair::new_user();
        let text = credentials_file("eyJ0.e30.c2ln", &pair.seed().unwrap());
        let auth = sign_with_credentials(Path::new("f"), &text, b"nonce").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ0.e30.c2ln"));
        assert!(pair.verify(b"nonce", &auth.signature.unwrap()).is_ok());
    }

    #[test]
    fn a_seed_file_yields_the_public_key_and_a_signature() {
        let pair = nkeys::KeyPair::new_user();
        let text = format!("  {}\n", pair.seed().unwrap());
        let auth = sign_with_seed(Path::new("f"), &text, b"nonce").unwrap();
        assert_eq!(auth.nkey, Some(pair.public_key()));
        assert!(pair.verify(b"nonce", &auth.signature.unwrap()).is_ok());
    }

    #[test]
    fn a_token_file_yields_its_token_and_nothing_else() {
        let auth = show_token(Path::new("f"), " abc.def\n", b"").unwrap();
        assert_eq!((auth.token.as_deref(), auth.nkey, auth.jwt), (Some("abc.def"), None, None));
        for text in ["", " \n", "two tokens"] {
            assert!(matches!(show_token(Path::new("f"), text, b""), Err(CredentialsError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_file_without_what_is_wanted_is_refused() {
        assert!(matches!(
            sign_with_credentials(Path::new("f"), "nothing here", b""),
            Err(CredentialsError::Malformed { .. })
        ));
        assert!(matches!(sign_with_seed(Path::new("f"), "", b""), Err(CredentialsError::Malformed { .. })));
        assert!(matches!(sign_with_seed(Path::new("f"), "SUxyz", b""), Err(CredentialsError::Unusable { .. })));
    }
}
