//! When a replica knows that it may be behind.

use roam_nats::JOURNAL_STREAM;

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

    let answer = world.bus.request(
        format!("$JS.API.CONSUMER.NAMES.{JOURNAL_STREAM}"),
        Headers::new(),
        Vec::new().into(),
        PATIENCE,
    );
    let names: serde_json::Value = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
    // Whoever looked for orders may have left another one.
    let names = names["consumers"].as_array().unwrap().iter().filter_map(|name| name.as_str());
    let gone = async {
        for name in names {
            world.api(&format!("CONSUMER.DELETE.{JOURNAL_STREAM}.{name}"), String::new()).await;
        }
    };
    let outdated = tokio::time::timeout(PATIENCE, following.progress.outdated());
    let ((), outdated) = tokio::join!(gone, outdated);
    outdated.unwrap();
    assert_eq!(following.next().await, Given::Passed(2), "its batch is still there");
    tokio::time::timeout(PATIENCE, following.progress.current()).await.unwrap();
    following.end().await;
}
