//! Tokens of OpenID Connect providers: JWTs that somebody else signs, with keys that they publish. A provider speaks for the
//! tenants that the settings name and for no other, and only for devices of users. Which key signs what is never taken from
//! the token.

mod claims;
mod fetch;
mod keys;
mod refresh;
mod settings;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use roam_schemas::TokenId;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};

pub(crate) use self::refresh::Refresher;
pub use self::{
    fetch::FetchError,
    keys::KeySetError,
    settings::{Algorithm, ClaimNames, ProviderSettings},
};
use self::{fetch::Fetcher, keys::KeySet};
use crate::{
    jwt::Parts,
    metrics::Metrics,
    token::{AHEAD_SECONDS, Token, TokenError},
};

/// Whose tokens are good besides our own. Clones are the same knowledge.
#[derive(Debug, Clone)]
pub(crate) struct Providers {
    all: Arc<[Provider]>,
    /// Counts how often a provider was asked for its keys.
    asked: watch::Sender<u64>,
}

/// One provider, and what is known of its keys.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: ProviderSettings,
    known: RwLock<Option<Known>>,
    /// Told when somebody shows a token that is signed with a key that is not known.
    wanted: Notify,
}

#[derive(Debug, Clone)]
struct Known {
    keys: Arc<KeySet>,
    at: Instant,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    iat: Option<u64>,
    nbf: Option<u64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

/// Nothing is known yet, and those who will learn it.
///
/// # Errors
/// If the certificate authorities of a provider cannot be read.
pub(crate) fn follow(
    settings: &[ProviderSettings],
    metrics: &Metrics,
) -> Result<(Providers, Vec<Refresher>), FetchError> {
    let fetchers: Vec<_> = settings.iter().map(Fetcher::new).collect::<Result<_, _>>()?;
    let providers = Providers::new(settings);
    let refreshers = fetchers.into_iter().enumerate().map(|(index, fetcher)| Refresher {
        providers: providers.clone(),
        index,
        fetcher,
        metrics: metrics.clone(),
    });
    let refreshers = refreshers.collect();
    Ok((providers, refreshers))
}

impl Providers {
    fn new(settings: &[ProviderSettings]) -> Self {
        let all = settings.iter().cloned().map(|settings| Provider {
            settings,
            known: RwLock::default(),
            wanted: Notify::new(),
        });
        Self { all: all.collect(), asked: watch::Sender::new(0) }
    }

    /// What a token says, if a provider is named as its issuer and it is good at `now`, in seconds since 1970. None if no
    /// provider of that name is trusted.
    pub(crate) fn verify(&self, text: &str, now: u64) -> Option<Result<Token, TokenError>> {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        if self.all.is_empty() {
            return None;
        }
        let parts = Parts::of(text)?;
        let Issued { iss } = parts.claims()?;
        let provider = self.all.iter().find(|provider| provider.settings.issuer == iss)?;
        Some(provider.verify(&parts, now))
    }

    /// Changes each time that a provider was asked for its keys.
    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }
}

impl Provider {
    fn verify(&self, parts: &Parts<'_>, now: u64) -> Result<Token, TokenError> {
        let Header { alg, kid, crit } = parts.header().ok_or(TokenError::Malformed)?;
        let algorithm = self.settings.algorithms.iter().find(|allowed| allowed.as_str() == alg);
        // What is critical and not understood must be refused (RFC 7515, section 4.1.11).
        let (Some(algorithm), Some(kid), None) = (algorithm, kid, crit) else { return Err(TokenError::Malformed) };
        let Some(known) = self.known() else {
            self.wanted.notify_one();
            return Err(TokenError::Provider);
        };
        let Some(key) = known.keys.get(&kid) else {
            self.wanted.notify_one();
            return Err(TokenError::Key);
        };
        if key.algorithm() != *algorithm || !key.has_signed(parts) {
            return Err(TokenError::Signature);
        }
        let Claims { iss, aud, exp, iat, nbf, others } = parts.claims().ok_or(TokenError::Malformed)?;
        let from = iat.into_iter().chain(nbf).max().unwrap_or_default();
        match () {
            () if iss != self.settings.issuer => Err(TokenError::Malformed),
            () if !aud.holds(&self.settings.audience) => Err(TokenError::Audience),
            () if exp <= now => Err(TokenError::Expired),
            () if from > now.saturating_add(AHEAD_SECONDS) => Err(TokenError::Future),
            () => {
                let grant = claims::grant(&others, &self.settings).ok_or(TokenError::Claims)?;
                let id = TokenId::of_digest(parts.digest());
                Ok(Token { id, grant, issued: iat.unwrap_or(now), expires: exp })
            }
        }
    }

    /// The keys, unless nobody could be asked for them for too long.
    fn known(&self) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        known.filter(|known| known.at.elapsed() < Duration::from_secs(self.settings.keep_seconds))
    }

    fn learn(&self, keys: KeySet) {
        let known = Known { keys: Arc::new(keys), at: Instant::now() };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl Audience {
    fn holds(&self, expected: &str) -> bool {
        match self {
            Self::One(audience) => audience == expected,
            Self::Some(audiences) => audiences.iter().any(|audience| audience == expected),
        }
    }
}

#[cfg(test)]
mod tests;
