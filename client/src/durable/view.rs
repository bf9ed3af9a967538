//! What a reader on this device sees: the local copy, overlaid with what it has written itself and is not saved yet.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use roam_schemas::{ChangeId, Key, Operation, Problem, Record, Revision, State, Stored, Timestamp};

use super::error::{Damage, Fault};
use super::layout::{
    COPY, IN_FLIGHT, InFlight, OFFER, PARKED, POSITION_IN_FLIGHT, PROFILE, ParkedRow, ProfileRow, WAITING, WAITING_KEY,
    read,
};
use super::outbox::state_after;
use super::tables::all_keys;
use super::unit::Unit;

/// A key as this device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRecord {
    /// The key.
    pub key: Key,
    /// The record as the servers have it, as far as this device knows; none if they do not know the key.
    pub saved: Option<Record>,
    /// What this device wrote and the servers have not saved yet; none if there is no such thing.
    pub unsaved: Option<State>,
}

impl LocalRecord {
    /// The state that counts here: what this device wrote last, else what the servers have.
    pub fn state(&self) -> Option<&State> {
        self.unsaved.as_ref().or(self.saved.as_ref().map(|record| &record.state))
    }

    /// The value that counts here, if there is one.
    pub fn value(&self) -> Option<&Stored> {
        match self.state()? {
            State::Value(stored) => Some(stored),
            State::Deleted | State::Expired => None,
        }
    }
}

/// A change that was rejected, and stays until it is retried or discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its id.
    pub id: ChangeId,
    /// Why it was rejected.
    pub problem: Problem,
    /// What it would have done.
    pub ops: Vec<Operation>,
    /// The revision of the profile that this device had when it was written.
    pub base: Option<Revision>,
    /// When it was parked, by this device's clock.
    pub parked: Timestamp,
}

/// How much of a profile is not saved yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// How many operations wait to be published.
    pub waiting: usize,
    /// How many operations are in flight.
    pub in_flight: usize,
    /// How many records of an earlier epoch are to be offered again.
    pub offers: usize,
    /// How many changes are parked.
    pub parked: usize,
    /// How many bytes wait, are in flight or are parked, counted generously.
    pub bytes: u64,
}

impl Unsaved {
    /// Whether nothing is on its way. Parked changes are not.
    pub fn is_empty(&self) -> bool {
        self.waiting + self.in_flight + self.offers == 0
    }
}

type Bytes = &'static [u8];

