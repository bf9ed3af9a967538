//! `roam-faults`: a deployment of Roam, made of the programs that are shipped, under faults that really happen, and the
//! checkers of what it promises. `scripts/faults` builds and runs it; see docs/reliability.md.
//!
//! **Architecture Invariant:** it is never shipped, and nothing depends on it. Faults are made from outside: it kills, stops and
//! restarts processes, takes their disks and lines away and damages their files, as the world does; it reaches into no service.

mod act;
mod check;
mod disk;
mod fault;
mod flips;
mod history;
mod kill_points;
mod link;
mod planted;
mod quota;
mod settle;
mod site;
mod times;
mod workload;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    act::{Outcome, Script},
    check::Kind,
    fault::Hazard,
    kill_points::Kills,
    site::Shape,
    times::Times,
    workload::Load,
};

/// Which kinds of act there are: of which shape, and what its faults may do.
const ACTS: [(Shape, Hazard); 11] = [
    (Shape::Cluster, Hazard::Nothing),
    (Shape::Single, Hazard::BusLoses),
    (Shape::Cluster, Hazard::StoreDamaged),
    (Shape::Sharded, Hazard::Nothing),
    (Shape::Lazy, Hazard::BusLoses),
    (Shape::Single, Hazard::Nothing),
    (Shape::Cluster, Hazard::BusLoses),
    (Shape::Sharded, Hazard::BusLoses),
    (Shape::Cluster, Hazard::Nothing),
    (Shape::Single, Hazard::StoreDamaged),
    (Shape::Sharded, Hazard::StoreDamaged),
];

/// How many acts may pass until a planted bug is found, and how long the faults of each go on.
const PLANTED_ACTS: u64 = 4;
const PLANTED_LASTS: Duration = Duration::from_secs(8);

/// Breaks Roam, and shows that it keeps its promises.
#[derive(Debug, Parser)]
struct Options {
    /// How long, in minutes; at least one act is played to its end.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What decides everything that is left to chance. The threads and the network still do as they like.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the fault of this name; may be given again for more.
    #[arg(long)]
    only: Vec<String>,
    /// Lists the faults, and why some cannot be made here.
    #[arg(long)]
    list: bool,
    /// How long the faults of one act go on, in seconds.
    #[arg(long, default_value_t = 40)]
    act: u64,
    /// How many clients there are.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How many operations a second they aim at together.
    #[arg(long, default_value_t = 1_500.0)]
    rate: f64,
    /// Where roam-access-server and roam-storage are; beside this program unless it is said.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Plants bugs, all or that of a name, and shows that each is found. The services have to be built for it.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
    /// Has the services kill themselves at each point between two steps, all or that of a name. They have to be built for it.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "all")]
    kill_points: Option<String>,
    /// How often they do so at each point.
    #[arg(long, default_value_t = 100, requires = "kill_points")]
    hits: usize,
    /// Measures how soon parts are back and how soon is refused what cannot be taken: all, or what has that name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "all")]
    times: Option<String>,
    /// How large the store of a replica is made for that, in MB.
    #[arg(long, default_value_t = 1_000, requires = "times")]
    store_mb: u64,
    /// Flips bits in files of stores and servers: of all kinds, or of that one.
    #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = "all")]
    flips: Option<String>,
    /// In how many places of each kind of file of a store that is.
    #[arg(long, default_value_t = 1_000, requires = "flips")]
    places: usize,
    /// And in how many of the blocks of a server, each of which takes a quarter of a minute.
    #[arg(long, default_value_t = 36, requires = "flips")]
    blocks: usize,
    /// Only acts of this shape.
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// Where the history of what was found is left.
    #[arg(long, default_value = "target/faults")]
    leave: PathBuf,
}

/// The sums over all acts.
#[derive(Debug, Default)]
struct Sums {
    checked: usize,
    ok: usize,
    failed: usize,
    unknown: usize,
    found: BTreeMap<Kind, usize>,
    faults: BTreeMap<String, usize>,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "this program tells people what it found")]
