//! Who may publish and subscribe to what, read from `nats/permissions.toml`, the one place where that stands. Pure: nothing
//! here talks to a server.

use std::{collections::BTreeMap, fmt};

use roam_schemas::{Access, App, Apps, Bearer, Grant, Shards, subjects};
use serde::Deserialize;

use crate::{
    CHANGES_STREAM, CHUNKS_STREAM, JOURNAL_STREAM,
    provision::{DefinitionError, moved},
    streams::in_shard,
};

const TABLES: &str = include_str!("../permissions.toml");

/// Who uses the bus with an nkey of the server's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Access servers.
    AccessServer,
    /// Storage replicas, but for their responders.
    Storage,
    /// The responders of storage replicas.
    Responder,
    /// People who provision, repair and look.
    Operator,
    /// The auth service, where it is asked who may come in, and where tokens and audit are.
    Auth,
    /// The auth service, where it ends connections.
    AuthSystem,
    /// The auth service, where it reads what operators order.
    Auditor,
    /// People who make and revoke tokens.
    Registrar,
}

/// The accounts of a deployment, as the server's configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Account {
    /// Where all of Roam is.
    Roam,
    /// Where the servers ask who may come in, and where tokens and audit are.
    Auth,
    /// The system account of the servers.
    Sys,
}

/// What somebody may do. Whatever is not here is denied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Subjects that may be published to; wildcards stand for any token.
    pub publish: Vec<String>,
    /// Subjects that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Whether one answer may be sent to wherever a message that came asks for it.
    pub answers: bool,
}

/// What a connection of a client may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientLimits {
    /// Most subscriptions.
    pub subscriptions: i64,
    /// Largest message, headers included, in bytes. A larger one ends the connection.
    pub payload: i64,
}

/// The permissions of everybody in a deployment of so many shards: as NATS maps subjects before it looks whether somebody may
/// publish on them, permissions name the shard.
#[derive(Debug, Clone)]
pub struct PermissionTables {
    file: File,
    shards: Shards,
}

#[derive(Debug, Clone, Deserialize)]
struct File {
    limits: ClientLimits,
    #[serde(flatten)]
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    account: Option<Account>,
    #[serde(default)]
    answers: bool,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::AccessServer,
        Self::Storage,
        Self::Responder,
        Self::Operator,
        Self::Auth,
        Self::AuthSystem,
        Self::Auditor,
        Self::Registrar,
    ];

    /// The role as it is called in tables and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessServer => "access-server",
            Self::Storage => "storage",
            Self::Responder => "responder",
            Self::Operator => "operator",
            Self::Auth => "auth",
            Self::AuthSystem => "auth-system",
            Self::Auditor => "auditor",
            Self::Registrar => "registrar",
        }
    }

    /// What its reply subjects begin with.
    pub fn inbox_prefix(self) -> String {
        format!("_ROAM.{}", self.as_str())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roam => "ROAM",
            Self::Auth => "AUTH",
            Self::Sys => "SYS",
        })
    }
}

impl PermissionTables {
    /// Reads the tables, for a deployment of so many shards.
    ///
    /// # Errors
    /// None that a released program can meet: the file is part of it, and tested.
    pub fn read(shards: Shards) -> Result<Self, DefinitionError> {
        let file: File = toml::from_str(TABLES)?;
        for name in Role::ALL.map(Role::as_str).into_iter().chain(["device", "service-read", "service-write"]) {
            if !file.tables.contains_key(name) {
                return Err(DefinitionError::Nameless { setting: name });
            }
        }
        Ok(Self { file, shards })
    }

    /// How many shards the deployment has.
    pub fn shards(&self) -> Shards {
        self.shards
    }

    /// The account of a role.
    pub fn account(&self, role: Role) -> Account {
        self.table(role.as_str()).account.unwrap_or(Account::Roam)
    }

    /// What a role may do.
    pub fn of_role(&self, role: Role) -> Permissions {
        let Table { publish, subscribe, answers, .. } = self.table(role.as_str());
        let of_shards = |lines: Vec<String>| lines.iter().flat_map(|line| self.of_shards(line)).collect();
        Permissions { publish: of_shards(publish), subscribe: of_shards(subscribe), answers }
    }

    /// What the bearer of a token may do: a device in the shard of its user, a service in all.
    pub fn of_grant(&self, grant: &Grant) -> Permissions {
        let table = self.table(match &grant.bearer {
            Bearer::Device { .. } => "device",
            Bearer::Service { access: Access::Read, .. } => "service-read",
            Bearer::Service { access: Access::Write, .. } => "service-write",
        });
        let mapped = |subject: String| match &grant.bearer {
            Bearer::Device { user, .. } => subjects::in_shard(self.shards.of(&grant.tenant, user), &subject),
            Bearer::Service { .. } => self.in_any_shard(&subject),
        };
        let fill = |template: &String| fill(template, grant).into_iter().map(mapped);
        let filled = |templates: &[String]| templates.iter().flat_map(fill).collect();
        Permissions { publish: filled(&table.publish), subscribe: filled(&table.subscribe), answers: false }
    }

