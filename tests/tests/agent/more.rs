//! What roams besides small files: large ones, also where there is no room for them, and the values of one device; and what an
//! agent tells, while it runs and when it does not.

use std::{fs, path::Path};

use roam_agent::{HookSettings, Kind, Question, status_at_rest};
use roam_client::{Layer, Layers};
use roam_tests::{World, app, device, eventually, key, text};

use super::Laptop;

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
/// Of `ulimit -f`, whose blocks are of 512 or 1,024 bytes, whichever shell it is: 16 or 32 MiB.
const BLOCKS: u32 = 32 * 1024;
const TOO_LARGE: usize = 40 * 1024 * 1024;

/// Bytes that no two chunks have alike.
fn film(bytes: usize, seed: u8) -> String {
    let mut state = u64::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + u8::try_from(state >> 60).unwrap())
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_comes_to_the_other_device_and_so_does_its_edit() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let laptop = Laptop::new("laptop", &url, Kind::Tree).start();
    let phone = Laptop::new("phone", &url, Kind::Tree).start();
    let before = film(5_000_000, 1);
    laptop.write("d/film", &before);
    has(&phone, "d/film", &before).await;
    let after = before + "and more";
    phone.write("d/film", &after);
    has(&laptop, "d/film", &after).await;
    phone.write("d/film", "small");
    laptop.has("d/film", "small").await;
    assert_eq!((laptop.files().len(), phone.files().len()), (1, 1));
}

async fn has(device: &Laptop, file: &str, wanted: &str) {
    let what = format!("{} has {} bytes in {file}", device.name, wanted.len());
    eventually(&what, async || (device.read(file).as_deref() == Some(wanted)).then_some(())).await;
}

/// The limit of the process stands for a disk that is full: it lets files grow to a size and no further.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_for_which_there_is_no_room_is_named_and_nothing_else_waits_for_it() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let laptop = Laptop::new("laptop", &url, Kind::Tree).start();
    let mut phone = Laptop::new("phone", &url, Kind::Tree);
    phone.blocks = Some(BLOCKS);
    phone.launch();
    // At once: what is there of a file that is being written roams, too, and there is room for less of it.
    laptop.save("film", &film(TOO_LARGE, 1));
    let why = eventually("it is refused by name", async || {
        let status = phone.ask(Question::Status).await;
        let refused = status["files"]["refused"].as_array()?.clone();
        refused.iter().find(|entry| entry["key"] == "film").map(|entry| entry["why"].as_str().unwrap().to_owned())
    })
    .await;
    assert!(why.contains("the disk is full"), "{why}");
    laptop.write("note", "goes on");
    phone.has("note", "goes on").await;
    assert_eq!(phone.files().keys().collect::<Vec<_>>(), ["note"]);
    phone.kill().await;
    let left = |directory: &Path| fs::read_dir(directory).unwrap().count();
    assert_eq!(left(&phone.at("")), 1, "nothing half written is left beside it");
    // There is room again.
    phone.blocks = None;
    phone.launch();
    has(&phone, "film", &film(TOO_LARGE, 1)).await;
}

/// A file system in memory that has no more room than it is said to. It goes away with this.
struct Disk<'d> {
    at: &'d Path,
}

impl<'d> Disk<'d> {
    /// None without the right to mount, which is said.
    fn mount(at: &'d Path, mebibytes: u32) -> Option<Self> {
        let is_mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none"], at);
        if !is_mounted {
            println!("skipped: this process may not mount a file system");
        }
        is_mounted.then_some(Self { at })
    }

