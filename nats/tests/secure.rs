//! Servers that let nobody in without a key and a certificate, in a cluster whose routes are encrypted.

use std::{path::Path, time::Duration};

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use roam_nats::{
    Bus, BusSettings, Cluster, Deployment, Overrides, PermissionTables, Role, Security, ServerTls, provision,
    provision_auth, security_conf,
};

const MIB: u64 = 1024 * 1024;

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
    let conf = security_conf(&PermissionTables::read().unwrap(), &security);
    let cluster = Cluster::start_with(dir, Some(&conf)).await.unwrap_or_else(|error| panic!("{error}"));

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
    // Three replicas of each stream: the servers found each other.
    assert_eq!(provision(&operator, &deployment).await.unwrap().created.len(), 6);
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
}
