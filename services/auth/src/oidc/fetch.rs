//! Asks a provider for its keys: where it says they are (OpenID Connect Discovery 1.0), then there. Nothing is followed to
//! elsewhere, and nothing is read that is larger than keys are.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;
use ureq::{
    Agent,
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider},
};

use super::{
    KeySetError, ProviderSettings,
    keys::KeySet,
    settings::{is_here, is_safe},
};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How large an answer may be, in bytes.
const MOST_BYTES: u64 = 256 * 1024;

/// The keys of a provider are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The certificate authorities cannot be read: mend the settings.
    #[error("{} holds no certificate authorities", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers there, or not with what was asked for.
    #[error("{url} gives nothing")]
    Request {
        /// Where.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It answers something else.
    #[error("{url} answers with status {status}")]
    Status {
        /// Where.
        url: String,
        /// What, where 200 is expected.
        status: u16,
    },
    /// What it says of itself is not what discovery is.
    #[error("{url} is no description of a provider")]
    Description {
        /// Where.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It says that it is somebody else.
    #[error("the provider calls itself {said:?}, and not {expected:?}: write the issuer as it does")]
    Issuer {
        /// As in the settings.
        expected: String,
        /// As it says.
        said: String,
    },
    /// Anybody could answer for it there.
    #[error("the keys are said to be at {0:?}, which is no https URL")]
    Unsafe(String),
    /// What is published is of no use.
    #[error("the keys of the provider cannot be used")]
    Keys(#[from] KeySetError),
    /// The process is ending.
    #[error("it was not asked to the end")]
    Cancelled,
}

/// Asks one provider.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    agent: Agent,
    issuer: String,
}

#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// # Errors
    /// If the certificate authorities cannot be read.
    pub(crate) fn new(settings: &ProviderSettings) -> Result<Self, FetchError> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&authorities(settings)?))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder().tls_config(tls).timeout_global(Some(WITHIN)).max_redirects(0);
        let here = settings.issuer.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_here));
        // What the environment says of proxies holds for whatever is not on this machine.
        let config = if here { config.proxy(None) } else { config };
        let config = config.http_status_as_error(false).user_agent(concat!("roam-auth/", env!("CARGO_PKG_VERSION")));
        Ok(Self { agent: config.build().new_agent(), issuer: settings.issuer.clone() })
    }

    /// The keys that the provider publishes now.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let own = self.clone();
        // The client blocks; it gives up by itself.
        tokio::task::spawn_blocking(move || own.fetch_now()).await.unwrap_or(Err(FetchError::Cancelled))
    }

    fn fetch_now(&self) -> Result<KeySet, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let described = serde_json::from_slice(&self.get(&url)?);
        let Description { issuer, jwks_uri } = described.map_err(|source| FetchError::Description { url, source })?;
        if issuer != self.issuer {
            return Err(FetchError::Issuer { expected: self.issuer.clone(), said: issuer });
        }
        if !is_safe(&jwks_uri) {
            return Err(FetchError::Unsafe(jwks_uri));
        }
        Ok(KeySet::read(&self.get(&jwks_uri)?)?)
    }

    fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let failed = |source| FetchError::Request { url: url.to_owned(), source: Box::new(source) };
        let response = self.agent.get(url).call().map_err(failed)?;
        if response.status() != 200 {
            return Err(FetchError::Status { url: url.to_owned(), status: response.status().as_u16() });
        }
        response.into_body().into_with_config().limit(MOST_BYTES).read_to_vec().map_err(failed)
    }
}

fn authorities(settings: &ProviderSettings) -> Result<Vec<Certificate<'static>>, FetchError> {
    let Some(path) = &settings.ca else {
        let found = rustls_native_certs::load_native_certs().certs;
        return Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect());
    };
    let bad = |source| FetchError::Ca { path: path.clone(), source };
    let pem = std::fs::read(path).map_err(bad)?;
    let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = items.collect();
    if found.is_empty() { Err(bad(io::Error::other("there is no certificate in it"))) } else { Ok(found) }
}
