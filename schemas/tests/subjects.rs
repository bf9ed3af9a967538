//! Subjects: what is built parses back, what is hostile is refused, and answers go to nobody but the asker.

use crate::support::strategies;
use proptest::{proptest, test_runner::Config};
use roam_schemas::{
    App, Device, NameError, Profile, ServiceName, Shard, Shards, Tenant, User,
    subjects::{self, SubjectError, Verb},
};

fn alice() -> Profile {
    "acme/alice/mail".parse().unwrap()
}

fn laptop() -> Device {
    Device::parse("laptop").unwrap()
}

fn mailer() -> ServiceName {
    ServiceName::parse("mailer 2").unwrap()
}

/// Whether a NATS subscription to the pattern hears the subject.
fn hears(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(want), Some(token)) if want == "*" || want == token => {}
            _ => return false,
        }
    }
}

#[test]
fn subjects_have_the_spelling_of_the_design() {
    let profile: Profile = "acme/alice@example.com/mail".parse().unwrap();
    let (tenant, user) = (&profile.tenant, &profile.user);
    for (built, expected) in [
        (subjects::change(&profile, &laptop()), "roam.v1.change.acme.alice%40example%2Ecom.mail.laptop"),
        (subjects::change(&profile, &Device::expiry()), "roam.v1.change.acme.alice%40example%2Ecom.mail.$expiry"),
        (subjects::journal(Shard::ONLY), "roam.v1.journal.0"),
        (subjects::journal_control(Shard::ONLY), "roam.v1.journal.0.control"),
        (subjects::receipt(&profile, &laptop()), "roam.v1.receipt.acme.alice%40example%2Ecom.mail.laptop"),
        (
            subjects::receipt(&profile, &Device::service(&mailer())),
            "roam.v1.receipt.acme.alice%40example%2Ecom.mail.$svc-mailer%202",
        ),
        (subjects::receipts_of_device(tenant, user, &laptop()), "roam.v1.receipt.acme.alice%40example%2Ecom.*.laptop"),
        (subjects::receipts_of_service(tenant, &mailer()), "roam.v1.receipt.acme.*.*.$svc-mailer%202"),
        (subjects::notice(&profile), "roam.v1.notice.acme.alice%40example%2Ecom.mail"),
        (subjects::request(Verb::Latest, &profile), "roam.v1.latest.acme.alice%40example%2Ecom.mail"),
        (subjects::request(Verb::Changes, &profile), "roam.v1.changes.acme.alice%40example%2Ecom.mail"),
        (subjects::request(Verb::History, &profile), "roam.v1.history.acme.alice%40example%2Ecom.mail"),
        (subjects::rejected(tenant, user), "roam.v1.rejected.acme.alice%40example%2Ecom"),
        (subjects::rejected_of_nobody(), "roam.v1.rejected.$unknown.$unknown"),
        (subjects::device_inbox(tenant, user, &laptop()), "_INBOX.acme.alice%40example%2Ecom.laptop"),
        (subjects::service_inbox(tenant, &mailer()), "_INBOX.acme.$svc.mailer%202"),
    ] {
        assert_eq!(built, expected);
    }
}

#[test]
fn what_is_published_is_heard_by_the_one_that_must_and_by_no_other_wildcard() {
    let (profile, device) = (alice(), laptop());
    let subjects = [
        subjects::change(&profile, &device),
        subjects::rejected(&profile.tenant, &profile.user),
        subjects::request(Verb::Latest, &profile),
        subjects::request(Verb::Changes, &profile),
        subjects::request(Verb::History, &profile),
        subjects::receipt(&profile, &device),
        subjects::notice(&profile),
    ];
    let wildcards = [
        subjects::ALL_CHANGES,
        subjects::ALL_REJECTED,
        Verb::Latest.wildcard(),
        Verb::Changes.wildcard(),
        Verb::History.wildcard(),
        &subjects::receipts_of_device(&profile.tenant, &profile.user, &device),
    ];
    for (i, subject) in subjects.iter().enumerate() {
        for (j, wildcard) in wildcards.iter().enumerate() {
            assert_eq!(hears(wildcard, subject), i == j, "{wildcard} hears {subject}");
        }
    }
    assert!(hears(subjects::ALL_REJECTED, &subjects::rejected_of_nobody()));
    let service = Device::service(&mailer());
    let receipts = subjects::receipts_of_service(&profile.tenant, &mailer());
    assert!(hears(&receipts, &subjects::receipt(&profile, &service)));
    assert!(!hears(&receipts, &subjects::receipt(&profile, &device)));
}