async fn main() -> ExitCode {
    let options = Options::parse();
    match Box::pin(run(&options)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("roam-faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what is asked for. False: something is not as it has to be.
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this program tells people what it found")]
async fn run(options: &Options) -> Result<bool> {
    if options.list {
        list().into_iter().for_each(|line| println!("{line}"));
        return Ok(true);
    }
    if let Some(name) = &options.planted {
        return Box::pin(find_planted(options, name)).await;
    }
    if let Some(name) = &options.times {
        return Box::pin(measure(options, name)).await;
    }
    if let Some(kind) = &options.flips {
        return Box::pin(flip(options, kind)).await;
    }
    let sums = match &options.kill_points {
        Some(name) => Box::pin(kill_at_points(options, name)).await?,
        None => Box::pin(campaign(options)).await?,
    };
    eprintln!("{}", sums.faults());
    println!("{}", sums.line());
    Ok(sums.found.is_empty())
}

/// Measures times. False: one of them is not what it has to be.
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this program tells people what it measured")]
async fn measure(options: &Options, name: &str) -> Result<bool> {
    let times = Times { programs: programs(options)?, store_mb: options.store_mb };
    let figures = times.measure(name).await?;
    print!("{}", times::table(&figures));
    eprintln!("as JSON: {}", times::write(&figures, &options.leave)?.display());
    let missed = figures.iter().filter(|figure| !figure.is_met()).count();
    println!("figures={} missed={missed}", figures.len());
    Ok(missed == 0)
}

/// Flips bits. False: one of them did harm that nobody noticed.
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this program tells people what it found")]
async fn flip(options: &Options, kind: &str) -> Result<bool> {
    const BLOCKS: &str = "blk";
    let seed = options.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let wanted = |name: &str| kind == "all" || kind == name;
    let kinds: Vec<_> = flips::Kind::ALL.into_iter().filter(|known| wanted(&known.to_string())).collect();
    if kinds.is_empty() && !wanted(BLOCKS) {
        bail!("there is no kind {kind}, but wal, sst, manifest and {BLOCKS}");
    }
    eprintln!("seed {seed}");
    let mut harmed = 0;
    let mut tell = |name: &str, counts: &flips::Counts| {
        println!("{name}: {counts}");
        counts.wrong.iter().take(20).for_each(|wrong| eprintln!("  {wrong}"));
        harmed += counts.wrong.len();
    };
    for kind in kinds {
        let places = options.places;
        let counts = tokio::task::spawn_blocking(move || flips::sweep(kind, places, seed)).await??;
        tell(&kind.to_string(), &counts);
    }
    if wanted(BLOCKS) {
        tell(BLOCKS, &flips::blocks::sweep(&programs(options)?, options.blocks, seed).await?);
    }
    Ok(harmed == 0)
}

/// Every fault, one a line.
fn list() -> Vec<String> {
    let line = |fault: Box<dyn fault::Fault>| match fault::skipped(fault.as_ref()) {
        None => fault.name().to_owned(),
        Some(why) => format!("{} (skipped: {why})", fault.name()),
    };
    fault::all().into_iter().map(line).collect()
}

/// Plays acts until the time is over.
#[expect(clippy::print_stderr, reason = "this program tells people how far it is")]
async fn campaign(options: &Options) -> Result<Sums> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let names: Vec<&str> = fault::all().iter().map(|fault| fault.name()).collect();
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        bail!("there is no fault {unknown}; --list names them");
    }
    let until = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let (mut sums, mut dice) = (Sums::default(), StdRng::seed_from_u64(seed));
    let kinds = kinds_of_acts(options);
    if kinds.is_empty() {
        bail!("none of these faults can be made here; --list says why");
    }
    // Seeds that follow one another begin with another kind of act each.
    let first = usize::try_from(seed % kinds.len() as u64)?;
    eprintln!("seed {seed}");
    note_seed(&options.leave, seed)?;
    for number in 0.. {
        let (shape, hazard) = kinds[(first + number) % kinds.len()];
        let script = script(options, (shape, hazard), dice.random())?;
        let outcome = script.play().await?;
        eprintln!("act {number}, {shape:?}, {hazard:?}: {}", describe(&outcome));
        tell_findings(&outcome, &script, &options.leave.join(format!("{seed}-{number}")))?;
        sums.add(&outcome);
        if Instant::now() >= until {
            break;
        }
    }
    Ok(sums)
}

/// Keeps the seed, also of a campaign that is ended from outside before it could tell what it found.
fn note_seed(leave: &Path, seed: u64) -> Result<()> {
    fs::create_dir_all(leave)?;
    let mut seeds = File::options().create(true).append(true).open(leave.join("seeds"))?;
    Ok(writeln!(seeds, "{seed}")?)
}

/// Says what was found in an act, if anything was, and leaves behind what is needed to look into it.
#[expect(clippy::print_stderr, reason = "this program tells people what it found")]
fn tell_findings(outcome: &Outcome, script: &Script, directory: &Path) -> Result<()> {
    for text in outcome.findings.texts().take(20) {
        eprintln!("  {text}");
    }
    if !outcome.findings.is_empty() {
        outcome.leave_in(directory, script)?;
        eprintln!("  its history is in {}", directory.display());
    }
    Ok(())
}

/// Plays one act with each kill point, which lasts until it was hit often enough.
#[expect(clippy::print_stderr, reason = "this program tells people how far it is")]
async fn kill_at_points(options: &Options, name: &str) -> Result<Sums> {
    let points: Vec<_> = kill_points::ALL.iter().filter(|point| name == "all" || point.name == name).collect();
    if points.is_empty() {
        let names: Vec<_> = kill_points::ALL.iter().map(|point| point.name).collect();
        bail!("there is no kill point {name}, but {}", names.join(", "));
    }
    let mut sums = Sums::default();
    for point in points {
        let mut script = script(options, (point.shape, Hazard::Nothing), options.seed.unwrap_or(1))?;
        script.kills = Some(Kills { point: *point, wanted: options.hits });
        let outcome = script.play().await?;
        eprintln!("{}, {:?}: {}", point.name, point.shape, describe(&outcome));
        tell_findings(&outcome, &script, &options.leave.join(point.name))?;
        sums.add(&outcome);
    }
    Ok(sums)
}

/// Plays acts with each planted bug until it is found, at most so many. Says whether all were.
#[expect(clippy::print_stdout, reason = "this program tells people what it found")]
async fn find_planted(options: &Options, name: &str) -> Result<bool> {
    let first = options.seed.unwrap_or(1);
    let bugs: Vec<_> = planted::ALL.iter().filter(|bug| name == "all" || bug.name == name).collect();
    if bugs.is_empty() {
        bail!("there is no planted bug {name}");
    }
    let mut missed = 0;
    for bug in &bugs {
        let mut caught = None;
        for seed in first..first + PLANTED_ACTS {
            let mut script = script(options, (bug.shape, bug.hazard), seed)?;
            script.only = bug.faults.iter().map(ToString::to_string).collect();
            (script.lasts, script.planted) = (PLANTED_LASTS, Some(bug.name.to_owned()));
            caught = script.play().await?.findings.texts().next().map(|text| (seed, text));
            if caught.is_some() {
                break;
            }
        }
        match &caught {
            Some((seed, text)) => println!("{}: caught by seed {seed}: {text}", bug.name),
            None => println!("{}: MISSED", bug.name),
        }
        missed += usize::from(caught.is_none());
    }
    println!("planted={} caught={} missed={missed}", bugs.len(), bugs.len() - missed);
    Ok(missed == 0)
}

/// Where the programs are that make up a deployment.
fn programs(options: &Options) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.to_owned());
    options.programs.clone().or_else(beside).context("where are the programs?")
}

