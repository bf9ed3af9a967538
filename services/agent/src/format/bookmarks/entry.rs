//! One bookmark or folder as it roams: the value of an entry, and what of a node in the file it is.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Object, ROOTS};
use crate::format::position;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Url,
    Folder,
}

/// A bookmark or a folder, as devices exchange it: never rename or renumber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Of a bookmark only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// When it was made, in Chromium's spelling: microseconds since 1601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) added: Option<String>,
    /// The GUID of its folder, or the name of a root.
    pub(super) parent: String,
    /// Its place among what lies in that folder.
    pub(super) position: String,
}

impl Entry {
    /// Decodes the value of an entry.
    pub(super) fn parse(value: &[u8]) -> Result<Self, String> {
        let entry: Self = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if (entry.kind == Kind::Url) != entry.url.is_some() {
            return Err("a bookmark has an address, and a folder has none".to_owned());
        }
        if !position::is_valid(&entry.position) {
            return Err("its position is none".to_owned());
        }
        if !ROOTS.contains(&entry.parent.as_str()) && !is_guid(&entry.parent) {
            return Err("its folder is none".to_owned());
        }
        Ok(entry)
    }

    /// The value of an entry: one spelling of each.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Texts and names of variants always are JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What of a node roams.
    pub(super) fn of(node: &Object, parent: &str, position: String) -> Result<Self, String> {
        let text = |name: &str| node.get(name).and_then(Value::as_str).map(str::to_owned);
        let kind = match text("type").as_deref() {
            Some("url") => Kind::Url,
            Some("folder") => Kind::Folder,
            _ => return Err("something in it is neither a bookmark nor a folder".to_owned()),
        };
        let url = (kind == Kind::Url).then(|| text("url").unwrap_or_default());
        let name = text("name").unwrap_or_default();
        Ok(Self { kind, name, url, added: text("date_added"), parent: parent.to_owned(), position })
    }

    /// Makes a node be this, and leaves the rest of it alone.
    pub(super) fn put_into(&self, node: &mut Object) {
        let kind = if self.kind == Kind::Url { "url" } else { "folder" };
        node.insert("type".to_owned(), kind.into());
        node.insert("name".to_owned(), self.name.as_str().into());
        for (name, value) in [("url", &self.url), ("date_added", &self.added)] {
            match value {
                Some(value) => drop(node.insert(name.to_owned(), value.as_str().into())),
                None => drop(node.remove(name)),
            }
        }
        if self.kind == Kind::Url {
            node.remove("children");
        }
    }
}

/// A node that no browser has seen yet.
pub(super) fn new_node(guid: &str, id: u64) -> Object {
    let mut node = Object::new();
    node.insert("guid".to_owned(), guid.into());
    node.insert("id".to_owned(), id.to_string().into());
    node.insert("date_last_used".to_owned(), json!("0"));
    node
}

/// Whether Chromium takes a text for a GUID; another one it replaces by a new one.
pub(super) fn is_guid(text: &str) -> bool {
    let hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits =
        |(at, byte): (usize, u8)| if hyphen(at) { byte == b'-' } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// A bookmark that was renamed here and moved there is renamed and moved. Where both sides changed the same, the local
/// edit stands: it is the later one, and the other stays in the history.
pub(crate) fn merge(base: Option<&[u8]>, local: &[u8], remote: &[u8]) -> Option<Vec<u8>> {
    let base = Entry::parse(base?).ok()?;
    let (local, mut merged) = (Entry::parse(local).ok()?, Entry::parse(remote).ok()?);
    if local.kind != merged.kind {
        return None;
    }
    if local.name != base.name {
        merged.name = local.name;
    }
    if local.url != base.url {
        merged.url = local.url;
    }
    // A position means something in its folder only.
    if (&local.parent, &local.position) != (&base.parent, &base.position) {
        (merged.parent, merged.position) = (local.parent, local.position);
    }
    Some(merged.to_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bookmark_renamed_here_and_moved_there_is_both() {
        let base = Entry {
            kind: Kind::Url,
            name: "a".to_owned(),
            url: Some("https://a/".to_owned()),
            added: None,
            parent: "other".to_owned(),
            position: "i".to_owned(),
        };
        let local = Entry { name: "b".to_owned(), ..base.clone() };
        let remote = Entry { parent: "bookmark_bar".to_owned(), position: "r".to_owned(), ..base.clone() };
        let merged = merge(Some(&base.to_bytes()), &local.to_bytes(), &remote.to_bytes()).unwrap();
        assert_eq!(Entry::parse(&merged).unwrap(), Entry { name: "b".to_owned(), ..remote });
        assert_eq!(merge(None, &local.to_bytes(), &base.to_bytes()), None);
    }

    #[test]
    fn only_what_the_browser_takes_for_a_guid_is_one() {
        for (text, expected) in [
            ("0bc5d13f-2cba-5d74-951f-3f233fe6c908", true),
            ("0BC5D13F-2cba-5d74-951f-3f233fe6c908", false),
            ("0bc5d13f2cba5d74951f3f233fe6c908", false),
            ("0bc5d13f-2cba-5d74-951f-3f233fe6c90é", false),
            ("", false),
        ] {
            assert_eq!(is_guid(text), expected, "{text}");
        }
    }
}
