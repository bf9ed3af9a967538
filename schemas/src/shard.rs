//! Shards: a deployment may split what is published and asked among several lines of streams, each with access servers and
//! replicas of its own. Which one a user is in follows from the tenant and the user alone. Pure arithmetic: never knows
//! which shards run, and builds no subject.

use std::fmt;

use crate::{Profile, Tenant, User};

/// FNV-1a with 32 bits.
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// How many shards a deployment has, 1 to [`Shards::MOST`]: fixed when it is provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shards(u16);

/// One shard of a deployment: its number, from 0, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    number: u16,
    shards: Shards,
}

/// There is no such shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// A deployment has not so many, or none at all.
    #[error("shards {}", self.requirement())]
    Shards {
        /// How many were asked for.
        found: u16,
    },
    /// Shards are numbered from 0.
    #[error("shard {}", self.requirement())]
    Number {
        /// Which one was asked for.
        found: u16,
        /// How many there are.
        shards: Shards,
    },
}

impl ShardError {
    /// Which setting is wrong.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Shards { .. } => "shards",
            Self::Number { .. } => "shard",
        }
    }

    /// What it must be, to follow the name of the setting.
    pub fn requirement(&self) -> String {
        match self {
            Self::Shards { found } => format!("must be from 1 to {}, not {found}", Shards::MOST),
            Self::Number { found, shards } => format!("must be from 0 to {}, not {found}", shards.get() - 1),
        }
    }
}

impl Shards {
    /// A deployment that is not split: nothing is mapped, and no name says a shard.
    pub const ONE: Self = Self(1);
    /// The most that a deployment may have. Permissions of services name the streams of each.
    pub const MOST: u16 = 64;

    /// So many shards.
    ///
    /// # Errors
    /// Zero, or more than [`Shards::MOST`].
    pub fn new(shards: u16) -> Result<Self, ShardError> {
        match shards {
            1..=Self::MOST => Ok(Self(shards)),
            found => Err(ShardError::Shards { found }),
        }
    }

    /// How many, at least 1.
    pub fn get(self) -> u16 {
        self.0
    }

    /// Whether there is one only.
    pub fn is_one(self) -> bool {
        self == Self::ONE
    }

    /// Each of them, in order.
    pub fn each(self) -> impl ExactSizeIterator<Item = Shard> + use<> {
        (0..self.0).map(move |number| Shard { number, shards: self })
    }

    /// The shard of a user: FNV-1a with 32 bits over the tenant and the user as they stand on subjects, one right behind the
    /// other, modulo the number of shards. It is what nats-server's `{{partition(S,1,2)}}` computes, which joins the tokens
    /// without a dot; a test asks a real server.
    pub fn of(self, tenant: &Tenant, user: &User) -> Shard {
        match self.is_one() {
            true => Shard::ONLY,
            false => self.of_tokens(&tenant.token(), &user.token()),
        }
    }

    /// The shard of what is published with these two tokens, whatever they are.
    pub(crate) fn of_tokens(self, tenant: &str, user: &str) -> Shard {
        let hash = fnv(fnv(FNV_BASIS, tenant), user);
        // Less than the number of shards, which is a u16.
        let number = u16::try_from(hash % u32::from(self.0)).unwrap_or_default();
        Shard { number, shards: self }
    }

    /// The shard of the user of a profile.
    pub fn of_profile(self, profile: &Profile) -> Shard {
        self.of(&profile.tenant, &profile.user)
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self::ONE
    }
}

impl Shard {
    /// The shard of a deployment that has one: everybody is in it.
    pub const ONLY: Self = Self { number: 0, shards: Shards::ONE };
    /// The first of several, whose streams have the same names whatever their number.
    pub const FIRST_OF_SEVERAL: Self = Self { number: 0, shards: Shards(2) };

    /// One of so many.
    ///
    /// # Errors
    /// See [`ShardError`].
    pub fn new(number: u16, shards: u16) -> Result<Self, ShardError> {
        let shards = Shards::new(shards)?;
        match number < shards.get() {
            true => Ok(Self { number, shards }),
            false => Err(ShardError::Number { found: number, shards }),
        }
    }

    /// Its number, from 0.
    pub fn number(self) -> u16 {
        self.number
    }

    /// How many the deployment has.
    pub fn shards(self) -> Shards {
        self.shards
    }

    /// Whether it is the only one.
    pub fn is_only(self) -> bool {
        self.shards.is_one()
    }

    /// Whether a user is in it.
    pub fn holds(self, tenant: &Tenant, user: &User) -> bool {
        self.is_only() || self.shards.of(tenant, user) == self
    }

    /// Whether the user of a profile is in it.
    pub fn holds_profile(self, profile: &Profile) -> bool {
        self.holds(&profile.tenant, &profile.user)
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, shards) = text.split_once('/')?;
        let shard = Self::new(number.parse().ok()?, shards.parse().ok()?).ok()?;
        (shard.to_string() == text).then_some(shard)
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::ONLY
    }
}

/// As `2/4`: the number, and of how many.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.shards.0)
    }
}

fn fnv(hash: u32, token: &str) -> u32 {
    token.bytes().fold(hash, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shard_of(tenant: &str, user: &str, shards: u16) -> u16 {
        Shards::new(shards).unwrap().of(&Tenant::parse(tenant).unwrap(), &User::parse(user).unwrap()).number()
    }

    #[test]
    fn users_are_where_nats_server_puts_them() {
        // Seen with nats-server 2.15.1.
        for (tenant, user, shard) in [
            ("acme", "alice", 1),
            ("acme", "alice@example.com", 1),
            ("a", "bc", 3),
            ("ab", "c", 3),
            ("*", ">", 0),
            ("-", "_", 1),
        ] {
            assert_eq!(shard_of(tenant, user, 4), shard, "{tenant}/{user}");
            assert_eq!(shard_of(tenant, user, 1), 0);
        }
    }

    #[test]
    fn each_user_is_in_one_shard() {
        let (tenant, shards) = (Tenant::parse("acme").unwrap(), Shards::new(5).unwrap());
        let mut users = [0; 5];
        for number in 0..1_000 {
            let user = User::parse(format!("user {number}")).unwrap();
            let holding: Vec<_> = shards.each().filter(|shard| shard.holds(&tenant, &user)).collect();
            assert_eq!(holding, [shards.of(&tenant, &user)]);
            users[usize::from(holding[0].number())] += 1;
        }
        assert!(users.iter().all(|users| (100..300).contains(users)), "{users:?}");
    }

    #[test]
    fn there_is_no_shard_beyond_the_last() {
        assert_eq!(Shards::new(0), Err(ShardError::Shards { found: 0 }));
        assert_eq!(Shards::new(65), Err(ShardError::Shards { found: 65 }));
        let error = Shard::new(4, 4).unwrap_err();
        assert_eq!(error.to_string(), "shard must be from 0 to 3, not 4");
        assert_eq!(Shard::new(0, 1), Ok(Shard::ONLY));
    }

    #[test]
    fn a_shard_is_read_as_it_is_written_and_not_otherwise() {
        for shard in Shards::new(12).unwrap().each() {
            assert_eq!(Shard::parse(&shard.to_string()), Some(shard));
        }
        for text in ["", "1", "4/4", "01/4", "+1/4", "1/04", "1/65", "1/0", "-1/4", "1/4/4"] {
            assert_eq!(Shard::parse(text), None, "{text}");
        }
    }
}
