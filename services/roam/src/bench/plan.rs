//! Which changes a bench publishes: their profiles, keys, values and ids, each from its number alone. Pure.

use bytes::Bytes;
use roam_schemas::{
    App, Change, ChangeId, ContentType, Device, EncodeError, Encoding, Key, NameError, Operation, Problem, Profile,
    ServiceName, Shard, Tenant, User, encode, subjects,
};

/// The app of all profiles, and the name of the service that writes them.
const NAME: &str = "bench";
/// How many keys of a profile are written if none were loaded before.
const FEWEST_KEYS: u64 = 100;
/// A prime, so that the keys of a profile are written in an order that is none.
const STRIDE: u64 = 2_654_435_761;
/// Where the number of a change begins in its id.
const NUMBER_AT: usize = 10;

/// What is published.
#[derive(Debug)]
pub(crate) struct Plan {
    service: ServiceName,
    tenant: Tenant,
    app: App,
    profiles: Vec<Profile>,
    /// The change subject of each profile.
    subjects: Vec<String>,
    keys: u64,
    value: Vec<u8>,
    encoding: Encoding,
    /// The id of change 0 of this run.
    first_id: [u8; 16],
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// It breaks a rule of the protocol.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// It cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Plan {
    /// Changes of one put each, spread over that many profiles of the tenant, `records` of which are there already.
    pub(crate) fn new(
        tenant: Tenant,
        profiles: u32,
        records: u64,
        value_bytes: usize,
        encoding: Encoding,
    ) -> Result<Self, NameError> {
        let service = ServiceName::parse(NAME)?;
        let app = App::parse(NAME)?;
        let profile = |number| {
            let user = User::parse(format!("user-{number}"))?;
            Ok(Profile { tenant: tenant.clone(), user, app: app.clone() })
        };
        let profiles = (0..profiles).map(profile).collect::<Result<Vec<_>, NameError>>()?;
        let device = Device::service(&service);
        Ok(Self {
            subjects: profiles.iter().map(|profile| subjects::change(profile, &device)).collect(),
            keys: records.div_ceil(profiles.len().max(1) as u64).max(FEWEST_KEYS),
            value: (0..value_bytes).map(|_| rand::random()).collect(),
            first_id: first_id(),
            service,
            tenant,
            app,
            profiles,
            encoding,
        })
    }

    /// How messages are encoded.
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What the inboxes of the bench begin with.
    pub(crate) fn inbox_prefix(&self) -> String {
        subjects::service_inbox(&self.tenant, &self.service)
    }

    /// Where all receipts come.
    pub(crate) fn receipts(&self) -> String {
        subjects::receipts_of_service(&self.tenant, &self.service)
    }

    /// Where the notices of each profile come.
    pub(crate) fn notices(&self) -> impl Iterator<Item = String> {
        self.profiles.iter().map(subjects::notice)
    }

    /// How many profiles there are.
    pub(crate) fn profiles(&self) -> u64 {
        self.profiles.len() as u64
    }

    /// The profile of that place.
    pub(super) fn profile(&self, place: usize) -> Option<&Profile> {
        self.profiles.get(place)
    }

    /// How large a value is.
    pub(super) fn value_bytes(&self) -> usize {
        self.value.len()
    }

    /// Where bulks of a shard are published.
    pub(super) fn bulk_subject(&self, shard: Shard) -> String {
        subjects::bulk(shard, &self.tenant, &self.app, &self.service)
    }

    /// Change `number` of a measurement, and the place of its profile.
    pub(super) fn change(&self, number: u64) -> Result<(usize, Change), PlanError> {
        let turn = number / self.profiles();
        let key = turn.wrapping_mul(STRIDE) % self.keys;
        self.puts(number, number % self.profiles(), [key].into_iter())
    }

    /// A change that puts these keys of a profile, and the place of that.
    pub(super) fn puts(
        &self,
        number: u64,
        profile: u64,
        keys: impl Iterator<Item = u64>,
    ) -> Result<(usize, Change), PlanError> {
        let op = |key| {
            let key = Key::parse(format!("record-{key:08}"))?;
            Ok(Operation::put(key, self.value(number), ContentType::octets()))
        };
        let ops = keys.map(op).collect::<Result<Vec<_>, Problem>>()?;
        let change = Change::new(self.id(number), None, ops)?;
        Ok((usize::try_from(profile).unwrap_or(usize::MAX), change))
    }

    /// A change by itself: where it is published, and what.
    pub(super) fn message(&self, profile: usize, change: &Change) -> Result<(String, Bytes), PlanError> {
        let subject = self.subjects.get(profile).cloned().unwrap_or_default();
        Ok((subject, encode(change, self.encoding)?.into()))
    }

    /// The number of a change of this run, by its id.
    pub(crate) fn number(&self, id: ChangeId) -> Option<u64> {
        let (run, number) = id.as_bytes().split_at(NUMBER_AT);
        let is_ours = run == &self.first_id[..NUMBER_AT];
        is_ours.then(|| number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn id(&self, number: u64) -> ChangeId {
        let mut bytes = self.first_id;
        bytes[NUMBER_AT..].copy_from_slice(&number.to_be_bytes()[2..]);
        ChangeId::from_bytes(bytes)
    }

    /// The value of a change: its number, then random bytes.
    fn value(&self, number: u64) -> Vec<u8> {
        let mut value = self.value.clone();
        for (to, from) in value.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        value
    }
}

/// A UUIDv7 like any other (RFC 9562, section 5.7: time, version, random bits, variant, random bits), with zeros where the
/// numbers go. Two runs of the same millisecond differ in the random bits before them.
fn first_id() -> [u8; 16] {
    let mut bytes = *ChangeId::random().as_bytes();
    bytes[6] = 0x70 | rand::random::<u8>() & 0x0f;
    bytes[7] = rand::random();
    bytes[8] = 0x80 | rand::random::<u8>() & 0x3f;
    bytes[9] = rand::random();
    bytes[NUMBER_AT..].fill(0);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use roam_schemas::{Draft, Shard, decode};

    use super::*;

    fn plan(profiles: u32, records: u64) -> Plan {
        Plan::new(Tenant::parse("bench").unwrap(), profiles, records, 128, Encoding::Postcard).unwrap()
    }

    #[test]
    fn every_change_is_valid_and_known_again_by_its_id() {
        let plan = plan(64, 0);
        let other_run = self::plan(64, 0);
        for number in [0, 1, 63, 64, 1_000_000, (1 << 48) - 1] {
            let (profile, change) = plan.change(number).unwrap();
            let (subject, payload) = plan.message(profile, &change).unwrap();
            let (_, device) = subjects::parse_change(Shard::ONLY, &subject).unwrap();
            assert_eq!(device.as_str(), "$svc-bench");
            let draft: Draft = decode(&payload, Encoding::Postcard).unwrap();
            let change = draft.validate(payload.len()).unwrap();
            assert_eq!(plan.number(change.id()), Some(number));
            assert_eq!(other_run.number(change.id()), None);
        }
    }

    #[test]
    fn changes_are_spread_over_all_profiles_and_all_loaded_records() {
        let plan = plan(4, 4 * 500);
        let mut profiles = HashSet::new();
        let mut keys = HashSet::new();
        for number in 0..4 * 500 {
            let (profile, change) = plan.change(number).unwrap();
            keys.insert((profile, change.ops()[0].key.clone()));
            profiles.insert(profile);
        }
        assert_eq!((profiles.len(), keys.len()), (4, 4 * 500));
    }
}
