//! A tree of values not yet read, and where its parts stand. Nothing here knows what a setting's
//! type is.

use std::collections::BTreeMap;

use toml::Value;

/// A value, or a section of values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// From TOML: of one type, neither list nor table.
    Typed(Value),
    /// From the environment or a flag: of whatever type is expected.
    Text(String),
    List(Vec<Node>),
    Section(BTreeMap<String, Node>),
}

impl Node {
    pub(super) fn empty() -> Node {
        Node::Section(BTreeMap::new())
    }

    pub(super) fn of(value: Value) -> Node {
        match value {
            Value::Array(list) => Node::List(list.into_iter().map(Node::of).collect()),
            Value::Table(table) => {
                Node::Section(table.into_iter().map(|(name, value)| (name, Node::of(value))).collect())
            }
            scalar => Node::Typed(scalar),
        }
    }

    /// Puts a value at a path, making the sections on the way, over whatever is there.
    pub(super) fn put(&mut self, path: &[String], value: Node) {
        let Some((name, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self, Node::Section(_)) {
            *self = Node::empty();
        }
        if let Node::Section(section) = self {
            let below = section.entry(name.clone()).or_insert_with(Node::empty);
            below.put(rest, value);
        }
    }

    /// What stands at the place of a fault, or the last thing on the way there.
    pub(super) fn at(&self, place: &[String]) -> &Node {
        let Some((name, rest)) = place.split_first() else {
            return self;
        };
        let below = match self {
            Node::Section(section) => section.get(name),
            Node::List(list) => index(name).and_then(|index| list.get(index)),
            Node::Typed(_) | Node::Text(_) => None,
        };
        below.map_or(self, |below| below.at(rest))
    }

    /// Whether something stands at a path.
    pub(super) fn has(&self, path: &[String]) -> bool {
        match (path.split_first(), self) {
            (None, _) => true,
            (Some((name, rest)), Node::Section(section)) => section.get(name).is_some_and(|below| below.has(rest)),
            (Some((place, rest)), Node::List(list)) => {
                index(place).and_then(|at| list.get(at)).is_some_and(|below| below.has(rest))
            }
            (Some(_), _) => false,
        }
    }
}

/// The index that a place in a list names, such as `[3]`.
fn index(place: &str) -> Option<usize> {
    let digits = place.strip_prefix('[')?.strip_suffix(']')?;
    digits.parse().ok()
}