fn script(options: &Options, (shape, hazard): (Shape, Hazard), seed: u64) -> Result<Script> {
    Ok(Script {
        seed,
        shape,
        hazard,
        only: options.only.clone(),
        lasts: Duration::from_secs(options.act),
        load: Load { clients: options.clients, rate: options.rate },
        programs: programs(options)?,
        planted: None,
        kills: None,
    })
}

/// The kinds of act in which the faults that are asked for can be made.
fn kinds_of_acts(options: &Options) -> Vec<(Shape, Hazard)> {
    let wanted = |(shape, _): &(Shape, Hazard)| options.shape.is_none_or(|wanted| wanted == *shape);
    let possible = |(shape, hazard): &(Shape, Hazard)| {
        options.only.is_empty()
            || fault::all().iter().any(|fault| {
                options.only.iter().any(|only| only == fault.name())
                    && fault.shapes().contains(shape)
                    && fault.hazard(*shape) == *hazard
                    && fault::skipped(fault.as_ref()).is_none()
            })
    };
    let mut kinds: Vec<_> = ACTS.into_iter().filter(wanted).filter(possible).collect();
    kinds.dedup();
    kinds
}

fn describe(outcome: &Outcome) -> String {
    let (ok, failed, _) = outcome.ended;
    let faults: usize = outcome.faults.values().sum();
    let verdict = if outcome.findings.is_empty() { "nothing found" } else { "PROMISES BROKEN" };
    let resumed = match outcome.resumed() {
        0 => String::new(),
        resumed => format!(" (a replica had to resume {resumed} times)"),
    };
    format!(
        "{faults} faults{resumed}, {ok} ok, {failed} failed, {} unknown, {} checked, {:.0} s: {verdict}",
        outcome.unknown,
        outcome.findings.checked,
        outcome.took.as_secs_f64()
    )
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        let (ok, failed, _) = outcome.ended;
        self.checked += outcome.findings.checked;
        // A change whose outcome was found out in the end was unknown to its client all the same.
        self.unknown += outcome.unknown;
        self.ok += ok.saturating_sub(outcome.unknown);
        self.failed += failed;
        for kind in [Kind::Lost, Kind::Stale, Kind::Duplicated, Kind::Disordered, Kind::Crossed] {
            let count = outcome.findings.count(kind);
            if count > 0 {
                *self.found.entry(kind).or_default() += count;
            }
        }
        for (name, count) in &outcome.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
    }

    fn faults(&self) -> String {
        let skipped: Vec<_> = list().into_iter().filter(|line| line.contains("skipped")).collect();
        let made: Vec<_> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let total: usize = self.faults.values().sum();
        format!(
            "{total} faults of {} kinds: {}\n{} kinds skipped{}{}",
            self.faults.len(),
            made.join(", "),
            skipped.len(),
            if skipped.is_empty() { "" } else { ": " },
            skipped.join(", ")
        )
    }

    /// The last line.
    fn line(&self) -> String {
        let found = |kind| self.found.get(&kind).copied().unwrap_or_default();
        format!(
            "checked={} ok={} failed={} unknown={} lost={} stale={} duplicated={} disordered={} crossed={}",
            self.checked,
            self.ok,
            self.failed,
            self.unknown,
            found(Kind::Lost),
            found(Kind::Stale),
            found(Kind::Duplicated),
            found(Kind::Disordered),
            found(Kind::Crossed)
        )
    }
}
