//! The checkers: what the promises of Roam mean for one history. Each is linear in the history but for sorting, pure, and has
//! been shown to object to bad histories that were made for it.

mod crossed;
mod effects;
mod expectations;
#[cfg(test)]
mod forge;
mod register;
mod session;
mod set;
mod timeline;
mod watches;

use std::fmt;

use crate::{
    history::{History, Told, Write},
    workload::POSTED,
};
pub(crate) use timeline::Timeline;

/// How a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// What had a receipt is gone, what was accepted was never decided, or somebody never heard of it.
    Lost,
    /// A reader was shown an older state than it may be.
    Stale,
    /// A change took effect, or was told of, twice.
    Duplicated,
    /// Revisions, times, expectations or values are not as they can be in any order.
    Disordered,
    /// Something of one profile or device reached another.
    Crossed,
}

/// What may be taken for granted in an act.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    /// The bus lost what it had acked: what has a PubAck and no receipt may be gone.
    pub(crate) bus_lost: bool,
    /// How many replicas hold each profile. A single one answers with everything that has a receipt, also without being asked to.
    pub(crate) replicas: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<(Kind, String)>,
    /// How many operations and events were looked at.
    pub(crate) checked: usize,
}

impl Findings {
    fn object(&mut self, kind: Kind, text: impl fmt::Display) {
        self.found.push((kind, text.to_string()));
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.found.iter().filter(|(found, _)| *found == kind).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.found.iter().map(|(kind, text)| format!("{kind:?}: {text}"))
    }
}

/// Looks at all of a history.
pub(crate) fn check(history: &History, given: Given) -> Findings {
    let mut findings = Findings::default();
    let profiles = history.writes.iter().map(|write| write.profile + 1).max().unwrap_or_default();
    let timelines: Vec<Timeline> =
        (0..profiles).map(|profile| Timeline::new(history, profile, &mut findings)).collect();
    effects::check(history, &timelines, &mut findings);
    expectations::check(history, &timelines, given, &mut findings);
    register::check(history, &timelines, given, &mut findings);
    session::check(history, given, &mut findings);
    watches::check(history, &timelines, &mut findings);
    set::check(history, &timelines, given, &mut findings);
    crossed::check(history, &mut findings);
    findings.checked = history.writes.len() + history.reads.len() + history.heard.len() + history.wired.len();
    findings
}

/// Whether nobody waits for the receipt of a change.
fn is_posted(write: &Write) -> bool {
    write.ops.iter().any(|op| op.key.starts_with(POSTED))
}

/// How many operations of clients ended so: with a receipt or an answer, refused, and unknown.
pub(crate) fn outcomes(history: &History) -> (usize, usize, usize) {
    let told = |wanted: fn(&Told) -> bool| history.writes.iter().filter(|write| wanted(&write.told)).count();
    let answered = history.reads.iter().filter(|read| read.answer.is_some()).count();
    let ok = answered + told(|told| matches!(told, Told::Saved(_)));
    let failed = history.reads.len() - answered + told(|told| matches!(told, Told::Refused(_)));
    let unknown = history.writes.iter().filter(|write| matches!(write.told, Told::Unknown { .. }) && !is_posted(write));
    (ok, failed, unknown.count())
}
