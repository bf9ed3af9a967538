//! Replicas that stand still, and what an operator decides about them by the command line.

use roam_client::Lookup;
use roam_nats::JOURNAL_STREAM;
use roam_schemas::{BatchId, Change, ChangeId, Encoding, Operation, Shard, encode, subjects};
use roam_tests::{World, device, envelope, eventually, key, profile, text};

use super::{editor, put, roam, states, status_saying};

#[tokio::test(flavor = "multi_thread")]
async fn after_the_journal_was_lost_one_replica_is_resumed_and_the_other_takes_a_backup_of_it() {
    let mut world = World::new().replicas(2).start().await;
    let alice = editor(&world, "alice").await;
    put(&alice, "theme", "dark").await;
    world.delete_stream(JOURNAL_STREAM).await;
    world.provision().await;
    eventually("both stand still", async || {
        (states(&roam(&world, "status --json").await.object()) == ["stands_still"; 2]).then_some(())
    })
    .await;

    let still = roam(&world, "status").await.with_code(1).saying("roam-storage-1 stands still");
    let _ = still.saying("`roam storage resume roam-storage-0`, or another");
    let _ = roam(&world, "storage resume nobody --yes").await.with_code(75).saying("roam-storage-0, roam-storage-1");
    let _ = roam(&world, "storage skip roam-storage-1 --yes").await.with_code(1).saying("skipping does not help it");
    let _ = roam(&world, "storage resume roam-storage-1").await.with_code(64).saying("--yes");
    let _ = roam(&world, "verify").await.with_code(1).saying("stands still");
    let resumed = roam(&world, "storage resume roam-storage-1 --yes --json").await.with_code(0).object();
    assert_eq!((&resumed["line"], &resumed["need_a_backup"][0]), (&2.into(), &"roam-storage-0".into()));
    world.replicas[1].ready().await;
    let helps = "`roam backup create --replica roam-storage-1`, to where this one looks";
    let _ = status_saying(&world, helps).await.with_code(1);
    let _ =
        roam(&world, "storage resume roam-storage-0 --yes").await.with_code(1).saying("roam-storage-1 counts already");
    let _ = roam(&world, "storage resume roam-storage-1 --yes").await.with_code(1).saying("does not stand still");
    put(&alice, "font", "serif").await;

    // The other one, as it was said.
    let _ = eventually("a backup is made", async || {
        // The one that stands still asks for one, too, and while that is made there is no other.
        let made = roam(&world, "backup create --replica roam-storage-1 --to bucket").await;
        (made.code != 75).then(|| made.with_code(0))
    })
    .await;
    world.replicas[0].stop().await;
    let place = world.dir().join("roam-storage-0");
    std::fs::rename(&place, world.dir().join("outdated")).unwrap();
    let _ = roam(&world, &format!("backup restore --from bucket --data {}", place.display())).await.with_code(0);
    world.replicas[0].start().await;
    world.ready().await;
    let _ = roam(&world, "verify").await.with_code(0).saying("all the same");
    let well = roam(&world, "status --json").await.with_code(0).object();
    assert_eq!(states(&well), ["serving"; 2]);
    assert_eq!(well["backup"]["replica"], "roam-storage-1");
    assert!(matches!(alice.get(key("theme")).await.unwrap(), Lookup::Found(_)), "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_no_replica_can_apply_is_skipped_once_all_are_seen_to_stand_before_it() {
    let mut world = World::new().replicas(2).start().await;
    let alice = editor(&world, "alice").await;
    put(&alice, "theme", "dark").await;
    let _ = roam(&world, "storage skip roam-storage-0 --yes").await.with_code(1).saying("does not stand still");
    let batch = BatchId::random();
    let sequence = world.append(&subjects::journal(Shard::ONLY), &batch.to_string(), b"rubbish".to_vec()).await;
    for replica in &world.replicas {
        replica.complains("`roam storage skip`").await;
    }
    // What is published meanwhile waits in the journal.
    let post = world.post("acme", "alice", "tablet").await;
    let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("font"), "serif", text())]).unwrap();
    let subject = subjects::change(&profile("acme/alice/editor"), &device("tablet"));
    post.publish(&subject, envelope(Encoding::Postcard), encode(&change, Encoding::Postcard).unwrap()).await;

    let _ = roam(&world, "storage resume roam-storage-0 --yes").await.with_code(1).saying("resuming does not help it");
    world.replicas[1].stop().await;
    let absent = roam(&world, "storage skip roam-storage-0 --yes").await.with_code(75).saying("--despite-absent");
    assert!(absent.stderr.contains("1 replica does not answer"), "{}", absent.stderr);
    world.replicas[1].start().await;
    let _ = status_saying(&world, "`roam storage skip roam-storage-1`").await.with_code(1);
    let skipped = roam(&world, "storage skip roam-storage-0 --yes --json").await.with_code(0).object();
    assert_eq!(skipped["skipped"]["origin"]["sequence"], sequence);
    assert_eq!(skipped["skipped"]["batch"], batch.to_string());
    world.ready().await;
    eventually("what waited is applied", async || {
        matches!(alice.get(key("font")).await.unwrap(), Lookup::Found(_)).then_some(())
    })
    .await;
    let _ = roam(&world, "verify").await.with_code(0);
    let _ = roam(&world, "status").await.with_code(0);
}
