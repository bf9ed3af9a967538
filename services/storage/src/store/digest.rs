//! Digests: whether two replicas hold the same, told from a few bytes.

use std::ops::ControlFlow;

use super::{
    ProfileKey, Snapshot, StoreError,
    head::{self, Head},
    read::RecordRow,
    version::{self, RowState},
};

/// What rows come to. Equal for equal rows, and for no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// How many rows there are.
    pub rows: u64,
    /// BLAKE3 over their keys and values in order, each after its length.
    pub hash: [u8; 32],
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
        self.records(profile, "", None, |RecordRow { key, place, row }| {
            if matches!(row.state, RowState::Value { .. }) {
                digester.add(&version::key(&profile.record(&key), place), &row.write()?);
            }
            Ok(ControlFlow::Continue(()))
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
