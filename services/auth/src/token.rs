//! Roam's own tokens: JWTs (RFC 7519) with the algorithm EdDSA (RFC 8037), signed with an account nkey, whose public half
//! stands in `kid`. What is in one is never logged; it is known by its id.

use std::time::Duration;

use roam_nats::Secret;
use roam_schemas::{Grant, TokenId};
use serde::{Deserialize, Serialize};

use crate::jwt::{KeyError, Parts, SigningKey, VerifyingKey};

/// Who tokens of ours are issued by, in their claims.
const ISSUER: &str = "roam";
/// How far the clock of whoever signed a token may be ahead of ours.
pub(crate) const AHEAD_SECONDS: u64 = 60;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// By which it is listed and revoked.
    pub id: TokenId,
    /// Who its bearer is.
    pub grant: Grant,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
}

/// Why a token does not let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("there is no token")]
    Missing,
    /// It is not one of ours, or not one at all.
    #[error("that is not a token")]
    Malformed,
    /// It is signed by nobody who may, or not at all.
    #[error("the token is not signed by anybody who may")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It is from the future: a clock is wrong.
    #[error("the token was made in the future")]
    Future,
    /// It was revoked.
    #[error("the token is revoked")]
    Revoked,
    /// Its provider publishes no key of that id.
    #[error("the token is signed with a key that its provider does not publish")]
    Key,
    /// The keys of its provider are not known, or have not been heard of for too long.
    #[error("the keys of the token's provider are not known: it cannot be reached")]
    Provider,
    /// It was made for somebody else.
    #[error("the token is not meant for us")]
    Audience,
    /// It does not say who its bearer is, as the settings of its provider ask.
    #[error("the token names no tenant, user and device that its provider may speak for")]
    Claims,
    /// Which tokens are revoked is not known yet.
    #[error("which tokens are revoked is not known yet")]
    NotYet,
}

/// What tokens are verified by.
#[derive(Debug, Clone)]
pub struct Tokens {
    signers: Vec<VerifyingKey>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    jti: TokenId,
    iat: u64,
    exp: u64,
    roam: Grant,
}

/// What a token says, unverified: for whoever bears it. None if it is no token of ours.
pub fn peek(text: &str) -> Option<Token> {
    let Claims { iss, jti, iat, exp, roam } = Parts::of(text)?.claims()?;
    (iss == ISSUER).then_some(Token { id: jti, grant: roam, issued: iat, expires: exp })
}

/// Makes a token, good from `now` (in seconds since 1970) for as long as `lifetime`.
///
/// # Errors
/// None that a key of this type can meet.
pub fn sign(grant: Grant, now: u64, lifetime: Duration, key: &SigningKey) -> Result<(Token, Secret), KeyError> {
    let token = Token { id: TokenId::random(), grant, issued: now, expires: now.saturating_add(lifetime.as_secs()) };
    let header = Header { alg: "EdDSA".to_owned(), typ: "JWT".to_owned(), kid: key.public_key() };
    let claims = Claims {
        iss: ISSUER.to_owned(),
        jti: token.id,
        iat: token.issued,
        exp: token.expires,
        roam: token.grant.clone(),
    };
    let text = key.sign(&header, &claims)?;
    Ok((token, Secret::new(text)))
}

impl Tokens {
    /// Trusts tokens that are signed by these public keys.
    ///
    /// # Errors
    /// If one is no key.
    pub fn trusting(signers: &[String]) -> Result<Self, KeyError> {
        Ok(Self { signers: signers.iter().map(|key| VerifyingKey::parse(key)).collect::<Result<_, _>>()? })
    }