#[test]
fn a_bulk_is_put_where_its_shard_is_and_is_of_no_user() {
    let (tenant, app, service) = (Tenant::parse("ac.me").unwrap(), App::parse("mail").unwrap(), mailer());
    let device = Device::service(&service);
    assert_eq!(
        subjects::bulk(Shard::ONLY, &tenant, &app, &service),
        "roam.v1.change.ac%2Eme.$bulk-0.mail.$svc-mailer%202"
    );
    for shards in [1, 2, 4, 7, 64].map(|shards| Shards::new(shards).unwrap()) {
        for shard in shards.each() {
            let published = subjects::bulk(shard, &tenant, &app, &service);
            let mapped = subjects::in_shard(shard, &published);
            let found = subjects::parse_bulk(shard, &mapped);
            assert_eq!(found, Ok((tenant.clone(), app.clone(), device.clone())), "{mapped}");
            assert!(subjects::parse_change(shard, &mapped).is_err());
        }
    }
    for hostile in [
        "roam.v1.change.acme.$bulk.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-00.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-+1.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-4294967296.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-0.mail.laptop",
        "roam.v1.change.acme.$bulk-0.mail.$expiry",
        "roam.v1.change.*.$bulk-0.mail.$svc-mailer",
        "roam.v1.change.acme.$bulk-0.mail.$svc-mailer.more",
        "roam.v1.change.acme.alice.mail.$svc-mailer",
    ] {
        assert!(subjects::parse_bulk(Shard::ONLY, hostile).is_err(), "{hostile}");
    }
    let receipt = subjects::receipt_of_bulk(&tenant, &app, &device);
    assert_eq!(receipt, "roam.v1.receipt.ac%2Eme.$bulk.mail.$svc-mailer%202");
    assert!(hears(&subjects::receipts_of_service(&tenant, &service), &receipt));
    assert!(hears(&subjects::receipts_of_service_for(&tenant, &app, &service), &receipt));
    assert!(subjects::is_receipt_of_bulk(&receipt) && subjects::parse_receipt(&receipt).is_err());
    let alone = subjects::receipt(&alice(), &device);
    assert!(!subjects::is_receipt_of_bulk(&alone));
    assert_eq!(subjects::receipt_of_one(&alone, &alice().user), None);
    let Profile { tenant, user, app } = alice();
    assert_eq!(subjects::receipt_of_one(&subjects::receipt_of_bulk(&tenant, &app, &device), &user), Some(alone));
}

#[test]
fn a_hostile_token_is_refused_wherever_it_stands() {
    for token in [
        "*",
        ">",
        "%2a",
        "%zz",
        "%41",
        "",
        "%FF",
        "$other",
        "$",
        "$svc",
        "$svc-",
        "a b",
        "a\tb",
        "a\r\n",
        "é",
        "%",
        "%2",
        &"n".repeat(129),
        &"%2E".repeat(129),
    ] {
        for place in 0..4 {
            let mut tokens = ["acme", "alice", "mail", "laptop"];
            tokens[place] = token;
            for verb in ["change", "receipt"] {
                let subject = format!("roam.v1.{verb}.{}", tokens.join("."));
                let read = if verb == "change" {
                    subjects::parse_change(Shard::ONLY, &subject)
                } else {
                    subjects::parse_receipt(&subject)
                };
                assert!(matches!(read, Err(SubjectError::Name(_))), "{subject:?}: {read:?}");
            }
            if place < 3 {
                for verb in ["latest", "changes", "history"] {
                    let subject = format!("roam.v1.{verb}.{}", tokens[..3].join("."));
                    let read = subjects::parse_request(Shard::ONLY, &subject);
                    assert!(matches!(read, Err(SubjectError::Name(_))), "{subject:?}: {read:?}");
                }
                let subject = format!("roam.v1.notice.{}", tokens[..3].join("."));
                let read = subjects::parse_notice(&subject);
                assert!(matches!(read, Err(SubjectError::Name(_))), "{subject:?}: {read:?}");
            }
        }
    }
}

