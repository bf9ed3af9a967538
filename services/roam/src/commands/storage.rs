//! `roam storage`: what only a person can decide for replicas that stand still. Looks first, shows what it found, asks, and
//! then appends the order to the journal.

use std::time::Duration;

use roam_nats::{journal_stream, next_entry};
use roam_schemas::{
    Control, ControlEntry, Encoding, Halted, JournalPosition, Remedy, ReplicaName, Resume, Skip, StatusReply, decode,
    subjects,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Global, ResumeReplica, SkipEntry, Storage, StorageCommand},
    failure::Failure,
    operator::{Operator, Replicas},
    output::Output,
    show,
};

const RESUME: &str = "storage resume";
const SKIP: &str = "storage skip";
/// How often it is looked whether a replica goes on, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn run(args: Storage, global: &Global, out: Output) -> Result<(), Failure> {
    match args.command {
        StorageCommand::Resume(args) => {
            Operator::with(global, RESUME, async |operator| resume(&args, operator, out).await).await
        }
        StorageCommand::Skip(args) => {
            Operator::with(global, SKIP, async |operator| skip(&args, operator, out).await).await
        }
    }
}

async fn resume(args: &ResumeReplica, operator: &Operator, out: Output) -> Result<(), Failure> {
    let operator = &operator.at_replica(&args.replica).await?;
    let replicas = operator.replicas().await?;
    let (chosen, halted) = stopped(RESUME, &replicas, &args.replica)?;
    check_resume(chosen, halted)?;
    let others = || replicas.standing.iter().filter(|other| other.name != chosen.name);
    for standing in &replicas.standing {
        out.note(stands(standing));
    }
    let absent = replicas.absent();
    if absent > 0 {
        out.note(format_args!("{} not answer: look for one that applied more", does(absent)));
    }
    for further in others().filter(|other| published(other.position) > published(chosen.position)) {
        let name = show::text(further.name.as_str());
        out.note(format_args!(
            "{name} applied more than that: what it holds beyond is lost unless devices send it again"
        ));
    }
    let name = show::text(chosen.name.as_str());
    let question = format!("{name} will count, and every other replica will take a backup of it");
    out.confirm(RESUME, &question, &name, args.yes)?;
    let line = next_line(operator, &replicas).await?;
    let order = Resume { line, from: chosen.name.clone() };
    let sequence = operator.order(Control::Resume(order)).await?;
    let goes_on = |now: &Replicas| now.named(&args.replica).is_some_and(|now| now.halted.is_none());
    wait_until(RESUME, operator, out, goes_on).await?;
    let others: Vec<_> = others().map(|other| other.name.clone()).collect();
    out.object(&json!({ "resumed": chosen.name, "line": line, "sequence": sequence, "need_a_backup": others }))?;
    out.say(format_args!("{name} goes on, on line {line} of the journal"))?;
    for other in others {
        let other = show::text(other.as_str());
        out.say(format_args!(
            "{other} takes the backup that {name} makes now, from its backup directory or the bucket; where it finds \
             none there, `roam status` says what helps"
        ))?;
    }
    Ok(())
}

async fn skip(args: &SkipEntry, operator: &Operator, out: Output) -> Result<(), Failure> {
    let operator = &operator.at_replica(&args.replica).await?;
    let replicas = operator.replicas().await?;
    let (chosen, halted) = stopped(SKIP, &replicas, &args.replica)?;
    let Remedy::Skip(skip) = &halted.remedy else {
        return Err(Failure::new(SKIP, format!("skipping does not help it: {}", show::text(&halted.reason))));
    };
    check_skip(skip, &replicas, args.despite_absent)?;
    out.note(stands(chosen));
    let sequence = skip.origin.sequence;
    let question = format!("entry {sequence} of the journal will be passed over, and what is in it rejected");
    out.confirm(SKIP, &question, &sequence.to_string(), args.yes)?;
    let ordered = operator.order(Control::Skip(skip.clone())).await?;
    let past = |now: &Replicas| {
        let before = |standing: &StatusReply| {
            standing.halted.as_ref().is_some_and(|halted| halted.remedy == Remedy::Skip(skip.clone()))
        };
        now.named(&args.replica).is_some() && !now.standing.iter().any(before)
    };
    let now = wait_until(SKIP, operator, out, past).await?;
    let passed: Vec<_> = now.standing.iter().map(|standing| &standing.name).collect();
    out.object(&json!({ "skipped": skip, "sequence": ordered, "replicas": passed }))?;
    out.say(format_args!("entry {sequence} is passed over by {}", now.names()))?;
    for again in now.standing.iter().filter(|standing| standing.halted.is_some()) {
        out.say(stands(again))?;
    }
    Ok(())
}

