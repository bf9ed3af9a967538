//! Who did what: orders of operators, tokens and changed quotas are in the audit, each once, with who did it, and nobody else can
//! put anything there.

use std::process::Stdio;

use futures_util::future::join_all;
use roam_nats::{Role, TERMS_STREAM};
use roam_schemas::{
    Control, Epoch, Erase, Origin, Quota, ReplicaName, Resume, Shard, Skip, TenantQuota, Terms, subjects,
};
use roam_tests::{COMMAND_LINE, SERVICE_VARIABLE, World, app, envelope, eventually, key, profile, tenant, text, user};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");

async fn audit(world: &World, options: &str) -> Vec<Value> {
    let ran = world.roam_as(Some(Role::Registrar), BINARY, &format!("audit --json {options}")).await.with_code(0);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The orders in the audit, once there are so many.
async fn orders(world: &World, count: usize) -> Vec<Value> {
    eventually("the orders are told", async || {
        let told = audit(world, "--event ordered").await;
        (told.len() >= count).then_some(told)
    })
    .await
}

fn every_order() -> [Control; 4] {
    let origin = Origin { incarnation: 7, sequence: 9 };
    [
        Control::Resume(Resume { line: 2, from: ReplicaName::parse("storage-1").unwrap() }),
        Control::Skip(Skip { origin, batch: None }),
        Control::Erase(Erase { tenant: tenant("acme"), user: user("alice") }),
        Control::Epoch(Epoch { epoch: 3 }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_in_the_journal_is_told_once_whoever_runs_and_whenever() {
    let mut world = World::new().access_servers(0).replicas(0).secure(2).start().await;
    for order in every_order() {
        world.order(order).await;
    }
    let told = orders(&world, 4).await;
    for (told, order) in told.iter().zip(every_order()) {
        assert_eq!(told["order"], serde_json::to_value(order).unwrap());
        assert!(told["id"].is_string() && told["time"].is_string(), "{told}");
    }
    // One that is given while nobody runs is told by the next, and the others are not told again.
    for auth in &mut world.auth_services {
        auth.stop().await;
    }
    world.order(Control::Epoch(Epoch { epoch: 4 })).await;
    for auth in &mut world.auth_services {
        auth.start().await;
    }
    world.ready().await;
    let told = orders(&world, 5).await;
    assert_eq!(told.len(), 5, "{told:#?}");
    assert_eq!(told[4]["order"]["epoch"]["epoch"], 4);
    assert_eq!(audit(&world, "--event ordered --tenant acme").await.len(), 1, "only the erasure is about a tenant");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_has_somebody_forgotten_is_named() {
    let world = World::new().secure(1).start().await;
    let alice = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    alice.put(key("theme"), "dark", text()).await.unwrap();
    let _ = world.roam(BINARY, "erase acme/alice --yes").await.with_code(0);
    let told = orders(&world, 1).await;
    assert_eq!(told[0]["order"]["erase"]["user"], "alice");
    let by = told[0]["by"].as_str().unwrap();
    assert!(by.contains('@') && by.len() > 2, "{by}");
    let said = world.roam_as(Some(Role::Registrar), BINARY, "audit --event ordered").await.with_code(0);
    let _ = said.saying("erase acme/alice").saying(by);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_an_operator_gets_an_order_into_the_audit() {
    let world = World::new().secure(1).start().await;
    let mallory = world.post("acme", "mallory", "phone").await;
    let own = subjects::change(&profile("acme/mallory/editor"), &roam_tests::device("phone"));
    for _ in 0..20 {
        // A PubAck on the subject of orders is all that NATS lets her put there.
        let to = subjects::journal_control(Shard::ONLY);
        mallory.bus.send_with_reply(own.clone(), to, envelope(roam_schemas::Encoding::Json), "x".into()).await.unwrap();
    }
    let operator = world.operator().await;
    eventually("they are in the journal", async || {
        let state = roam_nats::stream_state(&operator, roam_nats::JOURNAL_STREAM).await.unwrap();
        (state.messages >= 20).then_some(())
    })
    .await;
    world.order(Control::Erase(Erase { tenant: tenant("acme"), user: user("nobody") })).await;
    let told = orders(&world, 1).await;
    assert!(told.len() == 1 && told[0]["order"]["erase"]["user"] == "nobody", "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_told_with_who_made_and_revoked_them_and_a_follower_hears_it() {
    let world = World::new().access_servers(0).replicas(0).secure(1).start().await;
    let mut follower = Command::new(BINARY)
        .env(SERVICE_VARIABLE, COMMAND_LINE)
        .args(["audit", "--follow", "--json", "--server", &world.nats.client_url(), "--nkey"])
        .arg(world.keys().seed_of(Role::Registrar))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut heard = BufReader::new(follower.stdout.take().unwrap()).lines();
    let keys = world.dir().join("keys").display().to_string();
    let made = format!("token create --json --keys {keys} --tenant acme --user alice --device laptop");
    let made = world.roam_as(Some(Role::Registrar), BINARY, &made).await.with_code(0).object();
    let id = made["id"].as_str().unwrap();
    let revoked = format!("token revoke --keys {keys} {id}");
    let _ = world.roam_as(Some(Role::Registrar), BINARY, &revoked).await.with_code(0);
    for expected in ["token_created", "token_revoked"] {
        let told: Value = serde_json::from_str(&heard.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!((told["event"].as_str(), told["token"].as_str()), (Some(expected), Some(id)), "{told}");
        assert!(told["by"].as_str().unwrap().contains('@'), "{told}");
        assert!(!told.to_string().contains(made["token"].as_str().unwrap()), "no token is in the audit");
    }
    assert_eq!(audit(&world, "--since 1h --event token_revoked").await.len(), 1);
    assert_eq!(audit(&world, "--tenant globex").await.len(), 0);
    let by_operator = format!("audit --nkey {}", world.keys().seed_of(Role::Operator).display());
    let _ = world.roam_as(None, BINARY, &by_operator).await.with_code(1);
    // What is exported for other commands does not stand in the way.
    let _ = world.roam(BINARY, &format!("audit --keys {keys}")).await.with_code(0).saying(id);
    let _ = world.roam_as(Some(Role::Registrar), BINARY, "audit --event nothing").await.with_code(64);
}

/// What the audit tells of quotas, once there are so many events, without what no test can know.
async fn quotas(world: &World, count: usize) -> Vec<Value> {
    eventually("the quotas are told", async || {
        let mut told = audit(world, "--event quota_changed").await;
        for event in &mut told {
            let event = event.as_object_mut().unwrap();
            event.retain(|name, _| ["tenant", "changes"].contains(&name.as_str()));
        }
        (told.len() >= count).then_some(told)
    })
    .await
}

/// An operator edits the settings of all access servers and restarts them, one after the other.
async fn bound(world: &mut World, edit: impl Fn(&mut roam_access_server::Settings)) {
    for server in &mut world.access_servers {
        server.stop().await;
        server.bound(&edit);
        server.start().await;
        server.ready().await;
    }
}

fn quota_of_acme(profile_records: u64) -> TenantQuota {
    let Quota { profile_bytes, user_profiles, .. } = Terms::default().quota();
    TenantQuota { tenant: tenant("acme"), profile_records, profile_bytes, user_profiles }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_changes_is_told_once_with_what_it_was_whoever_runs_and_whenever() {
    let mut world = World::new().access_servers(2).secure(2).start().await;
    let from_to = |setting: &str, from: u64, to: u64| json!({"setting": setting, "from": from, "to": to});
    // The defaults are nothing that changed.
    bound(&mut world, |settings| settings.quotas = vec![quota_of_acme(5)]).await;
    let mut expected = vec![json!({"tenant": "acme", "changes": [from_to("profile_records", 50_000, 5)]})];
    assert_eq!(quotas(&world, 1).await, expected);

    // Restarted with nothing edited, and then with a rate for all: one event more, and no other.
    bound(&mut world, |_| {}).await;
    bound(&mut world, |settings| settings.rate.burst = 20_000).await;
    expected.push(json!({"changes": [from_to("burst", 10_000, 20_000)]}));
    assert_eq!(quotas(&world, 2).await, expected);

    // Both access servers start at once with another quota while no auth service runs, which is told by the next; what was
    // told before is not told again.
    for auth in &mut world.auth_services {
        auth.stop().await;
    }
    for server in &mut world.access_servers {
        server.stop().await;
        server.bound(|settings| settings.quotas = vec![quota_of_acme(7)]);
    }
    join_all(world.access_servers.iter_mut().map(roam_tests::Part::start)).await;
    for auth in &mut world.auth_services {
        auth.start().await;
    }
    world.ready().await;
    expected.push(json!({"tenant": "acme", "changes": [from_to("profile_records", 5, 7)]}));
    assert_eq!(quotas(&world, 3).await, expected);

    // No quota of its own any more: what holds for all holds for it.
    bound(&mut world, |settings| settings.quotas.clear()).await;
    expected.push(json!({"tenant": "acme", "changes": [from_to("profile_records", 7, 50_000)]}));
    assert_eq!(quotas(&world, 4).await, expected);

    let said = world.roam_as(Some(Role::Registrar), BINARY, "audit --event quota_changed --tenant acme").await;
    let said = said.with_code(0);
    assert_eq!(said.stdout.lines().count(), 3, "{}", said.stdout);
    let _ = said.saying("acme: profile_records from 50000 to 5, by ").saying("from 7 to 50000");
    let violations = std::fs::read_to_string(world.nats.log_path()).unwrap();
    let violations: Vec<_> = violations.lines().filter(|line| line.contains("iolation")).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_an_access_server_gets_a_quota_into_the_audit() {
    let mut world = World::new().secure(1).start().await;
    let mallory = world.post("acme", "mallory", "phone").await;
    let own = subjects::change(&profile("acme/mallory/editor"), &roam_tests::device("phone"));
    for _ in 0..20 {
        // A PubAck is all that NATS lets her put there.
        let headers = envelope(roam_schemas::Encoding::Json);
        mallory.bus.send_with_reply(own.clone(), subjects::TERMS.to_owned(), headers, "x".into()).await.unwrap();
    }
    eventually("they are there", async || (world.stream(TERMS_STREAM).await.messages >= 20).then_some(())).await;
    bound(&mut world, |settings| settings.quotas = vec![quota_of_acme(5)]).await;
    let changes = json!([{"setting": "profile_records", "from": 50_000, "to": 5}]);
    assert_eq!(quotas(&world, 1).await, [json!({"tenant": "acme", "changes": changes})]);
}
