//! Tokens of an OpenID Connect provider: a real one, on this machine, whose keys change, are withdrawn, and cannot be had.

use std::time::Duration;

use futures_util::future::join_all;
use roam_auth::{AuditEntry, AuditEvent, ProviderSettings, revoke};
use roam_client::{Lookup, WatchFrom};
use roam_nats::{AUDIT_STREAM, JournalReader, Role, Secret};
use roam_process::clock;
use roam_schemas::{Apps, Grant, subjects};
use roam_tests::{Kind, Probe, Provider, World, app, device, eventually, key, tenant, text, user};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3_600);

/// A world of a server and an auth service alone, which trusts these.
async fn trusting(providers: Vec<ProviderSettings>) -> World {
    World::new().access_servers(0).replicas(0).secure(1).providers(providers).start().await
}

/// A provider that publishes one key, `first`.
async fn provider(dir: &tempfile::TempDir) -> Provider {
    let provider = Provider::start(dir.path()).await;
    provider.make("first", Kind::ES256);
    provider.publish(&["first"]);
    provider
}

fn own_token(world: &World) -> Secret {
    let grant = Grant::device(tenant("acme"), user("alice"), device("laptop"), Apps::All).unwrap();
    world.token(grant, HOUR).1
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_a_provider_knows_roams_as_what_its_claims_say() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(dir.path()).await;
    let kinds = [("rsa", Kind::RS256), ("ec", Kind::ES256), ("ed", Kind::EdDSA)];
    for (kid, kind) in kinds {
        provider.make(kid, kind);
    }
    provider.publish(&kinds.map(|(kid, _)| kid));
    let world = World::new().secure(1).providers(vec![provider.settings()]).start().await;
    for (kid, _) in kinds {
        let text = provider.token(kid, &provider.claims("a.b@example.com", kid));
        let mut probe = Probe::with_token(&world.nats.client_url(), &text).await.unwrap();
        let own = format!("roam.v1.change.acme.a%2Eb%40example%2Ecom.editor.{kid}");
        assert!(probe.may_publish(&own).await, "{own}");
        for others in ["roam.v1.change.acme.bob.editor.laptop", "roam.v1.latest.globex.bob.editor", "$JS.API.INFO"] {
            assert!(!probe.may_publish(others).await, "{others}");
        }
    }
    let connect = async |name: &str| {
        let token = provider.token("rsa", &provider.claims("alice", name));
        let identity =
            roam_client::Identity::Device { tenant: tenant("acme"), user: user("alice"), device: device(name) };
        world.connect(world.settings_with(Secret::new(token)), identity).await.profile(app("editor"))
    };
    let (laptop, phone) = (connect("laptop").await, connect("phone").await);
    let mut told = phone.watch(WatchFrom::Now).await.unwrap();
    laptop.put(key("theme"), "dark", text()).await.unwrap();
    told.next().await.unwrap();
    assert!(matches!(phone.get(key("theme")).await.unwrap(), Lookup::Found(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_good_token_of_a_provider_is_refused_and_the_audit_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = provider(&dir).await;
    let stranger = Provider::start_plain().await;
    for kid in ["first", "unknown"] {
        stranger.make(kid, Kind::ES256);
    }
    let world = trusting(vec![trusted.settings()]).await;
    let claims = || trusted.claims("alice", "laptop");
    let good = trusted.token("first", &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (_, said) = signed.split_once('.').unwrap();
    let now = clock::now_ns() / 1_000_000_000;
    let forged = format!("{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let mut after = 0;
    // {"alg":"none","kid":"first"}
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoiZmlyc3QifQ.{said}.");
    for (token, reason) in [
        (none, "malformed"),
        (format!("{signed}."), "signature"),
        (format!("{signed}.{forged}"), "signature"),
        (stranger.token("first", &claims()), "signature"),
        (stranger.token("unknown", &claims()), "unknown_key"),
        (trusted.token("first", &with(claims(), "aud", json!("somebody else"))), "audience"),
        (trusted.token("first", &with(claims(), "exp", json!(now))), "expired"),
        (trusted.token("first", &with(claims(), "nbf", json!(now + 600))), "future"),
        (trusted.token("first", &with(claims(), "device", json!(null))), "claims"),
        // Nobody whom we trust, and ours are signed otherwise.
        (trusted.token("first", &with(claims(), "iss", json!("https://evil.example.com"))), "malformed"),
        (trusted.token("first", &with(claims(), "iss", json!("roam"))), "malformed"),
    ] {
        assert!(Probe::with_token(&world.nats.client_url(), &token).await.is_err(), "{reason}: {token}");
        assert_eq!(next_refusal(&world, &mut after).await, reason);
    }
    assert!(Probe::with_token(&world.nats.client_url(), &good).await.is_ok());
}

/// Why the next who was refused after that place in the audit was.
async fn next_refusal(world: &World, after: &mut u64) -> String {
    let registrar = world.bus_of(Role::Registrar).await;
    let refusals = subjects::audit(None, "refused");
    let mut reader = JournalReader::open(&registrar, AUDIT_STREAM, Some(&refusals), *after + 1).await.unwrap();
    let entry = reader.next().await.unwrap();
    registrar.close().await;
    *after = entry.sequence;
    match serde_json::from_slice(&entry.payload).unwrap() {
        AuditEntry { audit_v1: AuditEvent::Refused { reason, .. } } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_and_no_honest_device_notices() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(&dir).await;
    let world = trusting(vec![ProviderSettings { refresh_seconds: 2, ..provider.settings() }]).await;
    let url = world.nats.client_url();
    let old = provider.token("first", &provider.claims("alice", "laptop"));
    let mut live = Probe::with_token(&url, &old).await.unwrap();

    // The new key is published, and the first token that it signed gets in without a second try.
    provider.make("second", Kind::EdDSA);
    provider.publish(&["first", "second"]);
    let new = provider.token("second", &provider.claims("alice", "phone"));
    Probe::with_token(&url, &new).await.unwrap();
    Probe::with_token(&url, &old).await.unwrap();

    // The old one is withdrawn: its tokens let nobody in any more, and who is in stays in.
    provider.publish(&["second"]);
    eventually("the old key is forgotten", async || Probe::with_token(&url, &old).await.err()).await;
    assert!(live.may_publish("roam.v1.latest.acme.alice.editor").await);
    Probe::with_token(&url, &new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_neither_asks_the_provider_often_nor_keeps_others_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(&dir).await;
    let world = trusting(vec![ProviderSettings { refetch_seconds: 3_600, ..provider.settings() }]).await;
    let url = world.nats.client_url();
    let good = provider.token("first", &provider.claims("alice", "laptop"));
    Probe::with_token(&url, &good).await.unwrap();
    let before = provider.asked();
    let strange: Vec<_> = (0..300).map(|number| format!("unknown-{number}")).collect();
    let strange = strange.iter().map(|kid| {
        provider.make(kid, Kind::EdDSA);
        provider.token(kid, &provider.claims("mallory", "phone"))
    });
    let strange: Vec<_> = strange.collect();
    let flood = join_all(strange.iter().map(|token| Probe::with_token(&url, token)));
    let own = own_token(&world);
    let (refused, ()) = tokio::join!(flood, async {
        for token in [good.as_str(), own.expose()] {
            Probe::with_token(&url, token).await.unwrap();
        }
    });
    assert!(refused.iter().all(Result::is_err));
    assert_eq!(provider.asked(), before, "not before the time that the settings say");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_provider_does_not_answer_its_keys_are_good_for_as_long_as_the_settings_say() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(&dir).await;
    let settings = ProviderSettings { refresh_seconds: 1, keep_seconds: 4, ..provider.settings() };
    let world = trusting(vec![settings]).await;
    let url = world.nats.client_url();
    let text = provider.token("first", &provider.claims("alice", "laptop"));
    Probe::with_token(&url, &text).await.unwrap();
    provider.silence(true);
    Probe::with_token(&url, &text).await.unwrap();
    let refused = eventually("the keys are too old", async || Probe::with_token(&url, &text).await.err()).await;
    assert!(refused.contains("Authorization Violation"), "{refused}");
    assert_eq!(next_refusal(&world, &mut 0).await, "provider_unreachable");
    Probe::with_token(&url, own_token(&world).expose()).await.unwrap();
    provider.silence(false);
    eventually("it answers again", async || Probe::with_token(&url, &text).await.ok()).await;
    let (_, page) = world.auth_services[0].pages().get("/metrics").await;
    for outcome in ["fetched", "failed"] {
        let counted = format!("roam_auth_provider_fetches_total{{outcome=\"{outcome}\"}}");
        assert!(page.contains(&counted), "{counted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_from_the_start_keeps_nobody_else_out() {
    let plain = Provider::start_plain().await;
    plain.silence(true);
    let world = trusting(vec![plain.settings()]).await;
    let url = world.nats.client_url();
    Probe::with_token(&url, own_token(&world).expose()).await.unwrap();
    plain.make("first", Kind::EdDSA);
    plain.publish(&["first"]);
    let text = plain.token("first", &plain.claims("alice", "laptop"));
    assert!(Probe::with_token(&url, &text).await.is_err());
    plain.silence(false);
    eventually("it is there", async || Probe::with_token(&url, &text).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_provider_is_revoked_by_the_id_that_the_audit_shows() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(&dir).await;
    let world = trusting(vec![provider.settings()]).await;
    let url = world.nats.client_url();
    let stolen = provider.token("first", &provider.claims("alice", "laptop"));
    let thief = Probe::with_token(&url, &stolen).await.unwrap();
    let registrar = world.bus_of(Role::Registrar).await;
    let mut reader = JournalReader::open(&registrar, AUDIT_STREAM, None, 1).await.unwrap();
    let entry = reader.next().await.unwrap();
    let AuditEntry { audit_v1: event } = serde_json::from_slice(&entry.payload).unwrap();
    let AuditEvent::SignedIn { token, grant, expires: Some(_), .. } = event else { panic!("{event:?}") };
    assert_eq!(grant.to_string(), "device laptop of acme/alice");
    let record = revoke(&registrar, token, clock::now_ns() / 1_000_000_000).await.unwrap();
    assert_eq!(record.grant, grant);
    thief.ended().await;
    assert!(Probe::with_token(&url, &stolen).await.is_err());
    // Another token of the same device is another token.
    let other = provider.token("first", &with(provider.claims("alice", "laptop"), "jti", json!("2")));
    Probe::with_token(&url, &other).await.unwrap();
}
