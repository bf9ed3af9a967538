//! Keys are rotated as docs/security.md tells it, step by step, with a device that writes all the time: whoever has the old key
//! stays out from then on, whoever has the new one gets in, and nothing that was written is lost.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use roam_auth::Keyring;
use roam_client::{Lookup, ProfileClient};
use roam_nats::{PermissionTables, Role, security_conf};
use roam_schemas::{Apps, Grant, Shards};
use roam_tests::{Part, Probe, World, app, device, key, tenant, text, user};
use tokio::{sync::watch, task::JoinSet};

const BINARY: &str = env!("CARGO_BIN_EXE_roam-tests-service");
const HOUR: Duration = Duration::from_secs(3_600);
/// The longest that a change may take while servers restart with other keys.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes until it is told to stop. Gives how many changes were saved, and how long the longest took.
async fn write(profile: ProfileClient, stop: watch::Receiver<bool>) -> (u64, Duration) {
    let (mut saved, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow() {
        let began = Instant::now();
        let (name, value) = (key(&format!("k{}", saved % 7)), format!("value {saved}"));
        while let Err(error) = profile.put(name.clone(), value.as_str(), text()).await {
            assert!(began.elapsed() < LONGEST, "{error}");
        }
        saved += 1;
        longest = longest.max(began.elapsed());
    }
    (saved, longest)
}

/// Writes the configuration of the server anew from the keys in a directory, as `roam keys` does, and restarts the server.
async fn restart_with(world: &mut World, keys: &Keyring) {
    let file = world.nats.dir().join("nats-server.conf");
    let before = fs::read_to_string(&file).unwrap();
    let (open, _) = before.split_once("\n# Who gets in.").expect("it says who gets in");
    let security = security_conf(&PermissionTables::read(Shards::ONE).unwrap(), &keys.security(None));
    fs::write(&file, format!("{open}{}", security.text)).unwrap();
    world.nats.restart().await.unwrap();
    world.ready().await;
}

fn seeds(keys: &Path) -> BTreeMap<Role, String> {
    Role::ALL.map(|role| (role, fs::read_to_string(keys.join(format!("{}.nk", role.as_str()))).unwrap())).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_services_operators_and_registrars_are_rotated_while_a_device_writes() {
    let mut world = World::new().access_servers(2).replicas(2).secure(2).start().await;
    let url = world.nats.client_url();
    let keys = world.dir().join("keys");
    let laptop = world.device("acme", "alice", "laptop").await.profile(app("editor"));
    let (stop, stopped) = watch::channel(false);
    let mut writing = JoinSet::new();
    writing.spawn(write(laptop.clone(), stopped));

    // The files are moved away, and new ones are made.
    let old = seeds(&keys);
    let away = world.dir().join("away");
    fs::create_dir(&away).unwrap();
    for role in Role::ALL {
        let file = format!("{}.nk", role.as_str());
        fs::rename(keys.join(&file), away.join(&file)).unwrap();
    }
    let rotated = Keyring::open(&keys).unwrap();
    assert_eq!(rotated.added().len(), Role::ALL.len());
    let new = seeds(&keys);
    for role in Role::ALL {
        assert!(Probe::with_seed(&url, &new[&role]).await.is_err(), "{role:?}: no server knows it yet");
        assert!(Probe::with_seed(&url, &old[&role]).await.is_ok(), "{role:?}: and the old one is good");
    }
    restart_with(&mut world, &rotated).await;
    for role in Role::ALL {
        assert!(Probe::with_seed(&url, &old[&role]).await.is_err(), "{role:?}: the old one is good for nothing");
        assert!(Probe::with_seed(&url, &new[&role]).await.is_ok(), "{role:?}");
    }
    // People go on with their new ones, and whoever has the old one is refused in words.
    let _ = world.roam(BINARY, "status").await.with_code(0);
    let _ = world.roam_as(Some(Role::Registrar), BINARY, "audit").await.with_code(0);
    let stolen = format!("status --nkey {}", away.join("operator.nk").display());
    assert_ne!(world.roam_as(None, BINARY, &stolen).await.code, 0);

    stop.send(true).unwrap();
    let (saved, longest) = writing.join_next().await.unwrap().unwrap();
    println!("{saved} changes were saved, the longest took {longest:?}");
    assert!(saved > 0 && longest < LONGEST, "{saved}, {longest:?}");
    let phone = world.device("acme", "alice", "phone").await.profile(app("editor"));
    let last = key(&format!("k{}", (saved - 1) % 7));
    let Lookup::Found(record) = phone.get(last).await.unwrap() else { panic!("it was saved") };
    let roam_client::State::Value(stored) = record.state else { panic!("it is a value") };
    assert_eq!(stored.value.as_text(), Some(format!("value {}", saved - 1).as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_rotated_and_tokens_stay_good() {
    let mut world = World::new().access_servers(0).replicas(0).secure(2).start().await;
    let url = world.nats.client_url();
    let keys = world.dir().join("keys");
    let grant = Grant::device(tenant("acme"), user("alice"), device("laptop"), Apps::All).unwrap();
    let (_, token) = world.token(grant, HOUR);
    Probe::with_token(&url, token.expose()).await.unwrap();

    fs::rename(keys.join("issuer.nk"), world.dir().join("issuer.nk")).unwrap();
    let rotated = Keyring::open(&keys).unwrap();
    assert_eq!(rotated.added(), ["issuer.nk"]);
    restart_with(&mut world, &rotated).await;
    assert!(
        Probe::with_token(&url, token.expose()).await.is_err(),
        "auth services sign with the old one until they restart"
    );
    for auth in &mut world.auth_services {
        auth.stop().await;
        auth.start().await;
        Part::ready(auth).await;
    }
    Probe::with_token(&url, token.expose()).await.unwrap();
}
