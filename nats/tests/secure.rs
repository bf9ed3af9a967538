//! Servers that let nobody in without a key and a certificate, in a cluster whose routes are encrypted.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use roam_nats::{
    Bus, BusSettings, Cluster, Deployment, NatsServer, Overrides, PermissionTables, Role, Security, ServerTls,
    provision, provision_auth, security_conf,
};
use roam_schemas::Shards;

use crate::support::eventually;

const MIB: u64 = 1024 * 1024;
/// What a server logs of each that joins its cluster.
const ROUTE: &str = "Route connection created";

/// Writes `ca.pem`, `server.pem` and `server.key`, which also serves as a client's.
fn certificates(dir: &Path) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    for (name, text) in [("ca.pem", ca_pem), ("server.pem", pem), ("server.key", key.serialize_pem())] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_mutual_tls_for_clients_and_routes_is_provisioned_by_those_who_may() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    certificates(dir);
    let mut roles = std::collections::BTreeMap::new();
    for role in Role::ALL {
        let pair = KeyPair::new_user();
        std::fs::write(dir.join(role.as_str()), pair.seed().unwrap()).unwrap();
        roles.insert(role, vec![pair.public_key()]);
    }
    let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(|name| dir.join(name));
    let tls = ServerTls { certificate: certificate.clone(), key: key.clone(), ca: ca.clone(), verify: true };
    let security = Security { roles, issuer: KeyPair::new_account().public_key(), tls: Some(tls) };
    let conf = security_conf(&PermissionTables::read(Shards::ONE).unwrap(), &security);
    let mut cluster = Cluster::start_with(dir, Some(&conf)).await.unwrap_or_else(|error| panic!("{error}"));

    let bus = |role: Role| BusSettings {
        servers: cluster.client_urls(),
        nkey_seed: Some(dir.join(role.as_str())),
        tls: true,
        ca: Some(ca.clone()),
        certificate: Some(certificate.clone()),
        key: Some(key.clone()),
        ..BusSettings::default()
    };
    assert!(cluster.client_urls().iter().all(|url| url.starts_with("tls://")));
    let overrides = Overrides {
        changes_max_bytes: Some(32 * MIB),
        journal_max_bytes: Some(32 * MIB),
        rejected_max_bytes: Some(32 * MIB),
        chunks_max_bytes: Some(32 * MIB),
        backups_max_bytes: Some(0),
        audit_max_bytes: Some(32 * MIB),
        tokens_max_bytes: Some(32 * MIB),
        ..Overrides::default()
    };
    let deployment = Deployment { overrides, ..Deployment::new(3, 2) };
    let operator = Bus::connect(&bus(Role::Operator).signed_in_as(Role::Operator), "operator").await.unwrap();
    assert!(operator.asks_who_comes());
    // Three replicas of each stream: the servers found each other.
    assert_eq!(provision(&operator, &deployment).await.unwrap().created.len(), 7);
    let registrar = Bus::connect(&bus(Role::Registrar).signed_in_as(Role::Registrar), "registrar").await.unwrap();
    assert_eq!(provision_auth(&registrar, &deployment).await.unwrap().created.len(), 2);

    let without = BusSettings { certificate: None, key: None, ..bus(Role::Operator) };
    assert!(Bus::connect(&without, "no certificate").await.is_err());
    std::fs::write(dir.join("stranger"), KeyPair::new_user().seed().unwrap()).unwrap();
    let stranger = BusSettings { nkey_seed: Some(dir.join("stranger")), ..bus(Role::Operator) };
    // There is no auth service that could know it. The client library may take it for connected until the server has
    // waited for one.
    if let Ok(stranger) = Bus::connect(&stranger, "stranger").await {
        assert!(stranger.round_trip(Duration::from_secs(15)).await.is_err());
    }

    // A server joins with a certificate of the same authority, and without one it does not.
    let log = cluster.servers()[0].log_path();
    let listening = fs::read_to_string(&log).unwrap();
    let route = listening.split("Listening for route connections on ").nth(1).unwrap().lines().next().unwrap();
    let routes = said(&log, ROUTE);
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let refused = Joining::start(other.path(), &ca, route);
    says(&log, "TLS route handshake error", 0).await;
    drop(refused);
    assert_eq!(said(&log, ROUTE), routes);
    let _joining = Joining::start(dir, &ca, route);
    says(&log, ROUTE, routes).await;
}

/// A server that would join a cluster. It dies with this.
struct Joining(Child);

impl Joining {
    /// With the certificate in a directory; it trusts those of the cluster in any case.
    fn start(certificates: &Path, ca: &Path, route: &str) -> Self {
        let place = certificates.join("joining");
        fs::create_dir(&place).unwrap();
        let (log, conf) = (place.join("log"), place.join("conf"));
        let [certificate, key] = ["server.pem", "server.key"].map(|name| certificates.join(name).display().to_string());
        let tls = format!("cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}", ca.display().to_string());
        let cluster = format!("name: roam, listen: \"127.0.0.1:-1\", routes: [\"nats://{route}\"], tls: {{ {tls} }}");
        let text = format!("server_name: joining\nlisten: \"127.0.0.1:-1\"\ncluster: {{ {cluster} }}\n");
        fs::write(&conf, text).unwrap();
        let mut command = Command::new(NatsServer::find().unwrap().path());
        let child = command.arg("-c").arg(conf).arg("-l").arg(&log).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap())
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often a log says something.
fn said(log: &Path, text: &str) -> usize {
    fs::read_to_string(log).unwrap().matches(text).count()
}

/// Waits until a log says something more often than that.
async fn says(log: &Path, text: &str, times: usize) {
    eventually(text, async || said(log, text) > times).await;
}

/// What `compose.secure.yaml` starts: the server takes it with what `roam keys` makes, and routes are those of the open cluster.
#[test]
fn a_secured_cluster_is_configured_as_the_open_one_with_keys() {
    let conf = "conf";
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let keys = dir.join("keys");
    std::fs::create_dir(&keys).unwrap();
    certificates(&keys);
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| keys.join(name));
    let roles = Role::ALL.map(|role| (role, vec![KeyPair::new_user().public_key()])).into();
    let tls = Some(ServerTls { certificate, key, ca, verify: false });
    let security = Security { roles, issuer: KeyPair::new_account().public_key(), tls };
    let made = security_conf(&PermissionTables::read(Shards::ONE).unwrap(), &security);
    let [open, secured] = ["cluster.conf", "cluster.secure.conf"].map(|name| {
        std::fs::copy(format!("{conf}/{name}"), dir.join(name)).unwrap();
        std::fs::read_to_string(dir.join(name)).unwrap()
    });
    std::fs::write(keys.join("security.conf"), &made.text).unwrap();
    let taken = || {
        let mut check = Command::new(NatsServer::find().unwrap().path());
        check.args(["-t", "-c"]).arg(dir.join("cluster.secure.conf"));
        check.env("ROAM_NATS_NAME", "nats-1").env("ROAM_NATS_STORE", dir.join("data")).output().unwrap()
    };
    assert!(!taken().status.success(), "without what is for routes it does not start");
    std::fs::write(keys.join("routes.conf"), &made.routes).unwrap();
    let output = taken();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let block = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != "cluster {").map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let own = ["no_advertise: true", "include keys/routes.conf"];
    let same: Vec<_> = block(&secured).into_iter().filter(|line| !own.contains(&line.as_str())).collect();
    assert_eq!(same, block(&open));
    assert_eq!(block(&secured).len(), same.len() + own.len());
}
