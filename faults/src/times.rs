//! Times: how soon a part is back after it was killed, how soon what is too much is refused, how soon a full disk is told of.
//! Each is measured on a deployment of its own, of the programs that are shipped, and has a goal. Nothing is checked of what
//! else is promised: that is what acts are for.

mod access_server;
mod full_disk;
mod leader;
mod overload;
mod replica;
mod traffic;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::site::{Member, Site};

const POLL: Duration = Duration::from_millis(5);

/// What is measured, and on which machine.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    /// Where the programs are.
    pub(crate) programs: PathBuf,
    /// How large the store of a replica is made before it is killed, in MB.
    pub(crate) store_mb: u64,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// It is told for what it is worth.
    None,
}

/// A figure. Of several it is the worst.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Of which measurement.
    pub(crate) of: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) goal: Goal,
}

/// The figures of one measurement, while they are gathered.
struct Figures {
    of: &'static str,
    all: Vec<Figure>,
}

type Measuring<'a> = LocalBoxFuture<'a, Result<Vec<Figure>>>;

/// A measurement: its name, and how it is made.
type Measurement = (&'static str, for<'a> fn(&'a Times) -> Measuring<'a>);

const ALL: [Measurement; 5] = [
    ("access-server", |times| Box::pin(access_server::measure(times))),
    ("replica", |times| Box::pin(replica::measure(times))),
    ("leader", |times| Box::pin(leader::measure(times))),
    ("overload", |times| Box::pin(overload::measure(times))),
    ("full-disk", |times| Box::pin(full_disk::measure(times))),
];

impl Times {
    /// Measures all, or what has that name; what cannot be measured on this machine is told and left out.
    #[expect(clippy::print_stderr, reason = "this program tells people how far it is")]
    pub(crate) async fn measure(&self, name: &str) -> Result<Vec<Figure>> {
        let chosen: Vec<_> = ALL.iter().filter(|(known, _)| name == "all" || name == *known).collect();
        if chosen.is_empty() {
            bail!("there is no measurement {name}, but {}", ALL.map(|(name, _)| name).join(", "));
        }
        let mut figures = Vec::new();
        for (name, measure) in chosen {
            eprintln!("measuring: {name}");
            figures.extend(measure(self).await.with_context(|| format!("{name} cannot be measured"))?);
        }
        Ok(figures)
    }
}

impl Goal {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::None => true,
        }
    }
}

impl Figure {
    pub(crate) fn is_met(&self) -> bool {
        self.goal.is_met(self.value)
    }
}

impl Figures {
    fn of(name: &'static str) -> Figures {
        Figures { of: name, all: Vec::new() }
    }

    fn add(&mut self, what: &'static str, unit: &'static str, value: f64, goal: Goal) {
        self.all.push(Figure { of: self.of, what, unit, value, goal });
    }

    /// A time, in seconds.
    fn time(&mut self, what: &'static str, value: Duration, goal: Goal) {
        self.add(what, "s", value.as_secs_f64(), goal);
    }

    /// How many there were.
    fn count(&mut self, what: &'static str, count: usize, goal: Goal) {
        self.add(what, "", count as f64, goal);
    }
}

/// The figures as a table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut table = format!("{:<14} {:<58} {:>10}  {:<14}\n", "measured", "", "", "goal");
    for figure in figures {
        let goal = match figure.goal {
            Goal::AtMost(most) => format!("<= {most} {}", figure.unit),
            Goal::AtLeast(least) => format!(">= {least} {}", figure.unit),
            Goal::None => String::new(),
        };
        let verdict = if figure.is_met() { "" } else { "MISSED" };
        let value = format!("{} {}", round(figure.value), figure.unit);
        let _ = writeln!(table, "{:<14} {:<58} {value:>10}  {goal:<14} {verdict}", figure.of, figure.what);
    }
    table
}

/// Three digits that count.
fn round(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

/// Writes the figures down as JSON.
pub(crate) fn write(figures: &[Figure], into: &Path) -> Result<PathBuf> {
    fs::create_dir_all(into)?;
    let file = into.join("times.json");
    fs::write(&file, serde_json::to_vec_pretty(figures)?)?;
    Ok(file)
}

/// Waits for something, and says how long after `since` it was.
async fn until<T>(
    what: &str,
    since: Instant,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<(T, Duration)> {
    loop {
        if let Some(found) = look().await {
            return Ok((found, since.elapsed()));
        }
        if since.elapsed() > within {
            bail!("after {within:?} it is not so that {what}");
        }
        sleep(POLL).await;
    }
}

/// Waits until a service is ready, and says how long after `since` that was.
async fn ready(member: &mut Member, since: Instant, within: Duration) -> Result<Duration> {
    let what = format!("{} is ready", member.part.name());
    Ok(until(&what, since, within, async || member.is_ready().await.ok()).await?.1)
}

/// The numbers of the processes of all services, which differ once one was started again.
fn processes(site: &mut Site) -> Vec<Option<rustix::process::Pid>> {
    site.members().map(|member| member.part.pid()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_edge() {
        assert!(Goal::AtMost(1.0).is_met(1.0) && !Goal::AtMost(1.0).is_met(1.01));
        assert!(Goal::AtLeast(80.0).is_met(80.0) && !Goal::AtLeast(80.0).is_met(79.9));
        assert!(Goal::None.is_met(f64::MAX));
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let mut figures = Figures::of("replica");
        figures.time("serves again", Duration::from_millis(2_500), Goal::AtMost(2.0));
        figures.count("lost", 0, Goal::AtMost(0.0));
        let table = table(&figures.all);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].contains("2.500 s") && lines[1].ends_with("MISSED"), "{table}");
        assert!(lines[2].contains(" 0 ") && !lines[2].contains("MISSED"), "{table}");
    }
}
