//! What on this machine could roam: looks for files of applications that are known, and writes settings in which each is
//! commented out, for the user to confirm. Reads no file, and changes none.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::Kind;

/// Files that could roam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the profile would be called.
    pub app: &'static str,
    /// Where they are.
    pub path: PathBuf,
    /// What they are.
    pub kind: Kind,
    /// Keys or files that would stay.
    pub kept: &'static [&'static str],
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

/// What there is below a home.
pub fn find(home: &Path) -> Vec<Found> {
    let is_there = |known: &&Known| {
        let path = home.join(known.path);
        if known.kind == Kind::Tree { path.is_dir() } else { path.is_file() }
    };
    let found = |known: &Known| Found {
        app: known.app,
        path: Path::new("~").join(known.path),
        kind: known.kind,
        kept: known.kept,
    };
    let mut all: Vec<Found> = KNOWN.iter().filter(is_there).map(found).collect();
    all.extend(firefox(home));
    all
}

/// What a user wrote for Firefox is in `user.js`; the rest of a profile is the browser's own, and it has its own roaming.
fn firefox(home: &Path) -> Option<Found> {
    let profiles = fs::read_dir(home.join(FIREFOX)).ok()?.flatten();
    let mut names: Vec<_> = profiles.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    let name = names.into_iter().find(|name| home.join(FIREFOX).join(name).join("user.js").is_file())?;
    let path = Path::new("~").join(FIREFOX).join(name).join("user.js");
    Some(Found { app: "firefox", path, kind: Kind::Document, kept: &[] })
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
    for Found { app, path, kind, kept } in found {
        // The names of kinds are spelled alike in JSON and in TOML.
        let kind_name = serde_json::to_string(kind).unwrap_or_default();
        let path = quoted(&path.to_string_lossy());
        // Writing to a String does not fail.
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
    use std::collections::BTreeSet;

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
        let apps: Vec<&str> = find(home.path()).iter().map(|found| found.app).collect();
        assert_eq!(apps, ["vscode", "chromium", "git", "helix", "fish", "firefox"]);
        assert_eq!(find(home.path()).last().unwrap().path, Path::new("~/.mozilla/firefox/y.default/user.js"));
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
        assert_eq!(confirmed.profiles.len(), 6);
        assert_eq!(confirmed.profiles[4].exclude, ["fish_variables"]);
        let apps: BTreeSet<&str> = KNOWN.iter().map(|known| known.app).collect();
        assert_eq!(apps.len(), KNOWN.len());
    }
}