#[test]
fn a_system_writer_is_a_device_and_nobody_else() {
    for writer in ["$expiry", "$svc-mailer"] {
        assert!(subjects::parse_change(Shard::ONLY, &format!("roam.v1.change.acme.alice.mail.{writer}")).is_ok());
        for tokens in [[writer, "alice", "mail"], ["acme", writer, "mail"], ["acme", "alice", writer]] {
            let read = subjects::parse_change(Shard::ONLY, &format!("roam.v1.change.{}.laptop", tokens.join(".")));
            assert_eq!(read, Err(SubjectError::Name(NameError::Unescaped)), "{tokens:?}");
        }
    }
}

#[test]
fn who_published_a_change_is_known_whatever_else_is_wrong_with_its_subject() {
    let cases = [
        ("roam.v1.change.acme.alice.mail.laptop", Some(["acme", "alice"])),
        ("roam.v1.change.acme.alice.%zz.%41", Some(["acme", "alice"])),
        ("roam.v1.change.acme.%2a.mail.laptop", Some(["acme", "%2a"])),
        ("roam.v1.change.acme.%zz.mail.$svc-mailer", Some(["acme", "$svc-mailer"])),
        ("roam.v1.change.acme.$bulk-7.%zz.$svc-mailer", Some(["acme", "$svc-mailer"])),
        ("roam.v1.change.acme.alice.mail", None),
        ("roam.v1.change.acme.alice.mail.laptop.more", None),
        ("roam.v1.latest.acme.alice.mail.laptop", None),
        ("", None),
    ];
    for (subject, publisher) in cases {
        assert_eq!(subjects::publisher_of_change(Shard::ONLY, subject), publisher, "{subject}");
    }
    let shard = Shards::new(4).unwrap().each().nth(2).unwrap();
    let subject = "roam.v1.s.2.change.acme.alice.%zz.laptop";
    assert_eq!(subjects::publisher_of_change(shard, subject), Some(["acme", "alice"]));
}

#[test]
fn a_subject_of_another_shape_is_refused() {
    for subject in [
        "",
        "roam.v1.change",
        "roam.v1.change.",
        "roam.v1.change.acme.alice.mail",
        "roam.v1.change.acme.alice.mail.laptop.",
        "roam.v1.change.acme.alice.mail.laptop.x",
        "roam.v2.change.acme.alice.mail.laptop",
        "ROAM.v1.change.acme.alice.mail.laptop",
        "roam.v1.receipt.acme.alice.mail.laptop",
        "xroam.v1.change.acme.alice.mail.laptop",
        " roam.v1.change.acme.alice.mail.laptop",
        "roam.v1.s.0.change.acme.alice.mail.laptop",
    ] {
        let read = subjects::parse_change(Shard::ONLY, subject);
        assert!(matches!(read, Err(SubjectError::Shape(_))), "{subject:?}: {read:?}");
    }
    for subject in
        ["roam.v1.notice.acme.alice.mail", "roam.v1.latest.acme.alice", "roam.v1.Latest.acme.alice.mail", "latest"]
    {
        assert!(matches!(subjects::parse_request(Shard::ONLY, subject), Err(SubjectError::Shape(_))), "{subject}");
    }
    for subject in ["roam.v1.latest.acme.alice.mail", "roam.v1.notice.acme.alice", "roam.v1.notice.a.b.c.d"] {
        assert!(matches!(subjects::parse_notice(subject), Err(SubjectError::Shape(_))), "{subject}");
    }
    let change = subjects::change(&alice(), &laptop());
    assert!(matches!(subjects::parse_receipt(&change), Err(SubjectError::Shape(_))));
}

