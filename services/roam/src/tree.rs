//! A directory tree as keys and values: which files are taken, which keys are paths, and how files are written. Knows
//! nothing of the bus or of profiles.

mod guess;
mod keys;
mod read;
mod scan;
mod write;

pub(crate) use guess::guess_content_type;
pub(crate) use keys::path_of;
pub(crate) use read::{Contents, digest, open, read};
pub(crate) use scan::{Candidate, LeftOut, Reason, Scan, ScanError, scan};
pub(crate) use write::{Directory, NewFile, OpenError, WriteError, Written};

/// What the names of files begin with that are being written. They never become keys, and no key becomes one.
const TEMPORARY: &str = ".roam-pull-";