    /// What a connection of a client may take up.
    pub fn limits(&self) -> ClientLimits {
        self.file.limits
    }

    /// A line of a role, as it stands for all shards: once where a subject says the shard, and once for each where the name of
    /// a stream does, which no wildcard can stand for.
    fn of_shards(&self, line: &str) -> Vec<String> {
        let of_shard = |token: &str| [CHANGES_STREAM, JOURNAL_STREAM, CHUNKS_STREAM].contains(&token);
        let is_of_each = line.split('.').any(of_shard) || line.starts_with(&subjects::journal(Default::default()));
        if self.shards.is_one() || !is_of_each {
            return vec![self.in_any_shard(line)];
        }
        let in_shard = |shard| {
            let named = |token: &str| if of_shard(token) { in_shard(token, shard) } else { token.to_owned() };
            moved(shard, &line.split('.').map(named).collect::<Vec<_>>().join("."))
        };
        self.shards.each().map(in_shard).collect()
    }

    fn in_any_shard(&self, subject: &str) -> String {
        if self.shards.is_one() { subject.to_owned() } else { subjects::under_shard("*", subject) }
    }

    fn table(&self, name: &str) -> Table {
        self.file.tables.get(name).cloned().unwrap_or_default()
    }
}

/// The subjects that a template stands for.
fn fill(template: &str, grant: &Grant) -> Vec<String> {
    let (names, inbox) = match &grant.bearer {
        Bearer::Device { user, device } => (
            vec![("{user}", user.token()), ("{device}", device.token())],
            subjects::device_inbox(&grant.tenant, user, device),
        ),
        Bearer::Service { name, .. } => {
            (vec![("{service}", name.token())], subjects::service_inbox(&grant.tenant, name))
        }
    };
    let mut subject = template.replace("{tenant}", &grant.tenant.token());
    for (placeholder, token) in names {
        subject = subject.replace(placeholder, &token);
    }
    let for_app =
        |app: &App| subject.replace("{app}", &app.token()).replace("{inbox}", &subjects::inbox_for_app(&inbox, app));
    match &grant.apps {
        Apps::All => vec![subject.replace("{app}", "*").replace("{inbox}", &inbox)],
        Apps::Only(apps) => apps.iter().map(for_app).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Device, ServiceName, Tenant, User};

    use super::*;

    fn device(user: &str, device: &str, apps: Apps) -> Permissions {
        let (tenant, user) = (Tenant::parse("acme").unwrap(), User::parse(user).unwrap());
        let grant = Grant::device(tenant, user, Device::parse(device).unwrap(), apps).unwrap();
        PermissionTables::read(Shards::ONE).unwrap().of_grant(&grant)
    }

    #[test]
    fn a_device_gets_the_smallest_permissions() {
        let permissions = device("alice", "laptop", Apps::All);
        assert_eq!(
            permissions.publish,
            [
                "roam.v1.change.acme.alice.*.laptop",
                "roam.v1.upload.acme.alice",
                "roam.v1.have.acme.alice.*",
                "roam.v1.chunk.acme.alice.*",
                "roam.v1.latest.acme.alice.*",
                "roam.v1.changes.acme.alice.*",
                "roam.v1.history.acme.alice.*"
            ]
        );
        assert_eq!(
            permissions.subscribe,
            ["roam.v1.notice.acme.alice.*", "roam.v1.receipt.acme.alice.*.laptop", "_INBOX.acme.alice.laptop.>"]
        );
    }

    #[test]
    fn a_token_for_some_apps_names_each_in_place_of_the_wildcard() {
        let apps = Apps::Only(["mail", "a.b"].map(|app| App::parse(app).unwrap()).into());
        let permissions = device("alice", "laptop", apps);
        assert_eq!(
            permissions.publish[..2],
            ["roam.v1.change.acme.alice.mail.laptop", "roam.v1.change.acme.alice.a%2Eb.laptop"]
        );
        assert_eq!(permissions.subscribe[4..], ["_INBOX.acme.alice.laptop.mail.>", "_INBOX.acme.alice.laptop.a%2Eb.>"]);
    }

    #[test]
    fn no_name_is_ever_a_wildcard_or_more_than_one_token() {
        for hostile in ["*", ">", "a.b", "a.>", "$svc", "{app}", "{inbox}", "{tenant}", "_INBOX.>", "%2A"] {
            let plain = device("alice", "laptop", Apps::All);
            let permissions = device(hostile, hostile, Apps::All);
            let shapes = plain.publish.iter().chain(&plain.subscribe);
            for (shape, subject) in shapes.zip(permissions.publish.iter().chain(&permissions.subscribe)) {
                let (shape, tokens): (Vec<_>, Vec<_>) = (shape.split('.').collect(), subject.split('.').collect());
                assert_eq!(shape.len(), tokens.len(), "{subject}");
                for (shape, token) in shape.into_iter().zip(tokens) {
                    let expected = match shape {
                        "alice" | "laptop" => User::parse(hostile).unwrap().token(),
                        other => other.to_owned(),
                    };
                    assert_eq!(token, expected, "{subject}");
                }
            }
        }
    }

    #[test]
    fn a_service_writes_only_if_it_may() {
        let tables = PermissionTables::read(Shards::ONE).unwrap();
        let of = |access| {
            let (tenant, name) = (Tenant::parse("acme").unwrap(), ServiceName::parse("mailer").unwrap());
            tables.of_grant(&Grant::service(tenant, name, access, Apps::All).unwrap())
        };
        let changes = |permissions: Permissions| -> Vec<String> {
            permissions.publish.into_iter().filter(|subject| subject.contains(".change.")).collect()
        };
        assert_eq!(changes(of(Access::Read)), Vec::<String>::new());
        assert_eq!(changes(of(Access::Write)), ["roam.v1.change.acme.*.*.$svc-mailer"]);
        assert!(of(Access::Read).subscribe.contains(&"_INBOX.acme.$svc.mailer.>".to_owned()));
    }

    #[test]
    fn permissions_name_the_shard() {
        let shards = Shards::new(4).unwrap();
        let tables = PermissionTables::read(shards).unwrap();
        let (tenant, user) = (Tenant::parse("acme").unwrap(), User::parse("alice").unwrap());
        assert_eq!(shards.of(&tenant, &user).number(), 1);
        let laptop = Device::parse("laptop").unwrap();
        let permissions = tables.of_grant(&Grant::device(tenant.clone(), user, laptop, Apps::All).unwrap());
        assert_eq!(permissions.publish[0], "roam.v1.s.1.change.acme.alice.*.laptop");
        assert!(permissions.publish.iter().all(|subject| subject.starts_with("roam.v1.s.1.")), "{permissions:?}");
        assert_eq!(permissions.subscribe, device("alice", "laptop", Apps::All).subscribe);
        let mailer = ServiceName::parse("mailer").unwrap();
        let permissions = tables.of_grant(&Grant::service(tenant, mailer, Access::Write, Apps::All).unwrap());
        assert_eq!(permissions.publish[0], "roam.v1.s.*.change.acme.*.*.$svc-mailer");
        let storage = tables.of_role(Role::Storage);
        for subject in [
            "$JS.API.STREAM.INFO.ROAM_JOURNAL_3",
            "$JS.ACK.*.*.ROAM_JOURNAL_0.announce.>",
            "$JS.API.STREAM.MSG.DELETE.ROAM_CHUNKS_2",
            "roam.v1.journal.3.control",
            "roam.v1.s.*.change.*.*.*.$expiry",
            "roam.v1.s.*.kept.*.*",
            "roam.v1.receipt.*.*.*.*",
            "$O.ROAM_BACKUPS.>",
        ] {
            assert_eq!(storage.publish.iter().filter(|line| *line == subject).count(), 1, "{subject}");
        }
        let access = tables.of_role(Role::AccessServer);
        assert!(access.publish.contains(&"roam.v1.journal.2".to_owned()));
        let auditor = tables.of_role(Role::Auditor);
        let order = "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL_1.*.roam.v1.journal.*.control";
        assert!(auditor.publish.contains(&order.to_owned()));
        let responder = tables.of_role(Role::Responder);
        assert!(responder.subscribe.contains(&"roam.v1.s.*.latest.*.*.*".to_owned()));
        for role in Role::ALL {
            let permissions = tables.of_role(role);
            for line in permissions.publish.iter().chain(&permissions.subscribe) {
                let unsplit = |token: &str| [CHANGES_STREAM, JOURNAL_STREAM, CHUNKS_STREAM].contains(&token);
                assert!(!line.split('.').any(unsplit), "{line}");
                assert!(
                    !subjects::MAPPED.iter().any(|mapped| line.starts_with(mapped.split('*').next().unwrap())),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn clients_have_no_right_outside_of_roam_and_their_inbox() {
        let tables = PermissionTables::read(Shards::ONE).unwrap();
        for name in ["device", "service-read", "service-write"] {
            let table = tables.table(name);
            for subject in table.publish.iter().chain(&table.subscribe) {
                assert!(subject.starts_with("roam.v1.") || subject == "{inbox}.>", "{name}: {subject}");
                assert!(subject.starts_with("{inbox}") || subject.contains(".{tenant}."), "{name}: {subject}");
            }
            assert!(!table.publish.iter().any(|subject| subject.contains("inbox")), "{name} answers nobody");
        }
    }

    #[test]
    fn services_are_in_the_accounts_that_they_are_for() {
        let tables = PermissionTables::read(Shards::ONE).unwrap();
        assert_eq!(tables.account(Role::AccessServer), Account::Roam);
        assert_eq!(tables.account(Role::Auth), Account::Auth);
        assert_eq!(tables.account(Role::Registrar), Account::Auth);
        assert_eq!(tables.account(Role::AuthSystem), Account::Sys);
        for role in Role::ALL {
            let permissions = tables.of_role(role);
            assert!(permissions.subscribe.contains(&format!("{}.>", role.inbox_prefix())), "{role:?}");
            assert_eq!(permissions.answers, role == Role::Auth, "{role:?}");
            assert!(!permissions.publish.iter().any(|subject| subject == ">"), "{role:?}");
        }
    }
}