    fn grow(&self, mebibytes: u32) {
        assert!(run("mount", &["-o", &format!("remount,size={mebibytes}m")], self.at));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Lazily, because an agent may have its directory open still.
        run("umount", &["--lazy"], self.at);
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) -> bool {
    std::process::Command::new(program).args(arguments).arg(at).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_value_waits_until_a_disk_has_room_for_it_and_for_more() {
    const LARGEST: usize = 100 * 1024 * 1024;
    let mut phone = Laptop::new("phone", "", Kind::Tree);
    let place = phone.place.path().to_owned();
    // Half of what it takes: the value fits in once, and never twice.
    let Some(disk) = Disk::mount(&place, 150) else { return };
    fs::create_dir(place.join("files")).unwrap();
    let world = World::new().start().await;
    phone.url = world.nats.client_url();
    phone.launch();
    let laptop = Laptop::new("laptop", &phone.url, Kind::Tree).start();
    laptop.save("film", &film(LARGEST, 1));
    let why = eventually("it is refused by name", async || {
        let status = phone.ask(Question::Status).await;
        let refused = status["files"]["refused"].as_array()?.clone();
        refused.iter().find(|entry| entry["key"] == "film").map(|entry| entry["why"].as_str().unwrap().to_owned())
    })
    .await;
    assert!(why.contains("the disk is full") && why.contains(&LARGEST.to_string()), "{why}");
    laptop.write("note", "goes on");
    phone.has("note", "goes on").await;
    assert_eq!(phone.files().keys().collect::<Vec<_>>(), ["note"]);
    disk.grow(300);
    eventually("it comes once there is room", async || {
        // It is tried again by itself, if not at once.
        phone.ask(Question::Retry { app: "files".to_owned() }).await;
        let length = fs::metadata(phone.at("film")).ok()?.len();
        (length == LARGEST as u64).then_some(())
    })
    .await;
    assert!(phone.read("film") == Some(film(LARGEST, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_one_device_is_read_there_and_the_layer_that_won_is_shown() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let mut laptop = Laptop::new("laptop", &url, Kind::Json);
    laptop.per_device = vec!["/size".to_owned()];
    let laptop = laptop.start();
    let mut phone = Laptop::new("phone", &url, Kind::Json);
    phone.per_device = vec!["/size".to_owned()];
    let phone = phone.start();
    laptop.write("settings.json", "{\"theme\": \"dark\", \"size\": 12}");
    let has = async |device: &Laptop, parts: &[&str]| {
        let what = format!("{} has {parts:?}", device.name);
        let look = async || device.read("settings.json").filter(|text| parts.iter().all(|part| text.contains(part)));
        eventually(&what, look).await
    };
    assert!(!has(&phone, &["dark"]).await.contains("size"));
    phone.write("settings.json", "{\"theme\": \"light\", \"size\": 20}");
    has(&laptop, &["light", "12"]).await;

    let profile = world.device("acme", "alice", "onlooker").await.profile(app("files"));
    let of = |name: &str| Layers::new(&device(name), Layers::this_platform()).unwrap();
    let size =
        eventually("the phone's is saved", async || profile.effective(&key("/size"), &of("phone")).await.unwrap())
            .await;
    assert_eq!((size.layer, size.record.key.as_str()), (Layer::Device, "@device/phone//size"));
    assert_eq!(profile.effective(&key("/size"), &of("onlooker")).await.unwrap(), None);
    profile.put(key("/size"), "30", text()).await.unwrap();
    let all = profile.all_effective(&of("onlooker")).await.unwrap();
    let all: Vec<_> = all.iter().map(|found| (found.key.as_str(), found.layer)).collect();
    assert_eq!(all, [("/size", Layer::Shared), ("/theme", Layer::Shared)]);

    let run = async |line: &str| world.roam(BINARY, line).await;
    let shown = run("effective acme/alice/files /size --device laptop --json").await.with_code(0).object();
    assert_eq!((&shown["layer"], &shown["record"]["state"]["value"]["value"]), (&"device".into(), &"12".into()));
    let _ =
        run("effective acme/alice/files /size --device laptop").await.with_code(0).saying("device layer").saying("12");
    let listed = run("effective acme/alice/files --device laptop").await.with_code(0).stdout;
    assert!(listed.lines().any(|line| line.starts_with("device") && line.contains("/size")), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with("shared") && line.contains("/theme")), "{listed}");
    let _ = run("effective acme/alice/files none --device laptop").await.with_code(2).saying("no layer");
    let _ = run("effective acme/alice/files /size --platform Linux").await.saying("a platform is named by");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_is_told_and_an_agent_that_does_not_run_is_known_by_its_database() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let mut laptop = Laptop::new("laptop", &url, Kind::Tree);
    let told = laptop.place.path().join("told");
    let script = format!("cat >> {}", told.display());
    laptop.hook = HookSettings { command: vec!["/bin/sh".into(), "-c".into(), script], ..HookSettings::default() };
    laptop.launch();
    let attacker = world.device("acme", "alice", "attacker").await.profile(app("files"));
    attacker.put(key("fine"), "fine", text()).await.unwrap();
    attacker.put(key("../outside"), "x", text()).await.unwrap();
    for part in ["\"event\":\"applied\"", "\"event\":\"refused\"", "../outside"] {
        let look = async || fs::read_to_string(&told).ok().filter(|told| told.contains(part));
        let lines = eventually("the hook is told", look).await;
        assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
    }
    assert!(status_at_rest(&laptop.settings()).is_err(), "the agent has it open");
    laptop.kill().await;
    let known = status_at_rest(&laptop.settings()).unwrap();
    let files = &known["files"];
    assert_eq!((files.agreed, files.trouble.as_deref()), (1, Some("the agent does not run")));
    assert!(files.revision.get() > 0);
    let configuration = laptop.place.path().join("agent.toml");
    let line = format!("agent --config {} status", configuration.display());
    let _ = world.roam(BINARY, &line).await.with_code(0).saying("the agent does not run").saying("1 key");
}
