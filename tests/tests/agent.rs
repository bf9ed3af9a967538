//! Files roam: agents with real files on a real system, cut off and killed. `ROAM_TESTS_SECONDS` has the random ones go on
//! for longer.

mod deletions;
mod figures;
mod more;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use roam_agent::{HookSettings, Kind, ProfileSettings, Question, Settings};
use roam_client::{BusSettings, Lookup};
use roam_process::{Context, ProcessSettings};
use roam_tests::{AGENT, SERVICE_VARIABLE, Wire, World, app, device, dice, eventually, key, tenant, text, user};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};

/// How long random edits go on, unless `ROAM_TESTS_SECONDS` says otherwise.
const SECONDS: u64 = 6;

/// A device with an agent and a directory of files.
struct Laptop {
    name: String,
    place: tempfile::TempDir,
    url: String,
    kind: Kind,
    hook: HookSettings,
    per_device: Vec<String>,
    /// How large a file the agent's process may write, as `ulimit -f` counts it.
    blocks: Option<u32>,
    running: Option<Running>,
}

/// Ends with this.
enum Running {
    Task { context: Context, _task: JoinSet<()> },
    Process(Child),
}

impl Laptop {
    fn new(name: &str, url: &str, kind: Kind) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("files")).unwrap();
        let (name, url, hook) = (name.to_owned(), url.to_owned(), HookSettings::default());
        Self { name, place, url, kind, hook, per_device: Vec::new(), blocks: None, running: None }
    }

    fn settings(&self) -> Settings {
        let file = match self.kind {
            Kind::Tree => "",
            Kind::Vcard => "book.vcf",
            _ => "settings.json",
        };
        let profile = ProfileSettings {
            app: "files".to_owned(),
            path: self.at(file),
            kind: self.kind,
            per_device: self.per_device.clone(),
            ..ProfileSettings::default()
        };
        Settings {
            process: ProcessSettings::on_port(0),
            bus: BusSettings::at(self.url.as_str()),
            tenant: Some(tenant("acme")),
            user: Some(user("alice")),
            device: Some(device(&self.name)),
            directory: self.place.path().join("agent"),
            hook: self.hook.clone(),
            profiles: vec![profile],
        }
    }

    /// In the test's process.
    fn start(mut self) -> Self {
        let (context, settings) = (Context::new(Duration::from_secs(7)), self.settings());
        let mut task = JoinSet::new();
        let agent = Box::pin(roam_agent::run(settings, context.clone()));
        task.spawn(async move {
            if let Err(error) = agent.await {
                panic!("{error:?}");
            }
        });
        self.running = Some(Running::Task { context, _task: task });
        self
    }

    /// As a process of its own.
    fn launch(&mut self) {
        let configuration = self.place.path().join("agent.toml");
        fs::write(&configuration, roam_process::settings::print(&self.settings()).unwrap()).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.place.path().join("log")).unwrap();
        let program = env!("CARGO_BIN_EXE_roam-tests-service");
        let mut command = match self.blocks {
            None => Command::new(program),
            Some(blocks) => {
                let mut shell = Command::new("/bin/sh");
                // The signal would end it, where a full disk only refuses.
                let script = "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"";
                shell.arg("-c").arg(script).arg(blocks.to_string()).arg(program);
                shell
            }
        };
        let child = command
            .env(SERVICE_VARIABLE, AGENT)
            .arg("--config")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.running = Some(Running::Process(child.unwrap()));
    }

    async fn kill(&mut self) {
        match self.running.take() {
            Some(Running::Process(ref mut child)) => child.kill().await.unwrap(),
            _ => panic!("{} is no process", self.name),
        }
    }

    fn at(&self, file: &str) -> PathBuf {
        let files = self.place.path().join("files");
        if file.is_empty() { files } else { files.join(file) }
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), text).unwrap();
    }

    /// As an editor saves that takes care: a reader never sees half of it. What was replaced, exactly, even if the agent
    /// has just put it there.
    fn save(&self, file: &str, text: &str) -> Option<String> {
        let (beside, place) = (self.place.path().join("being saved"), self.at(file));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&beside, text).unwrap();
        loop {
            match renameat_with(CWD, &beside, CWD, &place, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    let replaced = fs::read_to_string(&beside).unwrap();
                    fs::remove_file(&beside).unwrap();
                    return Some(replaced);
                }
                Err(Errno::NOENT) => {}
                Err(error) => panic!("{error}"),
            }
            match renameat_with(CWD, &beside, CWD, &place, RenameFlags::NOREPLACE) {
                Ok(()) => return None,
                Err(Errno::EXIST) => {}
                // The agent removed a directory that was empty.
                Err(Errno::NOENT) => fs::create_dir_all(place.parent().unwrap()).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.at(file)).ok()
    }

    async fn has(&self, file: &str, wanted: &str) {
        let what = format!("{} has {wanted:?} in {file}", self.name);
        eventually(&what, async || (self.read(file).as_deref() == Some(wanted)).then_some(())).await;
    }

    /// All files with their contents, but those that are being written.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        collect(&self.at(""), &self.at(""), &mut files);
        files
    }

    async fn ask(&self, question: Question) -> serde_json::Value {
        eventually("the agent answers", async || roam_agent::ask(&self.settings().directory, &question).await.ok())
            .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Task { context, .. } = self {
            context.shutdown.cancel();
        }
    }
}

fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(root, &path, files);
        } else if !entry.file_name().to_str().unwrap().starts_with(".roam-pull-") {
            // It may have gone since.
            files.extend(fs::read_to_string(&path).ok().map(|text| (name, text)));
        }
    }
}

fn seconds() -> Duration {
    let seconds = std::env::var("ROAM_TESTS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_in_the_file_of_another_device_and_so_are_deletions() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let laptop = Laptop::new("laptop", &url, Kind::Tree).start();
    laptop.write("a/b.toml", "x = 1");
    let phone = Laptop::new("phone", &url, Kind::Tree).start();
    phone.has("a/b.toml", "x = 1").await;
    phone.write("a/b.toml", "x = 2");
    laptop.has("a/b.toml", "x = 2").await;
    fs::remove_file(laptop.at("a/b.toml")).unwrap();
    eventually("the file is gone", async || phone.read("a/b.toml").is_none().then_some(())).await;
    let status = phone.ask(Question::Status).await;
    assert_eq!((&status["files"]["waiting"], &status["files"]["trouble"]), (&0.into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_were_edited_on_both_sides_while_one_was_cut_off_end_with_both_edits() {
    let world = World::new().start().await;
    let wire = world.wire().await;
    let laptop = Laptop::new("laptop", &world.nats.client_url(), Kind::Json).start();
    laptop.write("settings.json", "{\n    // mine\n    \"theme\": \"dark\",\n    \"size\": 12\n}\n");
    let phone = Laptop::new("phone", &wire.url(), Kind::Json).start();
    eventually("the phone has it", async || phone.read("settings.json").filter(|text| text.contains("12"))).await;
    wire.cut();
    laptop.write("settings.json", "{\n    // mine\n    \"theme\": \"light\",\n    \"size\": 12\n}\n");
    let edited = phone.read("settings.json").unwrap().replace("12", "14");
    phone.write("settings.json", &edited);
    let profile = world.device("acme", "alice", "onlooker").await.profile(app("files"));
    eventually("the laptop's edit is saved", async || match profile.get(key("/theme")).await {
        Ok(Lookup::Found(record)) => (record.revision.get() > 1).then_some(()),
        _ => None,
    })
    .await;
    wire.mend();
    for device in [&laptop, &phone] {
        let what = format!("{} has both edits", device.name);
        eventually(&what, async || {
            device.read("settings.json").filter(|text| text.contains("\"light\"") && text.contains("14"))
        })
        .await;
    }
    assert!(laptop.read("settings.json").unwrap().contains("// mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_are_refused_by_name_and_touch_nothing_outside() {
    let world = World::new().start().await;
    let laptop = Laptop::new("laptop", &world.nats.client_url(), Kind::Tree).start();
    let attacker = world.device("acme", "alice", "attacker").await.profile(app("files"));
    let outside = laptop.place.path().join("outside");
    for hostile in ["../outside", "a/../../outside", "/etc/roam-was-here", "nul\0", "a//b"] {
        attacker.put(key(hostile), "x", text()).await.unwrap();
    }
    attacker.put(key("fine"), "fine", text()).await.unwrap();
    laptop.has("fine", "fine").await;
    let refused = eventually("all are named", async || {
        let status = laptop.ask(Question::Status).await;
        let refused = status["files"]["refused"].as_array()?.clone();
        (refused.len() == 5).then_some(refused)
    })
    .await;
    assert!(refused.iter().all(|entry| !entry["why"].as_str().unwrap().is_empty()), "{refused:?}");
    assert!(!outside.exists() && !Path::new("/etc/roam-was-here").exists());
    assert_eq!(laptop.files().len(), 1);
}

/// What users wrote, and of that what nobody replaced or deleted afterwards.
#[derive(Default)]
struct Written {
    all: BTreeSet<String>,
    live: BTreeSet<String>,
}

impl Written {
    /// A user edits a file: one of three that this device alone edits, or one that all do.
    fn edit(&mut self, device: &Laptop, dice: &mut StdRng, number: usize) {
        let file = match dice.random_range(0..4) {
            0 => "shared/file.txt".to_owned(),
            own => format!("{}/{own}", device.name),
        };
        let text = format!("{number} by {} {}", device.name, "x".repeat(dice.random_range(0..2_000)));
        if let Some(replaced) = device.save(&file, &text) {
            self.live.remove(&replaced);
        }
        self.all.insert(text.clone());
        self.live.insert(text);
    }
}

/// Tells of a device if it is dropped by a panic.
struct Apart<'d> {
    device: &'d Laptop,
    written: &'d Written,
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { device, written } = self;
        let found: BTreeSet<String> = device.files().into_values().collect();
        let lost: Vec<&String> = written.live.difference(&found).collect();
        println!("{}: {:?}\nlacks {lost:?}", device.name, device.files().keys());
        println!("{}", fs::read_to_string(device.place.path().join("log")).unwrap_or_default());
    }
}

/// All devices come to hold the same files, with everything that nobody replaced, and nothing that nobody wrote.
async fn come_together(devices: &[Laptop], written: &Written) {
    let together = async || {
        let [first, others @ ..] = devices else { return None };
        let files = first.files();
        let found: BTreeSet<String> = files.values().cloned().collect();
        let same = others.iter().all(|device| device.files() == files);
        (same && found.is_superset(&written.live)).then_some(found)
    };
    let _tell = devices.iter().map(|device| Apart { device, written }).collect::<Vec<_>>();
    let found = eventually("the devices come together", together).await;
    let unknown: Vec<&String> = found.difference(&written.all).collect();
    assert!(unknown.is_empty(), "torn, or written by nobody: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_with_random_edits_and_cut_networks_end_the_same_with_nothing_lost() {
    let world = World::new().start().await;
    let mut dice = dice();
    let wires: Vec<Wire> = vec![world.wire().await, world.wire().await, world.wire().await];
    let names = ["laptop", "phone", "desk"];
    let devices: Vec<Laptop> =
        names.iter().zip(&wires).map(|(name, wire)| Laptop::new(name, &wire.url(), Kind::Tree).start()).collect();
    let mut written = Written::default();
    let ends = Instant::now() + seconds();
    let mut number = 0;
    while Instant::now() < ends {
        number += 1;
        let at = dice.random_range(0..devices.len());
        match dice.random_range(0..10) {
            0 => wires[at].cut(),
            1 => wires[at].mend(),
            _ => written.edit(&devices[at], &mut dice, number),
        }
        sleep(Duration::from_millis(dice.random_range(0..60))).await;
    }
    for wire in &wires {
        wire.mend();
    }
    come_together(&devices, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_killed_while_they_publish_and_apply_leave_no_torn_file_and_lose_no_edit() {
    let world = World::new().start().await;
    let mut dice = dice();
    let url = world.nats.client_url();
    let mut devices: Vec<Laptop> = ["laptop", "phone"].iter().map(|name| Laptop::new(name, &url, Kind::Tree)).collect();
    for device in &mut devices {
        device.launch();
    }
    let mut written = Written::default();
    let ends = Instant::now() + seconds();
    let mut number = 0;
    while Instant::now() < ends {
        for _ in 0..dice.random_range(1..10) {
            number += 1;
            let at = dice.random_range(0..devices.len());
            written.edit(&devices[at], &mut dice, number);
        }
        sleep(Duration::from_millis(dice.random_range(0..150))).await;
        let at = dice.random_range(0..devices.len());
        devices[at].kill().await;
        let found: BTreeSet<String> = devices[at].files().into_values().collect();
        let torn: Vec<&String> = found.difference(&written.all).collect();
        assert!(torn.is_empty(), "torn: {torn:?}");
        devices[at].launch();
    }
    come_together(&devices, &written).await;
}
