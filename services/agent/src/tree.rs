//! A directory tree as keys and values: which files are taken, which keys are paths, and how files are written. Knows
//! nothing of the bus or of profiles.

mod guess;
mod keys;
mod read;
mod scan;
mod sweep;
mod write;

pub use guess::guess_content_type;
pub use keys::{RefusedPath, path_of};
pub(crate) use keys::{is_temporary, key_of};
pub use read::{Contents, contents, digest, open, read, read_up_to};
pub(crate) use scan::ancestors;
pub use scan::{Candidate, LeftOut, Reason, Scan, ScanError, scan};
pub use sweep::sweep;
pub use write::{Directory, NewFile, OpenError, Over, Source, WriteError, Written};

/// What the names of files begin with that are being written. They never become keys, and no key becomes one.
const TEMPORARY: &str = ".roam-pull-";
