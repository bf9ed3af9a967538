//! Whose profiles a command is about: those of a user, or one. Pure.

use std::{fmt, str::FromStr};

use roam_schemas::{App, Profile, ProfileError, Tenant, User};

/// Stands in for an app while the two names before it are read.
const ANY_APP: &str = "any";

/// A user, written tenant/user as in a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserName {
    pub(crate) tenant: Tenant,
    pub(crate) user: User,
}

/// A profile, or all profiles of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// tenant/user/app.
    Profile(Profile),
    /// tenant/user.
    User(UserName),
}

/// The text is not of the form tenant/user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserNameError {
    /// There are not exactly two parts.
    #[error("a user is written tenant/user (a `/` inside a name as %2F, a `%` as %25), not `{0}`")]
    Parts(String),
    /// A part of it is no name.
    #[error(transparent)]
    Name(#[from] ProfileError),
}

impl UserName {
    /// The user whose profile this is.
    pub(crate) fn of(profile: &Profile) -> Self {
        Self { tenant: profile.tenant.clone(), user: profile.user.clone() }
    }

    /// The profile of an app.
    pub(crate) fn profile(&self, app: App) -> Profile {
        Profile { tenant: self.tenant.clone(), user: self.user.clone(), app }
    }
}

impl FromStr for UserName {
    type Err = UserNameError;

    fn from_str(text: &str) -> Result<Self, UserNameError> {
        match text.split('/').count() {
            2 => Ok(Self::of(&format!("{text}/{ANY_APP}").parse()?)),
            _ => Err(UserNameError::Parts(text.to_owned())),
        }
    }
}

/// As a profile, so that it parses back to the same user.
impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.tenant.as_str(), self.user.as_str()];
        let [tenant, user] = parts.map(|part| part.replace('%', "%25").replace('/', "%2F"));
        write!(f, "{tenant}/{user}")
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').count() {
            2 => text.parse().map(Self::User).map_err(|error: UserNameError| error.to_string()),
            _ => text.parse().map(Self::Profile).map_err(|error: ProfileError| format!("{error}; or tenant/user")),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => profile.fmt(f),
            Self::User(user) => user.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_user_is_written_as_in_a_profile() {
        for text in ["acme/alice", "a%2Fb/c%25", "acme/alice@example.com"] {
            let user: UserName = text.parse().unwrap();
            assert_eq!(user.to_string(), text);
            assert_eq!(text.parse(), Ok(Owner::User(user.clone())));
            assert_eq!(UserName::of(&user.profile(App::parse("x").unwrap())), user);
        }
        for text in ["", "acme", "acme/", "/alice", "a/b/c", "a%/b"] {
            assert!(text.parse::<UserName>().is_err(), "{text}");
        }
        assert!(matches!("a/b/c".parse(), Ok(Owner::Profile(_))));
        assert!("a".parse::<Owner>().unwrap_err().contains("or tenant/user"));
    }
}
