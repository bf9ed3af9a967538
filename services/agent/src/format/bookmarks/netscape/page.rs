//! A page of bookmarks as a tree, and back. It is no HTML that a parser of HTML would be happy with (`<DT>` and `<p>` are never
//! closed), so it is read as what it is: a list of tags of which a few count.

/// What a page begins with, if there is none yet.
const HEAD: &str = "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n\
    <!-- This is an automatically generated file.\n     It will be read and overwritten.\n     DO NOT EDIT! -->\n\
    <META HTTP-EQUIV=\"Content-Type\" CONTENT=\"text/html; charset=UTF-8\">\n\
    <TITLE>Bookmarks</TITLE>\n<H1>Bookmarks</H1>\n";
/// The deepest that folders may lie in each other.
const DEPTH: usize = 256;
const GUID: &str = "GUID";
const ADDED: &str = "ADD_DATE";
const BAR: &str = "PERSONAL_TOOLBAR_FOLDER";
/// Marks the folder of the bookmarks of a phone, for which the format has no name.
const MOBILE: &str = "ROAM_MOBILE_FOLDER";

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// All before the list.
    head: String,
    pub(super) nodes: Vec<Node>,
}

/// A bookmark, a folder, or a line between them.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) what: What,
    pub(super) guid: Option<String>,
    pub(super) name: String,
    /// Of a bookmark only.
    pub(super) url: String,
    /// All but `HREF` and the GUID, with their names in capitals.
    attributes: Vec<(String, String)>,
    /// What `<DD>` says of it, as it stands there.
    description: String,
    /// How many lines are drawn after it.
    pub(super) lines_after: usize,
    pub(super) children: Vec<Node>,
}

/// What a node is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    #[default]
    Bookmark,
    Folder,
    Line,
}

impl Node {
    /// The folder of a root, as Chromium names them.
    pub(super) fn root(root: &str) -> Self {
        let (name, mark) = if root == super::BAR { ("Bookmarks bar", BAR) } else { ("Mobile bookmarks", MOBILE) };
        let attributes = vec![(mark.to_owned(), "true".to_owned())];
        Self { what: What::Folder, name: name.to_owned(), attributes, ..Self::default() }
    }

    /// The root that this folder is, if it is one.
    pub(super) fn root_name(&self) -> Option<&'static str> {
        let has = |name: &str| self.attribute(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        match self.what {
            What::Folder if has(BAR) => Some(super::BAR),
            What::Folder if has(MOBILE) => Some("synced"),
            _ => None,
        }
    }

    /// When it was made, in seconds since 1970.
    pub(super) fn added(&self) -> Option<u64> {
        self.attribute(ADDED)?.parse().ok()
    }

    pub(super) fn set_added(&mut self, seconds: Option<u64>) {
        if self.added() == seconds {
            return;
        }
        self.attributes.retain(|(name, _)| name != ADDED);
        self.attributes.extend(seconds.map(|seconds| (ADDED.to_owned(), seconds.to_string())));
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a page.
pub(super) fn parse(file: &[u8]) -> Result<Page, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Page { head: HEAD.to_owned(), nodes: Vec::new() });
    }
    let mut reader = Reader { text, at: 0 };
    let mut head_ends = None;
    while let Some(tag) = reader.tag()? {
        if tag.name == "DL" {
            head_ends = Some(tag.from);
            break;
        }
    }
    let head = text[..head_ends.ok_or("it has no list of bookmarks")?].to_owned();
    Ok(Page { head, nodes: reader.list(0)? })
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

struct Tag<'t> {
    /// In capitals; of a closing one with its slash.
    name: String,
    inner: &'t str,
    from: usize,
}

