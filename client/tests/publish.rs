//! Changes on their way to their receipts, over a real bus, with a stand-in for the services.

use std::time::Duration;

use crate::support::{World, app, device, eventually, key, profile, service, soon, user};
use roam_client::{
    Change, ChangeError, ChangeId, ClientSettings, Code, ContentType, Encoding, IdentityError, Operation,
    ProfileClient, Revision, User,
};
use roam_nats::{Headers, Overrides};
use roam_schemas::subjects;
use tokio::time::timeout;

fn put(name: &str, value: &str) -> Change {
    let op = Operation::put(key(name), value, ContentType::text());
    Change::new(ChangeId::random(), None, vec![op]).unwrap()
}

async fn save(profile: &ProfileClient, name: &str, value: &str) -> Result<roam_client::Saved, ChangeError> {
    soon(profile.put(key(name), value, ContentType::text())).await
}

#[tokio::test]
async fn a_change_is_saved_at_its_receipt_in_either_encoding_and_for_either_identity() {
    let world = World::running().await;
    for (identity, encoding, name) in
        [(device(), Encoding::Postcard, "a"), (device(), Encoding::Json, "b"), (service(), Encoding::Postcard, "c")]
    {
        let settings = ClientSettings { encoding, ..world.settings() };
        let client = roam_client::Client::connect(settings, identity).await.unwrap();
        let mail = client.profile_of(user(), app(name));
        let saved = save(&mail, "k", "v").await.unwrap();
        assert_eq!((saved.revision, saved.again), (Revision::new(1), false));
        assert_eq!(soon(mail.delete(key("k"))).await.unwrap().revision, Revision::new(2));
        assert_eq!((mail.seen(), client.receipt_counts().matched), (Revision::new(2), 2));
        client.close().await;
    }
}

#[tokio::test]
async fn thousands_of_changes_may_be_in_flight() {
    let world = World::running().await;
    let client = world.client().await;
    let mut pending = Vec::new();
    for number in 0..3_000 {
        let profile = client.profile(app(&format!("app{}", number % 30)));
        pending.push(soon(profile.submit(put(&format!("k{number}"), "v"))).await.unwrap());
    }
    for mut pending in pending {
        let accepted = soon(pending.pub_ack()).await.unwrap();
        let saved = soon(pending.receipt()).await.unwrap();
        assert_eq!(saved.sequence, accepted.sequence);
    }
    assert_eq!(client.receipt_counts().matched, 3_000);
    assert_eq!(world.system().revision(&profile("app7")), 100);
}

#[tokio::test]
async fn changes_to_one_key_take_effect_in_the_order_of_their_submission_even_when_some_are_refused() {
    // A stream with room for four changes refuses most of them at first.
    let overrides = Overrides { changes_max_messages: Some(4), ..Overrides::default() };
    let mut world = World::with(overrides).await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let submit = async {
        let mut pending = Vec::new();
        for number in 0..60 {
            pending.push(mail.submit(put(&format!("k{}", number % 20), &number.to_string())).await.unwrap());
        }
        pending
    };
    let (pending, _) = soon(async { tokio::join!(submit, world.take_changes()) }).await;
    for pending in pending {
        soon(pending.receipt()).await.unwrap();
    }
    let values = world.system().values(&profile("mail"));
    assert_eq!(values.len(), 20);
    for (name, value) in values {
        assert_eq!(name, format!("k{}", value.parse::<u32>().unwrap() % 20));
        assert!(value.parse::<u32>().unwrap() >= 40, "{name} holds {value}");
    }
}

