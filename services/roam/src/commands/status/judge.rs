//! What of all that was seen is wrong, and what to do about it. Pure.

use roam_nats::{ACCESS_DURABLE, ANNOUNCE_DURABLE, CHANGES_STREAM, CHUNKS_STREAM, Finding, JOURNAL_STREAM, Soundness};
use roam_schemas::{Remedy, StatusReply};

use super::look::{DurableSeen, ReplicaSeen, Seen, State, StreamSeen};
use crate::show;

/// From how full on a stream that refuses when it is full is worth a word, in percent.
const FULL: u64 = 80;
/// Access servers hold back from here on: the limit of their back-pressure.
const BACKLOG: u64 = 256;
/// How little room on its disk is worth a word, in bytes.
const LITTLE_ROOM: u64 = 256 * 1024 * 1024;

/// Says what is wrong, the worst first.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in seen.servers.iter().filter(|server| server.offline) {
        let found = format!("the NATS server {} is not heard of", server.name);
        findings.push(problem("nats", found, "start it, and look into its log"));
    }
    if !seen.servers.is_empty() && !seen.servers.iter().any(|server| server.leads) {
        findings.push(problem("nats", "the journal has no leader", "a majority of the NATS servers has to run"));
    }
    seen.streams.iter().for_each(|stream| findings.extend(of_stream(stream)));
    let last = |name| seen.streams.iter().find(|stream| stream.kind == name).map_or(0, |stream| stream.last_sequence);
    findings.extend(of_durable(ACCESS_DURABLE, &seen.changes, last(CHANGES_STREAM)));
    findings.extend(of_durable(ANNOUNCE_DURABLE, &seen.announcements, last(JOURNAL_STREAM)));
    if seen.changes.trouble.is_none() && !seen.changes.attended {
        let found = format!("no access server asks for changes; {} wait", show::count(seen.changes.waiting));
        let remedy = "start one; if one runs, its /readyz says what it waits for";
        findings.push(problem("access server", found, remedy));
    }
    let backlog = seen.announcements.waiting.saturating_add(seen.announcements.in_hand);
    if backlog > BACKLOG {
        let found = format!("{} batches wait to be announced, and access servers hold back", show::count(backlog));
        findings.push(warning("announce", found, "look at the replicas: which is slow?"));
    }
    of_replicas(seen, &mut findings);
    if let Some(trouble) = &seen.backup_trouble {
        let remedy = "name where they are with --from, or make one: `roam backup create`";
        findings.push(warning("backup", trouble.clone(), remedy));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.state));
    findings
}

fn of_stream(stream: &StreamSeen) -> Option<Finding> {
    if let Some(trouble) = &stream.trouble {
        return Some(problem("stream", trouble.clone(), "prepare it with `roam provision`"));
    }
    // Of the others the oldest goes.
    let refuses = [CHANGES_STREAM, CHUNKS_STREAM].contains(&stream.kind);
    let share = |held: u64, most: Option<u64>| {
        most.and_then(|most| held.saturating_mul(100).checked_div(most)).unwrap_or_default()
    };
    let full = share(stream.bytes, stream.max_bytes).max(share(stream.messages, stream.max_messages));
    let found = format!("{} holds {full} % of what it may, and refuses what comes then", stream.name);
    let remedy = match stream.kind {
        CHANGES_STREAM => "start another access server",
        _ => "remove large values that nobody needs, or give the stream more room with the tools of NATS",
    };
    (refuses && full >= FULL).then(|| warning("stream", found, remedy))
}

fn of_durable(name: &'static str, durable: &DurableSeen, last: u64) -> Option<Finding> {
    if let Some(trouble) = &durable.trouble {
        return Some(problem("consumer", trouble.clone(), "prepare it with `roam provision`"));
    }
    let found = format!("consumer {name} stands at {} of a stream that ends at {last}", durable.delivered);
    (durable.delivered > last).then(|| problem("consumer", found, "`roam repair consumers`"))
}

