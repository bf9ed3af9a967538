//! Why a command did not do what it was asked, in the form in which a person or a script is told: one line, a hint where
//! there is one, a stable code where there is one, and an exit code. Nothing is printed here.

use std::{error::Error, fmt::Write, io};

use roam_schemas::{Code, Problem};

/// Where the page of a code is, from the root of the repository.
const PAGES: &str = "docs/errors";

/// How a process ends. Scripts depend on the numbers: never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It went wrong, and doing it again as it is will not help.
    Failed = 1,
    /// What was asked for is not there.
    NotFound = 2,
    /// The command line itself is wrong (EX_USAGE of sysexits.h).
    Usage = 64,
    /// Not now: the same command may succeed later (EX_TEMPFAIL of sysexits.h).
    TryLater = 75,
    /// Whoever read our output has seen enough, as in `roam ls … | head`. Nobody is to be told anything.
    ReaderGone = 0,
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub(crate) struct Failure {
    /// What was attempted.
    pub(crate) what: String,
    /// Why it failed.
    pub(crate) why: String,
    /// What the reader can do about it.
    pub(crate) hint: Option<String>,
    /// The protocol's code, if the system answered with one.
    pub(crate) code: Option<Code>,
    /// How the process ends.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A failure that will not go away by itself.
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), hint: None, code: None, exit: Exit::Failed }
    }

    /// A wrong command line.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what, why) }
    }

    /// Something that may succeed later.
    pub(crate) fn later(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { exit: Exit::TryLater, ..Self::new(what, why) }
    }

    /// An error with all its sources.
    pub(crate) fn because(what: impl Into<String>, error: &dyn Error) -> Self {
        Self::new(what, chain(error))
    }

    /// What the system refused, under its code.
    pub(crate) fn problem(what: impl Into<String>, problem: &Problem) -> Self {
        let exit = if problem.retry { Exit::TryLater } else { Exit::Failed };
        let failure = Self { code: Some(problem.code), exit, ..Self::new(what, problem.to_string()) };
        match &problem.failed {
            Some(failed) => {
                let key = crate::show::text(failed.key.as_str());
                failure.hint(match failed.revision {
                    Some(revision) => format!("`{key}` is at revision {revision}; look at it, then decide"),
                    None => format!("`{key}` does not exist"),
                })
            }
            None => failure,
        }
    }

    /// The failure of a write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        let failure = Self::because("output", error);
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::ReaderGone, ..failure },
            _ => failure,
        }
    }

    /// The same with what the reader can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The page that explains the code, from the root of the repository.
    pub(crate) fn page(&self) -> Option<String> {
        self.code.map(|code| format!("{PAGES}/{code}.md"))
    }
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String does not fail. Some errors repeat their source in their own text.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Key, Revision};

    use super::*;

    #[test]
    fn what_may_be_tried_again_ends_with_75() {
        for code in Code::ALL {
            let expected = if code.retry() { Exit::TryLater } else { Exit::Failed };
            let failure = Failure::problem("put", &Problem::new(code, "no"));
            assert_eq!((failure.exit, failure.code), (expected, Some(code)));
            assert_eq!(failure.page().unwrap(), format!("docs/errors/{}.md", code.as_str()));
        }
    }

    #[test]
    fn an_unmet_expectation_names_the_record() {
        let key = Key::parse("theme").unwrap();
        let problem = Problem::new(Code::Conflict, "not as expected").with_failed(key, Some(Revision::new(7)));
        let failure = Failure::problem("put theme", &problem);
        assert_eq!(failure.to_string(), "put theme: conflict: not as expected");
        assert_eq!(failure.hint.unwrap(), "`theme` is at revision 7; look at it, then decide");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_of_ours() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).exit, Exit::ReaderGone);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).exit, Exit::Failed);
    }
}
