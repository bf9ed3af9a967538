//! Several devices with real files, and a profile in memory that decides as storage does. `ROAM_AGENT_SEED` has the dice
//! fall again as they did; `ROAM_AGENT_STEPS` says for how long they are thrown.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedMutRandom, IndexedRandom},
};
use roam_schemas::{App, ContentType, Device as Name, Profile, State, Stored, Tenant, User};

use super::*;
use crate::settings::{Kind, ProfileSettings};

/// The profile, as storage would hold it.
#[derive(Default, Clone)]
struct Server {
    records: BTreeMap<Key, Record>,
    revision: u64,
}

impl Server {
    fn cursor(&self) -> Cursor {
        let profile = Profile {
            tenant: Tenant::parse("acme").unwrap(),
            user: User::parse("alice").unwrap(),
            app: App::parse("app").unwrap(),
        };
        Cursor::new(&profile, Revision::new(self.revision), Timestamp::default())
    }

    fn decide(&mut self, device: &str, ops: &[Operation]) -> Option<Revision> {
        let is_live = |record: &&Record| matches!(record.state, State::Value(_));
        let holds = ops.iter().all(|op| {
            let held = self.records.get(&op.key).filter(is_live).map(|record| record.revision);
            match op.expect {
                Expect::Any => true,
                Expect::Absent => held.is_none(),
                Expect::At(revision) => held == Some(revision),
            }
        });
        if !holds {
            return None;
        }
        self.revision += 1;
        let revision = Revision::new(self.revision);
        for op in ops {
            let state = match &op.action {
                Action::Put(put) => State::Value(Stored {
                    value: put.value.clone(),
                    content_type: put.content_type.clone(),
                    expires: None,
                }),
                Action::Delete => State::Deleted,
            };
            let device = Name::parse(device).unwrap();
            let (key, time) = (op.key.clone(), Timestamp::default());
            self.records.insert(key.clone(), Record { key, revision, time, device, conflict: false, state });
        }
        Some(revision)
    }

    /// Somebody else writes.
    fn write(&mut self, key: &str, value: Option<&str>) {
        let key = Key::parse(key).unwrap();
        let op = match value {
            Some(value) => Operation::put(key, value, ContentType::text()),
            None => Operation::delete(key),
        };
        self.decide("other", &[op]).unwrap();
    }

    fn value(&self, key: &str) -> Option<String> {
        match &self.records.get(&Key::parse(key).unwrap())?.state {
            State::Value(stored) => Some(stored.value.as_text()?.to_owned()),
            _ => None,
        }
    }

    fn since(&self, revision: Revision) -> Vec<Record> {
        let mut records: Vec<Record> =
            self.records.values().filter(|record| record.revision > revision).cloned().collect();
        records.sort_by_key(|record| record.revision);
        records
    }
}

struct Laptop {
    name: String,
    place: tempfile::TempDir,
    kind: Kind,
    file: String,
    desk: Option<Desk>,
}

