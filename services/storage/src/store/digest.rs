//! Digests: whether two replicas hold the same, told from a few bytes.

use std::ops::ControlFlow;

use roam_schemas::{Terms, Timestamp};

use super::{
    ProfileKey, Seen, Snapshot, StoreError,
    head::{self, Head},
    kept::{Bounds, Kept},
    seen,
    version::{self, RowState, VersionRow},
};

/// What rows come to. Equal for equal rows, and for no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// How many rows there are.
    pub rows: u64,
    /// BLAKE3 over their keys and values in order, each after its length.
    pub hash: [u8; 32],
}

/// What counts in a digest: by its instant and these terms, what is too old does not, whether or not it is still there.
#[derive(Debug, Clone, Copy)]
pub struct AsOf<'a> {
    /// The instant. Not before the time at which the stream took in what was applied last.
    pub time: Timestamp,
    /// The terms.
    pub terms: &'a Terms,
}

/// Takes rows in, one after the other.
#[derive(Default)]
struct Digester {
    rows: u64,
    hasher: blake3::Hasher,
}

impl Snapshot<'_> {
    /// What all rows of a table come to. Two replicas may differ in how much of the past they still keep, and so in
    /// this; what they must agree on is [`Self::profile_digest`].
    ///
    /// # Errors
    /// As all reads.
    pub fn table_digest(&self, table: &'static str) -> Result<Digest, StoreError> {
        let mut digester = Digester::default();
        self.rows(table, |key, value| {
            digester.add(key, value);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(digester.finish())
    }

    /// What a profile comes to: its head and all records that hold a value. The same on all replicas that have the
    /// profile at the same revision, whatever they still keep of versions, tombstones and decided ids.
    ///
    /// # Errors
    /// As all reads.
    pub fn profile_digest(&self, profile: &ProfileKey) -> Result<Digest, StoreError> {
        let mut digester = Digester::default();
        if let Some(head) = self.head(profile)? {
            digester.add(head::TABLE.as_bytes(), &Head::write(&head)?);
        }
        self.records(profile, "", None, |found| {
            if matches!(found.row.state, RowState::Value { .. }) {
                digester.add(&version::key(&profile.record(&found.key()?), found.place), &found.row.write()?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(digester.finish())
    }
}

impl Snapshot<'_> {
    /// What a profile comes to with all that `decide` and readers can see of it: its head, its records and deletions, their
    /// past, and what was decided. The same on all replicas that applied the same, however much of what is forgotten they
    /// still have on disk.
    ///
    /// # Errors
    /// As all reads.
    pub fn whole_digest(&self, profile: &ProfileKey, as_of: AsOf<'_>) -> Result<Digest, StoreError> {
        let mut digester = Digester::default();
        digester.add(head::TABLE.as_bytes(), &Head::write(&self.standing(profile)?)?);
        let bounds = Bounds::of_terms(as_of.terms, as_of.time);
        let (mut key, mut kept) = (Vec::new(), Kept::new(bounds));
        self.rows_of(version::TABLE, profile.as_bytes(), |row_key, value| {
            let place = row_key.len().saturating_sub(version::PLACE_BYTES);
            if row_key[..place] != key {
                key = row_key[..place].to_vec();
                kept = Kept::new(bounds);
            }
            let row = VersionRow::read(value)?;
            if kept.takes(version::place(&row_key[place..])?, row.time, row.state == RowState::Deleted) {
                digester.add(row_key, value);
            }
            Ok(())
        })?;
        let oldest = as_of.time.minus_seconds(as_of.terms.seen_seconds);
        self.rows_of(seen::TABLE, profile.as_bytes(), |row_key, value| {
            if Seen::read(value)?.time > oldest {
                digester.add(row_key, value);
            }
            Ok(())
        })?;
        Ok(digester.finish())
    }
}

impl Digester {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_be_bytes());
            self.hasher.update(part);
        }
    }

    fn finish(self) -> Digest {
        Digest { rows: self.rows, hash: *self.hasher.finalize().as_bytes() }
    }
}
