//! `roam backup`: looks at backups, verifies them, brings one back, and removes old ones, in a directory or in the
//! bucket on the bus. No replica has to run for that. To make one is ordered of a replica that runs.

mod create;
mod next;

use std::{future::Future, time::Duration};

use roam_nats::{Bus, ObjectError};
use roam_schemas::{Shard, Shards};
use roam_storage::{
    backup::{BackupError, BackupId, Listed, Manifest, Progress, Repository},
    store::StoreError,
};
use serde_json::json;
use tokio::time::interval;

use self::next::Next;
use crate::{
    cli::{Backup, BackupCommand, Global, ListBackups, Only, PruneBackups, Repo, RestoreBackup, VerifyBackup},
    connect::{bus_settings, not_on_the_bus},
    failure::{Exit, Failure},
    output::Output,
    show,
};

/// How often a bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Backup, global: &Global, out: Output) -> Result<(), Failure> {
    match args.command {
        BackupCommand::Create(args) => create::run(&args, global, out).await,
        BackupCommand::List(args) => list(args, global, out).await,
        BackupCommand::Verify(args) => verify(args, global, out).await,
        BackupCommand::Restore(args) => restore(args, global, out).await,
        BackupCommand::Prune(args) => prune(args, global, out).await,
    }
}

async fn list(args: ListBackups, global: &Global, out: Output) -> Result<(), Failure> {
    const WHAT: &str = "backup list";
    with_repository(WHAT, (&args.source.from, args.only), global, async |repository| {
        let listed = repository.list().await.map_err(|error| failed(WHAT, &error))?;
        if listed.is_empty() {
            return out.say("no backups");
        }
        listed.iter().try_for_each(|listed| say_listed(listed, out))
    })
    .await
}

async fn verify(args: VerifyBackup, global: &Global, out: Output) -> Result<(), Failure> {
    const WHAT: &str = "backup verify";
    with_repository(WHAT, (&args.source.from, args.only), global, async |repository| {
        let id = chosen(WHAT, args.id, repository).await?;
        let progress = Progress::default();
        let verified = watched(&progress, "verifying", out, repository.verify(&id, &progress)).await;
        let verified = verified.map_err(|error| failed(WHAT, &error))?;
        let rows: serde_json::Map<_, _> =
            verified.rows.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
        out.object(&json!({
            "backup": describe(&verified.manifest),
            "verified": true,
            "rows": rows,
            "missing_chunks": verified.missing_chunks,
        }))?;
        let total = verified.rows.iter().map(|(_, rows)| rows).sum();
        let (parts, bytes) = (parts(&verified.manifest), show::bytes(verified.manifest.bytes()));
        let rows = show::of(total, "row");
        match verified.missing_chunks {
            0 => out.say(format_args!("backup {id} is whole: {parts}, {bytes}, {rows}")),
            missing => {
                out.say(format_args!("backup {id} is as it was made: {parts}, {bytes}, {rows}"))?;
                out.say(without(missing))
            }
        }
    })
    .await
}

