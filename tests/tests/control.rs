//! What operators order in the journal: every replica does it at the same place, and devices learn of it.

use roam_client::{Event, Lookup, ProfileClient, Revision, Watch, WatchFrom};
use roam_schemas::{
    BatchId, Change, ChangeId, Control, Encoding, Epoch, Erase, Operation, Origin, Shard, Skip, encode, subjects,
};
use roam_tests::{PATIENCE, World, app, device, envelope, eventually, key, profile, tenant, text, user};
use tokio::time::timeout;

async fn editor(world: &World, user: &str, device: &str) -> ProfileClient {
    world.device("acme", user, device).await.profile(app("editor"))
}

async fn put(profile: &ProfileClient, name: &str, value: &str) -> Revision {
    profile.put(key(name), value, text()).await.unwrap().revision
}

/// Follows until it is told that all it knew is void, and gives the state after that.
async fn state_after_reset(watch: &mut Watch) -> (Revision, usize) {
    let mut reset = false;
    loop {
        match timeout(PATIENCE, watch.next()).await.expect("an event comes").unwrap() {
            Event::Reset => reset = true,
            Event::State { head, records, .. } if reset => return (head, records.len()),
            Event::State { .. } | Event::Revision { .. } => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_gone_everywhere_and_may_begin_anew() {
    let world = World::new().replicas(2).start().await;
    let (laptop, other) = (editor(&world, "alice", "laptop").await, editor(&world, "bob", "phone").await);
    put(&laptop, "theme", "dark").await;
    put(&laptop, "font", "serif").await;
    put(&other, "theme", "light").await;
    let mut watch = laptop.watch(WatchFrom::Now).await.unwrap();

    let order = world.order(Control::Erase(Erase { tenant: tenant("acme"), user: user("alice") })).await;
    for replica in &world.replicas {
        eventually("the order is done", async || {
            (replica.pages().metric("roam_storage_journal_sequence", &[]).await >= order as f64).then_some(())
        })
        .await;
    }
    assert_eq!(laptop.get(key("theme")).await.unwrap(), Lookup::Unknown);
    assert!(matches!(other.get(key("theme")).await.unwrap(), Lookup::Found(_)), "nobody else is touched");
    // A device that is there learns of it when it looks again, at the latest with its next change.
    let again = put(&laptop, "theme", "new").await;
    assert!(again > Revision::new(3), "{again} is above all that there was");
    assert_eq!(state_after_reset(&mut watch).await, (again, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_new_epoch_devices_begin_with_the_whole_state() {
    let world = World::new().start().await;
    let laptop = editor(&world, "alice", "laptop").await;
    put(&laptop, "theme", "dark").await;
    let mut watch = laptop.watch(WatchFrom::Now).await.unwrap();
    world.order(Control::Epoch(Epoch { epoch: 1 })).await;
    let next = put(&laptop, "font", "serif").await;
    assert_eq!(next, Revision::new((1 << 40) + 1));
    assert_eq!(state_after_reset(&mut watch).await, (next, 2));
    let phone = editor(&world, "alice", "phone").await;
    assert!(matches!(phone.get(key("theme")).await.unwrap(), Lookup::Found(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_replica_can_apply_stops_them_until_it_is_passed_over() {
    let world = World::new().replicas(2).start().await;
    let laptop = editor(&world, "alice", "laptop").await;
    put(&laptop, "theme", "dark").await;
    let batch = BatchId::random();
    let sequence = world.append(&subjects::journal(Shard::ONLY), &batch.to_string(), b"rubbish".to_vec()).await;
    for replica in &world.replicas {
        replica.complains(&format!("entry {sequence} of the journal")).await;
        replica.complains("`roam storage skip`").await;
    }
    // What is published meanwhile waits in the journal.
    let post = world.post("acme", "alice", "tablet").await;
    let change = Change::new(ChangeId::random(), None, vec![Operation::put(key("font"), "serif", text())]).unwrap();
    let subject = subjects::change(&profile("acme/alice/editor"), &device("tablet"));
    post.publish(&subject, envelope(Encoding::Postcard), encode(&change, Encoding::Postcard).unwrap()).await;

    let created = world.stream(roam_nats::JOURNAL_STREAM).await.created;
    let incarnation = u64::try_from(created.unix_timestamp_nanos()).unwrap();
    world.order(Control::Skip(Skip { origin: Origin { incarnation, sequence }, batch: Some(batch) })).await;
    world.ready().await;
    eventually("what waited is applied", async || {
        matches!(laptop.get(key("font")).await.unwrap(), Lookup::Found(_)).then_some(())
    })
    .await;
    assert!(matches!(laptop.get(key("theme")).await.unwrap(), Lookup::Found(_)), "nothing was lost");
}
