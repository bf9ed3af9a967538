//! `roam get`: prints the value of one key.

use roam_client::Lookup;
use roam_schemas::{Record, State};

use crate::{
    cli::{Get, Global},
    connect::{named, not_answered, with_profile},
    failure::{Exit, Failure},
    output::Output,
    show,
};

pub(super) async fn run(args: Get, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("get", &args.profile, args.key.as_str());
    let lookup = with_profile(global, &args.profile, &what, async |profile| {
        profile.get(args.key).await.map_err(|error| not_answered(&what, &error))
    })
    .await?;
    print(&lookup, &what, out)
}

fn print(lookup: &Lookup, what: &str, out: Output) -> Result<(), Failure> {
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
        Lookup::Unknown => not_found("the profile has no such key".to_owned()),
    }
}

fn by_whom(record: &Record) -> String {
    format!("by {} at revision {}, {}", show::text(record.device.as_str()), record.revision, record.time)
}