async fn restore(args: RestoreBackup, global: &Global, out: Output) -> Result<(), Failure> {
    const WHAT: &str = "backup restore";
    with_repository(WHAT, (&args.source.from, args.only), global, async |repository| {
        let id = chosen(WHAT, args.id, repository).await?;
        let progress = Progress::default();
        let manifest = repository.manifest(&id).await.map_err(|error| failed(WHAT, &error))?;
        let fetch = async {
            match args.without_chunks {
                false => repository.fetch(&id, &args.data, &progress).await,
                true => repository.fetch_records(&id, &args.data, &progress).await,
            }
        };
        let restored = watched(&progress, "restoring", out, fetch).await.map_err(|error| failed(WHAT, &error))?;
        let chunks = manifest.chunks.filter(|_| !args.without_chunks).map_or(0, |chunks| chunks.count);
        let next = Next::look(&bus_settings(global), args.only.shard.map(numbered).unwrap_or_default(), restored.position.as_ref()).await;
        out.object(&json!({
            "restored": restored,
            "directory": args.data,
            "bytes": progress.seen().bytes,
            "chunks": chunks,
            "missing_chunks": manifest.chunks.map_or(0, |chunks| chunks.missing),
            "then": next,
        }))?;
        let (bytes, directory) = (show::bytes(progress.seen().bytes), args.data.display());
        out.say(format_args!("restored backup {id} into {directory} ({bytes})"))?;
        match restored.position {
            Some(position) => {
                let (sequence, published) = (position.sequence, position.published);
                out.say(format_args!("it stands at batch {sequence} of the journal, of {published}"))?;
            }
            None => out.say("it was made before anything was written")?,
        }
        out.say(next.words())?;
        match manifest.chunks {
            Some(all) if chunks > 0 => {
                let (brought, bytes) = (show::of(chunks, "chunk"), show::bytes(all.bytes));
                out.say(format_args!(
                    "it has {brought} of large values ({bytes}): the replica puts those on the bus that are missing there"
                ))?;
                if all.missing > 0 { out.say(without(all.missing)) } else { Ok(()) }
            }
            Some(_) => out.say("the chunks of its large values were left out: the bus has to have them"),
            None => Ok(()),
        }
    })
    .await
}

async fn prune(args: PruneBackups, global: &Global, out: Output) -> Result<(), Failure> {
    const WHAT: &str = "backup prune";
    with_repository(WHAT, (&args.source.from, args.only), global, async |repository| {
        let keep = usize::try_from(args.keep).unwrap_or(usize::MAX);
        let pruned = repository.prune(keep).await.map_err(|error| failed(WHAT, &error))?;
        out.object(&json!({
            "removed": pruned.removed,
            "kept": pruned.kept,
            "files": pruned.files,
            "bytes": pruned.bytes,
            "busy": pruned.busy,
        }))?;
        for id in &pruned.removed {
            out.say(format_args!("removed    {id}"))?;
        }
        let (kept, freed) = (show::of(pruned.kept as u64, "backup"), show::bytes(pruned.bytes));
        out.say(format_args!("{kept} left, {freed} freed"))?;
        if pruned.busy {
            out.note("files were left alone, because a backup is being made or read: prune again later");
        }
        Ok(())
    })
    .await
}

/// Does something with a repository, and closes the connection to it in good order.
async fn with_repository<T>(
    what: &str,
    (source, only): (&Repo, Only),
    global: &Global,
    work: impl AsyncFnOnce(&Repository) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match source {
        Repo::Directory(path) => work(&of_shard(Repository::in_directory(path), only)).await,
        Repo::Bucket => {
            let bus = Bus::connect(&bus_settings(global), "roam-backup").await;
            let bus = bus.map_err(|error| {
                let failure = not_on_the_bus(what, &error);
                let hint = format!(
                    "{}; or name a directory with --from DIR",
                    failure.hint.as_deref().unwrap_or("the bucket is on the bus")
                );
                failure.hint(hint)
            })?;
            let done = work(&of_shard(Repository::in_bucket(&bus), only)).await;
            bus.close().await;
            done
        }
    }
}

/// The backups of a shard that was named. How many there are is not known without the bus, and makes no difference.
fn of_shard(repository: Repository, only: Only) -> Repository {
    match only.shard.map(numbered) {
        Some(shard) => repository.of_shard(shard),
        None => repository,
    }
}

/// That shard of as many as there can be.
fn numbered(number: u16) -> Shard {
    Shard::new(number, Shards::MOST).unwrap_or_default()
}

/// The backup that was named, or the newest.
async fn chosen(what: &str, id: Option<BackupId>, repository: &Repository) -> Result<BackupId, Failure> {
    if let Some(id) = id {
        return Ok(id);
    }
    let newest = repository.newest().await.map_err(|error| failed(what, &error))?;
    let none = || Failure { exit: Exit::NotFound, ..Failure::new(what, "there is no backup that can be used") };
    Ok(newest.ok_or_else(none)?.id)
}

