//! `roam restore`: brings keys back to what they were, by new changes on top of those that are undone. It never undoes
//! what somebody writes meanwhile, and never deletes a key of which it is not known that it was absent.

mod plan;
mod report;
mod send;

use std::time::Instant;

use roam_process::clock::now_ns;
use roam_schemas::Timestamp;

use self::{
    plan::{NotPlanned, Plan, Question},
    report::Report,
    send::{NotRestored, Restored, Restorer},
};
use crate::{
    cli::{Global, Restore},
    connect::{named, not_answered, not_saved, with_profile},
    failure::Failure,
    output::Output,
    show,
};

pub(super) async fn run(args: Restore, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("restore", &args.profile, args.prefix.as_deref().unwrap_or_default());
    let started = Instant::now();
    let now = Timestamp::from_nanos(now_ns());
    let (point, prefix) = (args.at.point(now), args.prefix.unwrap_or_default());
    let question = Question { point, prefix, now };
    let (plan, restored) = with_profile(global, &args.profile, &what, async |profile| {
        let plan = Box::pin(Plan::make(&profile, &question, out)).await;
        let mut plan = plan.map_err(|error| not_planned(&what, &error))?;
        if args.dry_run {
            return Ok((plan, Restored::default()));
        }
        let mut restorer = Restorer::new(&profile, plan.head, std::mem::take(&mut plan.seen));
        let ops = std::mem::take(&mut plan.ops);
        let sent = Box::pin(restorer.send_all(ops, global.encoding.into(), out)).await;
        let restored = restorer.into_restored();
        sent.map_err(|error| stopped(&what, &error, &restored))?;
        Ok((plan, restored))
    })
    .await?;
    let mut report = Report::new(&question, &plan, restored, args.dry_run);
    report.print(&plan.differences, started.elapsed(), out)?;
    report.left_alone(&what)
}

/// Why it is not known what to do.
fn not_planned(what: &str, error: &NotPlanned) -> Failure {
    match error {
        NotPlanned::Unanswered(error) => not_answered(what, error),
        NotPlanned::Ahead(_) => Failure::because(what, error),
    }
}

/// Why it did not come to its end, and how far it came.
fn stopped(what: &str, error: &NotRestored, restored: &Restored) -> Failure {
    let failure = match error {
        NotRestored::Unanswered(error) => not_answered(what, error),
        NotRestored::Unsaved(error) => not_saved(what, error),
    };
    match (&failure.hint, restored.put + restored.deleted) {
        (None, done @ 1..) => {
            failure.hint(format!("restored before: {}; run it again to go on", show::of(done, "key")))
        }
        _ => failure,
    }
}
