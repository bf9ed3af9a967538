//! No payload, no key and no token in any output: everything is loaded with canaries, and then all that any process wrote
//! is searched for them, at the most talkative level.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use roam_agent::{Kind, ProfileSettings};
use roam_auth::{TokenRecord, revoke, store};
use roam_client::{Cursor, Expect, Lookup, Operation, WatchFrom};
use roam_nats::Role;
use roam_process::{ProcessSettings, clock};
use roam_schemas::{Encoding, subjects, subjects::Verb};
use roam_tests::{
    AGENT, Probe, SERVICE_VARIABLE, World, app, device, envelope, eventually, key, profile, tenant, text, user,
};
use tokio::process::{Child, Command};

const CANARY: &str = "canary-7f3a";

fn named(what: &str) -> String {
    format!("{CANARY}-{what}")
}

/// An agent that roams a file with a canary in it, and where it logs.
fn agent(world: &World, token: &str) -> (Child, PathBuf) {
    let place = world.dir().join("agent");
    let files = place.join("files");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("notes"), named("file")).unwrap();
    fs::write(place.join("token"), token).unwrap();
    let mut process = ProcessSettings::on_port(0);
    process.log_filter = "trace".to_owned();
    let mut bus = world.client_settings().bus;
    bus.token_file = Some(place.join("token"));
    let files =
        ProfileSettings { app: "files".to_owned(), path: files, kind: Kind::Tree, ..ProfileSettings::default() };
    let settings = roam_agent::Settings {
        process,
        bus,
        tenant: Some(tenant("acme")),
        user: Some(user("alice")),
        device: Some(device("tablet")),
        directory: place.join("state"),
        profiles: vec![files],
        ..roam_agent::Settings::default()
    };
    let write = |name: &str, text: &str| -> PathBuf {
        let path = Path::join(&place, name);
        fs::write(&path, text).unwrap();
        path
    };
    let configuration = write("agent.toml", &roam_process::settings::print(&settings).unwrap());
    let log = write("log", "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_roam-tests-service"));
    command.env(SERVICE_VARIABLE, AGENT).arg("--config").arg(configuration).stdin(Stdio::null()).kill_on_drop(true);
    let output = || fs::File::options().append(true).open(&log).unwrap();
    (command.stdout(output()).stderr(output()).spawn().unwrap(), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_no_key_and_no_token_is_in_any_output() {
    let world =
        World::new().secure(1).as_processes(env!("CARGO_BIN_EXE_roam-tests-service")).log_filter("trace").start().await;
    let url = world.nats.client_url();
    let mut secrets = vec![CANARY.to_owned()];
    for role in Role::ALL {
        secrets.push(fs::read_to_string(world.keys().seed_of(role)).unwrap().trim().to_owned());
    }

    // What goes well.
    let grant = || serde_json::from_str(r#"{"tenant":"acme","user":"alice","device":"laptop"}"#).unwrap();
    let (token, shown) = world.token(grant(), Duration::from_secs(600));
    let post = world.post("acme", "alice", "phone").await;
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let mut watch = laptop.watch(WatchFrom::Now).await.unwrap();
    for number in 0..20 {
        laptop.put(key(&named(&number.to_string())), named("value"), text()).await.unwrap();
    }
    watch.next().await.unwrap();
    laptop.get(key(&named("1"))).await.unwrap();
    laptop.history(key(&named("1")), None).await.unwrap();
    laptop.delete(key(&named("2"))).await.unwrap();

    // A file goes out, and what another device makes of it comes in.
    let (_, of_tablet) = world.token(
        serde_json::from_str(r#"{"tenant":"acme","user":"alice","device":"tablet"}"#).unwrap(),
        Duration::from_secs(600),
    );
    secrets.push(of_tablet.expose().to_owned());
    let (_agent, log_of_agent) = agent(&world, of_tablet.expose());
    let files = world.device("acme", "alice", "desktop").await.profile(app("files"));
    eventually("the file is there", async || {
        matches!(files.get(key("notes")).await.unwrap(), Lookup::Found(_)).then_some(())
    })
    .await;
    files.put(key("notes"), named("answer"), text()).await.unwrap();
    let file = world.dir().join("agent/files/notes");
    eventually("the answer is there", async || (fs::read_to_string(&file).ok()? == named("answer")).then_some(()))
        .await;

    // What does not.
    let absent = Operation::put(key(&named("1")), named("value"), text()).expecting(Expect::Absent);
    laptop.change(vec![absent]).await.unwrap_err();
    let subject = subjects::change(&profile("acme/alice/editor"), &device("phone"));
    for payload in [named("rubbish"), format!(r#"{{"change_v1":{{"id":"{}"}}}}"#, named("id"))] {
        post.publish(&subject, envelope(Encoding::Json), payload).await;
    }
    for verb in Verb::ALL {
        let ask = subjects::request(verb, &profile("acme/alice/editor"));
        post.ask(&ask, envelope(Encoding::Json), named("rubbish")).await;
    }
    assert!(Cursor::from_text(&named("cursor")).is_err());
    assert!(Probe::with_token(&url, &named("token")).await.is_err());
    let thief = Probe::with_token(&url, shown.expose()).await.unwrap();
    secrets.push(shown.expose().to_owned());
    let registrar = world.bus_of(Role::Registrar).await;
    store(&registrar, &TokenRecord::of(&token)).await.unwrap();
    revoke(&registrar, token.id, clock::now_ns() / 1_000_000_000).await.unwrap();
    thief.ended().await;

    let mut outputs = vec![world.nats.log_path(), log_of_agent];
    for part in world.access_servers.iter().chain(&world.replicas).chain(&world.auth_services) {
        outputs.push(part.log());
        let (_, page) = part.pages().get("/metrics").await;
        assert!(!page.contains(CANARY));
    }
    assert_eq!(outputs.len(), 5);
    for output in outputs {
        let said = fs::read_to_string(&output).unwrap();
        assert!(said.lines().count() > 5, "{} says something", output.display());
        for secret in &secrets {
            let found = said.lines().find(|line| line.contains(secret.as_str()));
            assert!(found.is_none(), "{}: {found:?}", output.display());
        }
    }
}