/// Moves a bar while something goes on.
async fn watched<T>(progress: &Progress, verb: &'static str, out: Output, work: impl Future<Output = T>) -> T {
    let bar = out.bar_of_bytes(verb);
    let mut ticks = interval(LOOK_EVERY);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => {
                let seen = progress.seen();
                bar.set_length(seen.bytes);
                bar.set_position(seen.bytes_done);
            }
        }
    };
    bar.finish_and_clear();
    done
}

fn say_listed(listed: &Listed, out: Output) -> Result<(), Failure> {
    match &listed.manifest {
        Ok(manifest) => {
            out.object(&describe(manifest))?;
            let sequence = manifest.position.as_ref().map_or(0, |position| position.sequence);
            let (replica, bytes) = (show::text(&manifest.replica), show::bytes(manifest.bytes()).to_string());
            out.row(format_args!("{}  {replica:<16}  {bytes:>12}  batch {sequence}", listed.id))
        }
        Err(error) => {
            out.object(&json!({ "id": listed.id, "error": error.to_string() }))?;
            out.row(format_args!("{}  cannot be used: {error}", listed.id))
        }
    }
}

/// The files and chunks of a backup, counted.
fn parts(manifest: &Manifest) -> String {
    let files = show::of(manifest.files.len() as u64, "file");
    match manifest.chunks {
        Some(chunks) => format!("{files} and {}", show::of(chunks.count, "chunk")),
        None => files,
    }
}

/// What it means that chunks are missing from a backup.
fn without(missing: u64) -> String {
    let chunks = show::of(missing, "chunk");
    format!("it lacks {chunks} of large values, which the bus did not have any more when it was made")
}

fn describe(manifest: &Manifest) -> serde_json::Value {
    json!({
        "id": manifest.id,
        "created": manifest.created,
        "replica": manifest.replica,
        "version": manifest.version,
        "store_format": manifest.store_format,
        "epoch": manifest.epoch,
        "position": manifest.position,
        "files": manifest.files.len(),
        "chunks": manifest.chunks.map_or(0, |chunks| chunks.count),
        "bytes": manifest.bytes(),
    })
}

fn failed(what: &str, error: &BackupError) -> Failure {
    let failure = Failure::because(what, error);
    let failure = if error.retry() { Failure { exit: Exit::TryLater, ..failure } } else { failure };
    let not_found = |failure| Failure { exit: Exit::NotFound, ..failure };
    match error {
        BackupError::NoRepository { .. } => not_found(failure).hint(
            "name where the backups are with --from DIR|bucket, and the shard with --shard where there are several",
        ),
        BackupError::NoSuchBackup { .. } => not_found(failure).hint("`roam backup list` shows those that there are"),
        BackupError::Damaged { .. } | BackupError::Unlike { .. } | BackupError::Manifest { .. } => {
            failure.hint("`roam backup list` shows the others; verify one before you need it")
        }
        BackupError::NotEmpty { .. } => {
            failure.hint("move what is there away; it is worth keeping until the replica is well again")
        }
        BackupError::Store(StoreError::Format { .. }) => {
            failure.hint("use the roam that made the backup, or a newer one")
        }
        BackupError::Bucket(ObjectError::NoBucket { .. }) => {
            failure.hint("make the bucket with `roam provision`, or name a directory with --from DIR")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_failure_says_what_can_be_done() {
        let id: BackupId = "20260301T120000.000Z-0123abcd".parse().unwrap();
        let path = PathBuf::from("/backups");
        let damaged =
            BackupError::Damaged { id: id.clone(), file: "000012.sst".to_owned(), what: "it is missing".to_owned() };
        for (error, exit) in [
            (BackupError::NoRepository { path: path.clone() }, Exit::NotFound),
            (BackupError::NoSuchBackup { id }, Exit::NotFound),
            (damaged, Exit::Failed),
            (BackupError::NotEmpty { target: path }, Exit::Failed),
            (ObjectError::NoBucket { bucket: "B".to_owned() }.into(), Exit::Failed),
        ] {
            let failure = failed("backup", &error);
            assert_eq!((failure.exit, failure.hint.is_some()), (exit, true), "{error}");
        }
        let later = failed("backup", &BackupError::Pruning);
        assert_eq!(later.exit, Exit::TryLater);
    }
}
