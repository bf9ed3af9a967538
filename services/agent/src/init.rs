//! What on this machine could roam: looks for files of applications that are known, and writes settings in which each is
//! commented out, for the user to confirm. Reads no file, and changes none.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use roam_schemas::App;

use crate::Kind;

/// Files that could roam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the profile would be called.
    pub app: String,
    /// Where they are.
    pub path: PathBuf,
    /// What they are.
    pub kind: Kind,
    /// Keys or files that would stay.
    pub kept: &'static [&'static str],
    /// What the user should know of it first; empty if nothing.
    pub note: &'static str,
}

/// A file or directory of an application, below the home.
struct Known {
    app: &'static str,
    path: &'static str,
    kind: Kind,
    kept: &'static [&'static str],
}

const fn known(app: &'static str, path: &'static str, kind: Kind) -> Known {
    Known { app, path, kind, kept: &[] }
}

/// Window and machine of an editor of the family of Visual Studio Code.
const EDITOR: &[&str] = &["/window.zoomLevel", "/terminal.external*", "/remote*"];

/// Applications whose files are known to be made by their user, and to mean the same on another device.
const KNOWN: &[Known] = &[
    Known { app: "vscode", path: ".config/Code/User/settings.json", kind: Kind::Json, kept: EDITOR },
    Known { app: "vscodium", path: ".config/VSCodium/User/settings.json", kind: Kind::Json, kept: EDITOR },
    // A list, so it is one leaf, or none.
    known("vscode-keys", ".config/Code/User/keybindings.json", Kind::Document),
    known("zed", ".config/zed/settings.json", Kind::Json),
    known("chromium", ".config/chromium/Default/Bookmarks", Kind::Bookmarks),
    known("chrome", ".config/google-chrome/Default/Bookmarks", Kind::Bookmarks),
    known("brave", ".config/BraveSoftware/Brave-Browser/Default/Bookmarks", Kind::Bookmarks),
    known("git", ".gitconfig", Kind::Document),
    known("git-config", ".config/git", Kind::Tree),
    known("alacritty", ".config/alacritty/alacritty.toml", Kind::Toml),
    known("helix", ".config/helix/config.toml", Kind::Toml),
    known("starship", ".config/starship.toml", Kind::Toml),
    Known { app: "fish", path: ".config/fish", kind: Kind::Tree, kept: &["fish_variables"] },
    known("nvim", ".config/nvim", Kind::Tree),
    known("kitty", ".config/kitty", Kind::Tree),
    known("tmux", ".config/tmux", Kind::Tree),
    known("i3", ".config/i3", Kind::Tree),
    known("sway", ".config/sway", Kind::Tree),
];

/// Where Firefox keeps its profiles, each in a directory of its own.
const FIREFOX: &str = ".mozilla/firefox";

/// Where programs such as `vdirsyncer` and `khard` keep contacts, a file each, or a directory for each address book.
const CONTACTS: &[&str] =
    &[".contacts", ".local/share/contacts", ".local/share/vdirsyncer/contacts", ".local/share/khard", "Contacts"];

/// Where browsers export bookmarks to unless they are told otherwise.
const PAGES: &[&str] = &["bookmarks.html", "Documents/bookmarks.html"];
/// The same in a profile of Firefox.
const PAGE_OF_FIREFOX: &str = "bookmarks.html";
const NOTE_ON_PAGES: &str = "A page: a browser shows what others add only after it has imported it.";
const NOTE_ON_PAGES_OF_FIREFOX: &str = "Firefox writes this page when it ends (browser.bookmarks.autoExportHTML), and reads it \
                                        once if it is told to (browser.places.importBookmarksHTML).";

/// What there is below a home.
pub fn find(home: &Path) -> Vec<Found> {
    let is_there = |known: &&Known| {
        let path = home.join(known.path);
        if known.kind == Kind::Tree { path.is_dir() } else { path.is_file() }
    };
    let found = |known: &Known| Found { kept: known.kept, ..plain(known.app, Path::new(known.path), known.kind) };
    let mut all: Vec<Found> = KNOWN.iter().filter(is_there).map(found).collect();
    all.extend(firefox(home));
    all.extend(contacts(home));
    // Two pages of one user are of the same bookmarks, most likely.
    let page = PAGES.iter().find(|page| home.join(page).is_file());
    all.extend(
        page.map(|page| Found { note: NOTE_ON_PAGES, ..plain("bookmarks", Path::new(page), Kind::BookmarksHtml) }),
    );
    all
}

/// Nothing of it stays, and there is nothing to say of it.
fn plain(app: impl Into<String>, path: &Path, kind: Kind) -> Found {
    Found { app: app.into(), path: Path::new("~").join(path), kind, kept: &[], note: "" }
}

/// What a user wrote for Firefox is in `user.js`; the rest of a profile is the browser's own, and it has its own roaming.
/// Only bookmarks that it was told to export are for other browsers, too.
fn firefox(home: &Path) -> Vec<Found> {
    let profiles: Vec<_> =
        below(home, Path::new(FIREFOX)).into_iter().map(|name| Path::new(FIREFOX).join(name)).collect();
    let first = |file: &str| profiles.iter().map(|profile| profile.join(file)).find(|path| home.join(path).is_file());
    let user = first("user.js").map(|path| plain("firefox", &path, Kind::Document));
    let page = first(PAGE_OF_FIREFOX)
        .map(|path| Found { note: NOTE_ON_PAGES_OF_FIREFOX, ..plain("firefox-bookmarks", &path, Kind::BookmarksHtml) });
    user.into_iter().chain(page).collect()
}

