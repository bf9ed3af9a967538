//! Bookmarks in HTML, as all browsers export and import them (the format of Netscape): the same entries as those of a file of
//! Chromium's, so that one profile may be either on different devices. The format knows no identity, so a bookmark is
//! written with its GUID as one more attribute, which browsers ignore; one without is known by its folder, its address and its
//! name, or else gets a GUID that every device finds alike.

mod page;

use std::collections::{BTreeMap, BTreeSet};

use roam_schemas::{Key, limits::VALUE_BYTES};

use self::page::{Node, What};
use super::{
    LOST_AND_FOUND, ROOTS,
    entry::{self, Entry, Kind},
    order,
};
use crate::format::{Entries, Reading};

/// The folder of the bookmarks bar; what stands on the top of a page is among the others.
const BAR: &str = "bookmark_bar";
/// Between the beginnings of Chromium's time (1601) and of Unix', in seconds.
const EPOCHS_APART: u64 = 11_644_473_600;
const MICROS: u64 = 1_000_000;

/// The bookmarks of a page.
pub(in crate::format) fn read(file: &[u8], base: &Entries) -> Result<Reading, String> {
    let mut found = BTreeMap::new();
    let mut finder = Finder::new(base);
    let mut nodes = page::parse(file)?.nodes;
    collect(&mut nodes, LOST_AND_FOUND, &mut finder, base, &mut found)?;
    let entries =
        found.into_iter().map(|(guid, entry)| Ok((Key::parse(guid).map_err(|error| error.to_string())?, entry)));
    let entries =
        entries.map(|entry: Result<_, String>| entry.map(|(key, entry): (Key, Entry)| (key, entry.to_bytes())));
    Ok(Reading { entries: entries.collect::<Result<_, String>>()?, left_out: Vec::new() })
}

/// The page with exactly these bookmarks. Attributes, descriptions and lines between them stay.
pub(in crate::format) fn write(file: &[u8], wanted: &Entries) -> Result<Vec<u8>, String> {
    let mut page = page::parse(file)?;
    let mut found = BTreeMap::new();
    collect(&mut page.nodes, LOST_AND_FOUND, &mut Finder::new(wanted), wanted, &mut found)?;
    let large = found.into_iter().filter(|(_, entry)| entry.to_bytes().len() > VALUE_BYTES);
    let mut held = BTreeMap::new();
    hold(std::mem::take(&mut page.nodes), &mut held);
    let mut folders: BTreeMap<String, Vec<(String, String, Entry)>> = BTreeMap::new();
    let entries = wanted.iter().map(|(key, value)| Ok((key.to_string(), Entry::parse(value)?)));
    for (guid, entry) in entries.collect::<Result<Vec<_>, String>>()?.into_iter().chain(large.collect::<Vec<_>>()) {
        folders.entry(entry.parent.clone()).or_default().push((entry.position.clone(), guid, entry));
    }
    for root in ROOTS.into_iter().filter(|root| *root != LOST_AND_FOUND) {
        let children = children(root, &mut folders, &mut held);
        let known = held.remove(root);
        if !children.is_empty() || known.is_some() {
            let mut node = known.unwrap_or_else(|| Node::root(root));
            node.children = children;
            page.nodes.push(node);
        }
    }
    page.nodes.extend(children(LOST_AND_FOUND, &mut folders, &mut held));
    Ok(page.print().into_bytes())
}

/// Of the entries those that a page can hold.
pub(in crate::format) fn fitting(wanted: &Entries) -> Reading {
    let is_time = |added: &String| added.parse::<u64>().is_ok();
    let has_no_time = |value: &Vec<u8>| {
        Entry::parse(value).is_ok_and(|entry| entry.added.as_ref().is_some_and(|added| !is_time(added)))
    };
    let mut rest = wanted.clone();
    let timeless: Vec<(Key, Vec<u8>)> = rest.extract_if(.., |_, value| has_no_time(value)).collect();
    let mut reading = super::fitting(&rest);
    for (key, _) in timeless {
        reading.leave_out(&key, "when it was made is no time");
    }
    reading
}

