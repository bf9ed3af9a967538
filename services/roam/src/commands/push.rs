//! `roam push`: sends what differs between a directory tree and a profile.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use roam_agent::tree::{Candidate, Contents, LeftOut, Reason, Scan, contents, guess_content_type, open, path_of, scan};
use roam_client::ChangeError;
use roam_schemas::{Action, Code, ContentHash, Encoding, Operation, Revision, limits::LARGE_VALUE_BYTES};
use serde::Serialize;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    cli::{Global, Push},
    connect::{named, not_answered, not_saved, with_profile},
    failure::Failure,
    output::Output,
    show,
    transfer::{Batcher, Held, Sender},
};

/// How many files are read ahead of what is being sent.
const READ_AHEAD: usize = 64;

pub(super) async fn run(args: Push, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("push", &args.profile, &args.directory.display().to_string());
    let tree = look(args.directory.clone(), &what).await?;
    let started = Instant::now();
    let report = with_profile(global, &args.profile, &what, async |profile| {
        let held = Held::by(&profile).await.map_err(|error| not_answered(&what, &error))?;
        let bar = out.bar(tree.files.len() as u64, "pushing");
        let pushing = Pushing {
            sender: Sender::new(&profile, held.head()),
            batcher: Batcher::new(encoding(global)),
            report: Report { left_out: tree.left_out.clone(), ..Report::default() },
            bar: bar.clone(),
        };
        let pushed = pushing.run(tree, held, args.delete, &what).await;
        bar.finish_and_clear();
        pushed
    })
    .await?;
    report.print(started.elapsed(), out)
}

fn encoding(global: &Global) -> Encoding {
    global.encoding.into()
}

async fn look(directory: PathBuf, what: &str) -> Result<Arc<Scan>, Failure> {
    let looked = spawn_blocking(move || scan(&directory)).await;
    let looked = looked.map_err(|error| Failure::because(what, &error))?;
    looked.map(Arc::new).map_err(|error| Failure::because(what, &error))
}

/// What became of a file.
enum Reading {
    /// The profile has these bytes already.
    Same,
    /// It is to be sent.
    Differs(Operation),
    /// It is to be sent, and does not fit into a record.
    Large(Candidate),
    /// It cannot be.
    LeftOut(LeftOut),
}

/// Reads the files one after the other, for as long as somebody wants them.
fn read_all(tree: &Scan, held: &Held, readings: &mpsc::Sender<Reading>) {
    for file in &tree.files {
        if readings.blocking_send(read_one(file, held)).is_err() {
            return;
        }
    }
}

fn read_one(file: &Candidate, held: &Held) -> Reading {
    match contents(&file.path) {
        Err(reason) => Reading::LeftOut(LeftOut { path: file.key.to_string(), reason }),
        Ok(Contents::Large(hash)) if held.has(&file.key, hash) => Reading::Same,
        Ok(Contents::Large(_)) => Reading::Large(file.clone()),
        Ok(Contents::Whole(bytes)) if held.has(&file.key, ContentHash::of(&bytes)) => Reading::Same,
        Ok(Contents::Whole(bytes)) => {
            Reading::Differs(Operation::put(file.key.clone(), bytes, guess_content_type(&file.path)))
        }
    }
}

/// What a push did.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// How many files were sent.
    pushed: u64,
    /// How many bytes they have.
    bytes: u64,
    /// How many files the profile held already.
    unchanged: u64,
    /// How many keys were deleted.
    deleted: u64,
    /// How many changes it took.
    changes: u64,
    /// The profile's revision after them; none if nothing was sent.
    revision: Option<Revision>,
    /// Keys that another device changed meanwhile; ours won.
    conflicts: Vec<String>,
    /// What was not sent.
    left_out: Vec<LeftOut>,
    /// How long it took, in seconds.
    seconds: f64,
}

struct Pushing<'a> {
    sender: Sender<'a>,
    batcher: Batcher,
    report: Report,
    bar: ProgressBar,
}