/// Directories that hold contacts: that of a program, or those right below it, which are called after it and themselves.
fn contacts(home: &Path) -> Vec<Found> {
    let is_book =
        |directory: &Path| below(home, directory).iter().any(|name| name.to_ascii_lowercase().ends_with(".vcf"));
    let mut apps = BTreeSet::new();
    let mut all = Vec::new();
    for directory in CONTACTS.iter().map(Path::new) {
        let books = below(home, directory).into_iter().map(|name| (format!("contacts-{name}"), directory.join(name)));
        for (app, path) in std::iter::once(("contacts".to_owned(), directory.to_owned())).chain(books) {
            // An app's name is one of the bus, and what is found twice is likely a copy.
            if is_book(&path) && App::parse(app.as_str()).is_ok() && apps.insert(app.clone()) {
                all.push(plain(app, &path, Kind::Vcards));
            }
        }
    }
    all
}

/// The names in a directory below a home, sorted; none if there is no such directory.
fn below(home: &Path, directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(home.join(directory)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Settings in which all that was found is commented out.
pub fn settings(found: &[Found], device: &str) -> String {
    let mut text = format!(
        "# Written by `roam agent init`. Say who you are, take the comment signs from the profiles that shall roam, and then:\n\
         #   roam agent run\n\n\
         #tenant = \"acme\"\n#user = \"alice@example.com\"\n\
         # No two devices of a user may be called the same.\ndevice = {}\n\n",
        quoted(device)
    );
    for Found { app, path, kind, kept, note } in found {
        // The names of kinds are spelled alike in JSON and in TOML.
        let kind_name = serde_json::to_string(kind).unwrap_or_default();
        let path = quoted(&path.to_string_lossy());
        // Writing to a String does not fail.
        if !note.is_empty() {
            let _ = writeln!(text, "# {note}");
        }
        let _ = write!(text, "#[[profiles]]\n#app = {}\n#path = {path}\n#kind = {kind_name}\n", quoted(app));
        if !kept.is_empty() {
            let name = if *kind == Kind::Tree { "exclude" } else { "local" };
            let kept: Vec<String> = kept.iter().map(|pattern| quoted(pattern)).collect();
            let _ = writeln!(text, "#{name} = [{}]", kept.join(", "));
        }
        text.push('\n');
    }
    text.push_str("#[bus]\n#servers = [\"nats://127.0.0.1:4222\"]\n");
    text
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_process::{
        Settings as _,
        settings::{Sources, load},
    };

    use super::*;
    use crate::Settings;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for file in [
            ".config/Code/User/settings.json",
            ".config/fish/config.fish",
            ".config/helix/config.toml",
            ".config/chromium/Default/Bookmarks",
            ".gitconfig",
            ".mozilla/firefox/x.default/prefs.js",
            ".mozilla/firefox/y.default/user.js",
            ".mozilla/firefox/y.default/bookmarks.html",
            ".contacts/family/ann.vcf",
            ".contacts/work/bob.VCF",
            ".contacts/empty/note.txt",
            ".local/share/khard/cem.vcf",
            ".local/share/khard/work/bob.vcf",
            "Documents/bookmarks.html",
            ".config/sway",
        ] {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        home
    }

    #[test]
    fn what_is_there_is_found_and_what_is_of_another_kind_is_not() {
        let home = home();
        let found = find(home.path());
        let apps: Vec<&str> = found.iter().map(|found| found.app.as_str()).collect();
        let expected =
            ["vscode", "chromium", "git", "helix", "fish", "firefox", "firefox-bookmarks", "contacts-family"];
        assert_eq!(apps, [&expected[..], &["contacts-work", "contacts", "bookmarks"]].concat());
        let of = |app: &str| {
            let found = found.iter().find(|found| found.app == app).unwrap();
            (found.path.to_str().unwrap(), found.kind)
        };
        for (app, path, kind) in [
            ("firefox", "~/.mozilla/firefox/y.default/user.js", Kind::Document),
            ("firefox-bookmarks", "~/.mozilla/firefox/y.default/bookmarks.html", Kind::BookmarksHtml),
            ("contacts", "~/.local/share/khard", Kind::Vcards),
            ("contacts-work", "~/.contacts/work", Kind::Vcards),
            ("bookmarks", "~/Documents/bookmarks.html", Kind::BookmarksHtml),
        ] {
            assert_eq!(of(app), (path, kind));
        }
    }

    #[test]
    fn nothing_roams_before_the_user_has_confirmed_it_and_then_all_of_it_is_valid() {
        let home = home();
        let text = settings(&find(home.path()), "Ann's \"laptop\"");
        let file = home.path().join("agent.toml");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            load::<Settings>("roam-agent", &Sources { file: Some(file.clone()), ..Sources::default() })
        };
        assert!(read(&text).is_err(), "nobody said who this is");
        let uncommented = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        });
        let confirmed = read(&uncommented.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(confirmed.validate().len(), 0);
        assert_eq!(confirmed.device.unwrap().as_str(), "Ann's \"laptop\"");
        assert_eq!(confirmed.profiles.len(), 11);
        assert_eq!(confirmed.profiles[4].exclude, ["fish_variables"]);
        let apps: BTreeSet<&str> = KNOWN.iter().map(|known| known.app).collect();
        assert_eq!(apps.len(), KNOWN.len());
    }
}
