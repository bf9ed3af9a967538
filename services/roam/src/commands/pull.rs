//! `roam pull`: writes the records of a profile as files, and with `--watch` every change as it comes.

mod apply;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use roam_agent::tree::WriteError;
use roam_client::{Event, ProfileClient, ReadError, WatchFrom};
use roam_schemas::{Cursor, Key, Manifest, Record, Revision};
use serde::Serialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use self::apply::{Applier, Line};
use super::{Stop, watch::not_watched};
use crate::{
    cli::{Global, Pull},
    connect::{named, not_answered, with_profile},
    failure::Failure,
    output::Output,
    show,
    transfer::Pages,
};

pub(super) async fn run(args: Pull, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("pull", &args.profile, &args.directory.display().to_string());
    let applier =
        Applier::open(args.directory.clone(), args.delete).map_err(|error| Failure::because(&what, &error))?;
    with_profile(global, &args.profile, &what, async |profile| {
        let started = Instant::now();
        let bar = out.spinner("pulling");
        let mut pulling =
            Pulling { profile: &profile, applier: Some(applier), report: Report::default(), bar, what: &what };
        let cursor = pulling.all(&args).await;
        pulling.bar.finish_and_clear();
        let cursor = cursor?;
        pulling.report.print(started.elapsed(), args.watch, out)?;
        match args.watch {
            true => pulling.follow(cursor, out).await,
            false => Ok(()),
        }
    })
    .await
}

/// What a pull did.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How many files were written.
    pulled: u64,
    /// How many bytes they have.
    bytes: u64,
    /// How many files were as they should be.
    unchanged: u64,
    /// How many files were deleted.
    deleted: u64,
    /// The profile's revision that all of this is at least as new as.
    revision: Revision,
    /// Keys that were not written.
    refused: Vec<Refused>,
    /// How long it took, in seconds.
    seconds: f64,
}

/// A key that was not written.
#[derive(Debug, Serialize)]
struct Refused {
    key: String,
    why: String,
}

struct Pulling<'a> {
    profile: &'a ProfileClient,
    /// Away while it works on a thread of its own.
    applier: Option<Applier>,
    report: Report,
    bar: ProgressBar,
    what: &'a str,
}

