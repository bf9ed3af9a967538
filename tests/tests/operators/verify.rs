//! Comparing replicas: a difference that was made is found, and none is found where replicas only stand apart for a moment.

use std::path::Path;

use roam_schemas::{
    BatchId, Change, ChangeId, Encoding, JournalBatch, Operation, Origin, RULES, Stamp, StampedChange, Terms, Timestamp,
};
use roam_storage::{
    apply::Applier,
    store::{self, StoreSettings},
};
use roam_tests::{World, device, eventually, key, profile, text};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{editor, put, roam};

/// Applies a change to one replica alone, which does not run, without moving its place in the journal.
fn plant(directory: &Path, whose: &str) {
    let (writer, reader) = store::open(directory, &StoreSettings::default()).unwrap();
    let position = reader.snapshot().position().unwrap().unwrap();
    let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("planted"), "x", text())]).unwrap();
    let time = Timestamp::from_nanos(position.published);
    let stamped = StampedChange {
        profile: profile(whose),
        device: device("nobody"),
        encoding: Encoding::Postcard,
        stamp: Stamp { time, origin: Origin::default() },
        digest: change.digest(),
        change,
    };
    let batch = JournalBatch {
        id: BatchId::random(),
        rules: RULES,
        terms: Terms::default(),
        quotas: Vec::new(),
        changes: vec![stamped],
    };
    let mut applier = Applier::new(writer, reader).unwrap();
    let prepared = applier.prepare(&batch, &position).unwrap();
    applier.commit(&prepared).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_was_planted_is_found_and_named() {
    let mut world = World::new().replicas(2).start().await;
    for number in 0..20 {
        put(&editor(&world, &format!("user{number:02}")).await, "theme", "dark").await;
    }
    let well = roam(&world, "verify --json").await.with_code(0).object();
    assert_eq!((&well["profiles"], &well["replicas"][1]), (&20.into(), &"roam-storage-1".into()));

    world.replicas[1].stop().await;
    let _ = roam(&world, "verify").await.with_code(75).saying("1 of 2 storage replicas answer");
    for whose in ["acme/user11/editor", "acme/zoe/mail"] {
        plant(&world.dir().join("roam-storage-1"), whose);
    }
    world.replicas[1].start().await;
    world.ready().await;
    let found = roam(&world, "verify").await.with_code(1).saying("the first is acme/user11/editor");
    assert!(
        found.stdout.contains("DIFFERS  acme/user11/editor") && found.stdout.contains("DIFFERS  acme/zoe/mail"),
        "{found:?}"
    );
    assert!(found.stdout.contains("does not have it"), "{}", found.stdout);
    let found = roam(&world, "verify --json").await.with_code(1).object();
    let names: Vec<_> = found["differences"].as_array().unwrap().iter().map(|found| &found["profile"]).collect();
    assert_eq!(names, ["acme/user11/editor", "acme/zoe/mail"]);
    let _ = roam(&world, "verify --tenant acme --user user12").await.with_code(0).saying("1 profile on 2 replicas");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_written_meanwhile_are_the_same() {
    let world = World::new().replicas(2).start().await;
    let (stop, mut writers) = (CancellationToken::new(), JoinSet::new());
    for number in 0..4 {
        let (profile, stop) = (editor(&world, &format!("user{number}")).await, stop.clone());
        writers.spawn(async move {
            let mut written = 0_u64;
            while !stop.is_cancelled() {
                written += 1;
                put(&profile, &format!("key {}", written % 50), &written.to_string()).await;
            }
            written
        });
    }
    eventually("all write", async || {
        let listed = roam(&world, "profiles").await;
        listed.stdout.contains("4 profiles").then_some(())
    })
    .await;
    let mut settled = 0;
    for _ in 0..5 {
        let ran = roam(&world, "verify --json").await;
        // A profile that moves on too fast is no difference.
        assert!(ran.code == 0 || ran.code == 75, "{ran:?}");
        settled += usize::from(ran.code == 0);
    }
    stop.cancel();
    assert!(writers.join_all().await.iter().all(|written| *written > 0));
    assert!(settled > 0, "it never came to an end");
    let _ = roam(&world, "verify").await.with_code(0).saying("4 profiles on 2 replicas");
}