impl Laptop {
    fn new(name: &str, kind: Kind, file: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("files")).unwrap();
        let mut laptop = Self { name: name.to_owned(), place, kind, file: file.to_owned(), desk: None };
        laptop.restart();
        laptop
    }

    fn tree(name: &str) -> Self {
        Self::new(name, Kind::Tree, "")
    }

    /// As after a crash: only files and database are left.
    fn restart(&mut self) {
        self.desk = None;
        let settings = ProfileSettings { kind: self.kind, path: self.at(&self.file), ..ProfileSettings::default() };
        let store = Arc::new(Store::open(&self.place.path().join("agent.redb")).unwrap());
        let files = Files::of(&settings).unwrap();
        self.desk = Some(Desk::new("app", &self.name, store, files, GlobSet::empty()).unwrap());
    }

    fn desk(&mut self) -> &mut Desk {
        self.desk.as_mut().unwrap()
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("files")
    }

    fn at(&self, file: &str) -> PathBuf {
        if file.is_empty() { self.root() } else { self.root().join(file) }
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), text).unwrap();
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.at(file)).ok()
    }

    /// All files with their contents.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        collect(&self.root(), &self.root(), &mut files);
        files
    }

    fn hear(&mut self, server: &Server) {
        let revision = self.desk().revision();
        let whole = self.desk().cursor().is_none();
        self.desk().hear(&server.since(revision), server.cursor(), whole).unwrap();
    }

    fn round(&mut self) -> Round {
        self.desk().round(Timestamp::from_nanos(1)).unwrap()
    }

    /// Hears and publishes until there is nothing more to do.
    fn sync(&mut self, server: &mut Server) -> Round {
        for _ in 0..20 {
            self.hear(server);
            let mut round = self.round();
            if !round.again && round.publish.is_empty() {
                return round;
            }
            let ops = std::mem::take(&mut round.publish);
            if ops.is_empty() {
                continue;
            }
            if let Some(revision) = server.decide(&self.name, &ops) {
                self.desk().published(ops, revision).unwrap();
            }
        }
        panic!("{} does not come to rest", self.name);
    }
}

fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn an_edit_on_one_device_is_in_the_file_of_the_other() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    laptop.write("a/b", "one");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert_eq!(phone.read("a/b").as_deref(), Some("one"));
    phone.write("a/b", "two");
    phone.sync(&mut server);
    laptop.sync(&mut server);
    assert_eq!(laptop.read("a/b").as_deref(), Some("two"));
    fs::remove_file(laptop.at("a/b")).unwrap();
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert!(phone.files().is_empty() && !phone.at("a").exists());
}

#[test]
fn two_edits_of_one_file_end_as_two_files_on_both_devices() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::new("laptop", Kind::Tree, ""), Laptop::new("phone", Kind::Tree, ""));
    laptop.write("letter.docx", "first");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    laptop.write("letter.docx", "of the laptop");
    phone.write("letter.docx", "of the phone");
    phone.sync(&mut server);
    let conflict = "letter (conflict from laptop, 1970-01-01 00-00).docx";
    laptop.sync(&mut server);
    phone.sync(&mut server);
    for device in [&laptop, &phone] {
        assert_eq!(device.read("letter.docx").as_deref(), Some("of the phone"));
        assert_eq!(device.read(conflict).as_deref(), Some("of the laptop"));
    }
}

#[test]
fn a_document_keeps_both_edits_beside_each_other() {
    let mut server = Server::default();
    let mut devices = ["laptop", "phone"].map(|name| Laptop::new(name, Kind::Document, "letter.docx"));
    devices[0].write("other", "none of ours");
    devices[0].write("letter.docx", "first");
    for device in &mut devices {
        device.sync(&mut server);
    }
    devices[0].write("letter.docx", "of the laptop");
    devices[1].write("letter.docx", "of the phone");
    devices[1].sync(&mut server);
    let round = devices[0].sync(&mut server);
    assert!(round.publish.is_empty());
    assert_eq!(devices[0].read("letter.docx").as_deref(), Some("of the phone"));
    let kept: Vec<String> = devices[0].files().into_values().collect();
    assert!(kept.contains(&"of the laptop".to_owned()));
    assert_eq!(server.records.len(), 1);
}

#[test]
fn a_new_device_takes_what_is_there_and_keeps_its_own_beside() {
    let mut server = Server::default();
    server.write("theme", Some("dark"));
    let mut laptop = Laptop::tree("laptop");
    laptop.write("theme", "default");
    laptop.write("mine", "x");
    laptop.sync(&mut server);
    assert_eq!(laptop.read("theme").as_deref(), Some("dark"));
    assert_eq!((server.value("theme").as_deref(), server.value("mine").as_deref()), (Some("dark"), Some("x")));
    assert!(laptop.files().into_values().any(|text| text == "default"));
}