#[tokio::test]
async fn a_full_system_is_busy_in_the_end_and_decides_nothing() {
    let overrides = Overrides { changes_max_messages: Some(1), ..Overrides::default() };
    let world = World::with(overrides).await;
    let settings = ClientSettings { receipt_timeout: Duration::from_millis(500), ..world.settings() };
    let client = world.client_with(settings).await;
    let mail = client.profile(app("mail"));
    let mut fills = soon(mail.submit(put("a", "1"))).await.unwrap();
    soon(fills.pub_ack()).await.unwrap();
    let mut refused = soon(mail.submit(put("b", "1"))).await.unwrap();
    assert!(timeout(Duration::from_millis(20), refused.pub_ack()).await.is_err(), "it may be asked again");
    assert_eq!(soon(refused.pub_ack()).await, Err(ChangeError::Busy));
    assert_eq!(soon(refused.pub_ack()).await, Err(ChangeError::Busy));
    assert_eq!(soon(refused.receipt()).await, Err(ChangeError::Busy));
    let id = fills.id();
    assert_eq!(soon(fills.receipt()).await, Err(ChangeError::Unknown { id }), "it is in the stream");
}

#[tokio::test]
async fn a_lost_receipt_is_had_by_sending_the_same_again_and_takes_effect_once() {
    let world = World::running().await;
    let settings = ClientSettings { receipt_timeout: Duration::from_secs(2), ..world.settings() };
    let client = world.client_with(settings).await;
    world.system().lose_receipts = 1;
    let saved = save(&client.profile(app("mail")), "k", "v").await.unwrap();
    assert_eq!((saved.again, saved.revision), (true, Revision::new(1)));
    assert_eq!(world.system().came, [saved.id, saved.id]);
}

#[tokio::test]
async fn a_change_that_was_turned_away_unheard_does_not_take_effect_after_a_later_one_to_its_key() {
    let world = World::running().await;
    let settings = ClientSettings { receipt_timeout: Duration::from_secs(2), ..world.settings() };
    let mail = world.client_with(settings).await.profile(app("mail"));
    // Nothing is decided of the first one, and nobody hears of that.
    world.system().reject.push_back(Code::Busy);
    world.system().lose_receipts = 1;
    let (first, second) = (put("k", "1"), put("k", "2"));
    let id = first.id();
    let first = soon(mail.submit(first)).await.unwrap();
    let second = soon(mail.submit(second)).await.unwrap();
    assert_eq!(soon(second.receipt()).await.unwrap().revision, Revision::new(1));
    assert_eq!(soon(first.receipt()).await, Err(ChangeError::Unknown { id }));
    assert_eq!(world.system().values(&profile("mail"))["k"], "2");
    assert_eq!(world.system().came.len(), 2);
}

#[tokio::test]
async fn a_change_without_any_receipt_is_unknown_and_the_same_id_tells_its_outcome_later() {
    let world = World::running().await;
    let settings = ClientSettings { receipt_timeout: Duration::from_millis(400), ..world.settings() };
    let client = world.client_with(settings).await;
    let mail = client.profile(app("mail"));
    world.system().lose_receipts = usize::MAX;
    let change = put("k", "v");
    let pending = soon(mail.submit(change.clone())).await.unwrap();
    assert!(matches!(soon(mail.submit(change.clone())).await, Err(ChangeError::InFlight { .. })));
    let error = soon(pending.receipt()).await.unwrap_err();
    assert_eq!((error.clone(), error.retry()), (ChangeError::Unknown { id: change.id() }, true));
    world.system().lose_receipts = 0;
    let saved = soon(soon(mail.submit(change)).await.unwrap().receipt()).await.unwrap();
    assert_eq!((saved.again, saved.revision), (true, Revision::new(1)));
}

#[tokio::test]
async fn a_rejection_is_final_and_a_busy_receipt_is_not() {
    let world = World::running().await;
    let mail = world.client().await.profile(app("mail"));
    world.system().reject.extend([Code::Conflict, Code::Busy, Code::Busy]);
    let error = save(&mail, "k", "v").await.unwrap_err();
    assert_eq!((error.code(), error.retry()), (Some(Code::Conflict), false));
    let saved = save(&mail, "k", "w").await.unwrap();
    assert_eq!((saved.revision, saved.again), (Revision::new(1), false));
    assert_eq!(world.system().came.len(), 4);
}

