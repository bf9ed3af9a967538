//! What applying alone costs: one writer, batches of 90 changes of one operation or some, 128-byte values, every batch fsynced.
//! First every key of every profile is written once, then keys at random are written again. Prints CPU per change.
//! It measures and asserts nothing.
//!
//! `cargo run --release -p roam-storage --example apply -- [PROFILES] [KEYS] [CHANGES] [MEMORY_MIB] [OPERATIONS]`

use std::{
    env, fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::Context;
use roam_schemas::{
    BatchId, Change, ChangeId, ContentType, Device, Encoding, JournalBatch, Key, Operation, Origin, Profile, RULES,
    Stamp, StampedChange, Terms, Timestamp,
};
use roam_storage::{
    apply::Applier,
    store::{self, Position, StoreSettings},
};
use rustix::time::{ClockId, clock_gettime};

/// How many changes a batch holds: what one append carries under load.
const BATCH: u64 = 90;
const VALUE_BYTES: usize = 128;
/// The kernel counts the CPU time of a process in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (profiles, keys) = (next(10_000)?, next(100)?);
    let (changes, memory_mib, operations) = (next(1_000_000)?, next(128)?, next(1)?);
    let directory = tempfile::tempdir()?;
    let settings = StoreSettings { memory_mib: usize::try_from(memory_mib)?, ..StoreSettings::default() };
    let (writer, reader) = store::open(directory.path(), &settings)?;
    let (applier, random) = (Applier::new(writer, reader)?, Random(0x9E37_79B9_7F4A_7C15));
    let mut bench = Bench { applier, made: 0, random, keys, operations };

    println!(
        "{profiles} profiles of {keys} keys, batches of {BATCH}, {VALUE_BYTES} B, {memory_mib} MiB, operations {operations}"
    );
    let first = profiles * keys.div_ceil(operations);
    bench.run("first writes", first, |made, _| (made % profiles, made / profiles * operations))?;
    bench.run("overwrites", changes, |_, random| (random.below(profiles), random.below(keys)))?;
    Ok(())
}

struct Bench {
    applier: Applier,
    made: u64,
    random: Random,
    /// How many keys a profile has.
    keys: u64,
    /// How many operations a change has, of keys that follow each other.
    operations: u64,
}

impl Bench {
    fn run(&mut self, name: &str, changes: u64, choose: impl Fn(u64, &mut Random) -> (u64, u64)) -> anyhow::Result<()> {
        let (mut decide, mut commit) = (Spent::default(), Spent::default());
        let (began, process) = (Instant::now(), process_cpu()?);
        let end = self.made + changes;
        let batches = changes.div_ceil(BATCH);
        while self.made < end {
            let (position, batch) = self.batch((end - self.made).min(BATCH), &choose)?;
            let before = Spent::now();
            let prepared = self.applier.prepare(&batch, &position)?;
            let between = Spent::now();
            self.applier.commit(&prepared)?;
            let after = Spent::now();
            decide.add(before, between);
            commit.add(between, after);
        }
        let wall = began.elapsed();
        let all = process_cpu()? - process;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / changes as f64;
        println!(
            "{name}: {changes} changes in {batches} batches, {:.1} s, {:.0} changes/s",
            wall.as_secs_f64(),
            changes as f64 / wall.as_secs_f64()
        );
        println!(
            "  us of CPU a change: {:.1} applying (decide {:.1} = {:.0} %, commit {:.1}), {:.1} the process with its \
             compactions and this bench",
            each(decide.cpu + commit.cpu),
            each(decide.cpu),
            100.0 * decide.cpu.as_secs_f64() / (decide.cpu + commit.cpu).as_secs_f64(),
            each(commit.cpu),
            each(all),
        );
        println!("  us of time a change: decide {:.1}, commit {:.1}", each(decide.wall), each(commit.wall));
        Ok(())
    }

    fn batch(
        &mut self,
        changes: u64,
        choose: &impl Fn(u64, &mut Random) -> (u64, u64),
    ) -> anyhow::Result<(Position, JournalBatch)> {
        let sequence = self.made / BATCH + 1;
        let id = BatchId::from_bytes((0xBA7C_u128 << 64 | u128::from(sequence)).to_be_bytes());
        let changes = (0..changes).map(|_| self.change(choose)).collect::<anyhow::Result<Vec<_>>>()?;
        let batch = JournalBatch { id, rules: RULES, terms: Terms::default(), quotas: Vec::new(), changes };
        let position = Position { incarnation: 1, sequence, batch: id, published: 0, line: 1, terms: Terms::default() };
        Ok((position, batch))
    }

    fn change(&mut self, choose: &impl Fn(u64, &mut Random) -> (u64, u64)) -> anyhow::Result<StampedChange> {
        let (profile, key) = choose(self.made, &mut self.random);
        self.made += 1;
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + self.made * 30_000);
        // As in a UUIDv7: 48 bits of milliseconds, then randomness.
        let random = u128::from(self.random.next()) << 16;
        let id = ChangeId::from_bytes((u128::from(time.as_nanos() / 1_000_000) << 80 | random).to_be_bytes());
        let mut put = |key| {
            let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| self.random.next().to_be_bytes()).collect();
            Ok(Operation::put(Key::parse(format!("settings/{key:04}"))?, value, ContentType::octets()))
        };
        let puts = (key..key + self.operations).map(|key| put(key % self.keys)).collect::<anyhow::Result<_>>()?;
        let change = Change::new(id, None, puts)?;
        Ok(StampedChange {
            profile: format!("acme/user{profile:06}@example.com/mail").parse::<Profile>()?,
            device: Device::parse("laptop")?,
            encoding: Encoding::Postcard,
            stamp: Stamp { time, origin: Origin { incarnation: 1, sequence: self.made } },
            digest: change.digest(),
            change,
        })
    }
}

/// Time of the clock and of the CPU, of the thread that asks.
#[derive(Default, Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

impl Spent {
    fn now() -> Self {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let cpu = clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default();
        Self { wall: BEGAN.elapsed(), cpu }
    }

    fn add(&mut self, from: Self, to: Self) {
        self.wall += to.wall - from.wall;
        self.cpu += to.cpu - from.cpu;
    }
}

/// CPU time of all threads of the process: fields 14 and 15 of `/proc/self/stat`.
fn process_cpu() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat").context("this bench runs on Linux only")?;
    let (_, behind_the_name) = text.rsplit_once(')').context("stat has no name")?;
    let fields: Vec<&str> = behind_the_name.split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(TICK * ticks)
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
