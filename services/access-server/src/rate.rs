//! Rate: how many changes a second of one user's devices are let through, by a token bucket for each (the generic cell
//! rate algorithm: one instant a user). A service that writes for a user has a bucket of its own, so that it cannot use up
//! the user's. Pure: the clock is handed in.
//!
//! What is over the rate is not decided: it is answered `busy`, stored nowhere, and may be sent again under its id. What
//! names nobody who could be answered is bounded by whoever published it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use roam_schemas::{Device, Profile, Tenant};
use serde::{Deserialize, Serialize};

/// Buckets that are full again are let go of whenever there are so many, and then whenever there are twice as many.
const CROWDED: usize = 16_384;
/// Begins a bucket that is of no names: in place of the length of one, of which none is so long.
const NAMELESS: u8 = u8::MAX;

/// How many changes a user may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// How many a second, in the long run. 0 for as many as there are.
    pub changes_per_second: u32,
    /// How many at once, after a while without any.
    pub burst: u32,
}

/// The rate of the users of one tenant, in place of that of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRate {
    /// The tenant.
    pub tenant: Tenant,
    /// How many a second, in the long run. 0 for as many as there are.
    pub changes_per_second: u32,
    /// How many at once, after a while without any.
    pub burst: u32,
}

/// The buckets of all users that this access server heard of lately.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    of_tenants: HashMap<Tenant, Rate>,
    /// When each bucket is full again. Users choose their names, so the hash is one that nobody can foresee.
    full_at: HashMap<Box<[u8]>, Instant>,
    /// The bucket that is looked for. It is copied only if it is new.
    bucket: Vec<u8>,
    crowded: usize,
}

impl Default for Rate {
    fn default() -> Self {
        Self { changes_per_second: 1_000, burst: 10_000 }
    }
}

impl TenantRate {
    fn rate(&self) -> Rate {
        Rate { changes_per_second: self.changes_per_second, burst: self.burst }
    }
}

impl Rates {
    /// Full buckets.
    pub(crate) fn new(rate: Rate, of_tenants: &[TenantRate]) -> Self {
        let of_tenants = of_tenants.iter().map(|own| (own.tenant.clone(), own.rate())).collect();
        Self { rate, of_tenants, full_at: HashMap::new(), bucket: Vec::new(), crowded: CROWDED }
    }

    /// Takes one change out of a bucket. Whether there was one.
    pub(crate) fn take(&mut self, profile: &Profile, device: &Device, now: Instant) -> bool {
        // What expired is deleted whatever else a user does; only storage writes as that device.
        if device.is_expiry() {
            return true;
        }
        let rate = self.of_tenants.get(&profile.tenant).copied().unwrap_or(self.rate);
        self.bucket.clear();
        for name in [profile.tenant.as_str(), profile.user.as_str()] {
            // With its length before it, so that none can be taken for two.
            self.bucket.push(u8::try_from(name.len()).unwrap_or(NAMELESS));
            self.bucket.extend_from_slice(name.as_bytes());
        }
        if device.own_name().is_none() {
            self.bucket.extend_from_slice(device.as_str().as_bytes());
        }
        self.take_out(rate, now)
    }

    /// As [`Self::take`], of what names nobody, or nobody in particular: out of a bucket of whoever published it, by the
    /// tokens of [`publisher_of_change`](roam_schemas::subjects::publisher_of_change).
    pub(crate) fn take_nameless(&mut self, [tenant, publisher]: [&str; 2], now: Instant) -> bool {
        self.bucket.clear();
        self.bucket.push(NAMELESS);
        self.bucket.extend_from_slice(tenant.as_bytes());
        // No token has one in it.
        self.bucket.push(b'.');
        self.bucket.extend_from_slice(publisher.as_bytes());
        self.take_out(self.rate, now)
    }

