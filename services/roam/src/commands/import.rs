//! `roam import`: writes the records of an exported profile into a profile. What is there already is not written again,
//! and nothing at all is written of a file with a line that is not right.

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
    time::{Duration, Instant},
};

use roam_client::{ChangeError, ProfileClient, ReadError};
use roam_process::clock::now_ns;
use roam_schemas::{Action, ContentHash, Encoding, Key, Operation, Put, Revision, State, Stored, Timestamp};
use serde::Serialize;

use crate::{
    archive::{self, Archive, Unreadable},
    cli::{Global, Import},
    connect::{named, not_answered, not_saved, with_profile},
    difference::{Difference, Glance},
    failure::Failure,
    output::Output,
    past::{remaining, same},
    show,
    transfer::{Batcher, Pages, Sender},
};

/// The file that means: read standard input.
const STANDARD_INPUT: &str = "-";

pub(super) async fn run(args: Import, global: &Global, out: Output) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new(STANDARD_INPUT));
    let name = file.map_or_else(|| "(standard input)".to_owned(), |file| file.display().to_string());
    let what = named("import", &args.profile, &name);
    let archive = read(file).map_err(|error| not_read(&what, &error))?;
    let started = Instant::now();
    let now = Timestamp::from_nanos(now_ns());
    let report = with_profile(global, &args.profile, &what, async |profile| {
        let plan = Plan::make(&profile, archive, now).await.map_err(|error| not_answered(&what, &error))?;
        match args.dry_run {
            true => plan.show(out),
            false => Box::pin(plan.write(&profile, global.encoding.into(), out, &what)).await,
        }
    })
    .await?;
    report.print(started.elapsed(), out)
}

fn read(file: Option<&Path>) -> Result<Archive, Unreadable> {
    match file {
        Some(file) => archive::read(BufReader::new(File::open(file)?)),
        None => archive::read(io::stdin().lock()),
    }
}

/// Why a file is not taken.
fn not_read(what: &str, error: &Unreadable) -> Failure {
    let failure = Failure::because(what, error);
    match error {
        Unreadable::Input(_) => failure,
        Unreadable::Count { .. } => {
            failure.hint("nothing was written; if that is meant, take `records` out of its first line")
        }
        Unreadable::Line { .. } | Unreadable::Empty => failure.hint("nothing was written"),
    }
}

/// What an import is going to do.
#[derive(Debug)]
struct Plan {
    /// What the profile held at least when it was looked at.
    head: Revision,
    ops: Vec<Operation>,
    differences: Vec<Difference>,
    report: Report,
}

/// What an import did, or would do.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Whether nothing was written.
    dry_run: bool,
    /// The profile that the file was made of.
    from: String,
    /// How many records were written.
    imported: u64,
    /// How many records the profile held already.
    unchanged: u64,
    /// How many records were left out, because their time is over.
    expired: u64,
    /// How many changes it took.
    changes: u64,
    /// The profile's revision after them; none if nothing was written.
    revision: Option<Revision>,
    /// Keys that another device changed meanwhile; ours won.
    conflicts: Vec<Key>,
    /// How long it took, in seconds.
    seconds: f64,
}

impl Plan {
    /// Compares a file with a profile.
    async fn make(profile: &ProfileClient, archive: Archive, now: Timestamp) -> Result<Self, ReadError> {
        let mut entries = archive.entries;
        let before = entries.len();
        entries.retain(|_, entry| entry.stored.expires.is_none_or(|expires| remaining(expires, now).is_some()));
        let expired = (before - entries.len()) as u64;
        let report = Report { from: archive.profile, expired, ..Report::default() };
        let mut plan = Self { head: Revision::ZERO, ops: Vec::new(), differences: Vec::new(), report };
        let (mut pages, mut first) = (Pages::of(profile), true);
        while let Some(page) = pages.next().await? {
            if std::mem::take(&mut first) {
                plan.head = page.head;
            }
            for record in page.records {
                let State::Value(held) = record.state else { continue };
                let Some(entry) = entries.remove(&record.key) else { continue };
                match is_same(&entry.stored, &held) {
                    true => plan.report.unchanged += 1,
                    false => plan.add(record.key, Some(Glance::at(&held.value, &held.content_type)), entry, now),
                }
            }
        }
        for (key, entry) in entries {
            plan.add(key, None, entry, now);
        }
        Ok(plan)
    }

