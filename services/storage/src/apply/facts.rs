//! The facts that `decide` is given: read from the store, under what earlier changes of the same batches are about to
//! write, and those of the batches before, which may be being written at this moment. Where profiles stand and what was
//! written lately is kept for longer, since this is the one writer.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use roam_schemas::{ChangeId, Device, Key, Revision, Shard, StampedChange, Timestamp};

use super::{newest::Newest, recent::Recent};
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
    profiles: Recent<ProfileKey, Standing>,
    /// Those that moved in the batch in hand.
    moved: Vec<ProfileKey>,
    records: Recent<RecordKey, Known>,
    seen: Recent<(ProfileKey, ChangeId), Seen>,
    ranks: Recent<(RecordKey, Revision), u32>,
    /// How many profiles each user has, of those users that get one in the batch in hand.
    user_profiles: Recent<Box<[u8]>, u32>,
    /// The markers of all users who were erased.
    erased: HashMap<Box<[u8]>, Erased, RandomState>,
}

/// Where a profile stands.
#[derive(Clone, Copy)]
struct Standing {
    /// None for one that was never written.
    head: Option<Head>,
    /// Of the changes that were decided, those that came to nothing included.
    newest: Newest,
    /// Whether it moved in the batch in hand.
    moved: bool,
}

/// The store as it is, for the facts of one batch: what reads it is made once, not for each change, and only if something is read.
pub(super) struct Stored<'n, 's> {
    newest: &'n Snapshot<'s>,
    records: Option<Lookup<'s>>,
}

impl<'n, 's> Stored<'n, 's> {
    /// Nothing is read as yet.
    pub(super) fn new(newest: &'n Snapshot<'s>) -> Self {
        Self { newest, records: None }
    }

    /// For looking up records.
    fn records(&mut self) -> Result<&mut Lookup<'s>, StoreError> {
        let lookup = match self.records.take() {
            Some(lookup) => lookup,
            None => self.newest.lookup()?,
        };
        Ok(self.records.insert(lookup))
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
            profiles: Recent::new(KEPT_HEADS),
            moved: Vec::new(),
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
        let (head, is_new) = self.standing(stored.newest, profile, change.id())?;
        let seen = if is_new { None } else { self.seen(stored.newest, profile, change.id())? };
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
        let records = ops.map(|(key, op)| self.record(stored, key, &op.key)).collect::<Result<_, _>>()?;
        Ok(Facts { seen, head, records, user_profiles: None, erased, elsewhere, journaled })
    }

    /// A change is decided. `head` is where its profile stands now, if it moved.
    pub(super) fn learn(&mut self, profile: ProfileKey, id: ChangeId, seen: Seen, head: Option<Head>) {
        // It is there: facts are asked for before anything is decided.
        if let Some(standing) = self.profiles.get_mut(&profile) {
            standing.newest.learn(id);
            if let Some(head) = head {
                let begins = standing.head.replace(head).is_none();
                if begins && let Some(count) = self.user_profiles.get_mut(profile.user()) {
                    *count += 1;
                }
                if !std::mem::replace(&mut standing.moved, true) {
                    self.moved.push(profile.clone());
                }
            }
        }
        self.seen.insert((profile, id), seen);
    }

    pub(super) fn learn_record(&mut self, key: &RecordKey, known: Known) {
        match self.records.get_mut(key) {
            Some(before) => *before = known,
            None => self.records.insert(key.clone(), known),
        }
    }

    /// A record is gone from the store.
    pub(super) fn unlearn_record(&mut self, key: &RecordKey) {
        self.records.remove(key);
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
        self.moved.iter().filter_map(|profile| Some((profile, self.profiles.peek(profile)?.head.as_ref()?)))
    }

    /// The batch in hand is written, or is so next. The store knows all of the one before by now.
    pub(super) fn settle(&mut self) {
        for profile in self.moved.drain(..) {
            if let Some(standing) = self.profiles.get_mut(&profile) {
                standing.moved = false;
            }
        }
        self.seen.age();
        self.ranks.age();
        self.user_profiles.age();
        self.profiles.age();
        self.records.age();
    }

    /// The batch in hand is given up. Nothing is asked before the one before is written.
    pub(super) fn forget(&mut self) {
        self.moved.clear();
        self.seen.clear();
        self.ranks.clear();
        self.user_profiles.clear();
        self.profiles.clear();
        self.records.clear();
    }

    /// A user was erased: nothing is known of them but that.
    pub(super) fn learn_erased(&mut self, user: &UserKey, marker: Erased) {
        self.forget();
        self.erased.insert(user.as_bytes().into(), marker);
    }

    /// The head of a profile, and whether a change is surely none of those that were decided of it.
    fn standing(
        &mut self,
        newest: &Snapshot<'_>,
        profile: &ProfileKey,
        id: ChangeId,
    ) -> Result<(Option<Head>, bool), StoreError> {
        let ask = || newest.newest_seen(profile);
        if let Some(standing) = self.profiles.get_mut(profile) {
            return Ok((standing.head, standing.newest.is_before(id, ask)?));
        }
        let mut standing = Standing { head: newest.head(profile)?, newest: Newest::unknown(), moved: false };
        let is_new = standing.newest.is_before(id, ask)?;
        self.profiles.insert(profile.clone(), standing);
        Ok((standing.head, is_new))
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
        stored: &mut Stored<'_, '_>,
        row_key: &RecordKey,
        key: &Key,
    ) -> Result<Option<Known>, StoreError> {
        if let Some(known) = self.records.get_mut(row_key) {
            return Ok(Some(known.clone()));
        }
        stored.records()?.record(row_key)?.map(|(place, row)| read(key, place, &row)).transpose()
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
