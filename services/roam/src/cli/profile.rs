//! The options of the commands that read and write the records of one profile. Nothing is done here.

use std::path::PathBuf;

use clap::Args;
use roam_schemas::{ContentType, Cursor, Expect, Key, Profile, Revision, limits};

use super::parse::{at, content_type, cursor, expect, key, span};
use crate::past::At;

/// `roam put`.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// The value; `-` reads it from standard input
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    /// Read the value from this file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// What the value is, as in HTTP [default: guessed]
    #[arg(long, value_name = "TYPE", value_parser = content_type)]
    pub(crate) content_type: Option<ContentType>,
    /// After how long it expires, in seconds, or with a unit: 90, 15m, 12h, 30d
    #[arg(long, value_name = "SECONDS", value_parser = span)]
    pub(crate) ttl: Option<u32>,
    /// Write only if the record is absent, or at this revision: any, absent, at:REVISION
    #[arg(long, value_name = "EXPECTATION", default_value = "any", value_parser = expect)]
    pub(crate) expect: Expect,
}

/// `roam get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// Print the bytes of the value and nothing else; this is the default
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// As it was after this revision of the profile; `roam history` shows those of a key
    #[arg(long, value_name = "REVISION", conflicts_with = "at")]
    #[arg(value_parser = clap::value_parser!(u64).range(..limits::REVISION_END))]
    pub(crate) revision: Option<u64>,
    /// As it was then: a revision (42), a time (2026-03-01T12:00:00Z), or how long ago (90s, 15m, 2h, 1d)
    #[arg(long, value_name = "WHEN", value_parser = at)]
    pub(crate) at: Option<At>,
}

impl Get {
    /// At what place in the past; none for how it is now.
    pub(crate) fn then(&self) -> Option<At> {
        self.revision.map(|number| At::Revision(Revision::new(number))).or(self.at)
    }
}

/// `roam effective`.
#[derive(Debug, Args)]
pub(crate) struct Effective {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The key; all of them if it is left out
    #[arg(value_parser = key)]
    pub(crate) key: Option<Key>,
    /// The platform to read as: linux, macos, windows, android, or whatever else names one [default: this one's]
    #[arg(long, value_name = "NAME")]
    pub(crate) platform: Option<String>,
}

/// `roam rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The keys, at most 1,000
    #[arg(required = true, value_name = "KEY", value_parser = key)]
    pub(crate) keys: Vec<Key>,
}

/// `roam ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// Only keys that begin with this
    pub(crate) prefix: Option<String>,
}

/// `roam changes`.
#[derive(Debug, Args)]
pub(crate) struct Changes {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// What the last call ended with; without it, everything
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    pub(crate) cursor: Option<Cursor>,
}

/// `roam history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// At most this many versions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: Option<u32>,
}

/// `roam watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// Begin after this place, with all that changed since
    #[arg(long, value_name = "CURSOR", value_parser = cursor, conflicts_with = "from_beginning")]
    pub(crate) cursor: Option<Cursor>,
    /// Begin with all that the profile holds
    #[arg(long)]
    pub(crate) from_beginning: bool,
}

/// `roam push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Delete keys whose file is gone
    #[arg(long)]
    pub(crate) delete: bool,
}

/// `roam pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// tenant/user/app
    pub(crate) profile: Profile,
    /// The directory, made if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Delete files whose key is gone
    #[arg(long)]
    pub(crate) delete: bool,
    /// Stay, and apply every change as it comes, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}