#[test]
fn a_default_settings_file_never_replaces_real_settings() {
    let mut server = Server::default();
    server.write("/theme", Some("\"dark\""));
    server.write("/size", Some("14"));
    let mut laptop = Laptop::new("laptop", Kind::Json, "settings.json");
    laptop.write("settings.json", "{\n  // as installed\n  \"theme\": \"light\",\n  \"own\": 1\n}\n");
    laptop.sync(&mut server);
    assert_eq!(server.value("/theme").as_deref(), Some("\"dark\""));
    assert_eq!(server.value("/own").as_deref(), Some("1"));
    let text = laptop.read("settings.json").unwrap();
    assert!(text.contains("\"dark\"") && text.contains("14") && text.contains("// as installed"), "{text}");
    assert!(laptop.files().into_values().any(|text| text.contains("light")), "the file as it was is kept");
}

#[test]
fn settings_that_were_emptied_or_removed_are_held_back_until_somebody_confirms() {
    for emptied in [Some(""), Some("{}"), None] {
        let mut server = Server::default();
        let mut laptop = Laptop::new("laptop", Kind::Json, "settings.json");
        laptop.write("settings.json", "{\"a\": 1, \"b\": 2}");
        laptop.sync(&mut server);
        match emptied {
            Some(text) => laptop.write("settings.json", text),
            None => fs::remove_file(laptop.at("settings.json")).unwrap(),
        }
        server.write("/c", Some("3"));
        let round = laptop.sync(&mut server);
        assert_eq!(round.held_back, Some(HeldBack { publish: 2, take: 0, of: 2 }));
        assert_eq!(server.value("/a").as_deref(), Some("1"));
        laptop.desk().confirm();
        assert_eq!(laptop.sync(&mut server).held_back, None);
        assert_eq!((server.value("/a"), server.value("/c").as_deref()), (None, Some("3")));
    }
}

#[test]
fn more_than_half_of_a_profile_is_not_deleted_at_once_in_either_direction() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    for number in 0..40 {
        laptop.write(&format!("f{number}"), "x");
    }
    laptop.sync(&mut server);
    phone.sync(&mut server);
    for number in 0..21 {
        fs::remove_file(laptop.at(&format!("f{number}"))).unwrap();
    }
    laptop.write("new", "goes on");
    let round = laptop.sync(&mut server);
    assert_eq!(round.held_back, Some(HeldBack { publish: 21, take: 0, of: 41 }));
    assert_eq!(server.value("new").as_deref(), Some("goes on"));
    laptop.desk().confirm();
    laptop.sync(&mut server);
    assert_eq!(server.value("f0"), None);
    let round = phone.sync(&mut server);
    assert_eq!(round.held_back.map(|held| held.take), Some(21));
    assert_eq!(phone.files().len(), 41);
    phone.desk().confirm();
    phone.sync(&mut server);
    assert_eq!(phone.files(), laptop.files());
}

#[test]
fn keys_that_are_no_files_here_are_refused_and_nothing_outside_is_touched() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("Readme", "mine");
    laptop.sync(&mut server);
    fs::create_dir(laptop.place.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(laptop.place.path().join("outside"), laptop.at("link")).unwrap();
    let hostile = ["../outside/x", "/etc/roam-test", "a\0b", "README", "link/x", "link", "a//b", "./c", "Readme/x"];
    for key in hostile {
        server.write(key, Some("hostile"));
    }
    server.write("fine", Some("fine"));
    laptop.sync(&mut server);
    let refused: BTreeSet<String> = laptop.desk().refused().keys().map(ToString::to_string).collect();
    // What a link hides is none of the profile's business, and nothing is even tried.
    let expected = hostile.iter().filter(|key| !key.starts_with("link")).map(ToString::to_string).collect();
    assert_eq!(refused, expected);
    assert_eq!(fs::read_dir(laptop.place.path().join("outside")).unwrap().count(), 0);
    assert!(!Path::new("/etc/roam-test").exists());
    assert_eq!((laptop.read("fine").as_deref(), laptop.read("Readme").as_deref()), (Some("fine"), Some("mine")));
    assert_eq!(server.value("README").as_deref(), Some("hostile"), "a refused key is not deleted for the others");
}

