//! What a user tunes: who this device is, and which files roam. Plain data.

use std::path::PathBuf;

use globset::Glob;
use roam_nats::BusSettings;
use roam_process::{Problem, ProcessSettings};
use roam_schemas::{App, Device, Tenant, User};
use serde::{Deserialize, Serialize};

use crate::hook::{HookSettings, MOST_AT_ONCE, MOST_SECONDS};

/// Most profiles of one agent: as many as a user may have.
const MOST_PROFILES: usize = 256;

/// The settings of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What every process has.
    pub process: ProcessSettings,
    /// How to reach the bus.
    pub bus: BusSettings,
    /// The organisation. Must be set.
    pub tenant: Option<Tenant>,
    /// Whose files these are. Must be set.
    pub user: Option<User>,
    /// What this device is called. No other device of the user may be called so. Must be set.
    pub device: Option<Device>,
    /// Where the agent keeps what it knows. Created if it is missing.
    pub directory: PathBuf,
    /// The command that is told of events.
    pub hook: HookSettings,
    /// The files that roam.
    pub profiles: Vec<ProfileSettings>,
}

/// Files that are one profile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileSettings {
    /// The application, by which the profile is known on all devices.
    pub app: String,
    /// The directory or the file. `~/` at its beginning is the user's home.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Of a tree: patterns of the files that roam, by their paths below it. None: all.
    pub include: Vec<String>,
    /// Of a tree: patterns of the files that do not.
    pub exclude: Vec<String>,
    /// Patterns of keys that stay on this device.
    pub local: Vec<String>,
    /// Patterns of keys of which each device has a value of its own, kept in the profile under `@device/NAME/`.
    pub per_device: Vec<String>,
    /// The same for each platform, under `@platform/NAME/`.
    pub per_platform: Vec<String>,
}

/// What the path of a profile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory: a key per file.
    #[default]
    Tree,
    /// One file as a whole. Its name is the key, so it must be called the same on all devices.
    Document,
    /// A settings file in JSON, with or without comments: a key per leaf.
    Json,
    /// A settings file in TOML: a key per leaf.
    Toml,
    /// An address book of vCards in one file: a key per contact.
    Vcard,
    /// A directory of vCards, each contact in a file of its own or several in one: a key per contact.
    Vcards,
    /// The file `Bookmarks` of Chromium: a key per bookmark and folder.
    Bookmarks,
    /// Bookmarks in HTML, as browsers export and import them: the same keys.
    BookmarksHtml,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            process: ProcessSettings::on_port(9603),
            bus: BusSettings::default(),
            tenant: None,
            user: None,
            device: None,
            directory: PathBuf::from("~/.local/share/roam"),
            hook: HookSettings::default(),
            profiles: Vec::new(),
        }
    }
}

impl roam_process::Settings for Settings {
    const ABOUT: &'static str = "Keeps files of applications the same on all of a user's devices";
    const EXAMPLE: &'static str = include_str!("../agent.example.toml");

    fn process(&self) -> &ProcessSettings {
        &self.process
    }

    fn validate(&self) -> Vec<Problem> {
        let bus = self.bus.problems().into_iter();
        let mut problems: Vec<_> = bus.map(|problem| Problem::new("bus", format!("is wrong: {problem}"))).collect();
        let missing =
            [("tenant", self.tenant.is_none()), ("user", self.user.is_none()), ("device", self.device.is_none())];
        let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing);
        problems.extend(missing.map(|(path, _)| Problem::new(path, "must be set")));
        if self.directory.as_os_str().is_empty() {
            problems.push(Problem::new("directory", "must not be empty"));
        }
        if !(1..=MOST_SECONDS).contains(&self.hook.seconds) {
            problems.push(Problem::new("hook.seconds", format!("must be 1 to {MOST_SECONDS}")));
        }
        if !(1..=MOST_AT_ONCE).contains(&self.hook.at_once) {
            problems.push(Problem::new("hook.at_once", format!("must be 1 to {MOST_AT_ONCE}")));
        }
        if self.hook.command.first().is_some_and(String::is_empty) {
            problems.push(Problem::new("hook.command", "must begin with a program"));
        }
        if self.profiles.len() > MOST_PROFILES {
            let message = format!("must be at most {MOST_PROFILES}, not {}", self.profiles.len());
            problems.push(Problem::new("profiles", message));
        }
        for (index, profile) in self.profiles.iter().enumerate() {
            let messages = profile.problems().into_iter();
            problems
                .extend(messages.map(|message| Problem::new("profiles", format!("number {}: {message}", index + 1))));
            if self.profiles[..index].iter().any(|before| before.app == profile.app) {
                problems.push(Problem::new("profiles", format!("has the app {:?} twice", profile.app)));
            }
        }
        problems
    }
}

impl Settings {
    /// Where the agent keeps what it knows.
    pub fn directory(&self) -> PathBuf {
        at_home(&self.directory)
    }
}

impl ProfileSettings {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = App::parse(self.app.as_str()) {
            problems.push(format!("the app {:?} is none: {error}", self.app));
        }
        if self.path.as_os_str().is_empty() {
            problems.push("it has no path".to_owned());
        }
        if self.kind != Kind::Tree && !(self.include.is_empty() && self.exclude.is_empty()) {
            problems.push("include and exclude are for a tree".to_owned());
        }
        let layered = self.per_device.iter().chain(&self.per_platform);
        let patterns = self.include.iter().chain(&self.exclude).chain(&self.local).chain(layered);
        problems.extend(patterns.filter_map(|pattern| Glob::new(pattern).err()).map(|error| error.to_string()));
        problems
    }
}

/// A path with `~/` at its beginning replaced.
pub(crate) fn at_home(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(below), Some(home)) => home.join(below),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_process::Settings as _;

    use super::*;

    fn problems(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut settings = Settings {
            tenant: Tenant::parse("acme").ok(),
            user: User::parse("alice").ok(),
            device: Device::parse("laptop").ok(),
            ..Settings::default()
        };
        change(&mut settings);
        settings.validate().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_is_the_defaults() {
        roam_process::settings::check_example::<Settings>().unwrap();
    }

    #[test]
    fn who_this_is_must_be_said() {
        assert_eq!(Settings::default().validate().len(), 3);
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn all_problems_of_profiles_are_named_at_once() {
        let found = problems(|settings| {
            let good = ProfileSettings { app: "a".to_owned(), path: "/x".into(), ..ProfileSettings::default() };
            let twice = ProfileSettings { kind: Kind::Json, exclude: vec!["[".to_owned()], ..good.clone() };
            settings.profiles = vec![good, twice, ProfileSettings::default()];
        });
        for part in ["twice", "are for a tree", "unclosed character class", "no path", "is none"] {
            assert!(found.iter().any(|problem| problem.contains(part)), "{part} is not in {found:?}");
        }
    }

    #[test]
    fn a_hook_has_a_program_and_bounds() {
        let found = problems(|settings| {
            settings.hook = HookSettings { command: vec![String::new()], seconds: 0, at_once: 1_000 };
        });
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn only_a_tilde_of_its_own_is_the_home() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(at_home("~/a/b".as_ref()), home.join("a/b"));
        for path in ["/~/a", "a/~", "~other/a"] {
            assert_eq!(at_home(path.as_ref()), PathBuf::from(path));
        }
    }
}
