//! `roam audit`: who did what, oldest first, and with --follow what happens from now on.

use std::time::Duration;

use roam_auth::{AuditEvent, Audited, QuotaChange};
use roam_nats::{AUDIT_STREAM, Bus, JournalError, JournalReader, StateError, stream_state};
use roam_process::clock;
use roam_schemas::{Control, Timestamp};
use serde_json::{Map, Value, json};

use super::Stop;
use crate::{
    cli::{Audit, AuditKind, Global},
    failure::Failure,
    output::Output,
    registrar, show,
};

const WHAT: &str = "audit";

pub(super) async fn run(args: Audit, global: &Global, out: Output) -> Result<(), Failure> {
    let bus = registrar::connect(&args.keys, global, WHAT).await?;
    let done = tell(&args, &bus, out).await;
    bus.close().await;
    done
}

async fn tell(args: &Audit, bus: &Bus, out: Output) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let end = stream_state(bus, AUDIT_STREAM).await.map_err(|error| not_told(&error))?;
    if end.messages == 0 && !args.follow {
        return Ok(());
    }
    let since = args.since.map(|seconds| {
        let before = Duration::from_secs(seconds.into()).as_nanos();
        clock::now_ns().saturating_sub(u64::try_from(before).unwrap_or(u64::MAX))
    });
    let mut reader = JournalReader::open(bus, AUDIT_STREAM, None, 1).await.map_err(|error| not_read(&error))?;
    loop {
        let entry = tokio::select! {
            entry = reader.next() => entry.map_err(|error| Failure::later(WHAT, crate::failure::chain(&error)))?,
            () = stop.asked() => return Ok(()),
        };
        if let Some(audited) = Audited::read(&entry)
            && is_asked_for(args, since, &audited)
        {
            print(&audited, out)?;
        }
        if !args.follow && entry.sequence >= end.last_sequence {
            return Ok(());
        }
    }
}

fn is_asked_for(args: &Audit, since: Option<u64>, audited: &Audited) -> bool {
    let Audited { event, .. } = audited;
    let kind = args.events.is_empty() || args.events.iter().any(|kind: &AuditKind| kind.as_str() == event.as_str());
    let tenant = args.tenant.as_ref().is_none_or(|tenant| event.tenant() == Some(tenant));
    kind && tenant && since.is_none_or(|since| published(audited).as_nanos() >= since)
}

fn published(audited: &Audited) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(audited.published.unix_timestamp_nanos()).unwrap_or_default())
}

fn print(audited: &Audited, out: Output) -> Result<(), Failure> {
    let time = published(audited);
    let mut object =
        Map::from_iter([("sequence".to_owned(), json!(audited.sequence)), ("time".to_owned(), json!(time))]);
    if let Ok(Value::Object(event)) = serde_json::to_value(&audited.event) {
        // The place of an order in the journal is another one than that in the audit.
        object.extend(event.into_iter().map(|(name, value)| match name.as_str() {
            "sequence" => ("journal_sequence".to_owned(), value),
            _ => (name, value),
        }));
    }
    out.object(&object)?;
    out.row(format_args!("{time}  {:<13}  {}", audited.event.as_str(), show::text(&in_words(&audited.event))))
}

fn in_words(event: &AuditEvent) -> String {
    match event {
        AuditEvent::SignedIn { token, grant, client, .. } => format!("{grant}, from {}, with {token}", client.host),
        AuditEvent::Refused { reason, client } => format!("{reason}, from {}", client.host),
        AuditEvent::Ended { token } => format!("a connection of {token}"),
        AuditEvent::TokenCreated { token, grant, by, .. } => format!("{token}: {grant}{}", said(by.as_ref())),
        AuditEvent::TokenRevoked { token, grant, by } => format!("{token}: {grant}{}", said(by.as_ref())),
        AuditEvent::Ordered { order, by, sequence, .. } => {
            let order = match order {
                Control::Resume(resume) => format!("resume from {}, line {}", resume.from, resume.line),
                Control::Skip(skip) => format!("skip entry {}", skip.origin.sequence),
                Control::Erase(erase) => format!("erase {}/{}", erase.tenant, erase.user),
                Control::Epoch(epoch) => format!("begin epoch {}", epoch.epoch),
            };
            format!("{order}, entry {sequence} of the journal{}", said(by.as_ref()))
        }
        AuditEvent::QuotaChanged { tenant, changes, by, .. } => {
            let tenant = tenant.as_ref().map_or_else(|| "all tenants".to_owned(), ToString::to_string);
            let changes: Vec<_> = changes.iter().map(change_in_words).collect();
            format!("{tenant}: {}{}", changes.join(", "), said(by.as_ref()))
        }
    }
}

fn change_in_words(QuotaChange { setting, from, to }: &QuotaChange) -> String {
    let shown = |value: &Option<u64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
    format!("{setting} from {} to {}", shown(from), shown(to))
}

fn said(by: Option<&String>) -> String {
    by.map_or_else(String::new, |by| format!(", by {by}"))
}

fn not_told(error: &StateError) -> Failure {
    let failure = Failure::because(WHAT, error);
    match error {
        StateError::NotFound { .. } => failure.hint("is it prepared? roam provision --auth does that"),
        _ => failure,
    }
}

fn not_read(error: &JournalError) -> Failure {
    Failure::because(WHAT, error)
}
