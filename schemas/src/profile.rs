//! A profile: one user's configuration of one application. The unit of order, delta, quota and isolation.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{App, NameError, Tenant, User};

/// One user's configuration of one application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The organisation.
    pub tenant: Tenant,
    /// The person.
    pub user: User,
    /// The application.
    pub app: App,
}

/// Why a text is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// There are not exactly three parts.
    #[error("a profile is written tenant/user/app (a `/` inside a name as %2F, a `%` as %25), not `{0}`")]
    Parts(String),
    /// A `%` in it begins neither `%2F` nor `%25`.
    #[error("in the profile `{0}`: a `%` stands only in %2F (for `/`) and in %25 (for `%`)")]
    Escape(String),
    /// One of the parts is not a name.
    #[error("in the profile `{0}`: {1}")]
    Name(String, #[source] NameError),
}

impl Profile {
    /// A 64-bit fingerprint: the first bytes of BLAKE3 over the three names, each after its length as eight bytes, since
    /// a name may hold any byte that could stand between two. It ties a cursor to its profile; it is no secret.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for name in [self.tenant.as_str(), self.user.as_str(), self.app.as_str()] {
            hasher.update(&(name.len() as u64).to_be_bytes());
            hasher.update(name.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_be_bytes(first)
    }
}

/// Writes `tenant/user/app`, with `/` and `%` inside a name escaped, so that it parses back to the same profile.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.tenant.as_str(), self.user.as_str(), self.app.as_str()];
        let escaped = parts.map(|part| part.replace('%', "%25").replace('/', "%2F"));
        write!(f, "{}/{}/{}", escaped[0], escaped[1], escaped[2])
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [tenant, user, app] = parts.as_slice() else {
            return Err(ProfileError::Parts(text.to_owned()));
        };
        let plain = |part| unescape(part).ok_or_else(|| ProfileError::Escape(text.to_owned()));
        let wrong = |error| ProfileError::Name(text.to_owned(), error);
        Ok(Self {
            tenant: Tenant::parse(plain(tenant)?).map_err(wrong)?,
            user: User::parse(plain(user)?).map_err(wrong)?,
            app: App::parse(plain(app)?).map_err(wrong)?,
        })
    }
}

/// Each `%` is looked at once, from left to right, so that `%252F` is the text `%2F` and never a slash.
fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match piece.strip_prefix("2F") {
            Some(rest) => ('/', rest),
            None => ('%', piece.strip_prefix("25")?),
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    Some(plain)
}
