//! How fast files roam, measured: run it alone, and read what it prints. It fails if something does not roam, never because
//! something is slow.
//!
//! `cargo nextest run --release -p roam-tests --run-ignored only -E 'test(figures)' --no-capture`

use std::{
    fs,
    time::{Duration, Instant as Clock},
};

use rand::Rng;
use roam_agent::{Kind, Question};
use roam_tests::{World, dice};
use tokio::time::{Instant, sleep};

use super::{Laptop, Running};

/// As many as the promise is about.
const FILES: usize = 10_000;
const DIRECTORIES: usize = 100;
const EDITS: usize = 100;
const MIB: usize = 1024 * 1024;
/// As large as a value may be.
const LARGEST: usize = 100 * MIB;
/// A clock tick of /proc/PID/stat, in milliseconds: USER_HZ is 100 wherever Linux runs.
const TICK_MS: u64 = 10;
const IDLE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, which takes a machine of its own"]
async fn figures_of_a_tree_of_ten_thousand_files() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let mut dice = dice();
    let (mut laptop, mut phone) = (Laptop::new("laptop", &url, Kind::Tree), Laptop::new("phone", &url, Kind::Tree));
    for number in 0..FILES {
        laptop.write(&name(number), &format!("{number} {}", "x".repeat(200)));
    }
    let began = Clock::now();
    laptop.launch();
    agrees(&laptop).await;
    println!("first push of {FILES} files: {:.2} s", began.elapsed().as_secs_f64());
    let began = Clock::now();
    phone.launch();
    agrees(&phone).await;
    println!("first pull of {FILES} files: {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(laptop.files(), phone.files());

    for calm in [Duration::from_millis(400), Duration::ZERO] {
        let mut took: Vec<Duration> = Vec::with_capacity(EDITS);
        for edit in 0..EDITS {
            sleep(calm).await;
            let file = name(dice.random_range(0..FILES));
            let (from, to) = if edit % 2 == 0 { (&laptop, &phone) } else { (&phone, &laptop) };
            let text = format!("edit {edit} after {calm:?}");
            took.push(roams(from, to, &file, &text).await);
        }
        took.sort_unstable();
        let at = |part: usize| took[EDITS * part / 100].as_secs_f64() * 1e3;
        println!("an edit, {calm:?} after the one before: p50 {:.1} ms, p90 {:.1}, p99 {:.1}", at(50), at(90), at(99));
    }
    sleep(Duration::from_secs(3)).await;
    for device in [&laptop, &phone] {
        let (before, began) = (busy(device), Clock::now());
        sleep(IDLE).await;
        let share = (busy(device) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        println!("{} idle: {:.2} % of a core, {} MiB resident", device.name, share * 100.0, resident(device) / 1024);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, which takes a machine of its own"]
async fn figures_of_the_largest_file() {
    let world = World::new().start().await;
    let url = world.nats.client_url();
    let (mut laptop, mut phone) = (Laptop::new("laptop", &url, Kind::Tree), Laptop::new("phone", &url, Kind::Tree));
    laptop.launch();
    phone.launch();
    laptop.write("small", "x");
    phone.has("small", "x").await;
    let before = [&laptop, &phone].map(resident);
    let file = laptop.at("film");
    let mut bytes = vec![0_u8; LARGEST];
    dice().fill(bytes.as_mut_slice());
    fs::write(&file, &bytes).unwrap();
    let began = Clock::now();
    while fs::metadata(phone.at("film")).map_or(0, |metadata| metadata.len()) != LARGEST as u64 {
        assert!(began.elapsed() < Duration::from_secs(300), "it does not come");
        sleep(Duration::from_millis(10)).await;
    }
    println!("a file of {} MiB: {:.1} s", LARGEST / MIB, began.elapsed().as_secs_f64());
    assert!(fs::read(phone.at("film")).unwrap() == bytes);
    for (device, before) in [&laptop, &phone].into_iter().zip(before) {
        let (now, most) = (resident(device), memory(device, "VmHWM:"));
        let of = |kibibytes: u64| kibibytes / 1024;
        println!("{}: {} MiB resident before, {} at most, {} after", device.name, of(before), of(most), of(now));
    }
}

fn name(number: usize) -> String {
    format!("d{:02}/f{number:05}", number % DIRECTORIES)
}

async fn agrees(device: &Laptop) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let status = device.ask(Question::Status).await;
        if status["files"]["agreed"] == FILES && status["files"]["waiting"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// From the close of one file until the other has what it holds.
async fn roams(from: &Laptop, to: &Laptop, file: &str, text: &str) -> Duration {
    from.write(file, text);
    let closed = Clock::now();
    while to.read(file).as_deref() != Some(text) {
        assert!(closed.elapsed() < Duration::from_secs(60), "{file} of {} does not come to {}", from.name, to.name);
        sleep(Duration::from_millis(1)).await;
    }
    closed.elapsed()
}

fn process(device: &Laptop, page: &str) -> String {
    let Some(Running::Process(child)) = &device.running else { panic!("{} is no process", device.name) };
    fs::read_to_string(format!("/proc/{}/{page}", child.id().unwrap())).unwrap()
}

fn busy(device: &Laptop) -> Duration {
    let stat = process(device, "stat");
    // The name of the program stands in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * TICK_MS)
}

/// In KiB.
fn resident(device: &Laptop) -> u64 {
    memory(device, "VmRSS:")
}

/// A line of /proc/PID/status, in KiB.
fn memory(device: &Laptop, of: &str) -> u64 {
    let status = process(device, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
