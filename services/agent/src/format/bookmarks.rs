//! The file `Bookmarks` of Chromium and of the browsers made from it: a bookmark or a folder becomes an entry, under its
//! GUID. Order and moves merge because each knows its folder and its position in it. Roots, ids, dates of use, icons and
//! whatever else stands in the file stay this device's own.
//!
//! Chromium takes a file for damaged whose checksum does not match, so it is computed anew, in Chromium's own order
//! (`components/bookmarks/browser/bookmark_codec.cc`).

mod entry;
pub(super) mod netscape;
mod order;

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest, Md5};
use roam_schemas::{Key, limits::VALUE_BYTES};
use serde_json::{Map, Value, ser::PrettyFormatter};

pub(super) use self::entry::merge;
use self::entry::{Entry, Kind};
use super::{Entries, Reading};

/// The roots in the order in which Chromium writes and sums them.
const ROOTS: [&str; 3] = ["bookmark_bar", "other", "synced"];
/// Where goes what has lost its folder.
const LOST_AND_FOUND: &str = "other";

/// A file without bookmarks, as Chromium writes it, GUIDs of the roots included.
pub(super) const EMPTY: &str = r#"{"checksum": "", "roots": {
"bookmark_bar": {"children": [], "date_added": "0", "date_last_used": "0", "date_modified": "0", "guid": "0bc5d13f-2cba-5d74-951f-3f233fe6c908", "id": "1", "name": "Bookmarks bar", "type": "folder"},
"other": {"children": [], "date_added": "0", "date_last_used": "0", "date_modified": "0", "guid": "82b081ec-3dd3-529c-8475-ab6c344590dd", "id": "2", "name": "Other bookmarks", "type": "folder"},
"synced": {"children": [], "date_added": "0", "date_last_used": "0", "date_modified": "0", "guid": "4cf2e351-0e85-532b-bb37-df045d8f8d0f", "id": "3", "name": "Mobile bookmarks", "type": "folder"}
}, "version": 1}"#;

type Object = Map<String, Value>;

/// The bookmarks of a file.
pub(super) fn read(file: &[u8], base: &Entries) -> Result<Reading, String> {
    let found = read_all(&parse(file)?, base)?;
    let entries = found
        .into_iter()
        .map(|(guid, entry)| Ok((Key::parse(guid).map_err(|error| error.to_string())?, entry.to_bytes())));
    Ok(Reading { entries: entries.collect::<Result<_, String>>()?, left_out: Vec::new() })
}

/// The file with exactly these bookmarks.
pub(super) fn write(file: &[u8], wanted: &Entries) -> Result<Vec<u8>, String> {
    let mut file = parse(file)?;
    // What is too large for a value has no entry, and stays where it is.
    let large = read_all(&file, wanted)?.into_iter().filter(|(_, entry)| entry.to_bytes().len() > VALUE_BYTES);
    let large: Vec<_> = large.collect();
    let mut held = Held::default();
    let roots = file.get_mut("roots").and_then(Value::as_object_mut).ok_or("it has no roots")?;
    for node in roots.values_mut().filter_map(Value::as_object_mut) {
        held.take(node);
    }
    let mut folders: BTreeMap<String, Vec<(String, String, Entry)>> = BTreeMap::new();
    let entries = wanted.iter().map(|(key, value)| Ok((key.to_string(), Entry::parse(value)?)));
    for (guid, entry) in entries.collect::<Result<Vec<_>, String>>()?.into_iter().chain(large) {
        folders.entry(entry.parent.clone()).or_default().push((entry.position.clone(), guid, entry));
    }
    for root in ROOTS {
        let Some(node) = roots.get_mut(root).and_then(Value::as_object_mut) else {
            if folders.contains_key(root) {
                return Err(format!("it has no root {root}"));
            }
            continue;
        };
        let children = children(root, &mut folders, &mut held);
        node.insert("children".to_owned(), children);
    }
    let sum = checksum(roots);
    let object = file.as_object_mut().ok_or("its root is no object")?;
    object.insert("checksum".to_owned(), sum.into());
    print(&file).map_err(|error| error.to_string())
}

/// Of the entries those that a file can hold. What lies in a folder that is gone, or in itself, goes where lost things go.
pub(super) fn fitting(wanted: &Entries) -> Reading {
    let mut reading = Reading::default();
    let mut entries = BTreeMap::new();
    for (key, value) in wanted {
        match Entry::parse(value) {
            Ok(entry) if entry::is_guid(key.as_str()) => drop(entries.insert(key.as_str(), entry)),
            Ok(_) => reading.leave_out(key, "it is no GUID in lower case"),
            Err(why) => reading.leave_out(key, why),
        }
    }
    for guid in lost(&entries) {
        if let Some(entry) = entries.get_mut(guid) {
            LOST_AND_FOUND.clone_into(&mut entry.parent);
        }
    }
    let fitting = entries.into_iter().filter_map(|(guid, entry)| Some((Key::parse(guid).ok()?, entry.to_bytes())));
    reading.entries = fitting.collect();
    reading
}

