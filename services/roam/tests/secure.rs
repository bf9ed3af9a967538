//! `roam up --secure` as a person meets it: with the variables that it prints everything works, and without them nothing
//! does; a token is made, used, listed, revoked and then refused; and what an earlier version made goes on.

use std::{collections::BTreeMap, path::Path, time::Duration};

use roam_nats::{Bus, BusSettings, Headers, Role};
use serde_json::{Value, json};

use crate::{program, support::System};

/// Runs `roam` with exactly these variables.
fn roam(environment: &BTreeMap<String, String>, line: &str) -> (i32, String, String) {
    let output = program::roam().args(line.split_whitespace()).envs(environment).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(environment: &BTreeMap<String, String>, line: &str) -> String {
    let (code, stdout, stderr) = roam(environment, line);
    assert_eq!(code, 0, "{line}: {stderr}");
    stdout
}

async fn secure(options: &[&str]) -> (System, BTreeMap<String, String>, String) {
    let system = System::start_with(options).await;
    let environment = serde_json::from_value(system.told["environment"].clone()).unwrap();
    let keys = system.told["keys"].as_str().unwrap().to_owned();
    (system, environment, keys)
}

#[tokio::test]
async fn whoever_has_the_first_token_gets_in_and_nobody_else() {
    let (system, environment, keys) = secure(&["--secure"]).await;
    assert!(environment["ROAM_SERVER"].starts_with("tls://"));
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "me".to_owned());
    done(&environment, &format!("put home/{user}/editor theme dark"));
    assert_eq!(done(&environment, &format!("get home/{user}/editor theme")), "dark");
    let who = done(&environment, "whoami");
    for part in [format!(" of home/{user}, for all apps\ntoken    "), "gets in  who signs in\n".to_owned()] {
        assert!(who.starts_with("who      device ") && who.contains(&part), "{part}: {who}");
    }
    let told: Value = serde_json::from_str(&done(&environment, "whoami --json")).unwrap();
    assert_eq!((&told["by"], &told["grant"]["user"]), (&json!("token"), &json!(user)));
    assert_eq!((&told["server"]["open"], &told["server"]["urls"][0]), (&json!(false), &json!(system.server())));
    assert!(told["token"].is_string() && told["expires"].is_string(), "{told}");
    let operator = done(&environment, &format!("whoami --nkey {keys}/operator.nk"));
    assert!(operator.starts_with("who      whoever the server knows by the nkey in "), "{operator}");
    let (code, _, stderr) = roam(&environment, "put home/somebody-else/editor theme dark");
    assert_eq!(code, 1, "{stderr}");
    // Which profiles there are only operators may ask.
    let (code, _, stderr) = roam(&environment, &format!("export home/{user}"));
    assert!(code != 0 && stderr.contains("--app APP"), "{code}: {stderr}");
    for whose in [format!("--operator-nkey {keys}/operator.nk"), "--app editor".to_owned()] {
        let exported = done(&environment, &format!("export home/{user} {whose}"));
        assert!(exported.contains("\"profiles\":1") && exported.contains("dark"), "{exported}");
    }
    for without in ["ROAM_TOKEN_FILE", "ROAM_CA"] {
        let mut less = environment.clone();
        less.remove(without);
        let (code, _, stderr) = roam(&less, &format!("get home/{user}/editor theme"));
        assert_ne!(code, 0, "without {without}: {stderr}");
    }
    drop(system);
}

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked() {
    let (system, first, keys) = secure(&["--secure", "--mutual-tls"]).await;
    let token = system.place.path().join("phone.token");
    let create = format!(
        "token create --keys {keys} --tenant acme --user alice --device phone --app mail --expires 1h --json --output {}",
        token.display()
    );
    let made: Value = serde_json::from_str(&done(&first, &create)).unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(made["token"].is_null(), "it is in the file alone");
    let mut phone = first.clone();
    phone.insert("ROAM_TOKEN_FILE".to_owned(), token.display().to_string());
    done(&phone, "put acme/alice/mail signature regards");
    let history = done(&phone, "history acme/alice/mail signature --json");
    assert!(history.contains("\"phone\""), "the device is the token's: {history}");
    assert_eq!(roam(&phone, "get acme/alice/contacts k").0, 1, "it is for one app");
    let who = "who      device phone of acme/alice, for mail\n";
    assert!(done(&phone, "whoami").starts_with(who));

    let listed = done(&first, &format!("token list --keys {keys} --tenant acme --json"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed["id"].as_str(), listed["state"].as_str()), (Some(id), Some("good")));
    done(&first, &format!("token revoke {id} --keys {keys}"));
    assert!(done(&first, &format!("token list --keys {keys}")).contains("revoked"));
    let refused = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while roam(&phone, "get acme/alice/mail signature").0 == 0 {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("it is refused within seconds");
    let (code, told, stderr) = roam(&phone, "whoami");
    assert!(code != 0 && told.starts_with(who) && !told.contains("server"), "{code}: {told}{stderr}");
    let (code, _, _) = roam(&first, &format!("token revoke 0193a1c2-7b1e-7c00-8000-0123456789ab --keys {keys}"));
    assert_eq!(code, 2, "there is no such token");
    let mut without = phone.clone();
    without.remove("ROAM_CERTIFICATE");
    without.remove("ROAM_CERTIFICATE_KEY");
    assert_ne!(roam(&without, "get acme/alice/mail signature").0, 0, "servers ask for a certificate");
}

#[tokio::test]
async fn a_doctor_finds_a_secure_system_sound_and_an_open_one_not() {
    let (system, environment, keys) = secure(&["--secure"]).await;
    let findings = |text: &str| -> BTreeMap<String, Value> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|finding| (finding["check"].as_str().unwrap().to_owned(), finding)).collect()
    };
    let sound = findings(&done(&environment, &format!("doctor --nkey {keys}/operator.nk --json")));
    for check in ["version", "max_payload", "tls", "strangers", "permissions", "streams", "backlog", "clock"] {
        assert_eq!(sound[check]["state"], "sound", "{}", sound[check]);
    }
    assert_eq!(sound["server"]["state"], "unknown");
    let monitor = system.told["monitor"].as_str().unwrap();
    let seen = findings(&done(&environment, &format!("doctor --nkey {keys}/operator.nk --monitor {monitor} --json")));
    assert_eq!((&seen["disk"]["state"], &seen["sync_interval"]["state"]), (&json!("sound"), &json!("warning")));
    let status = done(&environment, &format!("status --nkey {keys}/operator.nk"));
    assert!(status.contains("replica   storage ") && status.contains("all is well"), "{status}");
    drop(system);

    let open = System::start().await;
    let environment = BTreeMap::from([("ROAM_SERVER".to_owned(), open.server().to_owned())]);
    let who = done(&environment, "whoami --device pc");
    assert!(who.starts_with("who      device pc of whomever a command names\n") && who.contains("gets in  everybody"));
    let (code, stdout, stderr) = roam(&environment, "doctor --json");
    assert_eq!(code, 1, "{stderr}");
    let found = findings(&stdout);
    for (check, state) in
        [("tls", "warning"), ("strangers", "problem"), ("permissions", "problem"), ("streams", "sound")]
    {
        assert_eq!(found[check]["state"], state, "{}", found[check]);
        assert_eq!(found[check]["remedy"].is_null(), state == "sound", "{}", found[check]);
    }
}

