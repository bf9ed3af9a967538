//! What a restore did, or would do, for people and for programs.

use std::time::Duration;

use roam_schemas::{Key, Revision};
use serde::Serialize;

use super::{
    plan::{Plan, Question},
    send::Restored,
};
use crate::{difference::Difference, failure::Failure, output::Output, show};

/// What a restore did, or would do.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The revision or the time to which keys were brought back.
    at: String,
    /// Whether nothing was written.
    dry_run: bool,
    /// How many keys were written.
    put: u64,
    /// How many keys were deleted.
    deleted: u64,
    /// How many keys had been written since, and were as before all the same.
    unchanged: u64,
    /// How many changes it took.
    changes: u64,
    /// The profile's revision after them; none if nothing was written.
    revision: Option<Revision>,
    /// Keys that stay as they are: what they were is not kept.
    not_kept: Vec<Key>,
    /// Keys that stay as they are: somebody wrote them meanwhile.
    changed_meanwhile: Vec<Key>,
    /// How long it took, in seconds.
    seconds: f64,
}

impl Report {
    /// Of a plan, and of what came of it.
    pub(super) fn new(question: &Question, plan: &Plan, restored: Restored, dry_run: bool) -> Self {
        let (put, deleted) = match dry_run {
            true => {
                let deleted = plan.differences.iter().filter(|difference| difference.to.is_none()).count() as u64;
                (plan.differences.len() as u64 - deleted, deleted)
            }
            false => (restored.put, restored.deleted),
        };
        let mut changed_meanwhile = plan.changed_meanwhile.clone();
        changed_meanwhile.extend(restored.changed_meanwhile);
        Self {
            at: question.point.to_string(),
            dry_run,
            put,
            deleted,
            unchanged: plan.unchanged,
            changes: restored.changes,
            revision: restored.revision,
            not_kept: plan.not_kept.clone(),
            changed_meanwhile,
            seconds: 0.0,
        }
    }

    /// Prints it, and of a dry run also what would become of each key.
    pub(super) fn print(&mut self, differences: &[Difference], took: Duration, out: Output) -> Result<(), Failure> {
        self.seconds = took.as_secs_f64();
        for difference in differences.iter().filter(|_| self.dry_run) {
            out.object(difference)?;
            out.row(difference)?;
        }
        out.object(self)?;
        for key in &self.not_kept {
            out.row(format_args!("not kept  {}: its history does not reach back that far", show::text(key.as_str())))?;
        }
        for key in &self.changed_meanwhile {
            out.row(format_args!("changed meanwhile  {}", show::text(key.as_str())))?;
        }
        let (put, deleted) = (show::of(self.put, "key"), show::count(self.deleted));
        let (at, unchanged, took) = (&self.at, show::count(self.unchanged), show::seconds(took));
        match (self.dry_run, self.revision) {
            (true, _) => out.say(format_args!(
                "would bring back {put} to {at} and delete {deleted}; {unchanged} as then; nothing was written"
            )),
            (false, None) => out.say(format_args!("nothing to restore to {at}; {unchanged} as then")),
            (false, Some(revision)) => out.say(format_args!(
                "brought back {put} to {at} and deleted {deleted} in {}, {took}; {unchanged} as then; \
                 the profile is at revision {revision}",
                show::of(self.changes, "change")
            )),
        }
    }

    /// The failure that not every key was brought back, if that is so.
    pub(super) fn left_alone(&self, what: &str) -> Result<(), Failure> {
        let (lost, moved) = (self.not_kept.len() as u64, self.changed_meanwhile.len() as u64);
        let mut why = Vec::new();
        if lost > 0 {
            why.push(format!("{} stay as they are, because what they were is not kept", show::of(lost, "key")));
        }
        if moved > 0 {
            why.push(format!("{} stay as they are, because they were changed meanwhile", show::of(moved, "key")));
        }
        if why.is_empty() {
            return Ok(());
        }
        let failure = Failure::new(what, why.join("; "));
        Err(match moved {
            0 => failure,
            _ => failure.hint("look at what was changed meanwhile; running it again undoes that too"),
        })
    }
}