#[test]
fn a_change_whose_receipt_was_lost_is_not_made_twice() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "one");
    laptop.hear(&server);
    let round = laptop.round();
    server.decide("laptop", &round.publish).unwrap();
    laptop.restart();
    let round = laptop.round();
    assert_eq!(server.decide("laptop", &round.publish), None, "the same edit is refused");
    let round = laptop.sync(&mut server);
    assert!(round.set_aside.is_empty());
    assert_eq!((laptop.files().len(), server.revision), (1, 1));
}

#[test]
fn an_own_change_whose_receipt_was_lost_is_no_conflict_with_a_later_edit() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "one");
    laptop.hear(&server);
    let round = laptop.round();
    server.decide("laptop", &round.publish).unwrap();
    laptop.write("a", "two");
    laptop.sync(&mut server);
    assert_eq!((laptop.files().len(), server.value("a").as_deref()), (1, Some("two")));
}

#[test]
fn a_refused_value_is_put_aside_until_it_changes() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "bad");
    laptop.hear(&server);
    let op = laptop.round().publish.remove(0);
    laptop.desk().park(&op, "over_quota".to_owned()).unwrap();
    assert!(laptop.round().publish.is_empty());
    laptop.restart();
    assert!(laptop.round().publish.is_empty());
    laptop.write("a", "good");
    assert_eq!(laptop.round().publish.len(), 1);
    laptop.write("a", "bad");
    laptop.desk().retry().unwrap();
    laptop.sync(&mut server);
    assert_eq!((server.value("a").as_deref(), laptop.desk().parked().len()), (Some("bad"), 0));
}

