//! Several devices with real files, and a profile in memory that decides as storage does. Here is their world; what they do in
//! it is told by subject.
#![allow(clippy::unwrap_used)]

mod deletions;
mod large;
mod layers;
mod random;
mod trouble;
mod two;

use std::{fs, path::Path};

use globset::{Glob, GlobSet, GlobSetBuilder};
use roam_client::Layers;
use roam_schemas::{
    Action, App, Chunk, ContentHash, Cursor, Device as Name, Profile, Record, Revision, State, Stored, Tenant, User,
};

use super::*;
use crate::settings::{Kind, ProfileSettings};

/// The profile, as storage would hold it.
#[derive(Default, Clone)]
struct Server {
    records: BTreeMap<Key, Record>,
    revision: u64,
    chunks: BTreeMap<[u8; 32], Vec<u8>>,
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

    /// As a client uploads a file: its chunks first, and then what names them.
    fn upload(&mut self, upload: Upload) -> Operation {
        let bytes = fs::read(&upload.path).unwrap();
        let chunks = bytes.chunks(200_000).map(|bytes| {
            let hash = ContentHash::of(bytes);
            self.chunks.insert(*hash.as_bytes(), bytes.to_vec());
            Chunk { hash, length: u32::try_from(bytes.len()).unwrap() }
        });
        let chunks = chunks.collect();
        let (length, hash) = (bytes.len() as u64, ContentHash::of(&bytes));
        assert_eq!(*hash.as_bytes(), *upload.digest.as_bytes());
        let manifest = Manifest { length, hash, content_type: upload.content_type, chunks };
        let (value, content_type) = manifest.to_value().unwrap();
        Operation::put(upload.key, value.into_bytes(), content_type).expecting(upload.expect)
    }

    fn bytes(&self, manifest: &Manifest) -> Vec<u8> {
        manifest.chunks.iter().flat_map(|chunk| self.chunks[chunk.hash.as_bytes()].clone()).collect()
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
    per_device: &'static str,
    desk: Option<Desk>,
    /// What a watcher would have told of, if there is one.
    told: Option<BTreeSet<PathBuf>>,
    now: Timestamp,
}

impl Laptop {
    fn new(name: &str, kind: Kind, file: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("files")).unwrap();
        let (name, file) = (name.to_owned(), file.to_owned());
        let now = Timestamp::from_nanos(1);
        let mut laptop = Self { name, place, kind, file, per_device: "", desk: None, told: None, now };
        laptop.restart();
        laptop
    }

    /// With keys of which each device has a value of its own.
    fn with_own(mut self, pattern: &'static str) -> Self {
        self.per_device = pattern;
        self.restart();
        self
    }

    /// From now on it looks only at what changed.
    fn watched(mut self) -> Self {
        self.told = Some(BTreeSet::new());
        self
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
        let layers = Layers::new(&Name::parse(self.name.as_str()).unwrap(), "linux").unwrap();
        let own = GlobSetBuilder::new().add(Glob::new(self.per_device).unwrap()).build().unwrap();
        let layered = Layered::new(layers, GlobSet::empty(), own, GlobSet::empty());
        let spool = Spool::open(self.place.path().join("large")).unwrap();
        self.desk = Some(Desk::new("app", &self.name, store, files, layered, spool).unwrap());
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

    fn write(&mut self, file: &str, text: &str) {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), text).unwrap();
        self.tell(file);
    }

    fn remove(&mut self, file: &str) {
        fs::remove_file(self.at(file)).unwrap();
        self.tell(file);
    }

    fn tell(&mut self, file: &str) {
        let path = self.at(file);
        if let Some(told) = &mut self.told {
            told.insert(path);
        }
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
        let changed = self.told.as_mut().map_or(Changed::All, |told| Changed::Paths(std::mem::take(told)));
        let now = self.now;
        self.desk().round(now, &changed).unwrap()
    }

    /// Hears and publishes until there is nothing more to do.
    fn sync(&mut self, server: &mut Server) -> Round {
        for _ in 0..20 {
            self.hear(server);
            let mut round = self.round();
            let mut ops = std::mem::take(&mut round.publish);
            ops.extend(round.upload.drain(..).map(|upload| server.upload(upload)));
            for Fetch { manifest, .. } in &round.fetch {
                fs::write(self.desk().spool().partial(manifest.hash), server.bytes(manifest)).unwrap();
                self.desk().spool().keep(manifest.hash).unwrap();
            }
            if !round.again && ops.is_empty() && round.fetch.is_empty() {
                return round;
            }
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
