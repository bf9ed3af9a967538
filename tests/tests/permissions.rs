//! Who may do what, asked of a real server: every role, every verb, every target. What is expected is written here by
//! meaning, and not read from the tables that the permissions are made of.

use std::time::Duration;

use roam_nats::Role;
use roam_schemas::Grant;
use roam_tests::{Probe, World};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Publish,
    Subscribe,
}
use Action::{Publish, Subscribe};

const ACTIONS: [Action; 2] = [Publish, Subscribe];

/// Whose a name on a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
    /// The wildcard, or that very sign.
    Any,
}
use Whose::{Any, Other, Own};

const EVERY: [Whose; 3] = [Own, Other, Any];

/// A subject about a profile, by whose names it holds.
#[derive(Debug, Clone, Copy)]
struct About {
    verb: &'static str,
    tenant: Whose,
    user: Whose,
    app: Whose,
    /// None where a verb has no device.
    device: Option<Whose>,
}

/// Somebody who signs in with a token.
struct Client {
    name: &'static str,
    grant: Value,
    /// Own tenant, user, app and device as tokens of a subject.
    own: [&'static str; 4],
    inbox: &'static str,
    may: fn(Action, &About) -> bool,
}

/// Whether it is what whoever may read does with a profile: ask, and hear notices.
fn asks(action: Action, about: &About) -> bool {
    matches!(
        (action, about.verb),
        (Publish, "latest" | "changes" | "history" | "have" | "chunk") | (Subscribe, "notice")
    )
}

/// Whether it is what a device does under its own name: publish changes, and hear receipts.
fn of_own_device(action: Action, about: &About) -> bool {
    matches!((action, about.verb), (Publish, "change") | (Subscribe, "receipt")) && about.device == Some(Own)
}

/// Whether it is what a service does that reads for all users of its tenant.
fn reads_for_all(action: Action, about: &About) -> bool {
    about.tenant == Own && (asks(action, about) || (action == Subscribe && of_own_device(action, about)))
}

/// The same of one that writes.
fn writes_for_all(action: Action, about: &About) -> bool {
    about.tenant == Own && (asks(action, about) || of_own_device(action, about))
}

fn clients() -> [Client; 8] {
    let device = |action, about: &About| {
        [about.tenant, about.user] == [Own; 2] && (asks(action, about) || of_own_device(action, about))
    };
    let device_for_one_app = |action, about: &About| {
        [about.tenant, about.user, about.app] == [Own; 3] && (asks(action, about) || of_own_device(action, about))
    };
    [
        Client {
            name: "a device",
            grant: json!({"tenant": "acme", "user": "alice", "device": "laptop"}),
            own: ["acme", "alice", "editor", "laptop"],
            inbox: "_INBOX.acme.alice.laptop",
            may: device,
        },
        Client {
            name: "a device for one app",
            grant: json!({"tenant": "acme", "user": "alice", "device": "laptop", "apps": ["editor"]}),
            own: ["acme", "alice", "editor", "laptop"],
            inbox: "_INBOX.acme.alice.laptop.editor",
            may: device_for_one_app,
        },
        Client {
            name: "a device of a user called *",
            grant: json!({"tenant": "*", "user": "*", "device": ">", "apps": ["a.b"]}),
            own: ["%2A", "%2A", "a%2Eb", "%3E"],
            inbox: "_INBOX.%2A.%2A.%3E.a%2Eb",
            may: device_for_one_app,
        },
        Client {
            name: "a device that is called like a system writer",
            grant: json!({"tenant": "acme", "user": "alice", "device": "$expiry"}),
            own: ["acme", "alice", "editor", "%24expiry"],
            inbox: "_INBOX.acme.alice.%24expiry",
            may: device,
        },
        Client {
            name: "a service that reads",
            grant: json!({"tenant": "acme", "service": "mailer", "access": "read"}),
            own: ["acme", "alice", "editor", "$svc-mailer"],
            inbox: "_INBOX.acme.$svc.mailer",
            may: reads_for_all,
        },
        Client {
            name: "a service that writes",
            grant: json!({"tenant": "acme", "service": "mailer", "access": "write"}),
            own: ["acme", "alice", "editor", "$svc-mailer"],
            inbox: "_INBOX.acme.$svc.mailer",
            may: writes_for_all,
        },
        Client {
            name: "a service that reads for one app",
            grant: json!({"tenant": "acme", "service": "mailer", "access": "read", "apps": ["editor"]}),
            own: ["acme", "alice", "editor", "$svc-mailer"],
            inbox: "_INBOX.acme.$svc.mailer.editor",
            may: |action, about| about.app == Own && reads_for_all(action, about),
        },
        Client {
            name: "a service that writes for one app",
            grant: json!({"tenant": "acme", "service": "mailer", "access": "write", "apps": ["editor"]}),
            own: ["acme", "alice", "editor", "$svc-mailer"],
            inbox: "_INBOX.acme.$svc.mailer.editor",
            may: |action, about| about.app == Own && writes_for_all(action, about),
        },
    ]
}

fn every_about() -> Vec<About> {
    let mut every = Vec::new();
    for verb in ["change", "receipt", "latest", "changes", "history", "have", "chunk", "notice"] {
        let devices: &[Option<Whose>] = match verb {
            "change" | "receipt" => &[Some(Own), Some(Other), Some(Any)],
            _ => &[None],
        };
        for tenant in EVERY {
            for user in EVERY {
                for app in EVERY {
                    every.extend(devices.iter().map(|device| About { verb, tenant, user, app, device: *device }));
                }
            }
        }
    }
    every
}

impl About {
    fn subject(&self, own: &[&str; 4]) -> String {
        let token = |whose, index: usize| match whose {
            Own => own[index],
            Other => ["globex", "bob", "mail", "phone"][index],
            Any => "*",
        };
        let mut subject = format!("roam.v1.{}", self.verb);
        let names = [Some(self.tenant), Some(self.user), Some(self.app), self.device];
        for (index, whose) in names.into_iter().enumerate() {
            if let Some(whose) = whose {
                subject.push('.');
                subject.push_str(token(whose, index));
            }
        }
        subject
    }
}

/// What is no client's, whoever that is.
const INTERNAL: [&str; 39] = [
    ">",
    "*",
    "roam.>",
    "roam.v1.>",
    "roam.v1.*.acme.alice.editor",
    "roam.v1.change.>",
    "roam.v1.change.acme.alice.>",
    "roam.v1.change.acme.alice.editor.$expiry",
    "roam.v1.change.acme.alice.editor.$svc-other",
    "roam.v1.change.acme.$bulk-0.editor.$svc-other",
    "roam.v1.change.globex.$bulk-0.editor.$svc-mailer",
    "roam.v1.notice.acme.>",
    "roam.v1.receipt.acme.alice.>",
    "roam.v1.journal.0",
    "roam.v1.journal.0.control",
    "roam.v1.terms",
    "roam.v1.rejected.acme.alice",
    "roam.v1.token.acme.0190",
    "roam.v1.audit.acme.signed_in",
    "roam.v1.anything.acme.alice.editor",
    "_INBOX.>",
    "_INBOX.acme.>",
    "_INBOX.acme.bob.laptop.1",
    "_INBOX.acme.$svc.other.1",
    "_ROAM.>",
    "_ROAM.storage.1",
    "_ROAM.auth.1",
    "$JS.API.>",
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.ROAM_CHANGES",
    "$JS.API.STREAM.PURGE.ROAM_CHANGES",
    "$JS.API.CONSUMER.MSG.NEXT.ROAM_CHANGES.access",
    "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL.mine",
    "$JS.ACK.ROAM_CHANGES.access.1.1.1.1.1",
    "$SYS.>",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.USER.AUTH",
    "$SRV.PING",
];

async fn ask(probe: &mut Probe, action: Action, subject: &str) -> bool {
    match action {
        Publish => probe.may_publish(subject).await,
        Subscribe => probe.may_subscribe(subject).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_do_what_its_token_says_and_nothing_else() {
    let world = World::new().access_servers(0).replicas(0).secure(1).start().await;
    let url = world.nats.client_url();
    let (mut asked, mut allowed) = (0, 0);
    for Client { name, grant, own, inbox, may } in clients() {
        let grant: Grant = serde_json::from_value(grant).unwrap();
        let (_, token) = world.token(grant, HOUR);
        let mut probe = Probe::with_token(&url, token.expose()).await.unwrap();
        for action in ACTIONS {
            for about in every_about() {
                let subject = about.subject(&own);
                let expected = may(action, &about);
                assert_eq!(ask(&mut probe, action, &subject).await, expected, "{name}: {action:?} {subject}");
                asked += 1;
                allowed += usize::from(expected);
            }
            for subject in INTERNAL {
                assert!(!ask(&mut probe, action, subject).await, "{name}: {action:?} {subject}");
                asked += 1;
            }
            // A bulk is published by whoever may publish for every user, for the apps of its token, and by nobody else.
            for app in ["editor", "mail"] {
                let bulk = format!("roam.v1.change.{}.$bulk-0.{app}.{}", own[0], own[3]);
                let every_user = About {
                    verb: "change",
                    tenant: Own,
                    user: Any,
                    app: if app == own[2] { Own } else { Other },
                    device: Some(Own),
                };
                let expected = action == Publish && may(action, &every_user);
                assert_eq!(ask(&mut probe, action, &bulk).await, expected, "{name}: {action:?} {bulk}");
                asked += 1;
            }
            let mine = format!("{inbox}.a.b");
            assert_eq!(ask(&mut probe, action, &mine).await, action == Subscribe, "{name}: {action:?} {mine}");
            asked += 1;
        }
    }
    println!("{asked} questions, {allowed} of them allowed");
    assert!(asked >= 500 && allowed >= 50);
}

/// What services are asked about, and who may.
fn for_services() -> Vec<(Action, &'static str, Vec<Role>)> {
    use Role::{AccessServer, Auditor, Auth, AuthSystem, Operator, Registrar, Responder, Storage};
    vec![
        (Publish, "roam.v1.change.acme.alice.editor.laptop", vec![]),
        (Publish, "roam.v1.change.acme.alice.editor.$expiry", vec![Storage]),
        (Publish, "roam.v1.change.acme.alice.editor.$svc-mailer", vec![]),
        (Subscribe, "roam.v1.change.>", vec![]),
        (Publish, "roam.v1.journal.0", vec![AccessServer]),
        (Publish, "roam.v1.journal.1", vec![]),
        (Publish, "roam.v1.journal.0.control", vec![Storage, Operator]),
        (Publish, "roam.v1.receipt.acme.alice.editor.laptop", vec![AccessServer, Storage]),
        (Publish, "roam.v1.notice.acme.alice.editor", vec![Storage]),
        (Subscribe, "roam.v1.notice.acme.alice.editor", vec![]),
        // A subscription to `notice.acme.alice.>` is let through for `notice.acme.alice.*`: nothing may be deeper.
        (Publish, "roam.v1.notice.acme.alice.editor.deeper", vec![]),
        (Publish, "roam.v1.rejected.acme.alice", vec![AccessServer, Storage]),
        (Subscribe, "roam.v1.rejected.>", vec![Operator]),
        (Publish, "roam.v1.latest.acme.alice.editor", vec![]),
        (Subscribe, "roam.v1.latest.*.*.*", vec![Responder]),
        (Subscribe, "roam.v1.changes.*.*.*", vec![Responder]),
        (Subscribe, "roam.v1.history.*.*.*", vec![Responder]),
        (Subscribe, "roam.v1.have.*.*.*", vec![Responder]),
        (Subscribe, "roam.v1.chunk.*.*.*", vec![Responder]),
        (Publish, "roam.v1.upload.acme.alice", vec![Storage]),
        (Publish, "roam.v1.upload.acme.alice.deeper", vec![]),
        (Publish, "roam.v1.kept.acme.alice", vec![Storage]),
        (Publish, "$JS.API.STREAM.MSG.DELETE.ROAM_CHUNKS", vec![Storage, Operator, Registrar]),
        (Publish, "$O.ROAM_BACKUPS.C.x", vec![Storage, Operator]),
        (Publish, "roam.v1.operate.storage.status", vec![Operator]),
        (Publish, "roam.v1.operate.storage.holdings", vec![Operator]),
        (Publish, "$JS.API.STREAM.PURGE.ROAM_REJECTED", vec![Operator, Registrar]),
        (Subscribe, "roam.v1.operate.*.*", vec![Responder]),
        (Publish, "_INBOX.acme.alice.laptop.1", vec![Responder]),
        (Subscribe, "_INBOX.acme.alice.laptop.1", vec![]),
        (Subscribe, "_INBOX.>", vec![]),
        (Publish, "roam.v1.token.acme.1", vec![Registrar]),
        (Publish, "roam.v1.audit.acme.signed_in", vec![Auth, Registrar]),
        (Publish, "$JS.API.INFO", vec![Operator, Registrar]),
        (Publish, "$JS.API.STREAM.INFO.ROAM_CHANGES", vec![AccessServer, Storage, Operator, Registrar]),
        (Publish, "$JS.API.STREAM.INFO.ROAM_JOURNAL", vec![AccessServer, Storage, Operator, Registrar]),
        (Publish, "$JS.API.STREAM.INFO.ROAM_TOKENS", vec![Auth, Operator, Registrar]),
        (Publish, "$JS.API.STREAM.UPDATE.ROAM_CHANGES", vec![Operator, Registrar]),
        (Publish, "$JS.API.STREAM.CREATE.ROAM_OTHER", vec![Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.MSG.NEXT.ROAM_CHANGES.access", vec![AccessServer, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.MSG.NEXT.ROAM_JOURNAL.x", vec![Auditor, Storage, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL.x", vec![Storage, Operator, Registrar]),
        (
            Publish,
            "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL.x.roam.v1.journal.*.control",
            vec![Auditor, Storage, Operator, Registrar],
        ),
        (Publish, "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL.x.roam.v1.journal.0", vec![Storage, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.CREATE.ROAM_JOURNAL.x.roam.v1.journal.>", vec![Storage, Operator, Registrar]),
        (Publish, "roam.v1.terms", vec![AccessServer]),
        (Subscribe, "roam.v1.terms", vec![]),
        (Publish, "$JS.API.STREAM.MSG.GET.ROAM_TERMS", vec![AccessServer, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.CREATE.ROAM_TERMS.x.roam.v1.terms", vec![Auditor, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.MSG.NEXT.ROAM_TERMS.x", vec![Auditor, Operator, Registrar]),
        (Publish, "$JS.API.STREAM.DELETE.ROAM_TERMS", vec![Operator, Registrar]),
        (Publish, "$JS.API.STREAM.MSG.GET.ROAM_JOURNAL", vec![Storage, Operator, Registrar]),
        (Publish, "$JS.API.STREAM.MSG.GET.ROAM_AUDIT", vec![Auth, Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.CREATE.ROAM_CHANGES.x", vec![Operator, Registrar]),
        (Publish, "$JS.API.CONSUMER.DELETE.ROAM_CHANGES.none", vec![Operator, Registrar]),
        (Publish, "$JS.ACK.ROAM_CHANGES.access.1.1.1.1.1", vec![AccessServer, Operator]),
        (Publish, "$JS.ACK.ROAM_JOURNAL.announce.1.1.1.1.1", vec![Storage, Operator]),
        (Subscribe, "$SRV.PING", vec![Responder]),
        (Publish, "$SRV.PING", vec![Operator]),
        (Subscribe, "$SYS.REQ.USER.AUTH", vec![Auth]),
        (Publish, "$SYS.REQ.USER.AUTH", vec![]),
        (Publish, "$SYS.REQ.SERVER.PING.CONNZ", vec![AuthSystem]),
        (Publish, "$SYS.REQ.SERVER.NONE.KICK", vec![AuthSystem]),
        (Publish, "$SYS.REQ.SERVER.NONE.RELOAD", vec![]),
        (Subscribe, "$SYS.>", vec![]),
        (Publish, "anything", vec![]),
        (Subscribe, ">", vec![]),
        (Subscribe, "_ROAM.>", vec![]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_do_what_it_needs_and_nothing_else() {
    let world = World::new().access_servers(0).replicas(0).secure(0).start().await;
    let mut asked = 0;
    for role in Role::ALL {
        let seed = std::fs::read_to_string(world.keys().seed_of(role)).unwrap();
        let mut probe = Probe::with_seed(&world.nats.client_url(), &seed).await.unwrap();
        for (action, subject, roles) in for_services() {
            let expected = roles.contains(&role);
            assert_eq!(ask(&mut probe, action, subject).await, expected, "{role:?}: {action:?} {subject}");
            asked += 1;
        }
        for other in Role::ALL {
            let inbox = format!("{}.a.b", other.inbox_prefix());
            assert_eq!(ask(&mut probe, Subscribe, &inbox).await, role == other, "{role:?}: {inbox}");
            asked += 1;
        }
    }
    println!("{asked} questions");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_good_token() {
    let world = World::new().access_servers(0).replicas(0).secure(1).start().await;
    let url = world.nats.client_url();
    let grant = || serde_json::from_value(json!({"tenant": "acme", "user": "alice", "device": "laptop"})).unwrap();
    let (_, good) = world.token(grant(), HOUR);
    let (_, over) = world.token(grant(), Duration::ZERO);
    let forged = roam_auth::sign(grant(), 1, HOUR * 1_000_000, &roam_auth::SigningKey::generate()).unwrap().1;
    let cut = &good.expose()[..good.expose().len() - 3];
    assert!(Probe::with_token(&url, good.expose()).await.is_ok());
    assert!(Probe::connect(&url, |_| json!({"user": "any", "pass": good.expose()})).await.is_ok());
    for bad in [over.expose(), forged.expose(), cut, "", "rubbish", "a.b.c"] {
        let refused = Probe::with_token(&url, bad).await.unwrap_err();
        assert!(refused.contains("Authorization Violation"), "{bad}: {refused}");
    }
    for options in [json!({}), json!({"user": "admin", "pass": "admin"}), json!({"jwt": good.expose(), "nkey": "U"})] {
        assert!(Probe::connect(&url, |_| options.clone()).await.is_err(), "{options}");
    }
    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    assert!(Probe::with_seed(&url, &stranger).await.is_err());
}
