//! The store whose copies are damaged: small, with tables of several ages, a list of them with a past, and a log that is not
//! in tables yet; and what it held after each batch that the log holds. It is only looked at here.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use rand::{Rng, SeedableRng, rngs::StdRng};
use roam_client::{Change, ChangeId, ContentType, Device, Encoding, Key, Operation, Profile};
use roam_schemas::{BatchId, JournalBatch, Origin, RULES, Revision, Stamp, StampedChange, Terms, Timestamp};
use roam_storage::{
    apply::Applier,
    store::{self, Digest, Position, ProfileKey, Reader, StoreError, StoreSettings, TABLES, Writer},
};
use tempfile::TempDir;

use super::{Outcome, directory_in_memory};

/// Batches that are in tables, compacted; those that are in young tables; and those that are in the log alone.
const COMPACTED: u64 = 150;
const FLUSHED: u64 = 210;
const LAST: u64 = 290;
const PROFILES: u64 = 5;
const KEYS: u64 = 40;
const SECOND: u64 = 1_000_000_000;

/// All that a store holds, read in every way.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    /// What the rows of each table come to.
    tables: BTreeMap<&'static str, Digest>,
    /// What was read, and a hash of what that gave.
    reads: Vec<(String, u64)>,
}

/// The store.
pub(super) struct Original {
    directory: TempDir,
    seed: u64,
    /// What it held after each batch from [`FLUSHED`] on.
    contents: Vec<Content>,
}

impl Original {
    pub(super) fn make() -> Result<Original> {
        Self::with(1)
    }