/// Gives every node its GUID, and takes down what it is.
fn collect(
    nodes: &mut [Node],
    parent: &str,
    finder: &mut Finder,
    base: &Entries,
    found: &mut BTreeMap<String, Entry>,
) -> Result<(), String> {
    for node in nodes.iter_mut() {
        if let Some(root) = node.root_name() {
            node.guid = Some(root.to_owned());
            collect(&mut node.children, root, finder, base, found)?;
        } else if node.what != What::Line {
            node.guid = Some(finder.guid(node, parent));
        }
    }
    let is_entry = |node: &&mut Node| node.what != What::Line && node.root_name().is_none();
    let guids: Vec<String> = nodes.iter_mut().filter(is_entry).filter_map(|node| node.guid.clone()).collect();
    let positions = order::positions(&guids.iter().map(String::as_str).collect::<Vec<_>>(), parent, base);
    for ((node, guid), position) in nodes.iter_mut().filter(is_entry).zip(guids).zip(positions) {
        let known = base.get(&Key::parse(guid.as_str()).map_err(|error| error.to_string())?);
        let known = known.and_then(|value| Entry::parse(value).ok()).and_then(|entry| entry.added);
        let entry = Entry {
            kind: if node.what == What::Folder { Kind::Folder } else { Kind::Url },
            name: node.name.clone(),
            url: (node.what == What::Bookmark).then(|| node.url.clone()),
            added: node.added().map(|seconds| added(seconds, known)),
            parent: parent.to_owned(),
            position,
        };
        if found.insert(guid.clone(), entry).is_some() {
            return Err(format!("it has {guid} twice"));
        }
        collect(&mut node.children, &guid, finder, base, found)?;
    }
    Ok(())
}

/// The page tells of seconds; what is known more exactly stays so.
fn added(seconds: u64, known: Option<String>) -> String {
    let is_same = |known: &String| known.parse::<u64>().is_ok_and(|micros| seconds_of(micros) == seconds);
    known.filter(is_same).unwrap_or_else(|| seconds.saturating_add(EPOCHS_APART).saturating_mul(MICROS).to_string())
}

fn seconds_of(micros: u64) -> u64 {
    (micros / MICROS).saturating_sub(EPOCHS_APART)
}

/// All nodes by their GUIDs, without what lies in them. A line belongs to what stands before it.
fn hold(nodes: Vec<Node>, held: &mut BTreeMap<String, Node>) {
    let mut last: Option<String> = None;
    for mut node in nodes {
        hold(std::mem::take(&mut node.children), held);
        match &node.guid {
            Some(guid) => {
                last = Some(guid.clone());
                held.insert(guid.clone(), node);
            }
            None => {
                if let Some(before) = last.as_ref().and_then(|guid| held.get_mut(guid)) {
                    before.lines_after += 1;
                }
            }
        }
    }
}

fn children(
    parent: &str,
    folders: &mut BTreeMap<String, Vec<(String, String, Entry)>>,
    held: &mut BTreeMap<String, Node>,
) -> Vec<Node> {
    let mut entries = folders.remove(parent).unwrap_or_default();
    entries.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    let mut nodes = Vec::with_capacity(entries.len());
    for (_, guid, entry) in entries {
        let mut node = held.remove(&guid).unwrap_or_default();
        node.what = if entry.kind == Kind::Folder { What::Folder } else { What::Bookmark };
        node.name = entry.name;
        node.url = entry.url.unwrap_or_default();
        node.set_added(entry.added.and_then(|micros| micros.parse().ok()).map(seconds_of));
        node.children = if entry.kind == Kind::Folder { children(&guid, folders, held) } else { Vec::new() };
        node.guid = Some(guid);
        nodes.push(node);
    }
    nodes
}

/// Finds out which bookmark of those that are known a node is.
struct Finder {
    /// By folder, kind, address and name; and by kind and address, or name, alone.
    exact: BTreeMap<String, Vec<String>>,
    close: BTreeMap<String, Vec<String>>,
    given: BTreeSet<String>,
}

impl Finder {
    fn new(base: &Entries) -> Self {
        let (mut exact, mut close) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (key, value) in base.iter().rev() {
            let Ok(entry) = Entry::parse(value) else { continue };
            let url = entry.url.as_deref();
            exact.entry(mark(Some(&entry.parent), url, &entry.name)).or_default().push(key.to_string());
            close.entry(mark(None, url, &entry.name)).or_default().push(key.to_string());
        }
        Self { exact, close, given: BTreeSet::new() }
    }

