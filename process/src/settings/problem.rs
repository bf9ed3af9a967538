//! What is wrong with settings, in words for the person who set them: where it was said, which
//! field, what was expected. No message shows the value of a secret.

use std::fmt;

use toml::Value;

use super::layers::Assignment;
use super::node::Node;
use super::reader::{Fault, FaultKind, Known};
use super::redact::{is_secret, without_credentials};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said: a line of a file, an environment variable, a flag.
    pub(super) origin: Option<String>,
    /// The field; empty if it is not about one.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
}

/// All that is wrong with the settings of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(super) name: String,
    pub(super) problems: Vec<Problem>,
}

impl Problem {
    /// A problem with the field at `path` (`section.field`), for `Settings::validate`. The message
    /// follows the field's name, such as `must be from 1 to 10,000, not 0`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { origin: None, path: path.into(), message: message.into() }
    }

    /// The same problem, its path inside a section: what a part of the settings says of itself.
    #[must_use]
    pub fn under(mut self, section: &str) -> Problem {
        self.path = format!("{section}.{}", self.path);
        self
    }

    /// A problem with a whole file or flag.
    pub(super) fn whole(origin: String, message: String) -> Problem {
        Problem { origin: Some(origin), path: String::new(), message }
    }

    /// A problem that shows only when all settings are read together.
    pub(super) fn of_whole(fault: &Fault) -> Problem {
        let path = place(fault.at.as_deref().unwrap_or_default());
        Problem::new(path, explain(fault, None, &Known::default()))
    }

    /// Finds where the value that it complains of was set: the assignment that won. The message may
    /// quote the value, so credentials in it are hidden.
    pub(super) fn trace(&mut self, assignments: &[Assignment]) {
        self.message = without_credentials(&self.message);
        let names: Vec<&str> = self.path.split('.').collect();
        let about = |assignment: &&Assignment| {
            let mut pairs = assignment.path.iter().zip(&names);
            pairs.all(|(one, other)| one == other)
        };
        let winner = assignments.iter().rev().find(about);
        self.origin = winner.map(|assignment| {
            let depth = names.len().min(assignment.path.len()) - 1;
            assignment.origin.describe(depth)
        });
    }
}

impl Problems {
    /// Each problem, in the order of file, environment and flags.
    pub fn list(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        let name = &self.name;
        write!(f, "{name}: {count} problem{plural} in the configuration")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Adds what is wrong with an assignment, unless the same was said of the same place already, as
/// of a misspelt section with several fields.
pub(super) fn add(problems: &mut Vec<Problem>, fault: &Fault, assignment: &Assignment, known: &Known) {
    let at = fault.at.as_deref().unwrap_or_default();
    let inside_lists = at.iter().filter(|name| is_index(name)).count();
    let mut names = at.to_vec();
    if let FaultKind::Unknown(name, _) = &fault.kind {
        names.push(name.clone());
    }
    let depth = (names.len() - inside_lists).saturating_sub(1);
    let problem = Problem {
        origin: Some(assignment.origin.describe(depth)),
        path: place(&names),
        message: explain(fault, Some(assignment), known),
    };
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

fn explain(fault: &Fault, assignment: Option<&Assignment>, known: &Known) -> String {
    let at = fault.at.as_deref().unwrap_or_default();
    let given = assignment.and_then(|assignment| given(assignment, at));
    let instead = match &given {
        Some(given) => format!(", not {given}"),
        None => String::new(),
    };
    match &fault.kind {
        FaultKind::Unknown(name, siblings) => {
            let leaf = assignment.and_then(|assignment| assignment.path.last());
            unknown(at, name, siblings, leaf, known)
        }
        FaultKind::Missing(field) => format!("needs {field}"),
        FaultKind::Choice(words) => format!("must be {}{instead}", words.join(" or ")),
        FaultKind::Expected(expected) => format!("must be {}{instead}", plain(expected)),
        FaultKind::Refused(_) if at.iter().any(|name| is_secret(name)) => "has the wrong form".to_owned(),
        FaultKind::Refused(why) => match given {
            Some(given) => format!("cannot be {given}: {}", without_credentials(why)),
            None => format!("has the wrong form: {}", without_credentials(why)),
        },
    }
}

/// The value as it was given, or that part of it which is at fault, if it is short and no secret.
fn given(assignment: &Assignment, at: &[String]) -> Option<String> {
    const SHOWN: usize = 60;
    if at.iter().chain(&assignment.path).any(|name| is_secret(name)) {
        return None;
    }
    let inner = at.get(assignment.path.len()..).unwrap_or_default();
    let text = match assignment.value.at(inner) {
        Node::Text(text) => format!("{text:?}"),
        Node::Typed(Value::String(text)) => format!("{text:?}"),
        Node::Typed(value) => value.to_string(),
        Node::List(_) => "a list".to_owned(),
        Node::Section(_) => "a section".to_owned(),
    };
    let text = without_credentials(&text);
    (text.chars().count() <= SHOWN).then_some(text)
}

fn unknown(at: &[String], name: &str, siblings: &[&str], leaf: Option<&String>, known: &Known) -> String {
    let sibling = siblings
        .iter()
        .map(|sibling| (distance(name, sibling), sibling))
        .filter(|(distance, sibling)| *distance <= (sibling.len() / 3).max(1))
        .min();
    if let Some((_, sibling)) = sibling {
        let meant = place(&[at, &[(*sibling).to_owned()]].concat());
        return format!("is not a setting; did you mean {meant}?");
    }
    let paths = known.paths();
    let mut elsewhere = paths.iter().filter(|path| path.last() == leaf);
    match (elsewhere.next(), elsewhere.next()) {
        (Some(path), None) => format!("is not a setting; did you mean {}?", place(path)),
        _ if siblings.is_empty() => "is not a setting".to_owned(),
        _ => format!("is not a setting; there are {}", siblings.join(", ")),
    }
}

/// The Levenshtein distance: how many letters to insert, drop or replace.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// serde's words for a type in an operator's words.
fn plain(expected: &str) -> String {
    let range = |low: &dyn fmt::Display, high: &dyn fmt::Display| format!("a whole number from {low} to {high}");
    match expected {
        "u8" => range(&u8::MIN, &u8::MAX),
        "u16" => range(&u16::MIN, &u16::MAX),
        "u32" => range(&u32::MIN, &u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" => range(&i8::MIN, &i8::MAX),
        "i16" => range(&i16::MIN, &i16::MAX),
        "i32" => range(&i32::MIN, &i32::MAX),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a section".to_owned(),
        other if other.starts_with("struct ") => "a section".to_owned(),
        other if other.starts_with("a nonzero ") => {
            format!("a whole number other than 0 ({})", &other[10..])
        }
        other => other.to_owned(),
    }
}

/// A path as an operator writes it; the index of a list follows without a dot.
fn place(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        if !text.is_empty() && !is_index(name) {
            text.push('.');
        }
        text.push_str(name);
    }
    text
}

fn is_index(name: &str) -> bool {
    name.starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        let check = |one, other, expected| assert_eq!(distance(one, other), expected);
        check("servers", "servers", 0);
        check("sevrers", "servers", 2);
        check("server", "servers", 1);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
    }
}