#[test]
fn an_answer_goes_below_the_inboxes_of_the_user_and_of_the_tenants_services_only() {
    for reply in [
        "_INBOX.acme.alice.laptop.xyz",
        "_INBOX.acme.alice.laptop.mail.xyz.7",
        "_INBOX.acme.alice.laptop",
        "_INBOX.acme.alice.%24expiry.xyz",
        "_INBOX.acme.$svc.mailer.xyz",
        "_INBOX.acme.$svc.mailer",
    ] {
        assert!(subjects::may_answer(reply, &alice()), "{reply}");
    }
    for reply in [
        "",
        "_INBOX",
        "_INBOX.",
        "_INBOX.acme",
        "_INBOX.acme.alice",
        "_INBOX.acme.alice.",
        "_INBOX.acme.alice..x",
        "_INBOX.acme.alice.x.",
        "_INBOX.acme.alicex.y",
        "_INBOX.acme.alic.e.x",
        "_INBOX.acme.alice2.laptop.x",
        "_INBOX.acmex.alice.laptop.x",
        "_INBOX.acm.alice.laptop.x",
        "_INBOX.acme.bob.laptop.x",
        "_INBOX.other.alice.laptop.x",
        "_INBOX.acme.*.laptop.x",
        "_INBOX.acme.>",
        "_INBOX.acme.alice.*",
        "_INBOX.acme.alice.>",
        "_INBOX.acme.alice.laptop.*",
        "_INBOX.acme.alice.laptop.>",
        "_INBOX.acme.alice.*.x",
        "_INBOX.acme.alice.a b",
        "_INBOX.acme.alice.a\r\nPUB x",
        "_INBOX.acme.alice.a\0",
        "_INBOX.acme.$svc",
        "_INBOX.acme.$svc.",
        "_INBOX.acme.$svc.*",
        "_INBOX.acme.$svcx.y",
        "_INBOX.acme.%24svc.mailer.x",
        "_INBOX.other.$svc.mailer.x",
        "_inbox.acme.alice.laptop.x",
        "_INBOX2.acme.alice.laptop.x",
        "_INBOX.xyz.1",
        "$JS.API.STREAM.PURGE.ROAM_CHANGES",
        "roam.v1.change.acme.alice.mail.laptop",
        "roam.v1.notice.acme.alice.mail",
        "roam.v1.journal.0",
    ] {
        assert!(!subjects::may_answer(reply, &alice()), "{reply:?}");
    }
}

#[test]
fn a_user_whose_name_is_that_of_the_services_inbox_reads_no_answers_of_services() {
    let impostor = Profile { user: User::parse("$svc").unwrap(), ..alice() };
    let inbox = subjects::device_inbox(&impostor.tenant, &impostor.user, &laptop());
    assert_eq!(inbox, "_INBOX.acme.%24svc.laptop");
    assert!(subjects::may_answer(&format!("{inbox}.x"), &impostor));
    assert!(!subjects::may_answer(&format!("{inbox}.x"), &alice()));
    assert!(!subjects::service_inbox(&impostor.tenant, &mailer()).starts_with(&inbox));
}

#[test]
fn a_subject_in_a_shard_says_which_and_is_read_there_only() {
    let (first, third) = (Shard::new(0, 4).unwrap(), Shard::new(2, 4).unwrap());
    let (profile, device) = (alice(), laptop());
    for (subject, expected) in [
        (subjects::change(&profile, &device), "roam.v1.s.2.change.acme.alice.mail.laptop"),
        (subjects::changes_of(&profile.tenant, &profile.user), "roam.v1.s.2.change.acme.alice.>"),
        (subjects::request(Verb::Latest, &profile), "roam.v1.s.2.latest.acme.alice.mail"),
        (Verb::Chunk.wildcard().to_owned(), "roam.v1.s.2.chunk.*.*.*"),
        (subjects::upload(&profile.tenant, &profile.user), "roam.v1.s.2.upload.acme.alice"),
        (subjects::kept(&profile.tenant, &profile.user), "roam.v1.s.2.kept.acme.alice"),
        // Of no shard.
        (subjects::receipt(&profile, &device), "roam.v1.receipt.acme.alice.mail.laptop"),
        (subjects::notice(&profile), "roam.v1.notice.acme.alice.mail"),
        (subjects::rejected(&profile.tenant, &profile.user), "roam.v1.rejected.acme.alice"),
        (subjects::journal(third), "roam.v1.journal.2"),
    ] {
        assert_eq!(subjects::in_shard(third, &subject), expected);
        assert_eq!(subjects::in_shard(Shard::ONLY, &subject), subject);
    }
    let change = subjects::in_shard(third, &subjects::change(&profile, &device));
    assert_eq!(subjects::parse_change(third, &change), Ok((profile.clone(), device)));
    let request = subjects::in_shard(third, &subjects::request(Verb::Have, &profile));
    assert_eq!(subjects::parse_request(third, &request), Ok((Verb::Have, profile)));
    assert_eq!(subjects::before_mapping(&change), Some(subjects::change(&alice(), &laptop())));
    assert_eq!(subjects::before_mapping("roam.v1.change.acme.alice.mail.laptop"), None);
    let read = |shard, subject: &str| subjects::parse_change(shard, subject).is_ok();
    assert!(!read(first, &change) && !read(Shard::ONLY, &change));
    for other in ["roam.v1.change", "roam.v1.s.02.change", "roam.v1.s.+2.change", "roam.v1.s..change", "roam.v1.s.2"] {
        let subject = format!("{other}.acme.alice.mail.laptop");
        assert!(!read(third, &subject), "{subject}");
    }
}