    fn guid(&mut self, node: &Node, parent: &str) -> String {
        let written = node.guid.clone().filter(|guid| entry::is_guid(guid) && !self.given.contains(guid));
        let url = (node.what == What::Bookmark).then_some(node.url.as_str());
        let exact = mark(Some(parent), url, &node.name);
        let guid = written
            .or_else(|| take(&mut self.exact, &exact, &self.given))
            .or_else(|| take(&mut self.close, &mark(None, url, &node.name), &self.given))
            .unwrap_or_else(|| self.made_of(&exact));
        self.given.insert(guid.clone());
        guid
    }

    /// A GUID that depends on nothing but what the page says, so that two devices that read it find the same.
    fn made_of(&self, mark: &str) -> String {
        let made = (0_u32..).map(|number| {
            let hash = blake3::hash(format!("{mark}\0{number}").as_bytes()).to_hex();
            let part = |from: usize, to: usize| hash[from..to].to_owned();
            // Version 8 is for those who make their own (RFC 9562).
            [part(0, 8), part(8, 12), format!("8{}", part(13, 16)), format!("8{}", part(17, 20)), part(20, 32)]
                .join("-")
        });
        let mut free = made.filter(|guid| !self.given.contains(guid));
        free.next().unwrap_or_default()
    }
}

fn take(of: &mut BTreeMap<String, Vec<String>>, mark: &str, given: &BTreeSet<String>) -> Option<String> {
    let guids = of.get_mut(mark)?;
    while let Some(guid) = guids.pop() {
        if !given.contains(&guid) {
            return Some(guid);
        }
    }
    None
}