fn of_replicas(seen: &Seen, findings: &mut Vec<Finding>) {
    for trouble in &seen.troubles {
        findings.push(problem("replica", trouble.clone(), "look into the log of that replica"));
    }
    for name in &seen.shared_names {
        let found = format!("two replicas have the name {}", show::text(name));
        findings.push(problem("replica", found, "give each a name of its own in its settings (name)"));
    }
    let (answered, expected) = (seen.replicas.len() + seen.troubles.len(), seen.expected_replicas);
    if answered < expected {
        let found = format!("{answered} of {} answer", show::of(expected as u64, "storage replica"));
        findings.push(problem("replica", found, "start the others, and look into their logs"));
    }
    if answered > expected {
        let found = format!("{answered} storage replicas answer, and the deployment was provisioned for {expected}");
        let remedy = "a replica that is alone decides what only several may: set roam.storage_replicas of ROAM_JOURNAL with \
                      the tools of NATS, or stop what does not belong here";
        findings.push(warning("replica", found, remedy));
    }
    seen.replicas.iter().for_each(|replica| findings.extend(of_replica(replica)));
}

fn of_replica(replica: &ReplicaSeen) -> Vec<Finding> {
    let status = &replica.status;
    let name = show::text(status.name.as_str());
    let mut findings = Vec::new();
    match (replica.state, &status.halted) {
        (State::StandsStill, Some(halted)) => {
            let found = format!("{name} stands still: {}", show::text(&halted.reason));
            findings.push(problem("replica", found, &remedy(&name, &halted.remedy)));
        }
        (State::CatchingUp, _) => {
            let found = format!("{name} catches up: it is {} of the journal behind", entries(replica.behind));
            findings.push(warning("replica", found, "wait; it answers devices once it is there"));
        }
        (State::NotReady, _) => findings.push(problem(
            "replica",
            format!("{name} is not ready: {}", lacks(status)),
            "mend that; it goes on by itself then",
        )),
        (State::Serving | State::StandsStill, _) => {}
    }
    if let Some(free) = status.free_bytes.filter(|free| *free < LITTLE_ROOM) {
        let found = format!("the disk of {name} has {} left", show::bytes(free));
        findings.push(warning("disk", found, "give it more room: a replica whose disk is full applies nothing"));
    }
    findings
}

/// A number of entries of the journal.
pub(super) fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{} entries", show::count(number)) }
}

/// What to do about a replica that stands still.
fn remedy(name: &str, remedy: &Remedy) -> String {
    match remedy {
        Remedy::BackupOrResume => format!(
            "it takes the newest backup that helps by itself, from its backup directory or the bucket; if it stays so, \
             have a replica that serves make one (`roam backup create --replica NAME`); where none serves, \
             `roam storage resume {name}`"
        ),
        Remedy::Resume => format!("choose the replica that counts: `roam storage resume {name}`, or another"),
        Remedy::BackupOf(other) => {
            let other = show::text(other.as_str());
            format!(
                "it takes a backup of {other} by itself within seconds; if it stays so, `roam backup create --replica \
                 {other}`, to where this one looks (its backup directory, or without one `--to bucket`)"
            )
        }
        Remedy::Skip(_) => format!("run a newer build; if no replica can apply it, `roam storage skip {name}`"),
    }
}

fn lacks(status: &StatusReply) -> String {
    let lacks: Vec<_> = status
        .missing
        .iter()
        .map(|missing| show::text(&format!("{}: {}", missing.condition, missing.reason)))
        .collect();
    lacks.join("; ")
}

fn problem(check: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    Finding { check, state: Soundness::Problem, found: found.into(), remedy: Some(remedy.to_owned()) }
}

fn warning(check: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    Finding { state: Soundness::Warning, ..problem(check, found, remedy) }
}

#[cfg(test)]
mod tests;
