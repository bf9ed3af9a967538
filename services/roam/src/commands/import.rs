//! `roam import`: writes the records of exported profiles into a profile, or into those of a user. What is there already is
//! not written again, and nothing at all is written of a file with a line that is not right: it is read twice, and never
//! held in memory.

mod held;
mod source;

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    time::{Duration, Instant},
};

use roam_client::{ChangeError, ProfileClient};
use roam_process::clock::now_ns;
use roam_schemas::{Action, Encoding, Key, Operation, Profile, Put, Revision, Stored, Timestamp};
use serde::Serialize;

use self::{held::Held, source::Source};
use crate::{
    archive::{Archive, Piece, Unreadable},
    cli::{Global, Import},
    connect::{not_answered, not_saved, with_user},
    difference::{Difference, Glance},
    failure::Failure,
    output::Output,
    owner::{Owner, UserName},
    past::remaining,
    show,
    transfer::{Batcher, Sender},
};

/// The file that means: read standard input.
const STANDARD_INPUT: &str = "-";

/// A file that is read, from its first line on.
type Lines<'a> = Archive<BufReader<&'a File>>;

pub(super) async fn run(args: Import, global: &Global, out: Output) -> Result<(), Failure> {
    let file = args.file.as_deref().filter(|file| *file != Path::new(STANDARD_INPUT));
    let name = file.map_or_else(|| "(standard input)".to_owned(), |file| file.display().to_string());
    let what = show::text(&format!("import {} {name}", args.owner));
    let mut source = Source::open(file).map_err(|error| Failure::because(&what, &error))?;
    let looked = look(&mut source, &args.owner).map_err(|error| not_read(&what, &error))?;
    if let (Owner::Profile(_), true) = (&args.owner, looked.of_user) {
        let hint = "name the user: roam import TENANT/USER FILE";
        return Err(Failure::usage(what, "the file holds all profiles of a user").hint(hint));
    }
    let user = match &args.owner {
        Owner::Profile(profile) => UserName::of(profile),
        Owner::User(user) => user.clone(),
    };
    with_user(global, &user, &what, async |client| {
        let mut run = Run {
            what: &what,
            dry_run: args.dry_run,
            named: matches!(args.owner, Owner::User(_)),
            encoding: global.encoding.into(),
            now: Timestamp::from_nanos(now_ns()),
            out,
            records: looked.records,
        };
        let (mut archive, first) = source.archive().map_err(|error| not_read(&what, &error))?;
        let mut next = match archive.is_of_user() {
            true => archive.next().map_err(|error| not_read(&what, &error))?,
            false => Some(first),
        };
        while let Some(Piece::Profile(from)) = next {
            let profile = target(&args.owner, &from).map_err(|error| Failure::because(&what, &error))?;
            let section = client.profile_of(profile.user.clone(), profile.app.clone());
            next = Box::pin(run.section(&section, &profile, from, &mut archive)).await?;
        }
        Ok(())
    })
    .await
}

/// What is known of a file once all of it was looked at.
struct Looked {
    of_user: bool,
    records: u64,
}

/// Looks at all of a file.
fn look(source: &mut Source, owner: &Owner) -> Result<Looked, Unreadable> {
    let (mut archive, first) = source.archive()?;
    let (of_user, mut records) = (archive.is_of_user(), 0);
    let mut next = if of_user { archive.next()? } else { Some(first) };
    while let Some(piece) = next {
        match piece {
            // Into a profile goes what any was exported of.
            Piece::Profile(from) if matches!(owner, Owner::User(_)) => drop(target(owner, &from)?),
            Piece::Profile(_) => {}
            Piece::Record(..) => records += 1,
        }
        next = archive.next()?;
    }
    Ok(Looked { of_user, records })
}

/// The profile that the records of a profile go into: under its app, if into a user.
fn target(owner: &Owner, from: &str) -> Result<Profile, Unreadable> {
    match owner {
        Owner::Profile(profile) => Ok(profile.clone()),
        Owner::User(user) => {
            let from: Profile = from.parse().map_err(|error| Unreadable::Profile { source: error })?;
            Ok(user.profile(from.app))
        }
    }
}