/// All tables of one moment.
pub(super) struct View {
    profile: ReadOnlyTable<&'static str, Bytes>,
    copy: ReadOnlyTable<(u32, &'static str), Bytes>,
    waiting: ReadOnlyTable<(u32, u64), Bytes>,
    waiting_key: ReadOnlyTable<(u32, &'static str), u64>,
    in_flight: ReadOnlyTable<u32, Bytes>,
    offer: ReadOnlyTable<(u32, &'static str), Bytes>,
    parked: ReadOnlyTable<(u32, [u8; 16]), Bytes>,
}

impl View {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, Fault> {
        Ok(Self {
            profile: transaction.open_table(PROFILE)?,
            copy: transaction.open_table(COPY)?,
            waiting: transaction.open_table(WAITING)?,
            waiting_key: transaction.open_table(WAITING_KEY)?,
            in_flight: transaction.open_table(IN_FLIGHT)?,
            offer: transaction.open_table(OFFER)?,
            parked: transaction.open_table(PARKED)?,
        })
    }

    pub(super) fn profile_row(&self, name: &str) -> Result<ProfileRow, Fault> {
        let row = self.profile.get(name)?.ok_or(Damage("a profile is missing"))?;
        Ok(read(row.value())?)
    }

    /// All profiles by name.
    pub(super) fn profiles(&self) -> Result<Vec<(String, ProfileRow)>, Fault> {
        let mut profiles = Vec::new();
        for row in self.profile.iter()? {
            let (name, row) = row?;
            profiles.push((name.value().to_owned(), read(row.value())?));
        }
        Ok(profiles)
    }

    /// What is known of a key.
    pub(super) fn record(&self, number: u32, key: &Key, now: Timestamp) -> Result<LocalRecord, Fault> {
        let at = (number, key.as_str());
        let saved = self.copy.get(at)?.map(|bytes| read(bytes.value())).transpose()?;
        let position = self.waiting_key.get(at)?.map(|position| position.value());
        let unsaved = match position {
            Some(POSITION_IN_FLIGHT) => self.in_flight(number)?.and_then(|held| state_in_flight(&held, key)),
            Some(position) => state_in_unit(&self.unit(number, position)?, key),
            None => self.offered(at)?,
        };
        Ok(seen_at(now, LocalRecord { key: key.clone(), saved, unsaved }))
    }

    /// All keys that begin with this and have a value here, in order.
    pub(super) fn records(&self, number: u32, prefix: &str, now: Timestamp) -> Result<Vec<LocalRecord>, Fault> {
        let mut found: BTreeMap<Key, LocalRecord> = BTreeMap::new();
        let from = (number, prefix)..(number.saturating_add(1), "");
        for row in self.copy.range(from.clone())? {
            let (at, bytes) = row?;
            if !at.value().1.starts_with(prefix) {
                break;
            }
            let saved: Record = read(bytes.value())?;
            let record = LocalRecord { key: saved.key.clone(), saved: Some(saved), unsaved: None };
            found.insert(record.key.clone(), record);
        }
        for row in self.offer.range(from.clone())? {
            let (at, bytes) = row?;
            if !at.value().1.starts_with(prefix) {
                break;
            }
            let offered: Record = read(bytes.value())?;
            unsaved(&mut found, &offered.key, Some(offered.state.clone()));
        }
        self.overlay(number, prefix, from, &mut found)?;
        let seen = found.into_values().map(|record| seen_at(now, record));
        Ok(seen.filter(|record| record.value().is_some()).collect())
    }

    /// Lays what waits and what is in flight over what was found.
    fn overlay(
        &self,
        number: u32,
        prefix: &str,
        from: std::ops::Range<(u32, &str)>,
        found: &mut BTreeMap<Key, LocalRecord>,
    ) -> Result<(), Fault> {
        let in_flight = self.in_flight(number)?;
        let mut units: HashMap<u64, Unit> = HashMap::new();
        for row in self.waiting_key.range(from)? {
            let (at, position) = row?;
            let (text, position) = (at.value().1, position.value());
            if !text.starts_with(prefix) {
                break;
            }
            let key = Key::parse(text).map_err(|_| Damage("a key is none"))?;
            let state = if position == POSITION_IN_FLIGHT {
                in_flight.as_ref().and_then(|held| state_in_flight(held, &key))
            } else {
                let unit = match units.entry(position) {
                    Entry::Occupied(unit) => unit.into_mut(),
                    Entry::Vacant(place) => place.insert(self.unit(number, position)?),
                };
                state_in_unit(unit, &key)
            };
            unsaved(found, &key, state);
        }
        Ok(())
    }

    pub(super) fn parked(&self, number: u32) -> Result<Vec<Parked>, Fault> {
        let mut parked = Vec::new();
        for row in self.parked.range((number, [0; 16])..=(number, [0xff; 16]))? {
            parked.push(Parked::from(read::<ParkedRow>(row?.1.value())?));
        }
        Ok(parked)
    }

    /// Records that are to be offered again, at most so many; none while a change is in flight.
    pub(super) fn offers(&self, number: u32, most: usize) -> Result<Vec<Record>, Fault> {
        let mut offers = Vec::new();
        if self.in_flight.get(number)?.is_none() {
            for row in self.offer.range(all_keys(number))?.take(most) {
                offers.push(read(row?.1.value())?);
            }
        }
        Ok(offers)
    }

    pub(super) fn is_parked(&self, number: u32, id: ChangeId) -> Result<bool, Fault> {
        Ok(self.parked.get((number, *id.as_bytes()))?.is_some())
    }

    pub(super) fn unsaved(&self, row: &ProfileRow) -> Result<Unsaved, Fault> {
        let mut unsaved = Unsaved { bytes: row.held_bytes, ..Unsaved::default() };
        for unit in self.waiting.range((row.number, 0)..=(row.number, u64::MAX))? {
            unsaved.waiting += read::<Unit>(unit?.1.value())?.ops.len();
        }
        unsaved.in_flight = self.in_flight(row.number)?.map_or(0, |held| held.change.ops().len());
        unsaved.offers = self.offer.range(all_keys(row.number))?.count();
        unsaved.parked = self.parked.range((row.number, [0; 16])..=(row.number, [0xff; 16]))?.count();
        Ok(unsaved)
    }

    /// Whether anything is on its way to the servers, or to be.
    pub(super) fn is_busy(&self, number: u32) -> Result<bool, Fault> {
        Ok(self.in_flight.get(number)?.is_some()
            || self.waiting.range((number, 0)..=(number, u64::MAX))?.next().is_some()
            || self.offer.range(all_keys(number))?.next().is_some())
    }

    /// The copy as the servers have it, for comparing.
    #[cfg(test)]
    pub(super) fn copied(&self, number: u32) -> Result<Vec<Record>, Fault> {
        super::tables::rows(&self.copy, number)
    }

    fn in_flight(&self, number: u32) -> Result<Option<InFlight>, Fault> {
        Ok(self.in_flight.get(number)?.map(|bytes| read(bytes.value())).transpose()?)
    }

    fn unit(&self, number: u32, position: u64) -> Result<Unit, Fault> {
        let row = self.waiting.get((number, position))?;
        Ok(read(row.ok_or(Damage("a unit that waits is missing"))?.value())?)
    }

    fn offered(&self, at: (u32, &str)) -> Result<Option<State>, Fault> {
        let row = self.offer.get(at)?.map(|bytes| read::<Record>(bytes.value())).transpose()?;
        Ok(row.map(|record| record.state))
    }
}

fn unsaved(found: &mut BTreeMap<Key, LocalRecord>, key: &Key, state: Option<State>) {
    let empty = || LocalRecord { key: key.clone(), saved: None, unsaved: None };
    found.entry(key.clone()).or_insert_with(empty).unsaved = state;
}

fn state_in_unit(unit: &Unit, key: &Key) -> Option<State> {
    unit.op(key).map(|op| state_after(op, Timestamp::from_nanos(unit.written)))
}

fn state_in_flight(held: &InFlight, key: &Key) -> Option<State> {
    let op = held.change.ops().iter().find(|op| op.key == *key);
    op.map(|op| state_after(op, Timestamp::from_nanos(held.frozen)))
}

/// What has expired by this device's clock is shown as expired; its delete comes from the servers in time.
fn seen_at(now: Timestamp, mut record: LocalRecord) -> LocalRecord {
    let expire = |state: &mut State| {
        if matches!(state, State::Value(stored) if stored.expires.is_some_and(|expires| expires <= now)) {
            *state = State::Expired;
        }
    };
    record.unsaved.iter_mut().for_each(expire);
    record.saved.iter_mut().for_each(|saved| expire(&mut saved.state));
    record
}

impl From<ParkedRow> for Parked {
    fn from(row: ParkedRow) -> Self {
        let (id, base) = (row.change.id(), row.change.base());
        let parked = Timestamp::from_nanos(row.parked);
        Self { id, problem: row.problem, ops: row.change.into_ops(), base, parked }
    }
}