#[tokio::test]
async fn a_change_survives_a_restart_of_the_server() {
    let mut world = World::start().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let mut before = soon(mail.submit(put("a", "1"))).await.unwrap();
    soon(before.pub_ack()).await.unwrap();
    world.server.kill().await.unwrap();
    let during = soon(mail.submit(put("b", "1"))).await.unwrap();
    world.server.restart().await.unwrap();
    world.take_changes().await;
    soon(before.receipt()).await.unwrap();
    soon(during.receipt()).await.unwrap();
    assert_eq!(world.system().revision(&profile("mail")), 2);
}

#[tokio::test]
async fn what_comes_without_our_header_is_dropped_and_what_nobody_waits_for_is_ignored() {
    let world = World::running().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    save(&mail, "k", "v").await.unwrap();
    let subject = subjects::receipt(&profile("mail"), &device().device());
    world.say(subject.clone(), Headers::new(), r#"{"stream":"ROAM_CHANGES","seq":1}"#).await;
    world.say(subject, Headers::new().with_content_type(Encoding::Json), "{}").await;
    // The same again is answered again, and nobody waits for the second answer.
    let change = put("k", "w");
    soon(soon(mail.submit(change.clone())).await.unwrap().receipt()).await.unwrap();
    let payload = roam_schemas::encode(&change, Encoding::Postcard).unwrap();
    let subject = subjects::change(&profile("mail"), &device().device());
    world.say(subject, Headers::new().with_content_type(Encoding::Postcard), payload).await;
    eventually("all are counted", || {
        let counts = client.receipt_counts();
        (counts.foreign, counts.undecodable, counts.matched, counts.unmatched) == (1, 1, 2, 1)
    })
    .await;
}

#[tokio::test]
async fn what_is_not_valid_or_not_ours_is_not_sent() {
    let world = World::running().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let error = soon(mail.change(Vec::new())).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Invalid));
    // 200 KB of quotation marks five times: a million bytes of values, twice that in JSON.
    let settings = ClientSettings { encoding: Encoding::Json, ..world.settings() };
    let ops = (0..5).map(|number| Operation::put(key(number.to_string()), "\"".repeat(200_000), ContentType::text()));
    let error = soon(world.client_with(settings).await.profile(app("mail")).change(ops.collect())).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TooLarge));
    let bobs = client.profile_of(User::parse("bob").unwrap(), app("mail"));
    assert_eq!(save(&bobs, "k", "v").await, Err(ChangeError::Identity(IdentityError::OtherUser)));
    assert!(world.system().came.is_empty());
}

#[tokio::test]
async fn a_closed_client_leaves_nobody_waiting() {
    let world = World::start().await;
    let client = world.client().await;
    let mail = client.profile(app("mail"));
    let pending = soon(mail.submit(put("k", "v"))).await.unwrap();
    let id = pending.id();
    soon(client.close()).await;
    assert_eq!(soon(pending.receipt()).await, Err(ChangeError::Unknown { id }));
    let after = soon(async {
        match mail.submit(put("k", "v")).await {
            Ok(pending) => pending.receipt().await.map(drop),
            Err(error) => Err(error),
        }
    });
    assert!(matches!(after.await, Err(ChangeError::Closed | ChangeError::Unknown { .. })));
}

/// A change for each of so many users, submitted at once by a service.
async fn of_many_users(
    client: &roam_client::Client,
    users: usize,
    value: &str,
) -> Vec<Result<roam_client::Saved, ChangeError>> {
    let saving = (0..users).map(|number| {
        let mail = client.profile_of(User::parse(format!("user{number}")).unwrap(), app("mail"));
        async move { save(&mail, "k", value).await }
    });
    futures_util::future::join_all(saving).await
}