#[test]
fn all_that_clients_publish_and_ask_is_mapped() {
    let (profile, device) = (alice(), laptop());
    let mut subjects: Vec<_> = Verb::ALL.into_iter().map(|verb| subjects::request(verb, &profile)).collect();
    subjects.extend([subjects::change(&profile, &device), subjects::upload(&profile.tenant, &profile.user)]);
    for subject in &subjects {
        let mapped = subjects::MAPPED.iter().filter(|pattern| hears(pattern, subject)).count();
        assert_eq!(mapped, 1, "{subject}");
    }
    assert_eq!(subjects.len(), subjects::MAPPED.len());
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_subject_that_is_built_parses_back(profile in strategies::profile(), device in strategies::device()) {
        let both = Ok((profile.clone(), device.clone()));
        assert_eq!(subjects::parse_change(Shard::ONLY, &subjects::change(&profile, &device)), both);
        assert_eq!(subjects::parse_receipt(&subjects::receipt(&profile, &device)), both);
        assert_eq!(subjects::parse_notice(&subjects::notice(&profile)), Ok(profile.clone()));
        for verb in Verb::ALL {
            assert_eq!(subjects::parse_request(Shard::ONLY, &subjects::request(verb, &profile)), Ok((verb, profile.clone())));
        }
    }

    #[test]
    fn every_subject_that_is_parsed_is_the_one_that_is_built(
        rest in "([a-z*>$%.]|%2E|%41|\\$expiry|\\$svc-){0,6}\\.a\\.b\\.([a-z*>$%]|%2E|\\$expiry|\\$svc-a){0,3}",
    ) {
        let subject = format!("roam.v1.change.{rest}");
        if let Ok((profile, device)) = subjects::parse_change(Shard::ONLY, &subject) {
            assert_eq!(subjects::change(&profile, &device), subject);
        }
    }

    #[test]
    fn two_profiles_or_devices_never_share_a_subject(
        one in (strategies::profile(), strategies::device()),
        other in (strategies::profile(), strategies::device()),
    ) {
        let subject = |(profile, device): &(Profile, Device)| subjects::change(profile, device);
        assert_eq!(subject(&one) == subject(&other), one == other);
        let heard = |(profile, device): &(Profile, Device)| {
            hears(&subjects::receipts_of_device(&profile.tenant, &profile.user, device), &subjects::receipt(&other.0, &other.1))
        };
        let same_owner = one.0.tenant == other.0.tenant && one.0.user == other.0.user && one.1 == other.1;
        assert_eq!(heard(&one), same_owner);
    }

    #[test]
    fn an_inbox_is_answered_exactly_when_it_is_its_users_or_a_service_of_the_tenant(
        asked in strategies::profile(),
        other in strategies::profile(),
        device in strategies::device(),
        service in strategies::name(),
    ) {
        let below = |inbox: &str| subjects::may_answer(&format!("{inbox}.x9"), &asked);
        let inbox_of = |tenant: &Tenant, user: &User| subjects::device_inbox(tenant, user, &device);
        assert!(below(&inbox_of(&asked.tenant, &asked.user)));
        let same_user = (&asked.tenant, &asked.user) == (&other.tenant, &other.user);
        assert_eq!(below(&inbox_of(&other.tenant, &other.user)), same_user);
        let service = ServiceName::parse(service).unwrap();
        assert!(below(&subjects::service_inbox(&asked.tenant, &service)));
        assert_eq!(below(&subjects::service_inbox(&other.tenant, &service)), asked.tenant == other.tenant);
    }
}
