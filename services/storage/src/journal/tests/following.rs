//! When a replica knows that it may be behind, and when it goes on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_consumer_is_gone_says_so_until_it_follows_again() {
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    let mut following = world.follow(None);
    for given in [Given::Passed(0), Given::Batch(1, 1), Given::Batch(2, 1)] {
        assert_eq!(following.next().await, given);
    }
    following.progress.passed(2);
    tokio::time::timeout(PATIENCE, following.progress.current()).await.unwrap();

    let outdated = tokio::time::timeout(PATIENCE, following.progress.outdated());
    let ((), outdated) = tokio::join!(world.remove_consumers(), outdated);
    outdated.unwrap();
    assert_eq!(following.next().await, Given::Passed(2), "its batch is still there");
    tokio::time::timeout(PATIENCE, following.progress.current()).await.unwrap();
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_where_its_batch_and_all_that_was_none_of_ours_behind_it_aged_out() {
    let world = World::start().await;
    world.let_entries_be_removed().await;
    world.append_batch(1).await;
    for _ in 2..=3 {
        world.append(Headers::new(), b"{\"stream\":\"ROAM_CHANGES\",\"seq\":1}".to_vec()).await;
    }
    let mut following = world.follow(None);
    for given in [Given::Passed(0), Given::Batch(1, 1), Given::PassedOver(2, 1), Given::PassedOver(3, 1)] {
        assert_eq!(following.next().await, given);
    }
    world.api("STREAM.PURGE.ROAM_JOURNAL", String::new()).await;
    let outdated = tokio::time::timeout(PATIENCE, following.progress.outdated());
    let ((), outdated) = tokio::join!(world.remove_consumers(), outdated);
    outdated.unwrap();
    assert_eq!(following.next().await, Given::Passed(3), "nothing is missing");
    world.append_batch(4).await;
    assert_eq!(following.next().await, Given::Batch(4, 1));
    following.goes_on().await;
    following.end().await;
}
