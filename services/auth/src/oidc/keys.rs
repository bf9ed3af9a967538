//! The public keys of a provider (a JWK set, RFC 7517) and what they signed. Pure. A key is for one algorithm, which follows from
//! what it is; secrets, private keys and keys for encryption are left out.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

use super::Algorithm;
use crate::jwt::Parts;

/// Most keys that a provider may publish. Usual are two.
const MOST_KEYS: usize = 64;
/// How long a modulus of RSA may be, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// How long a coordinate of P-256, or a key of Ed25519, is, in bytes.
const COORDINATE: usize = 32;

/// What is published is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is no set of keys.
    #[error("that is no JWK set")]
    Json(#[from] serde_json::Error),
    /// There are too many.
    #[error("it holds {0} keys, and at most {MOST_KEYS} are looked at")]
    TooMany(usize),
    /// None of them could verify a token.
    #[error("it holds no key for RS256, ES256 or EdDSA that has a `kid`")]
    Useless,
}

/// The keys of a provider by their id.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: HashMap<String, PublicKey>,
}

/// A public key.
#[derive(Debug)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads what a provider publishes. Keys of kinds that are not used here are passed over, as RFC 7517 asks (section 5).
    pub(crate) fn read(json: &[u8]) -> Result<Self, KeySetError> {
        let Written { keys } = serde_json::from_slice(json)?;
        if keys.len() > MOST_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        let usable = keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.usable());
        let keys: HashMap<_, _> = usable.collect();
        if keys.is_empty() { Err(KeySetError::Useless) } else { Ok(Self { keys }) }
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.get(kid)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Jwk {
    fn usable(self) -> Option<(String, PublicKey)> {
        let part = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let coordinate = |text| part(text).filter(|bytes| bytes.len() == COORDINATE);
        let number = |text| part(text).map(|bytes| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>());
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => {
                let (n, e) = (number(self.n)?, number(self.e)?);
                RSA_BYTES.contains(&n.len()).then_some(PublicKey::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => PublicKey::P256([vec![4], coordinate(self.x)?, coordinate(self.y)?].concat()),
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(coordinate(self.x)?),
            _ => return None,
        };
        let signs = self.usage.is_none_or(|usage| usage == "sig");
        let same = self.alg.is_none_or(|alg| alg == key.algorithm().as_str());
        (signs && same).then_some((self.kid, key))
    }
}

impl PublicKey {
    /// The one algorithm that it is for.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::RS256,
            Self::P256(_) => Algorithm::ES256,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// Whether it signed that.
    pub(crate) fn has_signed(&self, parts: &Parts<'_>) -> bool {
        let (signed, signature) = parts.signed();
        let verified = match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        };
        verified.is_ok()
    }
}
