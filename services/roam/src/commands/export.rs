//! `roam export`: writes the live records of a profile, as they are at one revision, into a file or to standard output; of a
//! user those of all their profiles, one after the other.

mod file;

use std::io;

use roam_client::{Client, ProfileClient};
use roam_nats::BusSettings;
use roam_schemas::{App, Profile, ProfilesRequest, Record, Revision, State, Timestamp};
use serde::Serialize;
use serde_json::json;

use self::file::NewFile;
use super::profiles::{best, each};
use crate::{
    archive::{Header, Line, UserHeader},
    cli::{Export, Global},
    connect::{bus_settings, not_answered, with_user},
    failure::{Exit, Failure},
    operator::Operator,
    output::Output,
    owner::{Owner, UserName},
    show,
};

pub(super) async fn run(args: Export, global: &Global, out: Output) -> Result<(), Failure> {
    let what = format!("export {}", show::text(&args.owner.to_string()));
    match &args.owner {
        Owner::Profile(_) if !args.apps.is_empty() || args.operator_nkey.is_some() => {
            Err(Failure::usage(what, "--app and --operator-nkey are for a user, and this is a profile"))
        }
        Owner::Profile(profile) => {
            let user = UserName::of(profile);
            with_user(global, &user, &what, async |client| {
                let (told, sink) = (&what, Sink::open(&args, &what, out)?);
                one(&client.profile_of(user.user.clone(), profile.app.clone()), profile, sink, told).await
            })
            .await
        }
        Owner::User(user) => {
            let apps = match args.apps.as_slice() {
                [] => apps_of(user, &args, global, &what).await?,
                apps => apps.to_vec(),
            };
            with_user(global, user, &what, async |client| {
                all(client, user, apps, Sink::open(&args, &what, out)?, &what).await
            })
            .await
        }
    }
}

/// The apps of which a user has a profile, as the replicas hold them.
async fn apps_of(user: &UserName, args: &Export, global: &Global, what: &str) -> Result<Vec<App>, Failure> {
    let mut settings = bus_settings(global);
    if let Some(seed) = &args.operator_nkey {
        settings = BusSettings { nkey_seed: Some(seed.clone()), token_file: None, credentials: None, ..settings };
    }
    let operator = Operator::connect_by(settings, what).await?.of(&user.tenant, &user.user);
    let listed = async {
        let replica = best(&operator.replicas().await?, what)?;
        let UserName { tenant, user } = user.clone();
        let request = ProfilesRequest { tenant: Some(tenant), user: Some(user), ..ProfilesRequest::default() };
        let mut apps = Vec::new();
        each(&operator, &replica, request, |standing| {
            apps.push(standing.profile.app);
            Ok(())
        })
        .await?;
        Ok(apps)
    };
    let listed: Result<Vec<App>, Failure> = listed.await;
    operator.bus.close().await;
    let apps = listed.map_err(|failure| {
        let hint = failure.hint.clone().unwrap_or_else(|| "which profiles there are only operators may ask".to_owned());
        failure.hint(format!("{hint}; or name the apps: --app APP"))
    })?;
    match apps.is_empty() {
        false => Ok(apps),
        true => Err(Failure { exit: Exit::NotFound, ..Failure::new(what, "the user has no profiles") }),
    }
}

async fn one(profile: &ProfileClient, name: &Profile, mut sink: Sink<'_>, what: &str) -> Result<(), Failure> {
    let written = write(profile, name, &mut sink, what).await?;
    let Written { records, head, time } = written;
    let Some((bytes, path, out)) = sink.keep()? else { return Ok(()) };
    out.object(&json!({ "exported": records, "bytes": bytes, "head": head, "time": time, "file": path }))?;
    let (records, bytes) = (show::of(records, "record"), show::bytes(bytes));
    out.say(format_args!("exported {records} of revision {head}, {time}, to {path} ({bytes})"))
}

async fn all(client: &Client, user: &UserName, apps: Vec<App>, mut sink: Sink<'_>, what: &str) -> Result<(), Failure> {
    let profiles = apps.len() as u64;
    sink.put(&UserHeader::new(user, profiles))?;
    let mut records = 0;
    for app in apps {
        let profile = client.profile_of(user.user.clone(), app.clone());
        records += write(&profile, &user.profile(app), &mut sink, what).await?.records;
    }
    let Some((bytes, path, out)) = sink.keep()? else { return Ok(()) };
    out.object(&json!({ "exported": records, "profiles": profiles, "bytes": bytes, "file": path }))?;
    let (records, profiles) = (show::of(records, "record"), show::of(profiles, "profile"));
    out.say(format_args!("exported {records} of {profiles} to {path} ({})", show::bytes(bytes)))
}

/// What was written of a profile.
struct Written {
    records: u64,
    head: Revision,
    time: Timestamp,
}

/// Writes line after line. Large values are fetched one after the other, so that one at most is in memory.
async fn write(profile: &ProfileClient, name: &Profile, sink: &mut Sink<'_>, what: &str) -> Result<Written, Failure> {
    // Not page by page: a delta from the beginning is the state at one revision, whatever is written meanwhile.
    let delta = profile.changes(None).await.map_err(|error| not_answered(what, &error))?;
    let (head, time) = delta.cursor.open(name).map_err(|problem| Failure::problem(what, &problem))?;
    let mut live: Vec<Record> = delta.records;
    live.retain(|record| matches!(record.state, State::Value(_)));
    live.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let records = live.len() as u64;
    sink.put(&Header::new(name, head, time, records))?;
    for record in live {
        let record = profile.whole(record).await.map_err(|error| not_answered(what, &error))?;
        if let Some(line) = Line::of(record) {
            sink.put(&line)?;
        }
    }
    Ok(Written { records, head, time })
}

/// Where lines go: into a new file, or to standard output.
struct Sink<'a> {
    file: Option<(NewFile, String)>,
    bytes: u64,
    what: &'a str,
    out: Output,
}

impl<'a> Sink<'a> {
    fn open(args: &Export, what: &'a str, out: Output) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::because(what, &error);
        let open = |path: &std::path::PathBuf| Ok((NewFile::create(path)?, path.display().to_string()));
        let file = args.output.as_ref().map(open).transpose().map_err(failed)?;
        Ok(Self { file, bytes: 0, what, out })
    }

    fn put(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::because(self.what, &error))?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        match &mut self.file {
            None => self.out.bytes(&line),
            Some((file, _)) => file.write_all(&line).map_err(|error| Failure::because(self.what, &error)),
        }
    }

    /// It is whole: puts a file in its place. How many bytes it has, what it is called, and where that is said.
    fn keep(self) -> Result<Option<(u64, String, Output)>, Failure> {
        let Some((file, path)) = self.file else { return Ok(None) };
        file.keep().map_err(|error| Failure::because(self.what, &error))?;
        Ok(Some((self.bytes, path, self.out)))
    }
}
