//! The facts that `decide` is given: read from the store, under what earlier changes of the same batch are about to
//! write. Where profiles stand is kept across batches, since this is the one writer.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use roam_schemas::{Change, ChangeId, Device, Key, Revision};

use crate::{
    decide::{Facts, Known, KnownValue},
    store::{Head, Place, ProfileKey, Reader, RowState, Seen, StoreError, VersionRow},
};

/// How many heads are kept: about 20 MB at worst.
const KEPT_HEADS: usize = 100_000;

/// What is known of profiles: the store, and over it what the batch in hand will write.
pub(super) struct Knowledge {
    reader: Reader,
    heads: HashMap<ProfileKey, Head>,
    moved: HashSet<ProfileKey>,
    records: HashMap<(ProfileKey, Key), Known>,
    seen: HashMap<(ProfileKey, ChangeId), Seen>,
    ranks: HashMap<(ProfileKey, Key, Revision), u32>,
}

impl Knowledge {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            heads: HashMap::new(),
            moved: HashSet::new(),
            records: HashMap::new(),
            seen: HashMap::new(),
            ranks: HashMap::new(),
        }
    }

    /// All that `decide` needs to know for a change.
    pub(super) fn facts(&mut self, profile: &ProfileKey, change: &Change) -> Result<Facts, StoreError> {
        let seen = self.seen(profile, change.id())?;
        let head = self.head(profile)?;
        // A profile that was never written holds no records: nothing to look for.
        let records =
            if head == Head::default() { vec![None; change.ops().len()] } else { self.records(profile, change)? };
        Ok(Facts { seen, head, records })
    }

    pub(super) fn learn_head(&mut self, profile: &ProfileKey, head: Head) {
        self.heads.insert(profile.clone(), head);
        self.moved.insert(profile.clone());
    }

    pub(super) fn learn_record(&mut self, profile: &ProfileKey, key: &Key, known: Known) {
        self.records.insert((profile.clone(), key.clone()), known);
    }

    pub(super) fn learn_seen(&mut self, profile: &ProfileKey, id: ChangeId, seen: Seen) {
        self.seen.insert((profile.clone(), id), seen);
    }

    /// The rank of one more operation that came too late for that version.
    pub(super) fn next_rank(
        &mut self,
        profile: &ProfileKey,
        key: &Key,
        beaten_by: Revision,
    ) -> Result<u32, StoreError> {
        let place = (profile.clone(), key.clone(), beaten_by);
        let rank = match self.ranks.get(&place) {
            Some(rank) => *rank,
            None => self.reader.newest().ranks(profile, key, beaten_by)?,
        } + 1;
        self.ranks.insert(place, rank);
        Ok(rank)
    }

    /// The profiles that moved in the batch in hand, and where they stand after it.
    pub(super) fn moved_heads(&self) -> impl Iterator<Item = (&ProfileKey, &Head)> {
        self.moved.iter().filter_map(|profile| self.heads.get_key_value(profile))
    }

    /// The batch in hand is committed: the store knows it all now.
    pub(super) fn settle(&mut self) {
        self.moved.clear();
        self.records.clear();
        self.seen.clear();
        self.ranks.clear();
        if self.heads.len() > KEPT_HEADS {
            self.heads.clear();
        }
    }

    /// The batch in hand is given up.
    pub(super) fn forget(&mut self) {
        self.heads.clear();
        self.settle();
    }

    fn head(&mut self, profile: &ProfileKey) -> Result<Head, StoreError> {
        if let Some(head) = self.heads.get(profile) {
            return Ok(*head);
        }
        let head = self.reader.newest().head(profile)?.unwrap_or_default();
        self.heads.insert(profile.clone(), head);
        Ok(head)
    }

    fn seen(&self, profile: &ProfileKey, id: ChangeId) -> Result<Option<Seen>, StoreError> {
        if !self.seen.is_empty()
            && let Some(seen) = self.seen.get(&(profile.clone(), id))
        {
            return Ok(Some(seen.clone()));
        }
        self.reader.newest().seen(profile, id)
    }

    fn records(&self, profile: &ProfileKey, change: &Change) -> Result<Vec<Option<Known>>, StoreError> {
        let mut known = Vec::with_capacity(change.ops().len());
        let keys = change.ops().iter().map(|op| &op.key);
        self.reader.newest().records_of(profile, keys, |index, found| {
            let key = &change.ops()[index].key;
            known.push(found.map(|(place, row)| read(key, place, &row)).transpose()?);
            Ok(ControlFlow::Continue(()))
        })?;
        if !self.records.is_empty() {
            for (op, known) in change.ops().iter().zip(&mut known) {
                if let Some(newer) = self.records.get(&(profile.clone(), op.key.clone())) {
                    *known = Some(newer.clone());
                }
            }
        }
        Ok(known)
    }
}

fn read(key: &Key, place: Place, row: &VersionRow<'_>) -> Result<Known, StoreError> {
    let value = match &row.state {
        RowState::Deleted => None,
        RowState::Value { expires, value, .. } => {
            Some(KnownValue { expires: *expires, bytes: (key.as_str().len() + value.len()) as u64 })
        }
    };
    let device = Device::try_from(row.device.to_owned())
        .map_err(|error| StoreError::Damaged { table: "version", what: error.to_string() })?;
    Ok(Known { revision: place.revision, time: row.time, device, stamp: row.stamp, value })
}
