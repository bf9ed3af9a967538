//! JSON Web Tokens (RFC 7519) in the compact form, and the keys that ours are signed with, which are nkeys (Ed25519). What the
//! claims mean is not known here.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};
use ring::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};

/// Longest text that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// A private account nkey. It is never shown.
pub struct SigningKey(KeyPair);

/// A public nkey.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    text: String,
    pair: KeyPair,
}

/// A text is no key of the kind that is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not the seed of an account nkey.
    #[error("that is not the seed of an account nkey")]
    Seed,
    /// It is not a public account nkey.
    #[error("that is not a public account nkey")]
    Public,
    /// It cannot sign.
    #[error("the key cannot sign")]
    Sign,
}

/// A token cut into its parts. Nothing of it is believed before [`Self::is_signed_by`].
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    header: Vec<u8>,
    claims: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(KeyPair::new_account())
    }

    /// Reads a seed. White space around it does not count.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_seed(text: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_seed(text.trim()).map_err(|_| KeyError::Seed)?;
        matches!(pair.key_pair_type(), KeyPairType::Account).then_some(Self(pair)).ok_or(KeyError::Seed)
    }

    /// The seed, to be kept in a file that nobody else reads.
    ///
    /// # Errors
    /// None that a key of this type can meet.
    pub fn seed(&self) -> Result<roam_nats::Secret, KeyError> {
        self.0.seed().map(roam_nats::Secret::new).map_err(|_| KeyError::Sign)
    }

    /// The public key, as text.
    pub fn public_key(&self) -> String {
        self.0.public_key()
    }

    /// Signs claims.
    pub(crate) fn sign(&self, header: &impl Serialize, claims: &impl Serialize) -> Result<String, KeyError> {
        let part = |bytes: serde_json::Result<Vec<u8>>| bytes.map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let header = part(serde_json::to_vec(header)).map_err(|_| KeyError::Sign)?;
        let claims = part(serde_json::to_vec(claims)).map_err(|_| KeyError::Sign)?;
        let signed = format!("{header}.{claims}");
        let signature = self.0.sign(signed.as_bytes()).map_err(|_| KeyError::Sign)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(***, public {})", self.public_key())
    }
}

impl VerifyingKey {
    /// Reads a public account nkey.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = Self::of_any_kind(text).ok_or(KeyError::Public)?;
        text.starts_with('A').then_some(key).ok_or(KeyError::Public)
    }

    /// Reads a public nkey, of a server perhaps.
    pub(crate) fn of_any_kind(text: &str) -> Option<Self> {
        let pair = KeyPair::from_public_key(text).ok()?;
        Some(Self { text: text.to_owned(), pair })
    }

    /// The key, as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<'a> Parts<'a> {
    /// Cuts a token; none if it is not of that form, or too long.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text| URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self { header: part(header)?, claims: part(claims)?, signed, signature: part(signature)? })
    }

    /// What is signed, and the signature.
    pub(crate) fn signed(&self) -> (&[u8], &[u8]) {
        (self.signed.as_bytes(), &self.signature)
    }

    /// A digest of what is signed: the same for the same token, whoever shows it.
    pub(crate) fn digest(&self) -> [u8; 16] {
        let digest = digest(&SHA256, self.signed.as_bytes());
        let mut half = [0; 16];
        half.iter_mut().zip(digest.as_ref()).for_each(|(own, byte)| *own = *byte);
        half
    }

    /// Reads the header.
    pub(crate) fn header<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.header).ok()
    }

    /// Reads the claims.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.claims).ok()
    }

    /// Whether the key signed it.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.pair.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_signed_is_read_and_verified() {
        let key = SigningKey::generate();
        let text = key.sign(&json!({"alg": "EdDSA"}), &json!({"a": 1})).unwrap();
        let parts = Parts::of(&text).unwrap();
        assert!(parts.is_signed_by(&VerifyingKey::parse(&key.public_key()).unwrap()));
        assert!(!parts.is_signed_by(&VerifyingKey::parse(&SigningKey::generate().public_key()).unwrap()));
        assert_eq!(parts.header::<Value>().unwrap(), json!({"alg": "EdDSA"}));
        assert_eq!(parts.claims::<Value>().unwrap(), json!({"a": 1}));
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let key = SigningKey::generate();
        let public = VerifyingKey::parse(&key.public_key()).unwrap();
        let text = key.sign(&json!({"alg": "EdDSA"}), &json!({"user": "alice"})).unwrap();
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            if bytes == text.as_bytes() {
                continue;
            }
            let changed = String::from_utf8(bytes).unwrap();
            let accepted = Parts::of(&changed).is_some_and(|parts| parts.is_signed_by(&public));
            assert!(!accepted, "{index}");
        }
    }

    #[test]
    fn a_key_is_never_shown_and_of_the_right_kind() {
        let key = SigningKey::generate();
        assert!(!format!("{key:?}").contains(key.seed().unwrap().expose()));
        assert!(SigningKey::from_seed(&format!(" {}\n", key.seed().unwrap().expose())).is_ok());
        assert_eq!(SigningKey::from_seed(&KeyPair::new_user().seed().unwrap()).unwrap_err(), KeyError::Seed);
        assert_eq!(VerifyingKey::parse(&KeyPair::new_user().public_key()).unwrap_err(), KeyError::Public);
        assert_eq!(VerifyingKey::parse(key.seed().unwrap().expose()).unwrap_err(), KeyError::Public);
    }

    proptest! {
        #[test]
        fn any_text_is_cut_or_refused(text in "[A-Za-z0-9_.=-]{0,200}") {
            let _ = Parts::of(&text).map(|parts| (parts.header::<Value>(), parts.claims::<Value>()));
        }
    }
}