/// Asks `$JS.API` as the registrar of a system, for something that has to succeed.
async fn ask(bus: &Bus, subject: &str, body: &Value) -> Value {
    let body = serde_json::to_vec(body).unwrap();
    let answer = bus.request(format!("$JS.API.{subject}"), Headers::new(), body.into(), Duration::from_secs(10)).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}

async fn registrar(system: &System, keys: &Path) -> Bus {
    let settings = BusSettings {
        nkey_seed: Some(keys.join("registrar.nk")),
        ca: Some(keys.join("ca.pem")),
        tls: true,
        ..BusSettings::at(system.server())
    };
    Bus::connect(&settings.signed_in_as(Role::Registrar), "test").await.unwrap()
}

#[tokio::test]
async fn a_system_of_an_earlier_version_goes_on_with_what_it_lacked() {
    let options = ["--secure", "--audit-max-bytes", "33554432"];
    let (system, environment, keys) = secure(&options).await;
    let keys = Path::new(&keys);
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "me".to_owned());
    done(&environment, &format!("put home/{user}/editor theme dark"));
    // Before auth services told of orders, there was no key for that, and the audit knew of no duplicates.
    let bus = registrar(&system, keys).await;
    let mut config = ask(&bus, "STREAM.INFO.ROAM_AUDIT", &json!({})).await["config"].take();
    assert_eq!(config["max_bytes"], json!(33_554_432), "as much as was said is set aside");
    let right = std::mem::replace(&mut config["duplicate_window"], json!(100_000_000));
    ask(&bus, "STREAM.UPDATE.ROAM_AUDIT", &config).await;
    bus.close().await;
    let place = system.stop();
    std::fs::remove_file(keys.join("auditor.nk")).unwrap();

    let system = System::start_in_with(place, &options).await;
    let environment: BTreeMap<String, String> = serde_json::from_value(system.told["environment"].clone()).unwrap();
    assert_eq!(done(&environment, &format!("get home/{user}/editor theme")), "dark", "the first token is still good");
    let bus = registrar(&system, keys).await;
    assert_eq!(ask(&bus, "STREAM.INFO.ROAM_AUDIT", &json!({})).await["config"]["duplicate_window"], right);
    bus.close().await;
    assert!(keys.join("auditor.nk").exists());
    drop(system);
}

#[test]
fn keys_says_what_it_added_to_those_of_an_earlier_version() {
    let place = tempfile::tempdir().unwrap();
    let none = BTreeMap::new();
    let line = format!("keys {}/keys --host localhost", place.path().display());
    let (code, _, stderr) = roam(&none, &line);
    assert!(code == 0 && !stderr.contains("added"), "{stderr}");
    std::fs::remove_file(place.path().join("keys/auditor.nk")).unwrap();
    let (code, _, stderr) = roam(&none, &line);
    assert!(code == 0 && stderr.contains("added to the keys that were there: auditor.nk"), "{stderr}");
    let again: Value = serde_json::from_str(&done(&none, &format!("{line} --json"))).unwrap();
    assert_eq!(again["added"], json!([]));
}
