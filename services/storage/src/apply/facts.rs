//! The facts that `decide` is given: read from the store, under what earlier changes of the same batches are about to
//! write, and those of the batches before, which may be being written at this moment. Where profiles stand and what was
//! written lately is kept for longer, since this is the one writer.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use roam_schemas::{ChangeId, Device, Key, Revision, Shard, StampedChange, Timestamp};

use super::recent::Recent;
use crate::{
    decide::{Facts, Known, KnownValue, bytes_of},
    store::{
        Erased, Head, Lookup, Place, ProfileKey, Reader, RecordKey, RowState, Seen, Snapshot, StoreError, UserKey,
        VersionRow,
    },
};

/// How many heads are kept in each generation: about 20 MB in both, at worst.
const KEPT_HEADS: usize = 50_000;
/// How many records are kept in each generation: about 40 MB in both, and 240 MB with the longest names.
const KEPT_RECORDS: usize = 100_000;

/// A generation is full whatever it holds: what the store knows once it is written is kept for the batch in hand and for the one
/// before, which may be being written.
const UNTIL_WRITTEN: usize = 0;

/// What is known of profiles: the store, and over it what the batch in hand will write.
pub(super) struct Knowledge {
    reader: Reader,
    /// The shard that the directory is of.
    shard: Shard,
    /// Where profiles stand; none for one that was never written.
    heads: Recent<ProfileKey, Option<Head>>,
    moved: HashSet<ProfileKey, RandomState>,
    records: Recent<RecordKey, Known>,
    seen: Recent<(ProfileKey, ChangeId), Seen>,
    ranks: Recent<(RecordKey, Revision), u32>,
    /// How many profiles each user has, of those users that get one in the batch in hand.
    user_profiles: Recent<Box<[u8]>, u32>,
    /// The markers of all users who were erased.
    erased: HashMap<Box<[u8]>, Erased, RandomState>,
}

/// The store as it is, for the facts of one batch: what reads it is made once, not for each change.
pub(super) struct Stored<'n, 's> {
    newest: &'n Snapshot<'s>,
    records: Lookup<'s>,
}

impl<'n, 's> Stored<'n, 's> {
    /// Looks into the store.
    ///
    /// # Errors
    /// As all reads.
    pub(super) fn new(newest: &'n Snapshot<'s>) -> Result<Self, StoreError> {
        Ok(Self { newest, records: newest.lookup()? })
    }
}

impl Knowledge {
    /// What the store knows.
    ///
    /// # Errors
    /// As all reads.
    pub(super) fn new(reader: Reader) -> Result<Self, StoreError> {
        let mut erased = HashMap::default();
        reader.newest().all_erased(|user, marker| {
            erased.insert(user.into(), marker);
        })?;
        let shard = reader.newest().shard()?;
        Ok(Self {
            reader,
            shard,
            heads: Recent::new(KEPT_HEADS),
            moved: HashSet::default(),
            records: Recent::new(KEPT_RECORDS),
            seen: Recent::new(UNTIL_WRITTEN),
            ranks: Recent::new(UNTIL_WRITTEN),
            user_profiles: Recent::new(UNTIL_WRITTEN),
            erased,
        })
    }

    /// All that `decide` needs to know for a change. `keys` are those of its operations.
    pub(super) fn facts(
        &mut self,
        stored: &mut Stored<'_, '_>,
        profile: &ProfileKey,
        keys: &[RecordKey],
        (stamped, journaled): (&StampedChange, Timestamp),
    ) -> Result<Facts, StoreError> {
        let change = &stamped.change;
        let elsewhere = !self.shard.holds_profile(&stamped.profile);
        let seen = self.seen(stored.newest, profile, change.id())?;
        let head = self.head(stored.newest, profile)?;
        let erased = if self.erased.is_empty() { None } else { self.erased.get(profile.user()).copied() };
        let Some(head) = head else {
            // A profile that was never written holds no records: nothing to look for.
            let user_profiles = Some(self.user_profiles(stored.newest, profile)?);
            let head = Head::default().not_below(stored.newest.epoch());
            return Ok(Facts {
                seen,
                head,
                records: vec![None; keys.len()],
                user_profiles,
                erased,
                elsewhere,
                journaled,
            });
        };
        let ops = keys.iter().zip(change.ops());
        let records = ops.map(|(key, op)| self.record(&mut stored.records, key, &op.key)).collect::<Result<_, _>>()?;
        Ok(Facts { seen, head, records, user_profiles: None, erased, elsewhere, journaled })
    }

