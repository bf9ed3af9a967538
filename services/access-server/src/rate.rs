//! Rate: how many changes a second of one user's devices are let through, by a token bucket for each (the generic cell
//! rate algorithm: one instant a user). A service that writes for a user has a bucket of its own, so that it cannot use up
//! the user's. Pure: the clock is handed in.
//!
//! What is over the rate is not decided: it is answered `busy`, stored nowhere, and may be sent again under its id.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use roam_schemas::{Device, Profile, Tenant};
use serde::{Deserialize, Serialize};

/// Buckets that are full again are let go of whenever there are so many, and then whenever there are twice as many.
const CROWDED: usize = 16_384;

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
    /// When each bucket is full again.
    full_at: HashMap<String, Instant>,
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
        Self { rate, of_tenants, full_at: HashMap::new(), crowded: CROWDED }
    }

    /// Takes one change out of a bucket. Whether there was one.
    pub(crate) fn take(&mut self, profile: &Profile, device: &Device, now: Instant) -> bool {
        let Rate { changes_per_second, burst } = self.of_tenants.get(&profile.tenant).copied().unwrap_or(self.rate);
        // What expired is deleted whatever else a user does; only storage writes as that device.
        if changes_per_second == 0 || device.is_expiry() {
            return true;
        }
        let each = Duration::from_secs(1) / changes_per_second;
        let room = each.saturating_mul(burst.max(1));
        self.make_room(now);
        let full_at = self.full_at.entry(bucket(profile, device)).or_insert(now);
        let after = (*full_at).max(now) + each;
        if after > now + room {
            return false;
        }
        *full_at = after;
        true
    }

    fn make_room(&mut self, now: Instant) {
        if self.full_at.len() >= self.crowded {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.crowded = CROWDED.max(2 * self.full_at.len());
        }
    }
}

/// Names are encoded, so none can be taken for two.
fn bucket(profile: &Profile, device: &Device) -> String {
    let mut bucket = profile.tenant.token();
    bucket.push('.');
    bucket.push_str(&profile.user.token());
    if device.own_name().is_none() {
        bucket.push('.');
        bucket.push_str(&device.token());
    }
    bucket
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