/// Entries whose folder is none, and of each circle of folders the one with the smallest GUID: every device finds the same.
fn lost<'k>(entries: &BTreeMap<&'k str, Entry>) -> Vec<&'k str> {
    let is_folder = |guid: &str| entries.get(guid).is_some_and(|entry| entry.kind == Kind::Folder);
    let mut lost = Vec::new();
    let mut sound: BTreeSet<&str> = BTreeSet::new();
    for start in entries.keys().copied() {
        let (mut way, mut at) = (vec![start], start);
        while !sound.contains(at) {
            let Some(entry) = entries.get(at) else { break };
            let parent = entry.parent.as_str();
            if ROOTS.contains(&parent) || lost.contains(&at) {
                break;
            }
            if !is_folder(parent) {
                lost.push(at);
                break;
            }
            if let Some(from) = way.iter().position(|guid| *guid == parent) {
                lost.extend(way[from..].iter().min().copied());
                break;
            }
            at = entries.get_key_value(parent).map_or(at, |(guid, _)| *guid);
            way.push(at);
        }
        sound.extend(way);
    }
    lost
}

fn parse(file: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(file).map_err(|error| error.to_string())
}

fn read_all(file: &Value, base: &Entries) -> Result<BTreeMap<String, Entry>, String> {
    let mut found = BTreeMap::new();
    for root in ROOTS {
        let node = file.pointer(&format!("/roots/{root}")).and_then(Value::as_object);
        if let Some(node) = node {
            collect(node, root, base, &mut found)?;
        }
    }
    Ok(found)
}

fn collect(folder: &Object, parent: &str, base: &Entries, found: &mut BTreeMap<String, Entry>) -> Result<(), String> {
    let children = folder.get("children").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut guids = Vec::with_capacity(children.len());
    for child in children {
        let guid = child.get("guid").and_then(Value::as_str).unwrap_or_default();
        if !entry::is_guid(guid) {
            return Err("a bookmark in it has no GUID; start the browser once and close it".to_owned());
        }
        guids.push(guid);
    }
    let positions = order::positions(&guids, parent, base);
    for ((child, guid), position) in children.iter().zip(guids).zip(positions) {
        let child = child.as_object().ok_or("a bookmark in it is no object")?;
        let entry = Entry::of(child, parent, position)?;
        if found.insert(guid.to_owned(), entry).is_some() {
            return Err(format!("it has {guid} twice"));
        }
        collect(child, guid, base, found)?;
    }
    Ok(())
}

/// What the file holds of each bookmark beyond its entry.
#[derive(Default)]
struct Held {
    nodes: BTreeMap<String, Object>,
    highest_id: u64,
}

impl Held {
    /// Takes all that lies in a folder out of it.
    fn take(&mut self, folder: &mut Object) {
        let id = folder.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        self.highest_id = self.highest_id.max(id.unwrap_or(0));
        let Some(children) = folder.get_mut("children").and_then(Value::as_array_mut) else { return };
        for child in std::mem::take(children) {
            let Value::Object(mut node) = child else { continue };
            self.take(&mut node);
            if let Some(guid) = node.get("guid").and_then(Value::as_str).map(str::to_owned) {
                self.nodes.insert(guid, node);
            }
        }
    }

    /// The node of an entry: the one that is there, or a new one.
    fn node(&mut self, guid: &str, entry: &Entry) -> Object {
        let mut node = self.nodes.remove(guid).unwrap_or_else(|| {
            self.highest_id += 1;
            entry::new_node(guid, self.highest_id)
        });
        entry.put_into(&mut node);
        node
    }
}

fn children(parent: &str, folders: &mut BTreeMap<String, Vec<(String, String, Entry)>>, held: &mut Held) -> Value {
    let mut entries = folders.remove(parent).unwrap_or_default();
    entries.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    let nodes = entries.into_iter().map(|(_, guid, entry)| {
        let mut node = held.node(&guid, &entry);
        if entry.kind == Kind::Folder {
            node.insert("children".to_owned(), children(&guid, folders, held));
        }
        Value::Object(node)
    });
    Value::Array(nodes.collect())
}

fn checksum(roots: &Object) -> String {
    let mut sum = Md5::new();
    for root in ROOTS {
        if let Some(node) = roots.get(root) {
            add(node, &mut sum);
        }
    }
    format!("{:x}", sum.finalize())
}

/// Id, title as UTF-16, kind, and for a bookmark its address; then what lies in it.
fn add(node: &Value, sum: &mut Md5) {
    let text = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
    sum.update(text("id"));
    for unit in text("name").encode_utf16() {
        sum.update(unit.to_le_bytes());
    }
    sum.update(text("type"));
    if text("type") == "url" {
        sum.update(text("url"));
    }
    for child in node.get("children").and_then(Value::as_array).into_iter().flatten() {
        add(child, sum);
    }
}