    pub(super) fn learn_head(&mut self, profile: &ProfileKey, head: Head) {
        match self.heads.get_mut(profile) {
            Some(known) => {
                let begins = known.replace(head).is_none();
                if begins && let Some(count) = self.user_profiles.get_mut(profile.user()) {
                    *count += 1;
                }
            }
            None => {
                self.heads.insert(profile.clone(), Some(head));
            }
        }
        if !self.moved.contains(profile) {
            self.moved.insert(profile.clone());
        }
    }

    pub(super) fn learn_record(&mut self, key: RecordKey, known: Known) {
        self.records.insert(key, known);
    }

    /// A record is gone from the store.
    pub(super) fn unlearn_record(&mut self, key: &RecordKey) {
        self.records.remove(key);
    }

    pub(super) fn learn_seen(&mut self, profile: ProfileKey, id: ChangeId, seen: Seen) {
        self.seen.insert((profile, id), seen);
    }

    /// The rank of one more operation that came too late for that version.
    pub(super) fn next_rank(&mut self, key: &RecordKey, beaten_by: Revision) -> Result<u32, StoreError> {
        let place = (key.clone(), beaten_by);
        let rank = match self.ranks.peek(&place) {
            Some(rank) => *rank,
            None => self.reader.newest().ranks(key, beaten_by)?,
        } + 1;
        self.ranks.insert(place, rank);
        Ok(rank)
    }

    /// The profiles that moved in the batch in hand, and where they stand after it.
    pub(super) fn moved_heads(&self) -> impl Iterator<Item = (&ProfileKey, &Head)> {
        self.moved.iter().filter_map(|profile| Some((profile, self.heads.peek(profile)?.as_ref()?)))
    }

    /// The batch in hand is written, or is so next. The store knows all of the one before by now.
    pub(super) fn settle(&mut self) {
        self.moved.clear();
        self.seen.age();
        self.ranks.age();
        self.user_profiles.age();
        self.heads.age();
        self.records.age();
    }

    /// The batch in hand is given up. Nothing is asked before the one before is written.
    pub(super) fn forget(&mut self) {
        self.moved.clear();
        self.seen.clear();
        self.ranks.clear();
        self.user_profiles.clear();
        self.heads.clear();
        self.records.clear();
    }

    /// A user was erased: nothing is known of them but that.
    pub(super) fn learn_erased(&mut self, user: &UserKey, marker: Erased) {
        self.forget();
        self.erased.insert(user.as_bytes().into(), marker);
    }

    fn head(&mut self, newest: &Snapshot<'_>, profile: &ProfileKey) -> Result<Option<Head>, StoreError> {
        if let Some(head) = self.heads.get_mut(profile) {
            return Ok(*head);
        }
        let head = newest.head(profile)?;
        self.heads.insert(profile.clone(), head);
        Ok(head)
    }

    fn user_profiles(&mut self, newest: &Snapshot<'_>, profile: &ProfileKey) -> Result<u32, StoreError> {
        if let Some(count) = self.user_profiles.peek(profile.user()) {
            return Ok(*count);
        }
        let count = newest.profiles_of_user(profile)?;
        self.user_profiles.insert(profile.user().into(), count);
        Ok(count)
    }

    fn seen(&self, newest: &Snapshot<'_>, profile: &ProfileKey, id: ChangeId) -> Result<Option<Seen>, StoreError> {
        if !self.seen.is_empty()
            && let Some(seen) = self.seen.peek(&(profile.clone(), id))
        {
            return Ok(Some(seen.clone()));
        }
        newest.seen(profile, id)
    }

    fn record(
        &mut self,
        records: &mut Lookup<'_>,
        row_key: &RecordKey,
        key: &Key,
    ) -> Result<Option<Known>, StoreError> {
        if let Some(known) = self.records.get_mut(row_key) {
            return Ok(Some(known.clone()));
        }
        records.record(row_key)?.map(|(place, row)| read(key, place, &row)).transpose()
    }
}

fn read(key: &Key, place: Place, row: &VersionRow<'_>) -> Result<Known, StoreError> {
    let value = match &row.state {
        RowState::Deleted => None,
        RowState::Value { content_type, expires, value } => {
            Some(KnownValue { expires: *expires, bytes: bytes_of(key, content_type, value) })
        }
    };
    let device = Device::try_from(row.device.to_owned())
        .map_err(|error| StoreError::Damaged { table: "version", what: error.to_string() })?;
    Ok(Known { revision: place.revision, time: row.time, device, stamp: row.stamp, value })
}
