//! Reading over a real bus, with a stand-in for the services.

use std::time::Duration;

use crate::support::{World, app, eventually, key, service, soon, user};
use futures_util::TryStreamExt;
use roam_client::{
    Client, ClientSettings, Code, ConnectError, ContentType, Encoding, IdentityError, LatestRequest, Lookup, Operation,
    ReadError, Revision, Select, Silence,
};
use roam_schemas::limits;

#[tokio::test]
async fn what_was_saved_is_read_in_either_encoding() {
    let world = World::running().await;
    for encoding in [Encoding::Postcard, Encoding::Json] {
        let client = world.client_with(ClientSettings { encoding, ..world.settings() }).await;
        let mail = client.profile(app("mail"));
        let text = ContentType::text;
        let ops = vec![Operation::put(key("a"), "1", text()), Operation::put(key("b"), "2", text())];
        soon(mail.change(ops)).await.unwrap();
        soon(mail.delete(key("b"))).await.unwrap();

        assert!(matches!(soon(mail.get(key("a"))).await, Ok(Lookup::Found(record)) if record.key == key("a")));
        assert!(matches!(soon(mail.get(key("b"))).await, Ok(Lookup::Deleted(_))));
        assert_eq!(soon(mail.get(key("c"))).await, Ok(Lookup::Unknown));
        let all: Vec<_> = soon(mail.records(Select::All).try_collect()).await.unwrap();
        assert_eq!(all.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["a"]);
        let named = Select::Keys(vec![key("c"), key("b"), key("a")]);
        let named: Vec<_> = soon(mail.records(named).try_collect()).await.unwrap();
        assert_eq!(named.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let delta = soon(mail.changes(None)).await.unwrap();
        assert_eq!((delta.records.len(), delta.head), (2, mail.seen()));
        let nothing = soon(mail.changes(Some(delta.cursor))).await.unwrap();
        assert_eq!((nothing.records, nothing.cursor), (vec![], delta.cursor));
    }
}

#[tokio::test]
async fn a_request_is_repeated_until_somebody_answers() {
    let mut world = World::start().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let early = tokio::join!(soon(mail.get(key("a"))), world.answer()).0;
    assert_eq!(early, Ok(Lookup::Unknown));
}

#[tokio::test]
async fn a_request_that_nobody_answers_says_so_in_the_end() {
    let world = World::start().await;
    let settings = ClientSettings { request_timeout: Duration::from_millis(300), ..world.settings() };
    let mail = world.client_with(settings).await.profile(app("mail"));
    let error = soon(mail.get(key("a"))).await.unwrap_err();
    assert_eq!((error.clone(), error.retry()), (ReadError::Unanswered(Silence::NoResponders), true));
}

#[tokio::test]
async fn a_replica_that_is_behind_is_not_believed() {
    let world = World::running().await;
    let mail = world.client().await.profile(app("mail"));
    soon(mail.put(key("a"), "1", ContentType::text())).await.unwrap();
    world.system().stale_answers = 2;
    assert!(matches!(soon(mail.get(key("a"))).await, Ok(Lookup::Found(_))));
    assert_eq!(world.system().answered, 3);

    // Not even one that never gets further; only whoever asks for less is answered by it.
    let settings = ClientSettings { request_timeout: Duration::from_millis(300), ..world.settings() };
    let hasty = world.client_with(settings).await.profile(app("mail"));
    assert!(matches!(soon(hasty.get(key("a"))).await, Ok(Lookup::Found(_))));
    world.system().stale_answers = usize::MAX;
    let error = soon(hasty.history(key("a"), None)).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), (Some(Code::Behind), true));
    let anything = LatestRequest { min_revision: Some(Revision::ZERO), ..LatestRequest::default() };
    assert_eq!(soon(hasty.latest(anything)).await.unwrap().head, Revision::ZERO);
    assert_eq!(hasty.seen(), Revision::new(1), "what was seen stays seen");
}

#[tokio::test]
async fn a_request_outlives_the_connection() {
    let mut world = World::running().await;
    let mail = world.client().await.profile(app("mail"));
    soon(mail.put(key("a"), "1", ContentType::text())).await.unwrap();
    world.server.kill().await.unwrap();
    let (found, restarted) = tokio::join!(soon(mail.get(key("a"))), world.server.restart());
    restarted.unwrap();
    assert!(matches!(found, Ok(Lookup::Found(_))));
}

#[tokio::test]
async fn a_request_that_is_not_valid_or_not_ours_is_not_sent() {
    let world = World::running().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let too_many = LatestRequest { limit: Some(limits::PAGE_RECORDS + 1), ..LatestRequest::default() };
    assert_eq!(soon(mail.latest(too_many)).await.unwrap_err().code(), Some(Code::TooLarge));
    let nobodys = Client::connect(world.settings(), service()).await.unwrap().profile(app("mail"));
    assert_eq!(soon(nobodys.get(key("a"))).await, Err(ReadError::Identity(IdentityError::NoUser)));
    assert_eq!(world.system().answered, 0);
}

#[tokio::test]
async fn a_connection_says_what_is_wrong_with_it() {
    let world = World::start().await;
    let wrong = ClientSettings { window: 0, ..world.settings() };
    let error = Client::connect(wrong, service()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Settings(problems) if problems.len() == 1));
    let nowhere = ClientSettings::at("nats://127.0.0.1:1");
    assert!(matches!(Client::connect(nowhere, service()).await, Err(ConnectError::Bus(_))));
}

#[tokio::test]
async fn profiles_that_nobody_uses_any_more_are_forgotten_and_used_ones_are_shared() {
    let world = World::running().await;
    let client = Client::connect(world.settings(), service()).await.unwrap();
    let kept = client.profile_of(user(), app("kept"));
    soon(kept.put(key("a"), "1", ContentType::text())).await.unwrap();
    for number in 0..1_000 {
        drop(client.profile_of(user(), app(&number.to_string())));
    }
    assert_eq!(client.profile_of(user(), app("kept")).seen(), Revision::new(1));
    eventually("its receipts still find it", || client.receipt_counts().matched == 1).await;
    soon(kept.put(key("a"), "2", ContentType::text())).await.unwrap();
}