    fn add(&mut self, key: Key, from: Option<Glance>, entry: archive::Entry, now: Timestamp) {
        let stored = entry.stored;
        let to = Some(Glance::at(&stored.value, &stored.content_type));
        self.differences.push(Difference { key: key.clone(), from, to });
        let ttl = stored.expires.and_then(|expires| remaining(expires, now));
        let put = Put { value: stored.value, content_type: stored.content_type, ttl };
        self.ops.push(Operation { key, action: Action::Put(put), expect: Default::default() });
    }

    /// Shows what would become of each key.
    fn show(mut self, out: Output) -> Result<Report, Failure> {
        self.differences.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for difference in &self.differences {
            out.object(difference)?;
            out.row(difference)?;
        }
        let imported = self.differences.len() as u64;
        Ok(Report { dry_run: true, imported, ..self.report })
    }

    /// Writes what differs.
    async fn write(
        mut self,
        profile: &ProfileClient,
        encoding: Encoding,
        out: Output,
        what: &str,
    ) -> Result<Report, Failure> {
        let bar = out.bar(self.ops.len() as u64, "importing");
        let mut sender = Sender::new(profile, self.head);
        let sent = async {
            let mut batcher = Batcher::new(encoding);
            for op in std::mem::take(&mut self.ops) {
                bar.inc(1);
                if let Some(ops) = batcher.add(op) {
                    sender.send(ops).await?;
                }
            }
            if let Some(ops) = batcher.take() {
                sender.send(ops).await?;
            }
            sender.finish().await
        };
        let sent = sent.await;
        bar.finish_and_clear();
        let sent = sent.map_err(|error| stopped(what, &error, sender.saved().operations))?;
        let conflicts = sent.conflicts.into_iter().map(|conflict| conflict.key).collect();
        let (imported, changes, revision) = (sent.operations, sent.changes, sent.revision);
        Ok(Report { imported, changes, revision, conflicts, ..self.report })
    }
}

/// Whether a profile holds what an archive does: of a large value it holds a manifest.
fn is_same(stored: &Stored, held: &Stored) -> bool {
    let Ok(Some(large)) = held.manifest() else { return same(stored, held) };
    large.length == stored.value.len() as u64
        && large.content_type == stored.content_type
        && stored.expires.is_some() == held.expires.is_some()
        && large.hash == ContentHash::of(stored.value.as_bytes())
}

/// Why it did not come to its end, and how far it came.
fn stopped(what: &str, error: &ChangeError, saved: u64) -> Failure {
    let failure = not_saved(what, error);
    match (&failure.hint, saved) {
        (None, 1..) => failure.hint(format!("saved before: {}; run it again to go on", show::of(saved, "record"))),
        _ => failure,
    }
}

impl Report {
    fn print(mut self, took: Duration, out: Output) -> Result<(), Failure> {
        self.seconds = took.as_secs_f64();
        out.object(&self)?;
        for key in &self.conflicts {
            let key = show::text(key.as_str());
            out.say(format_args!("conflict  {key}: another device changed it meanwhile; see its history"))?;
        }
        let (imported, changes) = (show::of(self.imported, "record"), show::of(self.changes, "change"));
        let ([unchanged, expired], took) = ([self.unchanged, self.expired].map(show::count), show::seconds(took));
        let beside = format!("{unchanged} unchanged, {expired} expired");
        match self.dry_run {
            true => out.say(format_args!("would import {imported}; {beside}; nothing was written")),
            false => out.say(format_args!("imported {imported} in {changes}, {took}; {beside}")),
        }
    }
}