impl Pushing<'_> {
    async fn run(mut self, tree: Arc<Scan>, held: Held, delete: bool, what: &str) -> Result<Report, Failure> {
        let held = Arc::new(held);
        let (readings, mut coming) = mpsc::channel(READ_AHEAD);
        let reader = {
            let (tree, held) = (Arc::clone(&tree), Arc::clone(&held));
            spawn_blocking(move || read_all(&tree, &held, &readings))
        };
        while let Some(reading) = coming.recv().await {
            self.bar.inc(1);
            self.take(reading).await.map_err(|error| self.stopped(what, &error))?;
        }
        reader.await.map_err(|error| Failure::because(what, &error))?;
        if delete {
            for op in gone(&tree, &held) {
                self.report.deleted += 1;
                self.add(op).await.map_err(|error| self.stopped(what, &error))?;
            }
        }
        self.finish().await.map_err(|error| self.stopped(what, &error))?;
        Ok(self.report)
    }

    async fn take(&mut self, reading: Reading) -> Result<(), ChangeError> {
        match reading {
            Reading::Same => self.report.unchanged += 1,
            Reading::LeftOut(left_out) => self.report.left_out.push(left_out),
            Reading::Differs(op) => {
                self.report.pushed += 1;
                if let Action::Put(put) = &op.action {
                    self.report.bytes += put.value.len() as u64;
                }
                self.add(op).await?;
            }
            Reading::Large(file) => match self.upload(&file).await? {
                Ok((op, bytes)) => {
                    self.report.pushed += 1;
                    self.report.bytes += bytes;
                    self.add(op).await?;
                }
                Err(reason) => self.report.left_out.push(LeftOut { path: file.key.to_string(), reason }),
            },
        }
        Ok(())
    }

    /// Uploads a large file as it is read; it may have become another one meanwhile, or none.
    async fn upload(&self, file: &Candidate) -> Result<Result<(Operation, u64), Reason>, ChangeError> {
        let mut source = match open(&file.path) {
            Ok(source) => tokio::fs::File::from_std(source),
            Err(error) => return Ok(Err(Reason::Unreadable(error.to_string()))),
        };
        let mut bytes = 0;
        let content_type = guess_content_type(&file.path);
        let staged = self.sender.profile().stage(&mut source, content_type, |done| bytes = done.bytes).await;
        match staged {
            Ok(put) => {
                let op = Operation { key: file.key.clone(), action: Action::Put(put), expect: Default::default() };
                Ok(Ok((op, bytes)))
            }
            Err(ChangeError::Source(kind)) => Ok(Err(Reason::Unreadable(kind.to_string()))),
            Err(ChangeError::Invalid(problem)) if problem.code == Code::TooLarge => {
                Ok(Err(Reason::TooLarge { bytes: problem.actual.unwrap_or_default(), most: LARGE_VALUE_BYTES }))
            }
            Err(error) => Err(error),
        }
    }

    async fn add(&mut self, op: Operation) -> Result<(), ChangeError> {
        match self.batcher.add(op) {
            Some(ops) => self.sender.send(ops).await,
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<(), ChangeError> {
        if let Some(ops) = self.batcher.take() {
            self.sender.send(ops).await?;
        }
        let sent = self.sender.finish().await?;
        self.report.changes = sent.changes;
        self.report.revision = sent.revision;
        self.report.conflicts = sent.conflicts.into_iter().map(|conflict| conflict.key.to_string()).collect();
        Ok(())
    }

    /// Why it did not come to its end, and how far it came.
    fn stopped(&self, what: &str, error: &ChangeError) -> Failure {
        let failure = not_saved(what, error);
        match (&failure.hint, self.sender.saved().operations) {
            (None, saved @ 1..) => {
                failure.hint(format!("saved before: {}; run it again to go on", show::of(saved, "key")))
            }
            _ => failure,
        }
    }
}

/// Deletes of the keys whose file is gone. A key that is no path never had a file here, and stays.
fn gone(tree: &Scan, held: &Held) -> Vec<Operation> {
    let gone = tree.gone(held.keys());
    gone.into_iter().filter(|key| path_of(key).is_ok()).map(|key| Operation::delete(key.clone())).collect()
}

impl Report {
    fn print(mut self, took: Duration, out: Output) -> Result<(), Failure> {
        self.seconds = took.as_secs_f64();
        out.object(&self)?;
        // There may be hundreds of links, and one line says it of all.
        let (links, others): (Vec<_>, Vec<_>) =
            self.left_out.iter().partition(|left_out| left_out.reason == Reason::Link);
        for left_out in others {
            out.say(format_args!("left out  {}: {}", show::text(&left_out.path), left_out.reason))?;
        }
        if !links.is_empty() {
            let links = show::of(links.len() as u64, "symbolic link");
            out.say(format_args!("left out  {links}, which are not followed (--json names them)"))?;
        }
        for key in &self.conflicts {
            out.say(format_args!(
                "conflict  {}: another device changed it meanwhile; see its history",
                show::text(key)
            ))?;
        }
        let (pushed, changes) = (show::of(self.pushed, "file"), show::of(self.changes, "change"));
        let [unchanged, deleted] = [self.unchanged, self.deleted].map(show::count);
        let (bytes, left_out, took) = (show::bytes(self.bytes), self.left_out.len(), show::seconds(took));
        out.say(format_args!(
            "pushed {pushed} ({bytes}) in {changes}, {took}; \
             {unchanged} unchanged, {deleted} deleted, {left_out} left out"
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_vanished_is_left_out_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.json"), "{}").unwrap();
        let tree = scan(root.path()).unwrap();
        let held = Held::default();
        let Reading::Differs(op) = read_one(&tree.files[0], &held) else { panic!("not read") };
        let Action::Put(put) = op.action else { panic!("no put") };
        assert_eq!((put.value.as_bytes(), put.content_type.as_str()), (&b"{}"[..], "application/json"));
        std::fs::remove_file(root.path().join("a.json")).unwrap();
        let Reading::LeftOut(left_out) = read_one(&tree.files[0], &held) else { panic!("not left out") };
        assert!(left_out.path == "a.json" && left_out.reason == Reason::Missing, "{left_out:?}");
    }

    #[test]
    fn nobody_reads_files_that_nobody_wants() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let tree = scan(root.path()).unwrap();
        let (readings, coming) = mpsc::channel(1);
        drop(coming);
        read_all(&tree, &Held::default(), &readings);
    }
}