    /// One whose values the seed decides.
    pub(super) fn with(seed: u64) -> Result<Original> {
        let directory = directory_in_memory()?;
        let (mut applier, reader) = open(directory.path())?;
        for sequence in 1..=COMPACTED {
            apply(&mut applier, seed, sequence)?;
        }
        applier.compact()?;
        for sequence in COMPACTED + 1..=FLUSHED {
            apply(&mut applier, seed, sequence)?;
        }
        drop((applier, reader));
        // Opening makes tables of the log.
        let (mut applier, reader) = open(directory.path())?;
        let mut contents = vec![Content::of(&reader)?];
        for sequence in FLUSHED + 1..=LAST {
            apply(&mut applier, seed, sequence)?;
            contents.push(Content::of(&reader)?);
        }
        Ok(Original { directory, seed, contents })
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Opens a copy, reads all of it, brings it up to date as the journal does, and reads all of it again. An error says what
    /// was not as it has to be although nobody noticed anything.
    pub(super) fn judge(&self, copy: &Path) -> Result<Outcome, String> {
        let Ok((mut applier, reader)) = open(copy) else { return Ok(Outcome::Refused) };
        match self.read(&mut applier, &reader) {
            Ok(Ok(())) => Ok(Outcome::Harmless),
            Ok(Err(wrong)) => Err(wrong),
            Err(_) => Ok(Outcome::Failed),
        }
    }

    /// The outer error is one that was noticed.
    fn read(&self, applier: &mut Applier, reader: &Reader) -> Result<Result<(), String>> {
        let stands = reader.snapshot().position()?.map_or(0, |position| position.sequence);
        let found = Content::of(reader)?;
        let expected = stands.checked_sub(FLUSHED).and_then(|place| self.contents.get(usize::try_from(place).ok()?));
        let Some(expected) = expected else { return Ok(Err(format!("it stands at {stands}"))) };
        if found != *expected {
            return Ok(Err(format!("at {stands}: {}", found.difference(expected))));
        }
        for sequence in stands + 1..=LAST {
            apply(applier, self.seed, sequence)?;
        }
        let found = Content::of(reader)?;
        let last = self.contents.last().context("there is a last one")?;
        Ok(if found == *last { Ok(()) } else { Err(format!("after the journal: {}", found.difference(last))) })
    }
}

fn open(directory: &Path) -> Result<(Applier, Reader)> {
    let settings = StoreSettings { memory_mib: 32, ..StoreSettings::default() };
    let (writer, reader): (Writer, Reader) = store::open(directory, &settings)?;
    Ok((Applier::new(writer, reader.clone())?, reader))
}

fn apply(applier: &mut Applier, seed: u64, sequence: u64) -> Result<()> {
    let batch = batch(seed, sequence)?;
    let position = Position {
        incarnation: 7,
        sequence,
        batch: batch.id,
        published: SECOND * sequence * 10,
        line: 1,
        terms: batch.terms.clone(),
    };
    let prepared = applier.prepare(&batch, &position)?;
    Ok(applier.commit(&prepared)?)
}

/// The batch of that sequence: the same from the same seed.
fn batch(seed: u64, sequence: u64) -> Result<JournalBatch> {
    let mut dice = StdRng::seed_from_u64((seed << 32) | sequence);
    let changes = (0..dice.random_range(1..8)).map(|index| change(sequence * 10 + index, &mut dice));
    Ok(JournalBatch {
        id: BatchId::from_bytes(u128::from(sequence).to_be_bytes()),
        rules: RULES,
        terms: Terms::default(),
        quotas: Vec::new(),
        changes: changes.collect::<Result<_>>()?,
    })
}

fn change(number: u64, dice: &mut StdRng) -> Result<StampedChange> {
    let mut keys: Vec<u64> = (0..dice.random_range(1..4)).map(|_| dice.random_range(0..KEYS)).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut ops = Vec::new();
    for place in keys {
        let mut value = vec![0_u8; dice.random_range(0..400)];
        dice.fill(&mut value[..]);
        ops.push(match dice.random_range(0..5) {
            0 => Operation::delete(key(place)?),
            _ => Operation::put(key(place)?, value, ContentType::octets()),
        });
    }
    let change = Change::new(id(number), None, ops)?;
    Ok(StampedChange {
        profile: profile(dice.random_range(0..PROFILES))?,
        device: Device::parse("laptop")?,
        encoding: Encoding::Postcard,
        stamp: Stamp {
            time: Timestamp::from_nanos(SECOND * number),
            origin: Origin { incarnation: 3, sequence: number },
        },
        digest: change.digest(),
        change,
    })
}

fn id(number: u64) -> ChangeId {
    ChangeId::from_bytes(u128::from(number).to_be_bytes())
}

fn key(place: u64) -> Result<Key> {
    Ok(Key::parse(format!("key {place}"))?)
}

fn profile(place: u64) -> Result<Profile> {
    format!("acme/user-{place}/mail").parse::<Profile>().map_err(|error| anyhow!("{error}"))
}

impl Content {
    fn of(reader: &Reader) -> Result<Content> {
        let snapshot = reader.snapshot();
        let digest = |table| Ok((table, snapshot.table_digest(table)?));
        let tables = TABLES.into_iter().map(digest).collect::<Result<_, StoreError>>()?;
        let mut reads = Vec::new();
        let mut read = |what: &str, bytes: &[u8]| reads.push((what.to_owned(), hash(bytes)));
        let keys: Vec<Key> = (0..KEYS).map(key).collect::<Result<_>>()?;
        for number in 0..PROFILES {
            let profile = ProfileKey::new(&profile(number)?);
            read("head", &snapshot.head(&profile)?.unwrap_or_default().write()?);
            snapshot.records_of(&profile, &keys, |index, found| {
                let row = found.map(|(_, row)| row.write()).transpose()?;
                read(&format!("single {index}"), &row.unwrap_or_default());
                Ok(ControlFlow::Continue(()))
            })?;
            snapshot.records(&profile, "", None, |found| {
                read(&format!("scanned {:?} {:?}", found.key()?, found.place), &found.row.write()?);
                Ok(ControlFlow::Continue(()))
            })?;
            for key in &keys {
                snapshot.versions(&profile, key, |place, row| {
                    read(&format!("version {key:?} {place:?}"), &row.write()?);
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            snapshot.feed(&profile, Revision::ZERO, |revision, key| {
                read(&format!("feed {revision:?} {key:?}"), &[]);
                Ok(ControlFlow::Continue(()))
            })?;
            // What was decided of one change of each batch, where it is of this profile.
            for sequence in 1..=LAST {
                let seen = snapshot.seen(&profile, id(sequence * 10))?;
                read(&format!("seen {sequence}"), &seen.map(|seen| seen.write()).transpose()?.unwrap_or_default());
            }
        }
        Ok(Content { tables, reads })
    }

    /// In what it differs, for people.
    fn difference(&self, expected: &Content) -> String {
        let tables = self.tables.iter().filter(|(table, digest)| expected.tables.get(*table) != Some(*digest));
        let tables: Vec<_> = tables.map(|(table, _)| *table).collect();
        let read = self.reads.iter().zip(&expected.reads).find(|(found, expected)| found != expected);
        let read = read.map(|(found, _)| &found.0);
        format!("tables {tables:?}, {} reads of {}, {read:?}", self.reads.len(), expected.reads.len())
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
