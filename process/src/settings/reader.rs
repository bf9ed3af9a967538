//! The reading of a settings struct from a tree, with serde. Text from the environment or a flag
//! has no type of its own: it is read as what the field expects, so `12` is a number for a port and
//! a string for a password. Faults say where they are and what was expected, as data; nothing here
//! makes sentences.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use toml::Value;
use toml::de::ValueDeserializer;

use super::node::Node;

/// Reads a struct. The fields that there are go to `known`, as far as the reading gets.
pub(super) fn read<T: DeserializeOwned>(node: &Node, known: &Known) -> Result<T, Fault> {
    T::deserialize(Reader { node, at: Vec::new(), known })
}

/// The paths of all fields of all structs that were read.
#[derive(Debug, Default)]
pub(super) struct Known(RefCell<BTreeSet<Vec<String>>>);

/// Why a tree could not be read.
#[derive(Debug)]
pub(super) struct Fault {
    /// Where; empty for the whole. The place of a list's element is its index in brackets.
    pub(super) at: Option<Vec<String>>,
    pub(super) kind: FaultKind,
}

#[derive(Debug)]
pub(super) enum FaultKind {
    /// The section has no such field, but these.
    Unknown(String, &'static [&'static str]),
    /// The section needs this field.
    Missing(&'static str),
    /// None of the words that may stand here.
    Choice(&'static [&'static str]),
    /// Of the wrong type or size; serde's words for what was expected.
    Expected(String),
    /// What the field's own type said.
    Refused(String),
}

impl Known {
    fn add(&self, section: &[String], fields: &[&str]) {
        let mut known = self.0.borrow_mut();
        for field in fields {
            known.insert(inside(section, (*field).to_owned()));
        }
    }

    /// All paths, in order.
    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        self.0.borrow().iter().cloned().collect()
    }
}

impl Fault {
    fn new(kind: FaultKind) -> Fault {
        Fault { at: None, kind }
    }

    /// The innermost place wins.
    fn located(mut self, at: &[String]) -> Fault {
        self.at.get_or_insert_with(|| at.to_vec());
        self
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault::new(FaultKind::Refused(message.to_string()))
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(FaultKind::Expected(expected.to_string()))
    }
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::new(FaultKind::Expected(expected.to_string()))
    }
    fn invalid_length(_: usize, expected: &dyn Expected) -> Fault {
        Fault::new(FaultKind::Expected(expected.to_string()))
    }
    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Fault {
        Fault::new(FaultKind::Choice(expected))
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Fault {
        Fault::new(FaultKind::Unknown(field.to_owned(), expected))
    }
    fn missing_field(field: &'static str) -> Fault {
        Fault::new(FaultKind::Missing(field))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

struct Reader<'n> {
    node: &'n Node,
    at: Vec<String>,
    known: &'n Known,
}

impl Reader<'_> {
    /// Reads text as a TOML list or table instead, if it is one.
    fn read_toml<'de, V: Visitor<'de>>(self, text: &str, visitor: V) -> Result<V::Value, Fault> {
        match parse(text).map(Node::of) {
            Some(node @ (Node::List(_) | Node::Section(_))) => Reader { node: &node, ..self }.deserialize_any(visitor),
            _ => visitor.visit_str(text),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Typed(value) => visit_typed(value, visitor),
            Node::Text(text) => match parse(text.trim()) {
                Some(value @ (Value::Boolean(_) | Value::Integer(_) | Value::Float(_))) => visit_typed(&value, visitor),
                _ => visitor.visit_str(text),
            },
            Node::List(list) => {
                visitor.visit_seq(Elements { rest: list.iter().enumerate(), at: self.at, known: self.known })
            }
            Node::Section(section) => visitor.visit_map(Fields::of(section, self.at, self.known)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Text(text) => visitor.visit_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Text(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Node::Text(text) = self.node else {
            return self.deserialize_any(visitor);
        };
        let list = match parse(text.trim()).map(Node::of) {
            Some(list @ Node::List(_)) => list,
            _ if text.is_empty() => Node::List(Vec::new()),
            _ => Node::List(text.split(',').map(|part| Node::Text(part.trim().to_owned())).collect()),
        };
        Reader { node: &list, ..self }.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Text(text) => self.read_toml(text.trim(), visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.known.add(&self.at, fields);
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node {
            Node::Text(word) | Node::Typed(Value::String(word)) => {
                visitor.visit_enum(word.as_str().into_deserializer())
            }
            Node::Section(section) => {
                visitor.visit_enum(MapAccessDeserializer::new(Fields::of(section, self.at, self.known)))
            }
            _ => Err(Fault::new(FaultKind::Choice(variants))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct
        identifier ignored_any
    }
}

fn visit_typed<'de, V: Visitor<'de>>(value: &Value, visitor: V) -> Result<V::Value, Fault> {
    match value {
        Value::Boolean(value) => visitor.visit_bool(*value),
        Value::Integer(value) => visitor.visit_i64(*value),
        Value::Float(value) => visitor.visit_f64(*value),
        Value::String(value) => visitor.visit_str(value),
        other => visitor.visit_string(other.to_string()),
    }
}

struct Elements<'n> {
    rest: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
    at: Vec<String>,
    known: &'n Known,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else {
            return Ok(None);
        };
        let at = inside(&self.at, format!("[{index}]"));
        let known = self.known;
        let reader = Reader { node, at: at.clone(), known };
        let element = seed.deserialize(reader);
        element.map(Some).map_err(|fault| fault.located(&at))
    }
}

struct Fields<'n> {
    rest: btree_map::Iter<'n, String, Node>,
    current: Option<(&'n String, &'n Node)>,
    at: Vec<String>,
    known: &'n Known,
}

impl<'n> Fields<'n> {
    fn of(section: &'n BTreeMap<String, Node>, at: Vec<String>, known: &'n Known) -> Fields<'n> {
        Fields { rest: section.iter(), current: None, at, known }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.rest.next();
        let name = self.current.map(|(name, _)| name.as_str());
        name.map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((name, node)) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its name"));
        };
        let at = inside(&self.at, name.clone());
        let known = self.known;
        let reader = Reader { node, at: at.clone(), known };
        seed.deserialize(reader).map_err(|fault| fault.located(&at))
    }
}

/// Text as a TOML value, if it is one.
fn parse(text: &str) -> Option<Value> {
    Value::deserialize(ValueDeserializer::parse(text).ok()?).ok()
}

fn inside(at: &[String], name: String) -> Vec<String> {
    let mut path = at.to_vec();
    path.push(name);
    path
}