impl<'t> Reader<'t> {
    /// The next tag. Comments are none.
    fn tag(&mut self) -> Result<Option<Tag<'t>>, String> {
        loop {
            let Some(found) = self.text[self.at..].find('<') else { return Ok(None) };
            let from = self.at + found;
            let rest = &self.text[from + 1..];
            if rest.starts_with("!--") {
                let end = rest.find("-->").ok_or("a comment in it does not end")?;
                self.at = from + 1 + end + 3;
                continue;
            }
            let length = tag_end(rest).ok_or("a tag in it does not end")?;
            self.at = from + 1 + length + 1;
            let inner = &rest[..length];
            let end = inner.find(|c: char| c.is_whitespace()).unwrap_or(inner.len());
            return Ok(Some(Tag { name: inner[..end].to_ascii_uppercase(), inner: &inner[end..], from }));
        }
    }

    /// What stands from here to the tag that closes.
    fn until(&mut self, closing: &str) -> Result<String, String> {
        let from = self.at;
        while let Some(tag) = self.tag()? {
            if tag.name == closing {
                return Ok(unescape(&self.text[from..tag.from]));
            }
        }
        Err(format!("a tag <{closing}> is missing in it"))
    }

    /// The nodes of a list, whose beginning was read.
    fn list(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        if depth > DEPTH {
            return Err(format!("its folders are over {DEPTH} deep"));
        }
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(tag) = self.tag()? {
            match tag.name.as_str() {
                "A" => nodes.push(self.node(&tag, What::Bookmark, "/A")?),
                "H3" => nodes.push(self.node(&tag, What::Folder, "/H3")?),
                "HR" => nodes.push(Node { what: What::Line, ..Node::default() }),
                "DD" => {
                    let end = self.text[self.at..].find('<').map_or(self.text.len(), |end| self.at + end);
                    if let Some(node) = nodes.last_mut() {
                        node.description = self.text[self.at..end].trim().to_owned();
                    }
                    self.at = end;
                }
                "DL" => {
                    let children = self.list(depth + 1)?;
                    match nodes.last_mut() {
                        Some(folder) if folder.what == What::Folder => folder.children.extend(children),
                        _ => nodes.extend(children),
                    }
                }
                "/DL" => return Ok(nodes),
                // <DT> and <p> say nothing, and of others nothing is known.
                _ => {}
            }
        }
        // Some programs do not close the outermost.
        if depth == 0 { Ok(nodes) } else { Err("a list in it does not end".to_owned()) }
    }

    fn node(&mut self, tag: &Tag<'_>, what: What, closing: &str) -> Result<Node, String> {
        let mut node = Node { what, ..Node::default() };
        for (name, value) in attributes(tag.inner) {
            match name.as_str() {
                "HREF" => node.url = value,
                GUID => node.guid = Some(value),
                _ => node.attributes.push((name, value)),
            }
        }
        node.name = self.until(closing)?;
        Ok(node)
    }
}

/// Where a tag ends: at the first `>` that is not within quotes.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in tag.char_indices() {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn attributes(mut text: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    loop {
        text = text.trim_start();
        let end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
        if end == 0 {
            return attributes;
        }
        let name = text[..end].to_ascii_uppercase();
        text = text[end..].trim_start();
        let Some(after) = text.strip_prefix('=') else {
            attributes.push((name, String::new()));
            continue;
        };
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, rest) = match quote {
            Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
        };
        attributes.push((name, unescape(value)));
        text = rest;
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let meant = rest.find(';').and_then(|end| Some((character(&rest[1..end])?, end)));
        match meant {
            Some((c, end)) => {
                plain.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain + rest
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push_str(&format!("&#{};", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

impl Page {
    /// The page as browsers write it.
    pub(super) fn print(&self) -> String {
        let mut text = self.head.clone();
        print_list(&self.nodes, 0, &mut text);
        text
    }
}

fn print_list(nodes: &[Node], depth: usize, text: &mut String) {
    let outer = "    ".repeat(depth);
    text.push_str(&format!("{outer}<DL><p>\n"));
    let indent = "    ".repeat(depth + 1);
    for node in nodes {
        let mut attributes = String::new();
        if node.what == What::Bookmark {
            attributes.push_str(&format!(" HREF=\"{}\"", escape(&node.url)));
        }
        for (name, value) in &node.attributes {
            attributes.push_str(&format!(" {name}=\"{}\"", escape(value)));
        }
        if let Some(guid) = node.guid.as_ref().filter(|_| node.root_name().is_none()) {
            attributes.push_str(&format!(" {GUID}=\"{guid}\""));
        }
        let tag = if node.what == What::Folder { "H3" } else { "A" };
        text.push_str(&format!("{indent}<DT><{tag}{attributes}>{}</{tag}>\n", escape(&node.name)));
        if !node.description.is_empty() {
            text.push_str(&format!("{indent}<DD>{}\n", node.description));
        }
        if node.what == What::Folder {
            print_list(&node.children, depth + 1, text);
        }
        text.push_str(&format!("{indent}<HR>\n").repeat(node.lines_after));
    }
    text.push_str(&format!("{outer}</DL><p>\n"));
}