/// With three spaces a level, as Chromium writes it.
fn print(file: &Value) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"   "));
    serde::Serialize::serialize(file, &mut serializer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const A: &str = "aaaaaaaa-0000-4000-8000-000000000000";
    const B: &str = "bbbbbbbb-0000-4000-8000-000000000000";
    const C: &str = "cccccccc-0000-4000-8000-000000000000";

    fn entry(kind: &str, name: &str, parent: &str, position: &str) -> Vec<u8> {
        let url = if kind == "url" { json!(format!("https://{name}.example/")) } else { Value::Null };
        let entry = json!({ "type": kind, "name": name, "url": url, "parent": parent, "position": position });
        Entry::parse(entry.to_string().as_bytes()).unwrap().to_bytes()
    }

    fn entries(of: &[(&str, Vec<u8>)]) -> Entries {
        of.iter().map(|(guid, value)| (Key::parse(*guid).unwrap(), value.clone())).collect()
    }

    fn parents(entries: &Entries) -> Vec<String> {
        entries.values().map(|value| Entry::parse(value).unwrap().parent).collect()
    }

    #[test]
    fn what_lost_its_folder_and_what_lies_in_itself_is_found_among_the_others() {
        let gone = entries(&[(A, entry("url", "a", C, "i")), (B, entry("url", "b", A, "i"))]);
        assert_eq!(parents(&fitting(&gone).entries), ["other", "other"]);
        let circle = entries(&[
            (A, entry("folder", "a", C, "i")),
            (B, entry("folder", "b", A, "i")),
            (C, entry("folder", "c", B, "i")),
        ]);
        assert_eq!(parents(&fitting(&circle).entries), ["other", A, B]);
        let own = entries(&[(A, entry("folder", "a", A, "i"))]);
        assert_eq!(parents(&fitting(&own).entries), ["other"]);
    }

    #[test]
    fn entries_that_are_no_bookmarks_are_left_out() {
        let of = [
            (A, b"{}".to_vec()),
            ("not-a-guid", entry("url", "a", "other", "i")),
            (B, entry("url", "b", "other", "i")),
        ];
        let mut of = entries(&of);
        let bad_position = String::from_utf8(entry("url", "c", "other", "i")).unwrap().replace("\"i\"", "\"i0\"");
        of.insert(Key::parse(C).unwrap(), bad_position.into_bytes());
        let fitting = fitting(&of);
        assert_eq!((fitting.entries.len(), fitting.left_out.len()), (1, 3));
    }

    #[test]
    fn the_checksum_is_the_one_that_a_browser_wrote() {
        let file = parse(include_bytes!("bookmarks/chromium.json")).unwrap();
        assert_eq!(file["checksum"], checksum(file["roots"].as_object().unwrap()));
    }

    #[test]
    fn what_a_browser_wrote_keeps_all_of_its_own_when_one_bookmark_is_added() {
        let before = include_bytes!("bookmarks/chromium.json");
        let mut wanted = read(before, &Entries::new()).unwrap().entries;
        assert_eq!(wanted.len(), 2);
        wanted.insert(Key::parse(A).unwrap(), entry("url", "a", "other", "i"));
        let mut after = parse(&write(before, &wanted).unwrap()).unwrap();
        assert_eq!(after["roots"]["other"]["children"][0]["id"], "7");
        after["roots"]["other"]["children"] = json!([]);
        after["checksum"] = parse(before).unwrap()["checksum"].clone();
        assert_eq!(after, parse(before).unwrap());
    }

    #[test]
    fn order_folders_and_what_is_the_devices_own_stay() {
        let wanted = entries(&[
            (A, entry("folder", "Ä folder", "bookmark_bar", "i")),
            (B, entry("url", "b", A, "r")),
            (C, entry("url", "c", A, "c")),
        ]);
        let file = write(EMPTY.as_bytes(), &wanted).unwrap();
        assert_eq!(read(&file, &wanted).unwrap().entries, wanted);
        let mut value = parse(&file).unwrap();
        let inner = value.pointer_mut("/roots/bookmark_bar/children/0/children").unwrap().as_array_mut().unwrap();
        assert_eq!(inner.iter().map(|node| node["name"].as_str().unwrap()).collect::<Vec<_>>(), ["c", "b"]);
        inner[0]["meta_info"] = json!({"own": "1"});
        let file = print(&value).unwrap();
        let mut moved = wanted;
        moved.insert(Key::parse(C).unwrap(), entry("url", "c", "other", "i"));
        moved.remove(&Key::parse(B).unwrap());
        let value = parse(&write(&file, &moved).unwrap()).unwrap();
        assert_eq!(value.pointer("/roots/other/children/0/meta_info/own").unwrap(), "1");
        assert_eq!(value.pointer("/roots/bookmark_bar/children/0/children").unwrap(), &json!([]));
    }
}
