//! A user is forgotten, where nobody gets in without a key: by every replica, in its files too, and by the streams.

use std::{fs, path::Path};

use roam_client::{ContentType, Lookup};
use roam_nats::{CHUNKS_STREAM, REJECTED_STREAM, Role, subject_messages};
use roam_process::clock;
use roam_schemas::{BatchId, Control, ControlEntry, Encoding, Erase, Shard, encode, subjects};
use roam_storage::{
    apply::Applier,
    store::{self, Position, StoreSettings},
};
use roam_tests::{World, app, device, envelope, eventually, key, noise, profile, tenant, user};

use super::{BINARY, put, roam};

/// A text that nothing makes shorter, so that it lies in files as it is.
const SECRET: &str = "q7Zk2vXw9RtLm4Yc8HbN";

/// How often a text lies in the files of a replica, but for RocksDB's own list of files and its log.
fn found_in(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // A file may go while it is looked at.
        (!name.starts_with("MANIFEST") && !name.starts_with("LOG")).then(|| fs::read(path).unwrap_or_default())
    });
    files.map(|bytes| bytes.windows(SECRET.len()).filter(|window| *window == SECRET.as_bytes()).count()).sum()
}

async fn messages(world: &World, stream: &str, subject: &str) -> u64 {
    let bus = world.operator().await;
    let count = subject_messages(&bus, stream, subject).await.unwrap();
    bus.close().await;
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_gone_from_replicas_their_files_and_the_streams() {
    let world = World::new().replicas(2).secure(1).start().await;
    let (alice, bob) = (world.device("acme", "alice", "laptop").await, world.device("acme", "bob", "laptop").await);
    let book = ContentType::parse("application/pdf").unwrap();
    for (client, seed) in [(&alice, 1), (&bob, 2)] {
        let editor = client.profile(app("editor"));
        let secret = if seed == 1 { SECRET } else { "nobody's secret" };
        put(&editor, "theme", secret).await;
        put(&editor, "theme", &format!("{secret} again")).await;
        editor.put(key("book"), noise(seed, 700_000), book.clone()).await.unwrap();
        put(&client.profile(app("mail")), "font", "serif").await;
    }
    // Something of hers that was refused.
    let post = world.post("acme", "alice", "tablet").await;
    let subject = subjects::change(&profile("acme/alice/editor"), &device("tablet"));
    post.publish(&subject, envelope(Encoding::Postcard), SECRET.as_bytes().to_vec()).await;
    let (alices, rejected) =
        (subjects::upload(&tenant("acme"), &user("alice")), subjects::rejected(&tenant("acme"), &user("alice")));
    eventually("it is filed", async || (messages(&world, REJECTED_STREAM, &rejected).await > 0).then_some(())).await;
    assert!(messages(&world, CHUNKS_STREAM, &alices).await >= 3);
    let directories = [0, 1].map(|index| world.dir().join(format!("roam-storage-{index}")));
    eventually("both replicas hold it in their files", async || {
        directories.iter().all(|directory| found_in(directory) > 0).then_some(())
    })
    .await;

    let _ = roam(&world, "erase acme/alice").await.with_code(64).saying("2 profiles with 3 records").saying("--yes");
    let _ = roam(&world, "erase acme").await.with_code(64).saying("tenant/user");
    let _ = world.roam_as(None, BINARY, "erase acme/alice --yes").await.with_code(1);
    let _ = world.roam_as(Some(Role::Storage), BINARY, "erase acme/alice --yes").await;
    assert!(matches!(alice.profile(app("mail")).get(key("font")).await.unwrap(), Lookup::Found(_)), "only operators");

    let proof = roam(&world, "erase acme/alice --yes --json").await.with_code(0).object();
    let replicas = proof["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 2);
    for replica in replicas {
        assert_eq!((&replica["rows"], &replica["chunks"]), (&0.into(), &0.into()), "{proof}");
        assert!(replica["tables"].as_object().unwrap().len() >= 6, "{proof}");
    }
    for stream in proof["streams"].as_array().unwrap() {
        assert_eq!(stream["remain"], 0, "{proof}");
    }
    assert!(proof["journal_until"].is_string() && proof["backups_before"].is_string(), "{proof}");
    assert_eq!(messages(&world, REJECTED_STREAM, &rejected).await, 0);
    assert_eq!(messages(&world, CHUNKS_STREAM, &alices).await, 0);
    for directory in &directories {
        eventually("nothing of it lies in the files", async || (found_in(directory) == 0).then_some(())).await;
    }

    // Nobody else is touched.
    let bobs = bob.profile(app("editor"));
    let Lookup::Found(record) = bobs.get(key("book")).await.unwrap() else { panic!("the book is gone") };
    assert!(matches!(&record.state, roam_client::State::Value(stored) if stored.value.as_bytes() == noise(2, 700_000)));
    let listed = roam(&world, "profiles --tenant acme").await.with_code(0);
    assert!(!listed.stdout.contains("alice") && listed.stdout.contains("acme/bob/editor"), "{}", listed.stdout);
    // She may begin anew, and be erased again.
    put(&alice.profile(app("editor")), "theme", "light").await;
    let again = roam(&world, "erase acme/alice --yes").await.with_code(0);
    assert!(again.stdout.contains("0 rows remain"), "{}", again.stdout);
    let _ = roam(&world, "status").await.with_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_who_was_erased_leave_the_files_of_a_replica_that_ended_before_it_was_done() {
    let mut world = World::new().start().await;
    let (alice, bob) = (world.device("acme", "alice", "laptop").await, world.device("acme", "bob", "laptop").await);
    put(&alice.profile(app("editor")), "theme", SECRET).await;
    put(&bob.profile(app("editor")), "theme", "nobody's secret").await;
    world.replicas[0].stop().await;

    // As a replica that was killed between the write that erases and the compaction behind it.
    let directory = world.dir().join("roam-storage-0");
    let (id, control) = (BatchId::random(), Control::Erase(Erase { tenant: tenant("acme"), user: user("alice") }));
    let payload = encode(&ControlEntry { id, control: control.clone() }, Encoding::Postcard).unwrap();
    let sequence = world.append(&subjects::journal_control(Shard::ONLY), &id.to_string(), payload).await;
    {
        let (writer, reader) = store::open(&directory, &StoreSettings::default()).unwrap();
        let stands = reader.snapshot().position().unwrap().unwrap();
        let mut applier = Applier::new(writer, reader).unwrap();
        applier.compact().unwrap();
        let position = Position { sequence, batch: id, published: clock::now_ns(), ..stands };
        assert!(applier.control(&control, &position).unwrap().is_some_and(|removed| removed.records == 1));
    }
    assert!(found_in(&directory) > 0, "otherwise this test shows nothing");
    world.replicas[0].start().await;
    world.ready().await;
    eventually("nothing of it lies in the files", async || (found_in(&directory) == 0).then_some(())).await;
    assert_eq!(alice.profile(app("editor")).get(key("theme")).await.unwrap(), Lookup::Unknown);
    assert!(matches!(bob.profile(app("editor")).get(key("theme")).await.unwrap(), Lookup::Found(_)));
}
