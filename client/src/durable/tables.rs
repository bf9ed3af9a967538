//! The tables of one write transaction, and the small steps that the larger ones are made of. Nothing here commits.

use redb::{ReadableTable, Table, WriteTransaction};
use roam_schemas::{Key, Record, Revision};

use super::error::{Damage, Fault};
use super::layout::{
    COPY, IN_FLIGHT, InFlight, OFFER, PARKED, POSITION_IN_FLIGHT, PROFILE, ParkedRow, ProfileRow, Row, WAITING,
    WAITING_KEY, read, write,
};
use super::unit::Unit;

type Bytes = &'static [u8];

/// All tables of profiles, open for writing.
pub(super) struct Tables<'t> {
    pub(super) profile: Table<'t, &'static str, Bytes>,
    pub(super) copy: Table<'t, (u32, &'static str), Bytes>,
    pub(super) waiting: Table<'t, (u32, u64), Bytes>,
    pub(super) waiting_key: Table<'t, (u32, &'static str), u64>,
    pub(super) in_flight: Table<'t, u32, Bytes>,
    pub(super) offer: Table<'t, (u32, &'static str), Bytes>,
    pub(super) parked: Table<'t, (u32, [u8; 16]), Bytes>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
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

    /// The row of a profile, which is new if there was none.
    pub(super) fn profile_row(&self, name: &str) -> Result<ProfileRow, Fault> {
        if let Some(bytes) = self.profile.get(name)? {
            return Ok(read(bytes.value())?);
        }
        let mut last = None;
        for row in self.profile.iter()? {
            let row: ProfileRow = read(row?.1.value())?;
            last = last.max(Some(row.number));
        }
        let number = last.map_or(Some(0), |last| last.checked_add(1));
        Ok(ProfileRow::new(number.ok_or(Damage("profiles are numbered to the end"))?))
    }

    pub(super) fn set_profile_row(&mut self, name: &str, row: &ProfileRow) -> Result<(), Fault> {
        self.profile.insert(name, write(row)?.as_slice())?;
        Ok(())
    }

    pub(super) fn copied(&self, number: u32, key: &Key) -> Result<Option<Record>, Fault> {
        let row = self.copy.get((number, key.as_str()))?;
        Ok(row.map(|bytes| read(bytes.value())).transpose()?)
    }

    /// Writes a record into the copy unless what is there is as new. Whether it did.
    pub(super) fn copy_newer(&mut self, number: u32, record: &Record) -> Result<bool, Fault> {
        let held = self.copied(number, &record.key)?.map(|held| held.revision);
        let newer = held < Some(record.revision);
        if newer {
            self.set_copied(number, record)?;
        }
        Ok(newer)
    }

    pub(super) fn set_copied(&mut self, number: u32, record: &Record) -> Result<(), Fault> {
        self.copy.insert((number, record.key.as_str()), write(record)?.as_slice())?;
        Ok(())
    }

    /// The records of the copy.
    pub(super) fn all_copied(&self, number: u32) -> Result<Vec<Record>, Fault> {
        rows(&self.copy, number)
    }

    pub(super) fn in_flight(&self, number: u32) -> Result<Option<InFlight>, Fault> {
        let row = self.in_flight.get(number)?;
        Ok(row.map(|bytes| read(bytes.value())).transpose()?)
    }

    /// Puts a change in flight: what is newest of its keys is in it, unless something waits that is newer.
    pub(super) fn set_in_flight(&mut self, number: u32, in_flight: &InFlight) -> Result<(), Fault> {
        self.in_flight.insert(number, write(in_flight)?.as_slice())?;
        Ok(())
    }

    /// Takes the change out of flight.
    pub(super) fn land(&mut self, number: u32, in_flight: &InFlight) -> Result<(), Fault> {
        self.in_flight.remove(number)?;
        for op in in_flight.change.ops() {
            let key = (number, op.key.as_str());
            let position = self.waiting_key.get(key)?.map(|position| position.value());
            if position == Some(POSITION_IN_FLIGHT) {
                self.waiting_key.remove(key)?;
            }
        }
        Ok(())
    }

    pub(super) fn unit(&self, number: u32, position: u64) -> Result<Unit, Fault> {
        let row = self.waiting.get((number, position))?;
        Ok(read(row.ok_or(Damage("a unit that waits is missing"))?.value())?)
    }

    pub(super) fn set_parked(&mut self, number: u32, parked: &ParkedRow) -> Result<(), Fault> {
        self.parked.insert((number, *parked.change.id().as_bytes()), write(parked)?.as_slice())?;
        Ok(())
    }

    /// Whether this device sees an edit of its own under this key, whatever the servers have.
    pub(super) fn is_overlaid(&self, number: u32, key: &Key) -> Result<bool, Fault> {
        let key = (number, key.as_str());
        Ok(self.waiting_key.get(key)?.is_some() || self.offer.get(key)?.is_some())
    }
}

/// All rows of a profile in a table whose keys are keys.
pub(super) fn rows<R: Row>(
    table: &impl ReadableTable<(u32, &'static str), &'static [u8]>,
    number: u32,
) -> Result<Vec<R>, Fault> {
    let mut rows = Vec::new();
    for row in table.range(all_keys(number))? {
        rows.push(read(row?.1.value())?);
    }
    Ok(rows)
}

/// The range of all keys of a profile.
pub(super) fn all_keys(number: u32) -> std::ops::Range<(u32, &'static str)> {
    (number, "")..(number.saturating_add(1), "")
}

/// The place in the profile's order up to which the copy is whole.
pub(super) fn is_past(row: &ProfileRow, revision: Revision) -> bool {
    revision > row.revision
}
