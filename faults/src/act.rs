//! An act: one site, one workload, a schedule of faults that a seed decides, alone and two at a time; then all is healed,
//! everything settles, and the history is checked. Acts know nothing of each other.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::time::timeout;

use crate::{
    check::{Findings, Given, check, outcomes},
    fault::{self, Fault, Hazard, Need, Stage},
    history::{History, Recorder},
    kill_points::Kills,
    settle::settle,
    site::{Plan, Shape, Site},
    workload::{Load, Workload},
};

/// How long injecting or healing a fault may take.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// How long the site has to get ready once all is healed.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the workload goes on before the first fault, and after the last one.
const CALM: Duration = Duration::from_secs(2);
/// How often a fault comes with another one.
const MIXED: f64 = 0.3;
/// How often the clocks of an act can be set, which slows all of it down.
const WITH_CLOCKS: f64 = 0.3;

/// What an act is to be.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    /// What the faults of this act may do to what is taken for granted.
    pub(crate) hazard: Hazard,
    /// Only the faults of these names; all if there are none.
    pub(crate) only: Vec<String>,
    pub(crate) lasts: Duration,
    pub(crate) load: Load,
    pub(crate) programs: PathBuf,
    pub(crate) planted: Option<String>,
    /// The point at which services kill themselves, instead of all other faults.
    pub(crate) kills: Option<Kills>,
}

/// What came of an act.
pub(crate) struct Outcome {
    pub(crate) history: History,
    pub(crate) findings: Findings,
    /// How often each fault was made.
    pub(crate) faults: BTreeMap<String, usize>,
    /// Operations that ended well, were refused, and whose outcome was not known.
    pub(crate) ended: (usize, usize, usize),
    /// How many changes were of unknown outcome until all was healed.
    pub(crate) unknown: usize,
    pub(crate) took: Duration,
    /// Where the processes log.
    site: Site,
}

impl Script {
    /// The faults that can be made in it, in the order in which they come.
    pub(crate) fn faults(&self, dice: &mut StdRng) -> Vec<Box<dyn Fault>> {
        let clocks = !self.only.is_empty() || dice.random_bool(WITH_CLOCKS);
        let mut faults: Vec<_> = fault::all().into_iter().filter(|fault| self.takes(fault.as_ref(), clocks)).collect();
        faults.shuffle(dice);
        // What this act is for comes first, since it may not get to the end of the list.
        faults.sort_by_cached_key(|fault| fault.hazard(self.shape) == Hazard::Nothing && dice.random_bool(0.7));
        faults
    }

    fn takes(&self, fault: &dyn Fault, clocks: bool) -> bool {
        let hazard = fault.hazard(self.shape);
        (hazard == Hazard::Nothing || hazard == self.hazard)
            && fault.shapes().contains(&self.shape)
            && fault::skipped(fault).is_none()
            && (clocks || !fault.needs().contains(&Need::Clocks))
            && (self.only.is_empty() || self.only.iter().any(|name| name == fault.name()))
    }