/// What a bookmark is known by: its folder, its address and its name. Elsewhere it is known by its address, and a folder by
/// its name.
fn mark(parent: Option<&str>, url: Option<&str>, name: &str) -> String {
    match (parent, url) {
        (Some(parent), url) => format!("{parent}\0{}\0{name}", url.unwrap_or_default()),
        (None, Some(url)) => format!("url\0{url}"),
        (None, None) => format!("folder\0{name}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::Format;

    /// As Firefox exports.
    const PAGE: &str = r#"<!DOCTYPE NETSCAPE-Bookmark-file-1>
<!-- This is an automatically generated file. -->
<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=UTF-8">
<TITLE>Bookmarks</TITLE>
<H1>Bookmarks Menu</H1>

<DL><p>
    <DT><A HREF="https://a.example/?x=1&amp;y=2" ADD_DATE="1700000000" LAST_MODIFIED="1700000001" TAGS="one,two">A &lt;b&gt; &#39;c&#39;</A>
    <DD>what it is about
    <HR>
    <DT><H3 ADD_DATE="1700000002">Folder</H3>
    <DL><p>
        <DT><A HREF="https://b.example/">B</A>
        <DT><A HREF="https://b.example/">B</A>
    </DL><p>
    <DT><H3 PERSONAL_TOOLBAR_FOLDER="true">Bookmarks Toolbar</H3>
    <DL><p>
        <DT><A HREF="https://c.example/" ICON="data:image/png;base64,AA==">C</A>
    </DL><p>
</DL>
"#;

    fn entries(file: &[u8], base: &Entries) -> BTreeMap<String, Entry> {
        let reading = Format::BookmarksHtml.read(file, base).unwrap();
        reading.entries.iter().map(|(key, value)| (key.to_string(), Entry::parse(value).unwrap())).collect()
    }

    fn of<'e>(entries: &'e BTreeMap<String, Entry>, name: &str) -> (&'e str, &'e Entry) {
        let (guid, entry) = entries.iter().find(|(_, entry)| entry.name == name).unwrap();
        (guid, entry)
    }

    #[test]
    fn a_page_of_a_browser_is_bookmarks_and_folders_in_their_order() {
        let found = entries(PAGE.as_bytes(), &Entries::new());
        assert_eq!(found.len(), 5);
        let (_, a) = of(&found, "A <b> 'c'");
        assert_eq!(a.url.as_deref(), Some("https://a.example/?x=1&y=2"));
        assert_eq!(a.added.as_deref(), Some("13344473600000000"));
        let (folder, of_folder) = of(&found, "Folder");
        assert!(a.parent == "other" && of_folder.parent == "other" && a.position < of_folder.position);
        assert_eq!(found.values().filter(|entry| entry.parent == folder).count(), 2, "alike ones are two");
        assert_eq!(of(&found, "C").1.parent, "bookmark_bar");
        assert_eq!(found, entries(PAGE.as_bytes(), &Entries::new()), "another device finds the same");
    }

    #[test]
    fn what_is_written_reads_back_and_keeps_what_is_the_pages_own() {
        let mut wanted = Format::BookmarksHtml.read(PAGE.as_bytes(), &Entries::new()).unwrap().entries;
        let found = entries(PAGE.as_bytes(), &Entries::new());
        let (guid, a) = of(&found, "A <b> 'c'");
        let renamed = Entry { name: "new & \"old\"\n".to_owned(), ..a.clone() };
        wanted.insert(Key::parse(guid).unwrap(), renamed.to_bytes());
        let mobile = Entry { parent: "synced".to_owned(), name: "mobile".to_owned(), ..a.clone() };
        let new = "aaaaaaaa-0000-4000-8000-000000000000";
        wanted.insert(Key::parse(new).unwrap(), mobile.to_bytes());
        let bytes = Format::BookmarksHtml.write(PAGE.as_bytes(), &wanted).unwrap().bytes;
        assert_eq!(Format::BookmarksHtml.read(&bytes, &Entries::new()).unwrap().entries.len(), 6);
        assert_eq!(Format::BookmarksHtml.read(&bytes, &wanted).unwrap().entries, wanted);
        let text = String::from_utf8(bytes).unwrap();
        for kept in
            ["TAGS=\"one,two\"", "what it is about", "<HR>", "ICON=\"data:image/png;base64,AA==\"", "Bookmarks Menu"]
        {
            assert!(text.contains(kept), "{kept} is not in {text}");
        }
    }

    #[test]
    fn bookmarks_are_known_again_when_a_browser_wrote_the_page_anew() {
        let base = Format::BookmarksHtml.read(PAGE.as_bytes(), &Entries::new()).unwrap().entries;
        let written = String::from_utf8(Format::BookmarksHtml.write(b"", &base).unwrap().bytes).unwrap();
        // Without our attribute, and one renamed.
        let mut anonymous: String = written
            .split(" GUID=\"")
            .enumerate()
            .fold(String::new(), |text, (number, part)| text + if number == 0 { part } else { &part[37..] });
        anonymous = anonymous.replace(">C</A>", ">C renamed</A>");
        let again = entries(anonymous.as_bytes(), &base);
        let before = entries(written.as_bytes(), &base);
        assert_eq!(again.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert_eq!(of(&again, "C renamed").0, of(&before, "C").0);
    }

    #[test]
    fn the_bookmarks_of_chromium_are_those_of_a_page() {
        let chromium = Format::Bookmarks.read(include_bytes!("chromium.json"), &Entries::new()).unwrap().entries;
        let page = Format::BookmarksHtml.write(b"", &chromium).unwrap();
        assert!(page.refused.is_empty());
        assert_eq!(Format::BookmarksHtml.read(&page.bytes, &chromium).unwrap().entries, chromium);
    }

    #[test]
    fn what_no_page_can_hold_is_left_out_and_holds_up_nothing() {
        let key =
            |digit: char| Key::parse("x0000000-0000-4000-8000-000000000000".replace('x', &digit.to_string())).unwrap();
        let entry = |name: &str, parent: &str, added: &str| Entry {
            kind: Kind::Folder,
            name: name.to_owned(),
            url: None,
            added: Some(added.to_owned()),
            parent: parent.to_owned(),
            position: "i".to_owned(),
        };
        let wanted = Entries::from([
            (key('a'), entry("</H3><DL>\u{0}\r\n&amp;", "other", "0").to_bytes()),
            (key('b'), entry("b", "other", "yesterday").to_bytes()),
            (key('c'), entry("c", key('b').as_str(), "13344473600000123").to_bytes()),
        ]);
        let written = Format::BookmarksHtml.write(b"", &wanted).unwrap();
        assert_eq!(
            written.refused.iter().map(|left_out| left_out.key.as_str()).collect::<Vec<_>>(),
            [key('b').as_str()]
        );
        assert_eq!(entries(&written.bytes, &wanted).len(), 2);
    }

    #[test]
    fn what_is_no_page_of_bookmarks_is_refused() {
        for file in ["plain text", "<html><body>hello</body></html>", "<DL><p><DT><A HREF=\"x\">open"] {
            let refused = Format::BookmarksHtml.read(file.as_bytes(), &Entries::new());
            assert!(refused.is_err(), "{file}: {refused:?}");
        }
    }
}