/// The replica of that name, which stands still.
fn stopped<'a>(
    what: &str,
    replicas: &'a Replicas,
    name: &ReplicaName,
) -> Result<(&'a StatusReply, &'a Halted), Failure> {
    let shown = show::text(name.as_str());
    if replicas.shared_names().contains(&name) {
        let why = format!("two replicas have the name {shown}");
        return Err(Failure::new(what, why).hint("give each a name of its own in its settings (name)"));
    }
    let absent = || {
        let why = format!("no replica of the name {shown} answers; those that do: {}", replicas.names());
        Failure::later(what, why).hint("start it: a replica that stands still answers too")
    };
    let chosen = replicas.named(name).ok_or_else(absent)?;
    let going_on = || Failure::new(what, format!("{shown} does not stand still: there is nothing to decide"));
    Ok((chosen, chosen.halted.as_ref().ok_or_else(going_on)?))
}

/// Whether an order to resume helps.
fn check_resume(chosen: &StatusReply, halted: &Halted) -> Result<(), Failure> {
    let refused = |hint: String| {
        let why = format!("resuming does not help it: {}", show::text(&halted.reason));
        Err(Failure::new(RESUME, why).hint(hint))
    };
    match &halted.remedy {
        Remedy::BackupOrResume | Remedy::Resume => Ok(()),
        Remedy::BackupOf(other) => refused(format!("{} counts already", show::text(other.as_str()))),
        Remedy::Skip(_) => refused(format!("`roam storage skip {}`", show::text(chosen.name.as_str()))),
    }
}

/// Whether no replica has applied the entry, as far as can be known.
fn check_skip(skip: &Skip, replicas: &Replicas, despite_absent: bool) -> Result<(), Failure> {
    let sequence = skip.origin.sequence;
    let applied =
        |position: JournalPosition| position.incarnation == skip.origin.incarnation && position.sequence >= sequence;
    if let Some(other) = replicas.standing.iter().find(|other| other.position.is_some_and(applied)) {
        let other = show::text(other.name.as_str());
        let why = format!("{other} has applied entry {sequence}: the replicas would differ from then on");
        return Err(Failure::new(SKIP, why).hint(format!("run the build of {other}, or start from a backup of it")));
    }
    match replicas.absent() {
        absent @ 1.. if !despite_absent => {
            let why = format!("{} not answer, and may have applied entry {sequence}", does(absent));
            Err(Failure::later(SKIP, why).hint("start them, or say --despite-absent if you know that they have not"))
        }
        _ => Ok(()),
    }
}

fn does(absent: usize) -> String {
    let replicas = show::of(absent as u64, "replica");
    if absent == 1 { format!("{replicas} does") } else { format!("{replicas} do") }
}

/// A line of the journal above all that there were.
async fn next_line(operator: &Operator, replicas: &Replicas) -> Result<u64, Failure> {
    let positions = replicas.standing.iter().filter_map(|standing| standing.position);
    let mut highest = positions.map(|position| position.line).max().unwrap_or(1);
    let (stream, subject, mut from) = (journal_stream(operator.shard), subjects::journal_control(operator.shard), 1);
    let next = async |from| {
        let entry = next_entry(&operator.bus, &stream, &subject, from).await;
        entry.map_err(|error| operator.not_told(&error))
    };
    while let Some(entry) = next(from).await? {
        from = entry.sequence + 1;
        // What does not read is for the replicas to complain of.
        if let Ok(ControlEntry { control: Control::Resume(resume), .. }) = decode(&entry.payload, Encoding::Postcard) {
            highest = highest.max(resume.line);
        }
    }
    Ok(highest + 1)
}

/// Waits until replicas stand as an order wants it.
async fn wait_until(
    what: &str,
    operator: &Operator,
    out: Output,
    done: impl Fn(&Replicas) -> bool,
) -> Result<Replicas, Failure> {
    let bar = out.spinner("ordered");
    let until = Instant::now() + GOES_ON_WITHIN;
    let waited = loop {
        let now = match operator.replicas().await {
            Ok(now) if done(&now) => break Ok(now),
            Ok(now) => now,
            Err(failure) => break Err(failure),
        };
        if Instant::now() > until {
            let why = "the order stands in the journal, and a replica has not heeded it yet";
            let standing: Vec<_> = now.standing.iter().map(stands).collect();
            break Err(Failure::later(what, why).hint(format!("look at it: {}", standing.join("; "))));
        }
        bar.inc(1);
        sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    waited
}

/// One line for a replica.
fn stands(standing: &StatusReply) -> String {
    let name = show::text(standing.name.as_str());
    let place = match standing.position {
        Some(at) => format!("at entry {} of line {}, of {}", at.sequence, at.line, at.published),
        None => "with nothing applied".to_owned(),
    };
    match &standing.halted {
        Some(halted) => format!("{name} stands still {place}: {}", show::text(&halted.reason)),
        None => format!("{name} goes on {place}"),
    }
}

fn published(position: Option<JournalPosition>) -> u64 {
    position.map_or(0, |position| position.published.as_nanos())
}

#[cfg(test)]
mod tests;