fn everybody_holds(world: &World, users: usize, value: &str) {
    for number in 0..users {
        let user = User::parse(format!("user{number}")).unwrap();
        let held = world.system().values(&roam_client::Profile { user, ..profile("mail") });
        assert_eq!(held.get("k").map(String::as_str), Some(value), "user{number}");
    }
}

#[tokio::test]
async fn what_a_service_submits_at_once_goes_in_bulks_and_each_change_has_its_own_receipt() {
    let world = World::running().await;
    // How many bulks are answered change by change, as those are whose receipts are large.
    for (encoding, singly) in [(Encoding::Postcard, 0), (Encoding::Json, 0), (Encoding::Postcard, 2)] {
        let settings = ClientSettings { encoding, ..world.settings() };
        let client = roam_client::Client::connect(settings, service()).await.unwrap();
        world.system().receipt_bulks_singly = singly;
        let came = world.system().came.len();
        let value = format!("{encoding:?} {singly}");
        let saved = of_many_users(&client, 300, &value).await;
        assert!(saved.iter().all(|saved| saved.as_ref().is_ok_and(|saved| !saved.again)), "{saved:?}");
        everybody_holds(&world, 300, &value);
        let bulks = std::mem::take(&mut world.system().bulks);
        assert!(bulks.iter().sum::<usize>() > 200 && bulks.len() < 100, "most go together: {bulks:?}");
        assert!(bulks.iter().all(|changes| (2..=64).contains(changes)), "{bulks:?}");
        assert_eq!(world.system().came.len() - came, 300, "each came once");
        assert_eq!(client.receipt_counts().matched, 300);
        client.close().await;
    }
}

#[tokio::test]
async fn one_after_the_other_each_goes_by_itself_and_so_it_does_for_a_device_and_whoever_wants_it() {
    let world = World::running().await;
    let client = roam_client::Client::connect(world.settings(), service()).await.unwrap();
    for number in 0..20 {
        save(&client.profile_of(user(), app("mail")), &format!("k{number}"), "v").await.unwrap();
    }
    let singly = ClientSettings { bulk: None, ..world.settings() };
    let client = roam_client::Client::connect(singly, service()).await.unwrap();
    of_many_users(&client, 50, "v").await.into_iter().for_each(|saved| assert!(saved.is_ok()));
    let device = world.client().await.profile(app("mail"));
    let saving = (0..50).map(|number| {
        let device = device.clone();
        async move { save(&device, &format!("k{number}"), "v").await.unwrap() }
    });
    futures_util::future::join_all(saving).await;
    assert!(world.system().bulks.is_empty());
}

#[tokio::test]
async fn a_bulk_that_is_refused_as_a_whole_harms_none_of_its_changes() {
    let world = World::running().await;
    world.system().refuse_bulks = usize::MAX;
    let client = roam_client::Client::connect(world.settings(), service()).await.unwrap();
    for value in ["1", "2"] {
        let saved = of_many_users(&client, 200, value).await;
        assert!(saved.iter().all(Result::is_ok), "{saved:?}");
        everybody_holds(&world, 200, value);
    }
    let bulks = world.system().bulks.clone();
    assert!(!bulks.is_empty() && bulks.iter().sum::<usize>() < 400, "no more of them once one was refused: {bulks:?}");
    assert_eq!(world.system().came.len(), 400, "nothing was decided twice");
}

#[tokio::test]
async fn a_bulk_whose_receipts_are_lost_takes_effect_once() {
    let world = World::running().await;
    let settings = ClientSettings { receipt_timeout: Duration::from_secs(4), ..world.settings() };
    let client = roam_client::Client::connect(settings, service()).await.unwrap();
    world.system().lose_receipts = 100;
    let saved = of_many_users(&client, 100, "v").await;
    assert!(
        saved.iter().all(|saved| saved.as_ref().is_ok_and(|saved| saved.revision == Revision::new(1))),
        "{saved:?}"
    );
    assert!(saved.iter().flatten().any(|saved| saved.again));
    everybody_holds(&world, 100, "v");
}