    /// What a token says, if it is good at `now`, in seconds since 1970. Whether it is revoked is not known here.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(&self, text: &str, now: u64) -> Result<Token, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Missing);
        }
        let parts = Parts::of(text).ok_or(TokenError::Malformed)?;
        let header: Header = parts.header().ok_or(TokenError::Malformed)?;
        if header.alg != "EdDSA" {
            return Err(TokenError::Malformed);
        }
        let signer = self.signers.iter().find(|key| key.as_str() == header.kid).ok_or(TokenError::Signature)?;
        if !parts.is_signed_by(signer) {
            return Err(TokenError::Signature);
        }
        let Claims { iss, jti, iat, exp, roam } = parts.claims().ok_or(TokenError::Malformed)?;
        match () {
            () if iss != ISSUER => Err(TokenError::Malformed),
            () if exp <= now => Err(TokenError::Expired),
            () if iat > now.saturating_add(AHEAD_SECONDS) => Err(TokenError::Future),
            () => Ok(Token { id: jti, grant: roam, issued: iat, expires: exp }),
        }
    }
}

impl TokenError {
    /// The reason in one word, for metrics and the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::Revoked => "revoked",
            Self::Key => "unknown_key",
            Self::Provider => "provider_unreachable",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::NotYet => "not_yet",
        }
    }

    /// Whether asking a provider for its keys may change that.
    pub(crate) const fn may_pass(self) -> bool {
        matches!(self, Self::Key | Self::Provider)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn grant() -> Grant {
        serde_json::from_value(json!({"tenant": "acme", "user": "alice", "device": "laptop"})).unwrap()
    }

    fn signed() -> (SigningKey, Tokens, Token, Secret) {
        let key = SigningKey::generate();
        let (token, text) = sign(grant(), 1_000, HOUR, &key).unwrap();
        let tokens = Tokens::trusting(&[key.public_key()]).unwrap();
        (key, tokens, token, text)
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let (_, tokens, token, text) = signed();
        for (now, expected) in [
            (1_000, Ok(token.clone())),
            (4_599, Ok(token.clone())),
            (4_600, Err(TokenError::Expired)),
            (940, Ok(token)),
            (939, Err(TokenError::Future)),
        ] {
            assert_eq!(tokens.verify(text.expose(), now), expected, "{now}");
        }
    }

    #[test]
    fn only_who_is_trusted_signs_tokens() {
        let (_, _, token, text) = signed();
        let other = Tokens::trusting(&[SigningKey::generate().public_key()]).unwrap();
        assert_eq!(peek(text.expose()), Some(token), "what it says is not what it is good for");
        assert_eq!(other.verify(text.expose(), 1_000), Err(TokenError::Signature));
        let nobody = Tokens::trusting(&[]).unwrap();
        assert_eq!(nobody.verify(text.expose(), 1_000), Err(TokenError::Signature));
    }

    #[test]
    fn what_is_signed_and_no_token_of_ours_is_refused() {
        let (key, tokens, ..) = signed();
        let kid = key.public_key();
        let good = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let id = TokenId::random();
        let claims = |iss: &str, roam| json!({"iss": iss, "jti": id, "iat": 1, "exp": 9_999_999, "roam": roam});
        let alice = json!({"tenant": "acme", "user": "alice", "device": "laptop"});
        for (header, claims) in [
            (json!({"alg": "none", "typ": "JWT", "kid": kid}), claims("roam", alice.clone())),
            (json!({"alg": "ed25519-nkey", "typ": "JWT", "kid": kid}), claims("roam", alice.clone())),
            (good.clone(), claims("other", alice.clone())),
            (good.clone(), claims("roam", json!({"tenant": "acme"}))),
            (good.clone(), json!({"iss": "roam", "roam": alice})),
            (good, json!([])),
        ] {
            let text = key.sign(&header, &claims).unwrap();
            assert_eq!(tokens.verify(&text, 1_000), Err(TokenError::Malformed), "{header} {claims}");
        }
        assert_eq!(tokens.verify("", 1_000), Err(TokenError::Missing));
    }

    #[test]
    fn fuzz_token() {
        let (_, tokens, ..) = signed();
        bolero::check!().for_each(|bytes: &[u8]| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            assert!(tokens.verify(text, 1_000).is_err(), "nobody signed it");
            let _ = peek(text);
        });
    }
}
