//! Settings: plain data that an operator tunes, one struct a service. They come from a TOML file,
//! then the environment, then flags; the later wins. Every problem is reported at once, each with
//! where it came from. Nothing here opens a connection or binds a port, and no message shows a
//! secret.
//!
//! Each field set anywhere is first read alone, upon the defaults, so that one that is wrong does
//! not hide the next; hence a field must be readable by itself, and rules between fields belong in
//! [`Settings::validate`].

mod example;
mod layers;
mod node;
mod problem;
mod process;
mod reader;
mod redact;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use example::{ExampleError, check_example};
pub(crate) use layers::environment_prefix;
pub use problem::{Problem, Problems};
pub use process::ProcessSettings;

use layers::Assignment;
use node::Node;
use reader::{Fault, FaultKind, Known};

/// The settings of a service.
///
/// All structs in them derive serde's traits with `#[serde(default, deny_unknown_fields)]`, so that
/// every field has a default and a misspelt one is refused. Those that every process has are in a
/// field named `process`. Secrets are in fields whose names end in `password`, `passphrase`,
/// `secret` or `token`: they are never shown.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// What the service does, in one line: the first line of its `--help`.
    const ABOUT: &'static str;

    /// The example configuration: every field with its default and a comment. A field without a
    /// default is commented out as `#field = "value"`, with no space after the `#`, while comments
    /// have one. [`check_example`] holds it to the defaults, in a test of the service.
    const EXAMPLE: &'static str;

    /// What every process has: the field `process`.
    fn process(&self) -> &ProcessSettings;

    /// What is wrong with values that have the right type: ranges, and rules between fields. (Those
    /// of `process` are looked at already.)
    fn validate(&self) -> Vec<Problem>;
}

/// Where settings are read from. The later of these wins.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file, if one was named. It must then exist.
    pub file: Option<PathBuf>,
    /// The environment: names and values. Those that do not begin with the service's prefix and two
    /// underscores are none of ours, and so are the single-underscore names that container
    /// orchestrators invent.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags set, in order.
    pub flags: Vec<Assigned>,
}

/// One field set by a flag.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The flag, for messages, such as `--set`.
    pub flag: &'static str,
    /// `section.field=value`.
    pub assignment: String,
}

/// Reads the settings of the process called `name` (`roam-storage` reads `ROAM_STORAGE__BUS__USER`
/// for `bus.user`). In the environment and in flags a list is separated by commas (or written as a
/// TOML array), and an empty value unsets a field that may be unset.
///
/// # Errors
/// All problems at once.
pub fn load<S: Settings>(name: &str, sources: &Sources) -> Result<S, Problems> {
    let base = defaults::<S>();
    let known = known_settings::<S>(&base);
    let (assignments, mut problems) = layers::read(name, sources);
    let mut merged = base.clone();
    let mut taken = Vec::new();
    for assignment in assignments {
        match read_alone::<S>(&base, &assignment) {
            Ok(()) => {
                merged.put(&assignment.path, assignment.value.clone());
                taken.push(assignment);
            }
            Err(fault) => problem::add(&mut problems, &fault, &assignment, &known),
        }
    }
    match reader::read::<S>(&merged, &Known::default()) {
        Ok(settings) => {
            // What was refused above stands at its default now, and a rule between it and another
            // field would accuse the innocent. So fields that nobody set are looked at only when
            // all could be read.
            let complete = problems.is_empty();
            let invalid = validate(&settings, &taken).into_iter();
            problems.extend(invalid.filter(|problem| complete || problem.origin.is_some()));
            if problems.is_empty() {
                return Ok(settings);
            }
        }
        Err(fault) => problems.push(Problem::of_whole(&fault)),
    }
    Err(Problems { name: name.to_owned(), problems })
}

/// The settings in effect as TOML, without secrets: fields that hold one read `***`, and so does
/// what stands before the `@` of a URL.
///
/// # Errors
/// Settings that TOML cannot express, which is a defect of their type.
pub fn print<S: Settings>(settings: &S) -> Result<String, toml::ser::Error> {
    let mut value = toml::Value::try_from(settings)?;
    redact::redact(&mut value);
    toml::to_string_pretty(&value)
}

/// The defaults, without the fields that have none.
fn defaults<S: Settings>() -> Node {
    // Settings that TOML cannot express are caught by `check_example`; here they have no defaults.
    toml::Value::try_from(S::default()).map_or_else(|_| Node::empty(), Node::of)
}

/// All fields that there are, learnt by reading what is sure to be right.
fn known_settings<S: Settings>(base: &Node) -> Known {
    let known = Known::default();
    let _ = reader::read::<S>(base, &known);
    if let Ok(complete) = example::complete(S::EXAMPLE) {
        let _ = reader::read::<S>(&complete, &known);
    }
    known
}

fn read_alone<S: Settings>(base: &Node, assignment: &Assignment) -> Result<(), Fault> {
    let mut alone = base.clone();
    alone.put(&assignment.path, assignment.value.clone());
    match reader::read::<S>(&alone, &Known::default()) {
        // What it misses may be set elsewhere; reading the whole shows that.
        Err(fault) if matches!(fault.kind, FaultKind::Missing(_)) => Ok(()),
        other => other.map(|_| ()),
    }
}

fn validate<S: Settings>(settings: &S, taken: &[Assignment]) -> Vec<Problem> {
    let process = settings.process().validate().into_iter();
    let mut problems: Vec<Problem> = process.map(|problem| problem.under("process")).collect();
    problems.extend(settings.validate());
    for problem in &mut problems {
        problem.trace(taken);
    }
    problems
}