/// Why a file is not taken.
fn not_read(what: &str, error: &Unreadable) -> Failure {
    let failure = Failure::because(what, error);
    match error {
        Unreadable::Input(_) => failure,
        Unreadable::Count { what, .. } => {
            failure.hint(format!("nothing was written; if that is meant, take `{what}` out of the line that says so"))
        }
        Unreadable::Line { .. } | Unreadable::Empty | Unreadable::Profile { .. } => failure.hint("nothing was written"),
    }
}

/// An import that goes on.
struct Run<'a> {
    what: &'a str,
    dry_run: bool,
    /// Whether it is said of each profile which one it is.
    named: bool,
    encoding: Encoding,
    /// When it began: what is over by then is left out.
    now: Timestamp,
    out: Output,
    /// How many records the file has.
    records: u64,
}

/// What an import did, or would do.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Whether nothing was written.
    dry_run: bool,
    /// The profile that was written into.
    profile: String,
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

impl Run<'_> {
    /// Writes what differs of a profile. Gives the piece behind it.
    async fn section(
        &mut self,
        profile: &ProfileClient,
        name: &Profile,
        from: String,
        lines: &mut Lines<'_>,
    ) -> Result<Option<Piece>, Failure> {
        let started = Instant::now();
        if self.named {
            self.out.say(super::profiles::name(name))?;
        }
        let held = Held::by(profile).await.map_err(|error| not_answered(self.what, &error))?;
        let (dry_run, profile_name) = (self.dry_run, name.to_string());
        let mut report = Report { dry_run, profile: profile_name, from, ..Report::default() };
        let mut sender = Sender::new(profile, held.head);
        let mut batcher = Batcher::new(self.encoding);
        let bar = self.out.bar(self.records, "importing");
        let next = loop {
            let (key, stored) = match lines.next().map_err(|error| Failure::because(self.what, &error))? {
                Some(Piece::Record(key, stored)) => (key, stored),
                other => break other,
            };
            bar.inc(1);
            let Some(op) = self.operation(&held, key, stored, &mut report)? else { continue };
            if let Some(ops) = batcher.add(op) {
                self.sent(sender.send(ops).await, &sender)?;
            }
        };
        if let Some(ops) = batcher.take() {
            self.sent(sender.send(ops).await, &sender)?;
        }
        let finished = sender.finish().await;
        bar.finish_and_clear();
        let sent = self.sent(finished, &sender)?;
        if !self.dry_run {
            (report.imported, report.changes, report.revision) = (sent.operations, sent.changes, sent.revision);
        }
        report.conflicts = sent.conflicts.into_iter().map(|conflict| conflict.key).collect();
        report.print(started.elapsed(), self.out)?;
        Ok(next)
    }

    /// What is to be written of a record; nothing if the profile holds it, if its time is over, or if it is only shown.
    fn operation(
        &self,
        held: &Held,
        key: Key,
        stored: Stored,
        report: &mut Report,
    ) -> Result<Option<Operation>, Failure> {
        let ttl = stored.expires.map(|expires| remaining(expires, self.now));
        if ttl == Some(None) {
            report.expired += 1;
            return Ok(None);
        }
        let before = held.get(&key);
        if before.is_some_and(|before| before.is(&stored)) {
            report.unchanged += 1;
            return Ok(None);
        }
        if self.dry_run {
            report.imported += 1;
            let from = before.map(|before| before.glance.clone());
            let difference = Difference { key, from, to: Some(Glance::at(&stored.value, &stored.content_type)) };
            self.out.object(&difference)?;
            self.out.row(&difference)?;
            return Ok(None);
        }
        let put = Put { value: stored.value, content_type: stored.content_type, ttl: ttl.flatten() };
        Ok(Some(Operation { key, action: Action::Put(put), expect: Default::default() }))
    }

    /// Why it did not come to its end, and how far it came.
    fn sent<T>(&self, sent: Result<T, ChangeError>, sender: &Sender<'_>) -> Result<T, Failure> {
        sent.map_err(|error| {
            let (failure, saved) = (not_saved(self.what, &error), sender.saved().operations);
            match (&failure.hint, saved) {
                (None, 1..) => {
                    failure.hint(format!("saved before: {}; run it again to go on", show::of(saved, "record")))
                }
                _ => failure,
            }
        })
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
