//! Three devices, random edits and crashes. `ROAM_AGENT_SEED` has the dice fall again as they did; `ROAM_AGENT_STEPS` says
//! for how long they are thrown.

use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedMutRandom, IndexedRandom},
};

use super::*;

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
    play(["laptop", "phone", "desk"].map(Laptop::tree));
}

#[test]
fn the_same_when_they_look_only_at_what_changed() {
    play(["laptop", "phone", "desk"].map(|name| Laptop::tree(name).watched()));
}

fn play(mut devices: [Laptop; 3]) {
    let seed = setting("ROAM_AGENT_SEED", rand::random::<u64>() >> 1);
    let steps = setting("ROAM_AGENT_STEPS", 250);
    println!("ROAM_AGENT_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut server = Server::default();
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
                    device.remove(file);
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
