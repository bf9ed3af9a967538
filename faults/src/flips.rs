//! Flips: every so many bytes of the files of a store one bit is flipped, in a copy, which is then opened, read in every way in
//! which a replica reads, brought up to date from the journal, and read again. Either the damage is noticed, or everything is
//! exactly as it was: there is no third. All in one process, by the code of the replica itself; `blocks` does it to a
//! server's files, by the server.

pub(crate) mod blocks;
mod original;

use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use self::original::Original;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The write-ahead log.
    Wal,
    /// The tables.
    Sst,
    /// The list of the tables.
    Manifest,
}

/// What became of the flips in files of a kind.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The store did not open.
    pub(crate) refused: usize,
    /// It opened, and reading or going on failed.
    pub(crate) failed: usize,
    /// All was as it was, or the last batches came from the journal again.
    pub(crate) harmless: usize,
    /// What was not as it was, and nobody noticed.
    pub(crate) wrong: Vec<String>,
}

/// How one flip was noticed, or that it did no harm.
enum Outcome {
    Refused,
    Failed,
    Harmless,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Wal, Kind::Sst, Kind::Manifest];

    fn is_of(self, name: &str) -> bool {
        match self {
            Self::Wal => name.ends_with(".log"),
            Self::Sst => name.ends_with(".sst"),
            Self::Manifest => name.starts_with("MANIFEST-"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wal => "wal",
            Self::Sst => "sst",
            Self::Manifest => "manifest",
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, failed, harmless, wrong } = self;
        let total = refused + failed + harmless + wrong.len();
        let detected = refused + failed;
        write!(
            f,
            "flipped={total} detected={detected} (at opening {refused}) harmless={harmless} wrong={}",
            wrong.len()
        )
    }
}

/// Flips a bit in so many places of the files of a kind, spread evenly; the seed decides which bits.
pub(crate) fn sweep(kind: Kind, places: usize, seed: u64) -> Result<Counts> {
    let original = Original::make()?;
    let mut files = files(original.directory(), kind)?;
    files.sort();
    let sizes: Vec<u64> = files.iter().map(|file| Ok(fs::metadata(file)?.len())).collect::<Result<_>>()?;
    let total: u64 = sizes.iter().sum();
    let mut dice = StdRng::seed_from_u64(seed);
    let flips: Vec<(usize, u64, u8)> = (0..places as u64)
        .map(|place| {
            let at = total * place / places as u64 + dice.random_range(0..(total / places as u64).max(1));
            let (file, offset) = locate(&sizes, at.min(total - 1));
            (file, offset, dice.random_range(0..8))
        })
        .collect();
    let counts = Mutex::new(Counts::default());
    let next = Mutex::new(flips.iter());
    let work = || -> Result<()> {
        loop {
            let Some((file, offset, bit)) = lock(&next).next().copied() else { return Ok(()) };
            let outcome = flipped(&original, &files[file], offset, bit)?;
            let mut counts = lock(&counts);
            match outcome {
                Ok(Outcome::Refused) => counts.refused += 1,
                Ok(Outcome::Failed) => counts.failed += 1,
                Ok(Outcome::Harmless) => counts.harmless += 1,
                Err(wrong) => {
                    let name = files[file].file_name().unwrap_or_default().to_string_lossy();
                    counts.wrong.push(format!("{name}, byte {offset} of {}, bit {bit}: {wrong}", sizes[file]));
                }
            }
        }
    };
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..thread::available_parallelism()?.get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().ok().context("a worker panicked")??;
        }
        Ok(())
    })?;
    Ok(counts.into_inner().unwrap_or_default())
}

/// In which file a byte of all of them is, and where in it.
fn locate(sizes: &[u64], mut at: u64) -> (usize, u64) {
    for (file, size) in sizes.iter().enumerate() {
        if at < *size {
            return (file, at);
        }
        at -= size;
    }
    (0, 0)
}

/// What becomes of a copy with one flipped bit. An inner error says what is wrong and was not noticed.
fn flipped(original: &Original, file: &Path, offset: u64, bit: u8) -> Result<Result<Outcome, String>> {
    let copy = copy_without(original.directory(), file)?;
    let mut bytes = fs::read(file)?;
    bytes[usize::try_from(offset)?] ^= 1 << bit;
    fs::write(copy.path().join(file.file_name().context("a file has a name")?), bytes)?;
    let judged = catch_unwind(AssertUnwindSafe(|| original.judge(copy.path())));
    Ok(judged.unwrap_or_else(|_| Err("it panicked".to_owned())))
}

/// A copy of a directory but for one file. Tables are never written to, and so may be the same.
fn copy_without(directory: &Path, without: &Path) -> Result<TempDir> {
    let copy = directory_in_memory()?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let to = copy.path().join(path.file_name().context("a file has a name")?);
        if path == without {
            continue;
        }
        if path.extension().is_none_or(|ending| ending != "sst") || fs::hard_link(&path, &to).is_err() {
            fs::copy(&path, &to)?;
        }
    }
    Ok(copy)
}

/// A directory that needs no disk, where there is such a place: each copy is synced many times, and none has to last.
fn directory_in_memory() -> Result<TempDir> {
    const MEMORY: &str = "/dev/shm";
    let place = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
    Ok(TempDir::with_prefix_in("roam-flips-", place)?)
}

fn files(directory: &Path, kind: Kind) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if kind.is_of(&entry.file_name().to_string_lossy()) && entry.metadata()?.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// In how many places of each kind of file: `scripts/faults --flips` does it in a thousand.
    const PLACES: usize = 50;

    fn check(kind: Kind) {
        let seed = rand::random();
        let counts = sweep(kind, PLACES, seed).unwrap();
        println!("seed {seed}: {kind}: {counts}");
        assert_eq!(counts.wrong, [""; 0], "seed {seed}");
        // One that notices nothing would find everything harmless.
        assert!(counts.refused + counts.failed > PLACES / 2, "seed {seed}: {counts}");
    }

    #[test]
    fn a_flipped_bit_in_the_log_is_noticed_or_harmless() {
        check(Kind::Wal);
    }

    #[test]
    fn a_flipped_bit_in_a_table_is_noticed_or_harmless() {
        check(Kind::Sst);
    }

    #[test]
    fn a_flipped_bit_in_the_manifest_is_noticed_or_harmless() {
        check(Kind::Manifest);
    }

    #[test]
    fn a_copy_without_damage_is_as_the_original() {
        let original = Original::make().unwrap();
        let log = files(original.directory(), Kind::Wal).unwrap().pop().unwrap();
        let copy = copy_without(original.directory(), &log).unwrap();
        fs::copy(&log, copy.path().join(log.file_name().unwrap())).unwrap();
        assert!(matches!(original.judge(copy.path()), Ok(Outcome::Harmless)));
    }

    #[test]
    fn a_value_that_is_not_as_it_was_is_noticed() {
        let original = Original::make().unwrap();
        let other = Original::with(2).unwrap();
        assert!(original.judge(other.directory()).is_err());
    }
}
