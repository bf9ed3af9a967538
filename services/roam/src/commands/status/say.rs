//! How a deployment stands, in words.

use std::time::Duration;

use super::{
    judge::entries,
    look::{DurableSeen, ReplicaSeen, Seen, State, StreamSeen},
};
use crate::{commands::doctor, failure::Failure, output::Output, show};

/// Says it: one object for programs, lines for people, what is wrong last.
pub(super) fn say(seen: &Seen, out: Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.object(seen);
    }
    nats(seen, out)?;
    seen.streams.iter().try_for_each(|stream| out.row(stream_line(stream)))?;
    out.row(format_args!("changes   {}", durable(&seen.changes, "to be stamped", "with access servers")))?;
    let asks = if seen.changes.attended { "at least one access server takes changes" } else { "none takes changes" };
    out.row(format_args!("access    {asks}"))?;
    out.row(format_args!("announce  {}", durable(&seen.announcements, "to be announced", "in hand")))?;
    seen.replicas.iter().try_for_each(|replica| out.row(replica_line(replica)))?;
    if let Some(backup) = &seen.backup {
        let age = seen.time.as_nanos().saturating_sub(backup.created.as_nanos());
        let (age, replica, place) = (ago(age), show::text(&backup.replica), show::text(&backup.place));
        out.row(format_args!("backup    {}  of {replica}, {age} old, in {place}", backup.id))?;
    }
    seen.findings.iter().try_for_each(|finding| doctor::row(finding, out))
}

fn nats(seen: &Seen, out: Output) -> Result<(), Failure> {
    let server = show::text(&seen.server.name);
    out.row(format_args!("nats      connected to {server}, nats-server {}", show::text(&seen.server.version)))?;
    seen.servers.iter().try_for_each(|server| {
        let state = match (server.offline, server.leads, server.current) {
            (true, ..) => "not heard of".to_owned(),
            (_, true, _) => "leads the journal".to_owned(),
            (.., true) => "has all of the journal".to_owned(),
            _ => format!("{} behind in the journal", show::of(server.behind, "operation")),
        };
        out.row(format_args!("nats      {:<16}  {state}", show::text(&server.name)))
    })
}

fn stream_line(stream: &StreamSeen) -> String {
    if let Some(trouble) = &stream.trouble {
        return format!("stream    {:<14}  {}", stream.name, show::text(trouble));
    }
    let mut line = format!("stream    {:<14}  {}, ", stream.name, show::of(stream.messages, "message"));
    line.push_str(&show::bytes(stream.bytes).to_string());
    if let Some(most) = stream.max_bytes {
        line.push_str(&format!(" of {}", show::bytes(most)));
    }
    if let Some(most) = stream.max_messages {
        line.push_str(&format!(", at most {}", show::of(most, "message")));
    }
    if let Some(seconds) = stream.max_age_seconds {
        line.push_str(&format!(", kept for {} days", seconds / 86_400));
    }
    line
}

fn durable(durable: &DurableSeen, waiting: &str, in_hand: &str) -> String {
    match &durable.trouble {
        Some(trouble) => show::text(trouble),
        None => format!("{} wait {waiting}, {} {in_hand}", show::count(durable.waiting), show::count(durable.in_hand)),
    }
}

fn replica_line(replica: &ReplicaSeen) -> String {
    let status = &replica.status;
    let state = match replica.state {
        State::Serving => "serves",
        State::CatchingUp => "catches up",
        State::NotReady => "is not ready",
        State::StandsStill => "stands still",
    };
    let place = match status.position {
        Some(at) => format!("entry {} of line {} (batch {})", at.sequence, at.line, at.batch),
        None => "nothing applied".to_owned(),
    };
    let behind = match replica.behind {
        0 => String::new(),
        behind => format!(", {} behind", entries(behind)),
    };
    let announces = if status.announces { ", announces" } else { "" };
    let free = status.free_bytes.map_or("room unknown".to_owned(), |free| format!("{} free", show::bytes(free)));
    let used = show::bytes(status.used_bytes);
    let (name, version, epoch) = (show::text(status.name.as_str()), show::text(&status.version), status.epoch);
    format!(
        "replica   {name:<16}  {state}{announces}, {place}{behind}, epoch {epoch}, holds {used}, {free}, roam {version}"
    )
}

/// A time span in its largest unit, in nanoseconds.
fn ago(nanos: u64) -> String {
    match Duration::from_nanos(nanos).as_secs() {
        seconds @ 0..120 => show::of(seconds, "second"),
        seconds @ 120..7_200 => show::of(seconds / 60, "minute"),
        seconds @ 7_200..172_800 => show::of(seconds / 3_600, "hour"),
        seconds => show::of(seconds / 86_400, "day"),
    }
}