    fn take_out(&mut self, rate: Rate, now: Instant) -> bool {
        let Rate { changes_per_second, burst } = rate;
        if changes_per_second == 0 {
            return true;
        }
        let each = Duration::from_secs(1) / changes_per_second;
        let room = each.saturating_mul(burst.max(1));
        let known = self.full_at.get_mut(self.bucket.as_slice());
        let after = known.as_deref().map_or(now, |full_at| now.max(*full_at)) + each;
        if after > now + room {
            return false;
        }
        match known {
            Some(full_at) => *full_at = after,
            None => {
                self.make_room(now);
                self.full_at.insert(self.bucket.as_slice().into(), after);
            }
        }
        true
    }

    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() >= self.crowded {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.crowded = CROWDED.max(2 * self.full_at.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::ServiceName;

    use super::*;

    const SLOW: Rate = Rate { changes_per_second: 10, burst: 3 };

    fn device() -> Device {
        Device::parse("laptop").unwrap()
    }

    fn taken(rates: &mut Rates, profile: &str, device: &Device, now: Instant) -> usize {
        let profile: Profile = profile.parse().unwrap();
        (0..100).take_while(|_| rates.take(&profile, device, now)).count()
    }

    #[test]
    fn a_bucket_holds_its_burst_and_fills_at_its_rate() {
        let mut rates = Rates::new(SLOW, &[]);
        let start = Instant::now();
        for (after, expected) in [(0, 3), (0, 0), (99, 0), (100, 1), (300, 2), (60_000, 3)] {
            let now = start + Duration::from_millis(after);
            assert_eq!(taken(&mut rates, "acme/alice/mail", &device(), now), expected, "after {after} ms");
        }
    }

    #[test]
    fn a_user_has_one_bucket_for_all_apps_and_devices_and_shares_it_with_nobody() {
        let mut rates = Rates::new(SLOW, &[]);
        let now = Instant::now();
        assert_eq!(taken(&mut rates, "acme/alice/mail", &device(), now), 3);
        assert_eq!(taken(&mut rates, "acme/alice/editor", &Device::parse("phone").unwrap(), now), 0);
        assert_eq!(taken(&mut rates, "acme/bob/mail", &device(), now), 3);
        assert_eq!(taken(&mut rates, "globex/alice/mail", &device(), now), 3);
        let service = Device::service(&ServiceName::parse("mailer").unwrap());
        assert_eq!(taken(&mut rates, "acme/alice/mail", &service, now), 3);
        assert_eq!(taken(&mut rates, "acme/alice/mail", &Device::expiry(), now), 100);
    }

    #[test]
    fn no_two_users_share_a_bucket_however_they_are_called() {
        let mut rates = Rates::new(SLOW, &[]);
        let now = Instant::now();
        for profile in ["ab/c/mail", "a/bc/mail", "a/b/mail", "a/b$svc-m/mail"] {
            assert_eq!(taken(&mut rates, profile, &device(), now), 3, "{profile}");
        }
        let service = Device::service(&ServiceName::parse("m").unwrap());
        assert_eq!(taken(&mut rates, "a/b/mail", &service, now), 3);
    }

    #[test]
    fn what_names_nobody_has_a_bucket_of_its_publisher_and_takes_nothing_from_any_other() {
        let mut rates = Rates::new(SLOW, &[]);
        let now = Instant::now();
        for publisher in [["acme", "alice"], ["acme", "bob"], ["globex", "alice"], ["acme", "$svc-mailer"], ["", ""]] {
            assert_eq!((0..100).take_while(|_| rates.take_nameless(publisher, now)).count(), 3, "{publisher:?}");
        }
        assert_eq!(taken(&mut rates, "acme/alice/mail", &device(), now), 3);
    }

    #[test]
    fn a_tenant_may_have_a_rate_of_its_own() {
        let tenant = |name: &str, changes_per_second, burst| {
            let tenant = Tenant::parse(name).unwrap();
            TenantRate { tenant, changes_per_second, burst }
        };
        let mut rates = Rates::new(SLOW, &[tenant("globex", 1, 50), tenant("free", 0, 0)]);
        let now = Instant::now();
        assert_eq!(taken(&mut rates, "acme/alice/mail", &device(), now), 3);
        assert_eq!(taken(&mut rates, "globex/alice/mail", &device(), now), 50);
        assert_eq!(taken(&mut rates, "free/alice/mail", &device(), now), 100);
    }

    #[test]
    fn buckets_that_are_full_again_are_let_go_of() {
        let mut rates = Rates::new(SLOW, &[]);
        let start = Instant::now();
        for (number, millis) in (0..3 * CROWDED).zip(0..) {
            let now = start + Duration::from_millis(millis);
            rates.take(&format!("acme/user-{number}/mail").parse().unwrap(), &device(), now);
        }
        assert!(rates.full_at.len() <= CROWDED);
    }
}
