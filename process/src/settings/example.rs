//! The example configuration held against the defaults, so that document and default cannot part.
//! It is for the tests of services; a running process only learns from it which fields there are.

use std::fmt::Debug;

use super::node::Node;
use super::reader::{self, Fault, Known};
use super::{Settings, defaults};

/// How the example and the defaults differ.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// The example, or it with the commented-out fields, is not TOML.
    #[error("the example is not TOML")]
    Syntax(#[source] toml::de::Error),
    /// The example holds something that cannot be read.
    #[error("the example cannot be read: {0}")]
    Unreadable(String),
    /// The defaults are not the same once they are written and read again.
    #[error("the defaults do not survive being written and read")]
    Unwritable,
    /// The example has other values than the defaults.
    #[error("the example gives\n{example}\nbut the defaults are\n{defaults}")]
    Differs {
        /// What the example reads as.
        example: String,
        /// What the defaults are.
        defaults: String,
    },
    /// Fields that the example does not mention.
    #[error("the example does not mention {}", .0.join(", "))]
    Unmentioned(Vec<String>),
}

/// Holds `S::EXAMPLE` against `S::default()`: it reads as the defaults, each field is in it
/// (possibly commented out, as `#field = ...`), and the commented-out fields can be read too.
///
/// # Errors
/// The first difference.
pub fn check_example<S: Settings + PartialEq + Debug>() -> Result<(), ExampleError> {
    let unreadable = |fault: Fault| ExampleError::Unreadable(fault.to_string());
    let known = Known::default();
    let written: S = reader::read(&defaults::<S>(), &known).map_err(unreadable)?;
    if written != S::default() {
        return Err(ExampleError::Unwritable);
    }
    let example = parse(S::EXAMPLE).map_err(ExampleError::Syntax)?;
    let read: S = reader::read(&example, &known).map_err(unreadable)?;
    if read != S::default() {
        return Err(ExampleError::Differs { example: format!("{read:#?}"), defaults: format!("{:#?}", S::default()) });
    }
    let complete = complete(S::EXAMPLE).map_err(ExampleError::Syntax)?;
    reader::read::<S>(&complete, &known).map_err(unreadable)?;
    let unmentioned: Vec<String> =
        known.paths().iter().filter(|path| !complete.has(path)).map(|path| path.join(".")).collect();
    if unmentioned.is_empty() { Ok(()) } else { Err(ExampleError::Unmentioned(unmentioned)) }
}

/// The example with its commented-out fields and sections, which are told from prose by having no
/// space after the `#`.
pub(super) fn complete(example: &str) -> Result<Node, toml::de::Error> {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(field) if field.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => field,
        _ => line,
    });
    parse(&lines.collect::<Vec<_>>().join("\n"))
}

fn parse(text: &str) -> Result<Node, toml::de::Error> {
    Ok(Node::of(toml::Value::Table(toml::from_str(text)?)))
}
