//! `roam get`: prints the value of one key, as it is or as it was.

mod then;

use std::io;

use roam_client::{Lookup, ProfileClient};
use roam_process::clock::now_ns;
use roam_schemas::{Key, Manifest, Record, State, Timestamp};

use self::then::{NotKnown, lookup_at};
use crate::{
    cli::{Get, Global},
    connect::{named, not_answered, with_profile},
    failure::{Exit, Failure},
    output::{Output, stream},
    past::Point,
    show,
};

pub(super) async fn run(args: Get, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("get", &args.profile, args.key.as_str());
    let point = args.then().map(|at| at.point(Timestamp::from_nanos(now_ns())));
    let lookup = with_profile(global, &args.profile, &what, async |profile| {
        let failed = |error| not_answered(&what, &error);
        match Box::pin(looked_up(&profile, args.key, point, &what)).await? {
            Lookup::Found(record) => match manifest(&record, &what)? {
                Some(manifest) if !out.is_json() => {
                    let bar = out.byte_bar(Some(manifest.length), "downloading");
                    let mut to = stream(io::stdout()).map_err(|error| Failure::output(&error))?;
                    let written = profile.download(&manifest, &mut to, |done| bar.set_position(done.bytes)).await;
                    bar.finish_and_clear();
                    written.map(|()| None).map_err(failed)
                }
                _ => Ok(Some(Lookup::Found(profile.whole(record).await.map_err(failed)?))),
            },
            lookup => Ok(Some(lookup)),
        }
    })
    .await?;
    // A large value is printed already.
    lookup.map_or(Ok(()), |lookup| print(&lookup, point, &what, out))
}

/// What a key is, or was at a place in the past.
async fn looked_up(profile: &ProfileClient, key: Key, point: Option<Point>, what: &str) -> Result<Lookup, Failure> {
    let Some(point) = point else {
        return profile.get_record(key).await.map_err(|error| not_answered(what, &error));
    };
    lookup_at(profile, key, point).await.map_err(|error| match &error {
        NotKnown::Unanswered(error) => not_answered(what, error),
        NotKnown::Ahead(_) => Failure::because(what, &error),
        NotKnown::NotKept(_) => Failure::because(what, &error).hint("`roam history` shows which versions are kept"),
    })
}

fn manifest(record: &Record, what: &str) -> Result<Option<Manifest>, Failure> {
    match &record.state {
        State::Value(stored) => stored.manifest().map_err(|problem| Failure::problem(what, &problem)),
        State::Deleted | State::Expired => Ok(None),
    }
}

fn print(lookup: &Lookup, point: Option<Point>, what: &str, out: Output) -> Result<(), Failure> {
    let not_found =
        |why: String| Err(Failure { exit: Exit::NotFound, ..Failure::new(what, format!("not found: {why}")) });
    match lookup {
        Lookup::Found(record) if out.is_json() => out.object(record),
        Lookup::Found(record) => match &record.state {
            State::Value(stored) => out.bytes(stored.value.as_bytes()),
            State::Deleted | State::Expired => not_found("it has no value".to_owned()),
        },
        Lookup::Deleted(record) => {
            out.object(record)?;
            not_found(format!("it was deleted {}", by_whom(record)))
        }
        Lookup::Expired(record) => {
            out.object(record)?;
            not_found(format!("it has expired; it was written {}", by_whom(record)))
        }
        Lookup::Unknown => not_found(match point {
            None => "the profile has no such key".to_owned(),
            Some(point) => format!("the profile had no such key at {point}"),
        }),
    }
}

fn by_whom(record: &Record) -> String {
    format!("by {} at revision {}, {}", show::text(record.device.as_str()), record.revision, record.time)
}