    /// Plays the act.
    pub(crate) async fn play(&self) -> Result<Outcome> {
        let began = Instant::now();
        let mut dice = StdRng::seed_from_u64(self.seed);
        let mut faults = if self.kills.is_some() { Vec::new() } else { self.faults(&mut dice) };
        let needed = |need| faults.iter().any(|fault| fault.needs().contains(&need));
        let plan = Plan {
            disks: needed(Need::Root),
            clocks: fault::clock_library().filter(|_| needed(Need::Clocks)),
            planted: self.planted.clone(),
            ..Plan::new(self.shape, self.programs.clone())
        };
        let mut site = Site::start(plan).await.context("the site does not start")?;
        site.may_begin_anew = self.hazard == Hazard::StoreDamaged;
        site.may_resume = self.hazard == Hazard::BusLoses && self.shape.replicas() > 1;
        let recorder = Recorder::new();
        let mut workload = Workload::start(&site, self.load, recorder.clone(), &mut dice).await?;
        let mut stage = Stage { site, shared: Arc::clone(&workload.shared), dice };
        stage.site.supervise_for(CALM).await;
        let made = match &self.kills {
            Some(kills) => kills.make(&mut stage).await?,
            None => self.run_faults(&mut stage, &mut faults).await,
        };
        if let Err(error) = stage.site.ready(READY_WITHIN).await {
            recorder.failure(format!("the site does not recover: {error:#}"));
        }
        stage.site.supervise_for(CALM).await;
        workload.stop_writing().await;
        let unknown = outcomes(&recorder.history()).2;
        if let Err(error) = settle(&mut stage.site, &stage.shared, self.load.clients).await {
            recorder.failure(format!("the end cannot be reached: {error:#}"));
        }
        workload.stop().await;
        let history = recorder.take();
        let given = Given { bus_lost: self.hazard == Hazard::BusLoses, replicas: self.shape.replicas() };
        let findings = check(&history, given);
        let ended = outcomes(&history);
        Ok(Outcome { findings, faults: made, ended, unknown, took: began.elapsed(), history, site: stage.site })
    }

    /// Makes one fault after the other, some of them beside another one, until the time is over.
    async fn run_faults(&self, stage: &mut Stage, faults: &mut [Box<dyn Fault>]) -> BTreeMap<String, usize> {
        let mut made = BTreeMap::new();
        let until = Instant::now() + self.lasts;
        let mut next = 0;
        while Instant::now() < until && !faults.is_empty() {
            let mut chosen = vec![next % faults.len()];
            next += 1;
            if faults.len() > 1 && stage.dice.random_bool(MIXED) {
                chosen.push(next % faults.len());
                next += 1;
            }
            let mut longest = 0;
            for index in &chosen {
                let fault = &mut faults[*index];
                let (least, most) = fault.lasts();
                longest = longest.max(stage.dice.random_range(least..=most));
                note(stage, fault.name(), "");
                *made.entry(fault.name().to_owned()).or_default() += 1;
                let name = fault.name();
                let done = timeout(STEP_WITHIN, fault.inject(stage)).await;
                note_trouble(stage, name, "is not made", done);
            }
            supervise(stage, Duration::from_millis(longest)).await;
            for index in chosen.iter().rev() {
                let fault = &mut faults[*index];
                let name = fault.name();
                let done = timeout(STEP_WITHIN, fault.heal(stage)).await;
                note_trouble(stage, name, "is not healed", done);
                note(stage, name, " is healed");
            }
            let rest = stage.dice.random_range(300..1_500);
            supervise(stage, Duration::from_millis(rest)).await;
        }
        made
    }
}

impl Outcome {
    /// How often a replica had to be told that it counts.
    pub(crate) fn resumed(&self) -> usize {
        self.site.resumed
    }

    /// Leaves behind all that is needed to look into what was found.
    pub(crate) fn leave_in(&self, directory: &std::path::Path, script: &Script) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        self.history.write_to(&directory.join("history.ndjson"))?;
        let texts: Vec<String> = self.findings.texts().collect();
        std::fs::write(directory.join("findings.txt"), format!("{script:#?}\n\n{}\n", texts.join("\n")))?;
        self.site.keep_logs(directory)
    }
}

async fn supervise(stage: &mut Stage, duration: Duration) {
    for what in stage.site.supervise_for(duration).await {
        note(stage, &what, "");
    }
}

fn note(stage: &Stage, what: &str, how: &str) {
    stage.shared.recorder.fault(&format!("{what}{how}"));
}

/// A fault that is not made or not healed is no finding by itself: what comes of it is, if anything does.
fn note_trouble(stage: &Stage, name: &str, what: &str, done: Result<Result<()>, tokio::time::error::Elapsed>) {
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => note(stage, name, &format!(" {what}: {error:#}")),
        Err(_) => note(stage, name, &format!(" {what} within {STEP_WITHIN:?}")),
    }
}