#[test]
fn edits_of_different_settings_and_contacts_merge() {
    let mut server = Server::default();
    let mut devices = ["laptop", "phone"].map(|name| Laptop::new(name, Kind::Vcard, "book.vcf"));
    let card = |tel: &str, mail: &str| {
        format!("BEGIN:VCARD\r\nVERSION:3.0\r\nUID:1\r\nFN:Ann\r\nTEL:{tel}\r\nEMAIL:{mail}\r\nEND:VCARD\r\n")
    };
    devices[0].write("book.vcf", &card("1", "a@x"));
    for device in &mut devices {
        device.sync(&mut server);
    }
    devices[0].write("book.vcf", &card("2", "a@x"));
    devices[1].write("book.vcf", &card("1", "b@x"));
    for _ in 0..2 {
        for device in &mut devices {
            device.sync(&mut server);
        }
    }
    for device in &devices {
        let text = device.read("book.vcf").unwrap();
        assert!(text.contains("TEL:2\r\n") && text.contains("EMAIL:b@x\r\n") && !text.contains("TEL:1"), "{text}");
        assert_eq!(device.files().len(), 1);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What users wrote, and of that what no user replaced or deleted afterwards.
#[derive(Default)]
struct Written {
    all: BTreeSet<String>,
    live: BTreeSet<String>,
}

impl Written {
    /// A user edits a file that holds something, or nothing.
    fn replaces(&mut self, before: Option<String>, after: Option<String>) {
        if let Some(before) = before {
            self.live.remove(&before);
        }
        if let Some(after) = after {
            self.all.insert(after.clone());
            self.live.insert(after);
        }
    }
}

#[test]
fn three_devices_with_random_edits_and_crashes_end_the_same_with_nothing_lost() {
    let seed = setting("ROAM_AGENT_SEED", rand::random::<u64>() >> 1);
    let steps = setting("ROAM_AGENT_STEPS", 250);
    println!("ROAM_AGENT_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut server = Server::default();
    let mut devices = ["laptop", "phone", "desk"].map(Laptop::tree);
    let mut written = Written::default();
    for step in 0..steps {
        let device = devices.choose_mut(&mut dice).unwrap();
        let file = *["a", "b", "d/c", "d/e.txt"].choose(&mut dice).unwrap();
        match dice.random_range(0..10) {
            0..5 => {
                let text = format!("{} at {step}", device.name);
                written.replaces(device.read(file), Some(text.clone()));
                device.write(file, &text);
            }
            5 => {
                if let Some(before) = device.read(file) {
                    written.replaces(Some(before), None);
                    fs::remove_file(device.at(file)).unwrap();
                }
            }
            6 => device.restart(),
            7 => {
                // Offline: it goes on with what it heard before, and cannot publish.
                device.round();
            }
            8 => {
                // The change takes effect, and its receipt is lost.
                device.hear(&server);
                let round = device.round();
                if !round.publish.is_empty() {
                    server.decide(&device.name, &round.publish);
                }
                device.restart();
            }
            _ => drop(device.sync(&mut server)),
        }
    }
    for _ in 0..3 {
        for device in &mut devices {
            device.desk().confirm();
            device.sync(&mut server);
        }
    }
    let [laptop, phone, desk] = devices.map(|device| device.files());
    assert_eq!(laptop, phone);
    assert_eq!(phone, desk);
    let found: BTreeSet<String> = laptop.into_values().collect();
    assert!(found.is_superset(&written.live), "lost: {:?}", written.live.difference(&found));
    assert!(found.is_subset(&written.all), "nobody wrote: {:?}", found.difference(&written.all));
}

#[test]
fn an_edit_that_is_made_while_another_ones_is_applied_is_not_lost() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "one");
    laptop.sync(&mut server);
    server.write("a", Some("theirs"));
    laptop.hear(&server);
    // As if the user saved between the look and the rename.
    let desk = laptop.desk.as_mut().unwrap();
    desk.files.look(&Entries::new()).unwrap();
    fs::write(laptop.place.path().join("files/a"), "mine").unwrap();
    let edit = Edit {
        key: Key::parse("a").unwrap(),
        value: Some(b"theirs".to_vec()),
        over: Some(blake3::hash(b"one")),
        aside: None,
    };
    assert_eq!(desk.files.put(&[edit]).unwrap(), [Done::Edited]);
    laptop.sync(&mut server);
    let texts: BTreeSet<String> = laptop.files().into_values().collect();
    assert_eq!(texts, BTreeSet::from(["mine".to_owned(), "theirs".to_owned()]));
}

#[test]
fn after_the_restore_of_an_old_backup_files_bring_back_what_was_lost_and_are_not_rolled_back() {
    const EPOCH: u64 = 1 << 40;
    let (mut server, mut laptop) = (Server::default(), Laptop::tree("laptop"));
    for file in ["same", "edited", "deleted", "theirs"] {
        laptop.write(file, "old");
    }
    laptop.sync(&mut server);
    let mut backup = server.clone();
    laptop.write("edited", "new");
    laptop.write("made", "new");
    laptop.write("theirs", "mine");
    fs::remove_file(laptop.at("deleted")).unwrap();
    laptop.sync(&mut server);
    assert_eq!((server.value("edited").as_deref(), server.value("deleted")), (Some("new"), None));

    backup.revision = EPOCH;
    backup.write("theirs", Some("other"));
    let records = backup.since(Revision::ZERO);
    laptop.desk().restored(&records, Revision::new(EPOCH)).unwrap();
    laptop.desk().hear(&records, backup.cursor(), true).unwrap();
    laptop.sync(&mut backup);
    for (file, value) in [("same", "old"), ("edited", "new"), ("made", "new"), ("theirs", "other")] {
        assert_eq!((backup.value(file).as_deref(), laptop.read(file).as_deref()), (Some(value), Some(value)), "{file}");
    }
    assert_eq!((backup.value("deleted"), laptop.read("deleted")), (None, None));
    assert!(laptop.files().values().any(|kept| kept == "mine"), "what another device wrote over is kept beside it");
}
