//! The layers that settings come in: a TOML file, the environment, flags. Each is turned into the
//! same thing, assignments of one value to one field, which know where they stand. Nothing here
//! knows which fields there are.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::node::Node;
use super::problem::Problem;
use super::{Assigned, Sources};

/// A value for a field, and where that was said.
#[derive(Debug)]
pub(super) struct Assignment {
    /// The names of the sections and of the field; never empty.
    pub(super) path: Vec<String>,
    pub(super) value: Node,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Origin {
    /// A file, and the line of each name of the path.
    File { file: String, lines: Vec<usize> },
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

/// What environment variables of a process begin with: `ROAM_STORAGE__` for `roam-storage`.
pub(crate) fn environment_prefix(name: &str) -> String {
    name.to_uppercase().replace('-', "_") + "__"
}

/// Reads all layers, the one that wins last.
pub(super) fn read(name: &str, sources: &Sources) -> (Vec<Assignment>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut assignments = match &sources.file {
        Some(file) => read_file(file, &mut problems),
        None => Vec::new(),
    };
    let environment = read_environment(name, &sources.environment);
    let flags = sources.flags.iter().map(read_flag);
    for assignment in environment.into_iter().chain(flags) {
        match assignment {
            Ok(assignment) => assignments.push(assignment),
            Err(problem) => problems.push(problem),
        }
    }
    (assignments, problems)
}

impl Origin {
    /// In words, for the name at this depth of the path, counted from 0.
    pub(super) fn describe(&self, depth: usize) -> String {
        match self {
            Origin::File { file, lines } => match lines.get(depth).or(lines.last()) {
                Some(line) => format!("{file}:{line}"),
                None => file.clone(),
            },
            Origin::Environment(name) => name.clone(),
            Origin::Flag(flag) => (*flag).to_owned(),
        }
    }
}

fn read_file(file: &Path, problems: &mut Vec<Problem>) -> Vec<Assignment> {
    let shown = file.display().to_string();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem::whole(shown, format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let (table, mut errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        // What the parser made of the rest is a guess, and would be blamed for more.
        let place = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        errors.sort_by_key(place);
        problems.extend(errors.iter().map(|error| {
            let line = line_of(&text, place(error));
            Problem::whole(format!("{shown}:{line}"), error.message().to_owned())
        }));
        return Vec::new();
    }
    let mut leaves = Leaves { file: &shown, text: &text, found: Vec::new(), problems };
    leaves.collect(table.get_ref(), &[], &[]);
    leaves.found.sort_by_key(|(line, _)| *line);
    leaves.found.into_iter().map(|(_, leaf)| leaf).collect()
}

struct Leaves<'f> {
    file: &'f str,
    text: &'f str,
    found: Vec<(usize, Assignment)>,
    problems: &'f mut Vec<Problem>,
}

impl Leaves<'_> {
    fn collect(&mut self, table: &DeTable<'_>, path: &[String], lines: &[usize]) {
        for (name, value) in table {
            let line = line_of(self.text, name.span().start);
            let path = [path, &[name.get_ref().to_string()]].concat();
            let lines = [lines, &[line]].concat();
            match value.get_ref() {
                // An empty section is kept, since its name may be wrong.
                DeValue::Table(below) if !below.is_empty() => self.collect(below, &path, &lines),
                _ => match Value::deserialize(ValueDeserializer::from(value.clone())) {
                    Ok(value) => self.add(line, path, value, lines),
                    Err(error) => self.problems.push(Problem {
                        origin: Some(format!("{}:{line}", self.file)),
                        path: path.join("."),
                        message: error.message().to_owned(),
                    }),
                },
            }
        }
    }

    fn add(&mut self, line: usize, path: Vec<String>, value: Value, lines: Vec<usize>) {
        let file = self.file.to_owned();
        let origin = Origin::File { file, lines };
        let value = Node::of(value);
        let leaf = Assignment { path, value, origin };
        self.found.push((line, leaf));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

fn read_environment(name: &str, environment: &[(OsString, OsString)]) -> Vec<Result<Assignment, Problem>> {
    let prefix = environment_prefix(name);
    let ours = |variable: &OsStr| Some(variable.to_str()?.strip_prefix(&prefix)?.to_lowercase());
    let mut found: Vec<_> =
        environment.iter().filter_map(|(variable, value)| Some((variable, ours(variable)?, value))).collect();
    // The environment has no order of its own; messages get one.
    found.sort();
    found
        .into_iter()
        .map(|(variable, rest, value)| {
            let variable = variable.to_string_lossy().into_owned();
            let Some(path) = split(&rest, "__") else {
                let message = "is not SECTION__FIELD after the prefix".to_owned();
                return Err(Problem::whole(variable, message));
            };
            let Some(value) = value.to_str() else {
                let message = "is not UTF-8".to_owned();
                return Err(Problem::whole(variable, message));
            };
            Ok(Assignment { path, value: Node::Text(value.to_owned()), origin: Origin::Environment(variable) })
        })
        .collect()
}

fn read_flag(given: &Assigned) -> Result<Assignment, Problem> {
    let flag = given.flag;
    let (path, value) = match given.assignment.split_once('=') {
        Some((path, value)) => (split(path, "."), value),
        None => (None, ""),
    };
    // The text is not shown: it may be a secret that lost its name.
    let path = path.ok_or_else(|| {
        let message = "must be followed by SECTION.FIELD=VALUE".to_owned();
        Problem::whole(flag.to_owned(), message)
    })?;
    Ok(Assignment { path, value: Node::Text(value.to_owned()), origin: Origin::Flag(flag) })
}

/// The names of a path, none of which may be empty.
fn split(path: &str, separator: &str) -> Option<Vec<String>> {
    let names: Vec<String> = path.split(separator).map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}
