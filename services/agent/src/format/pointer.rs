//! Places in a document of nested objects, written as JSON Pointers (RFC 6901), which is how the leaves of settings files
//! are spelled as keys.

use roam_schemas::Key;

use super::{Entries, Reading};

/// The key of a place, by the names that lead to it from the top. Fails if it is too long, with its text.
pub(super) fn key(path: &[String]) -> Result<Key, String> {
    let text: String = path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
    Key::parse(text.as_str()).map_err(|_| text)
}

/// The names that lead to the place of a key. `None` if it is not spelled as [`key`] spells it.
pub(super) fn path(key: &Key) -> Option<Vec<String>> {
    let names = key.as_str().strip_prefix('/')?.split('/');
    names.map(name).collect()
}

fn name(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let rest = part.strip_prefix('0').map(|rest| ('~', rest)).or(part.strip_prefix('1').map(|rest| ('/', rest)));
        let (character, rest) = rest?;
        name.push(character);
        name.push_str(rest);
    }
    Some(name)
}

/// Of the entries those that one document can hold: `plain` gives the spelling of a value as it is read, or why it is none.
/// A key below one that has a value of its own is left out, whoever wrote it first, so that all devices decide alike; an
/// empty object gives way to what lies in it.
pub(super) fn fitting(wanted: &Entries, plain: impl Fn(&[u8]) -> Result<Vec<u8>, String>) -> Reading {
    let mut reading = Reading::default();
    for (key, value) in wanted {
        let plain = match path(key) {
            None => Err("it is no JSON Pointer".to_owned()),
            Some(_) => plain(value),
        };
        match plain {
            Ok(value) => drop(reading.entries.insert(key.clone(), value)),
            Err(why) => reading.leave_out(key, why),
        }
    }
    let empty: Vec<Key> =
        reading.entries.iter().filter(|(_, value)| *value == b"{}").map(|(key, _)| key.clone()).collect();
    for key in empty {
        let below = format!("{key}/");
        if reading.entries.keys().any(|other| other.as_str().starts_with(&below)) {
            reading.entries.remove(&key);
        }
    }
    let held: Vec<Key> = reading.entries.keys().cloned().collect();
    for key in held {
        let above = key.as_str().match_indices('/').skip(1).map(|(at, _)| &key.as_str()[..at]);
        let above = above.filter_map(|text| Key::parse(text).ok()).find(|above| reading.entries.contains_key(above));
        if let Some(above) = above {
            reading.entries.remove(&key);
            reading.leave_out(&key, format!("{above} has a value of its own"));
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_spelled_as_the_rfc_spells_them() {
        for (names, text) in [
            (vec!["foo"], "/foo"),
            (vec![""], "/"),
            (vec!["a/b"], "/a~1b"),
            (vec!["m~n"], "/m~0n"),
            (vec!["~1"], "/~01"),
            (vec!["editor.fontSize"], "/editor.fontSize"),
            (vec!["[rust]", "x"], "/[rust]/x"),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(key(&names).unwrap().as_str(), text);
            assert_eq!(path(&Key::parse(text).unwrap()).unwrap(), names);
        }
        for text in ["foo", "a/b", "/a~", "/a~2", "~0"] {
            assert_eq!(path(&Key::parse(text).unwrap()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_place_comes_back(names in prop::collection::vec("[~/01a\"é ]{0,5}", 1..6)) {
            prop_assert_eq!(path(&key(&names).unwrap()).unwrap(), names);
        }
    }
}