impl Pulling<'_> {
    /// Writes all records. Gives the place from which to go on.
    async fn all(&mut self, args: &Pull) -> Result<Cursor, Failure> {
        let mut pages = Pages::of(self.profile);
        let mut cursor = None;
        let mut live = BTreeSet::new();
        while let Some(page) = pages.next().await.map_err(|error| not_answered(self.what, &error))? {
            if cursor.is_none() {
                self.report.revision = page.head;
                cursor = Some(Cursor::new(&args.profile, page.head, page.time));
            }
            live.extend(page.records.iter().map(|record| record.key.clone()));
            let lines = self.write(page.records, true).await?;
            self.count(lines);
        }
        if args.delete {
            let lines = self.apply(move |applier| applier.remove_others(&live)).await?;
            self.count(lines);
        }
        Ok(cursor.unwrap_or_else(|| Cursor::new(&args.profile, Revision::ZERO, Default::default())))
    }

    /// Applies every change as it comes, until it is asked to stop; never in the middle of one.
    async fn follow(&mut self, cursor: Cursor, out: Output) -> Result<(), Failure> {
        let mut stop = Stop::new()?;
        let watch = self.profile.watch(WatchFrom::Cursor(cursor)).await;
        let mut watch = watch.map_err(|error| not_answered(self.what, &error))?;
        out.say("watching; Ctrl-C ends it")?;
        let mut after_reset = false;
        loop {
            let event = tokio::select! {
                event = watch.next() => event.map_err(|error| not_watched(self.what, &error))?,
                () = stop.asked() => return Ok(()),
            };
            let records = match event {
                Event::Reset => {
                    after_reset = true;
                    continue;
                }
                Event::Revision { records, .. } | Event::State { records, .. } => records,
            };
            let whole = std::mem::take(&mut after_reset).then(|| live_keys(&records));
            let mut lines = self.write(records, whole.is_some()).await?;
            if let Some(live) = whole {
                lines.extend(self.apply(move |applier| applier.remove_others(&live)).await?);
            }
            for line in lines {
                line.print(out)?;
            }
        }
    }

    /// Writes records; of `for_now` see [`Applier::apply_for_now`]. Large values are fetched one after the other, so that
    /// one at most is in memory, and only if their file is not as it should be.
    async fn write(&mut self, records: Vec<Record>, for_now: bool) -> Result<Vec<Line>, Failure> {
        let apply = move |applier: &mut Applier, records: &[Record]| match for_now {
            true => applier.apply_for_now(records),
            false => applier.apply(records),
        };
        let (large, small): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| manifest(record).is_some());
        let mut lines = self.apply(move |applier| apply(applier, &small)).await?;
        for record in large {
            let Some(manifest) = manifest(&record) else { continue };
            let key = record.key.clone();
            let same = self.apply(move |applier| Ok(applier.same(&key, &manifest))).await?;
            if !same.is_empty() {
                lines.extend(same);
                continue;
            }
            let key = record.key.to_string();
            match self.profile.whole(record).await {
                Ok(record) => lines.extend(self.apply(move |applier| apply(applier, &[record])).await?),
                Err(error @ ReadError::Missing(_)) => lines.push(Line::Refused { key, why: error.to_string() }),
                Err(error) => return Err(not_answered(self.what, &error)),
            }
        }
        Ok(lines)
    }

    /// Works on the files, on a thread where waiting for a disk holds up nobody.
    async fn apply(
        &mut self,
        work: impl FnOnce(&mut Applier) -> Result<Vec<Line>, WriteError> + Send + 'static,
    ) -> Result<Vec<Line>, Failure> {
        let lost = || Failure::new(self.what, "an earlier write did not come to its end");
        let mut applier = self.applier.take().ok_or_else(lost)?;
        let worked = spawn_blocking(move || (work(&mut applier), applier)).await;
        let (lines, applier) = worked.map_err(|error| Failure::because(self.what, &error))?;
        self.applier = Some(applier);
        lines.map_err(|error| Failure::because(self.what, &error))
    }

    fn count(&mut self, lines: Vec<Line>) {
        self.bar.inc(lines.len() as u64);
        for line in lines {
            match line {
                Line::Written { bytes, .. } => {
                    self.report.pulled += 1;
                    self.report.bytes += bytes;
                }
                Line::Same { .. } => self.report.unchanged += 1,
                Line::Removed { .. } => self.report.deleted += 1,
                Line::Kept { .. } => {}
                Line::Refused { key, why } => self.report.refused.push(Refused { key, why }),
            }
        }
    }
}

fn manifest(record: &Record) -> Option<Manifest> {
    let roam_schemas::State::Value(stored) = &record.state else { return None };
    stored.manifest().ok().flatten()
}

fn live_keys(records: &[Record]) -> BTreeSet<Key> {
    let live = records.iter().filter(|record| matches!(record.state, roam_schemas::State::Value(_)));
    live.map(|record| record.key.clone()).collect()
}

impl Report {
    fn print(&mut self, took: Duration, watch: bool, out: Output) -> Result<(), Failure> {
        self.seconds = took.as_secs_f64();
        match watch {
            true => out.object(&json!({ "pulled": self }))?,
            false => out.object(&self)?,
        }
        for Refused { key, why } in &self.refused {
            out.say(format_args!("refused   {}: {why}", show::text(key)))?;
        }
        let [unchanged, deleted] = [self.unchanged, self.deleted].map(show::count);
        let pulled = show::of(self.pulled, "file");
        let (bytes, refused, took) = (show::bytes(self.bytes), self.refused.len(), show::seconds(took));
        out.say(format_args!(
            "pulled {pulled} ({bytes}), {took}; {unchanged} unchanged, {deleted} deleted, {refused} refused"
        ))
    }
}
