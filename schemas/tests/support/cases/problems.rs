//! Golden problems: one of each code. The pages in `docs/errors/` show these.

use roam_schemas::{Code, Problem};

use super::{Case, case, key, revision};

pub(super) fn all() -> Vec<Case> {
    Code::ALL.into_iter().map(|code| case(code.as_str(), example(code))).collect()
}

fn example(code: Code) -> Problem {
    let plain = |message| Problem::new(code, message);
    match code {
        Code::Invalid => plain("the cursor belongs to another profile"),
        Code::TooLarge => plain("a value is too large, in bytes").with_limit(262_144, 300_000),
        Code::Denied => plain("the subject is not of this shard"),
        Code::Conflict => {
            plain("a record is not at the revision that was expected").with_failed(key("theme"), Some(revision(39)))
        }
        Code::Exists => {
            plain("a record exists that was expected to be absent").with_failed(key("theme"), Some(revision(39)))
        }
        Code::OverQuota => plain("the profile would hold too many records").with_limit(50_000, 50_001),
        Code::Behind => plain("the profile has not reached that revision here").with_limit(44, 42),
        Code::Reset => plain("the cursor is older than what is still known: fetch the whole profile"),
        Code::Busy => plain("too many requests wait"),
        Code::StorageFull => plain("the disk of the service is full"),
        Code::Skipped => plain("an operator let the pipeline go past the batch that held this change"),
        Code::Missing => plain("a chunk is not there"),
        Code::UnsupportedVersion => plain("the message is of version 2, this is version 1").with_limit(1, 2),
    }
}
