//! The part of a server's configuration that says who gets in: accounts, the permissions of services, where to ask about
//! everybody else, and TLS. It is text that follows `nats/conf/single.conf` or `cluster.conf`. Pure: makes no keys and
//! writes no files.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use crate::mappings_conf;
use crate::permissions::{Account, PermissionTables, Permissions, Role};

/// How long a server waits until it knows who somebody is, in seconds: for TLS, and then for the auth service. A thousand
/// devices that come back at once must all get their turn.
const DECIDE_SECONDS: u32 = 10;
/// The longest line of the protocol, in bytes, which the CONNECT with its token is one of.
const CONTROL_LINE: u32 = 16 * 1024;

/// Who gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// The public nkeys of each role, one or, while they are being rotated, more.
    pub roles: BTreeMap<Role, Vec<String>>,
    /// The public account nkey that the auth service signs its answers with.
    pub issuer: String,
    /// How connections are encrypted; none for tests of permissions alone.
    pub tls: Option<ServerTls>,
}

/// How connections to a server are encrypted: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate authority that clients' certificates must be of.
    pub ca: PathBuf,
    /// Whether clients have to show a certificate (mutual TLS).
    pub verify: bool,
}

/// A part of a server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityConf {
    /// The text.
    pub text: String,
    /// Whether it has clients use TLS.
    pub tls: bool,
    /// What stands within `cluster { }`, so that the routes between servers are encrypted and both sides show a
    /// certificate; empty without TLS.
    pub routes: String,
}

/// Writes the configuration.
pub fn security_conf(tables: &PermissionTables, security: &Security) -> SecurityConf {
    let mut conf = String::from("\n# Who gets in. Written by Roam from nats/permissions.toml.\n");
    conf.push_str("accounts {\n");
    for account in [Account::Roam, Account::Auth, Account::Sys] {
        add_account(&mut conf, account, tables, security);
    }
    conf.push_str("}\nsystem_account: SYS\n");
    let every: Vec<_> = security.roles.values().flatten().map(String::as_str).collect();
    // Writing to a String does not fail.
    let _ = write!(
        conf,
        "\nmax_control_line: {CONTROL_LINE}\nauthorization {{\n    timeout: {DECIDE_SECONDS}\n    auth_callout {{\n        \
         issuer: {}\n        account: AUTH\n        auth_users: [{}]\n    }}\n}}\n",
        security.issuer,
        every.join(", "),
    );
    if let Some(tls) = &security.tls {
        add_tls(&mut conf, tls);
    }
    let mut routes = String::new();
    if let Some(tls) = &security.tls {
        add_tls(&mut routes, &ServerTls { verify: true, ..tls.clone() });
    }
    SecurityConf { text: conf, tls: security.tls.is_some(), routes }
}

fn add_account(conf: &mut String, account: Account, tables: &PermissionTables, security: &Security) {
    let _ = writeln!(conf, "    {account} {{");
    if account != Account::Sys {
        conf.push_str("        jetstream: enabled\n");
    }
    if account == Account::Roam {
        conf.push_str(&mappings_conf(tables.shards()));
    }
    conf.push_str("        users: [\n");
    for (role, keys) in security.roles.iter().filter(|(role, _)| tables.account(**role) == account) {
        for key in keys {
            let _ = writeln!(conf, "            # {}", role.as_str());
            let _ = writeln!(conf, "            {{ nkey: {key}, permissions: {} }}", written(&tables.of_role(*role)));
        }
    }
    conf.push_str("        ]\n    }\n");
}

fn written(permissions: &Permissions) -> String {
    let list = |subjects: &[String]| {
        let quoted: Vec<_> = subjects.iter().map(|subject| quoted(subject)).collect();
        match quoted.is_empty() {
            // An empty list of what is allowed would allow everything.
            true => "{ deny: \">\" }".to_owned(),
            false => format!("{{ allow: [{}] }}", quoted.join(", ")),
        }
    };
    let answers = if permissions.answers { "allow_responses: { max: 1, expires: \"1m\" }, " } else { "" };
    let publish = list(&permissions.publish);
    format!("{{ {answers}publish: {publish}, subscribe: {} }}", list(&permissions.subscribe))
}

fn add_tls(conf: &mut String, tls: &ServerTls) {
    let ServerTls { certificate, key, ca, verify } = tls;
    let path = |path: &PathBuf| quoted(&path.to_string_lossy());
    let _ = write!(
        conf,
        "\ntls {{\n    cert_file: {}\n    key_file: {}\n    ca_file: {}\n    verify: {verify}\n    timeout: \
         {DECIDE_SECONDS}\n    min_version: \"1.3\"\n}}\n",
        path(certificate),
        path(key),
        path(ca),
    );
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::Shards;

    use super::*;

    fn conf(tls: Option<ServerTls>) -> String {
        let roles = Role::ALL.map(|role| (role, vec![format!("U{}", role.as_str())])).into();
        let security = Security { roles, issuer: "AISSUER".to_owned(), tls };
        security_conf(&PermissionTables::read(Shards::ONE).unwrap(), &security).text
    }

    #[test]
    fn every_role_is_a_user_of_its_account_and_does_not_depend_on_the_callout() {
        let conf = conf(None);
        for role in Role::ALL {
            let key = format!("U{}", role.as_str());
            assert_eq!(conf.matches(&format!("nkey: {key},")).count(), 1, "{key}");
            let bypass = conf.lines().find(|line| line.contains("auth_users")).unwrap();
            assert!(bypass.contains(&key), "{key}");
        }
        assert!(!conf.contains("tls {"));
    }

    #[test]
    fn nobody_answers_wherever_a_message_says_but_the_auth_service() {
        let conf = conf(None);
        let answering: Vec<_> = conf.lines().filter(|line| line.contains("allow_responses")).collect();
        assert!(matches!(answering[..], [line] if line.contains("nkey: Uauth,")), "{answering:?}");
    }

    #[test]
    fn paths_are_quoted() {
        let tls = ServerTls { certificate: "/a \"b\"".into(), key: "k".into(), ca: "c".into(), verify: true };
        let conf = conf(Some(tls));
        assert!(conf.contains(r#"cert_file: "/a \"b\"""#), "{conf}");
        assert!(conf.contains("verify: true"));
    }
}
