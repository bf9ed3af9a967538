//! Names, their tokens on subjects, devices, keys, and the text form of a profile: one spelling each.

use crate::support::strategies;
use proptest::{prelude::any, proptest, test_runner::Config};
use roam_schemas::{App, Code, Device, Key, NameError, Profile, ProfileError, ServiceName, Tenant, User, limits};

#[test]
fn a_token_that_encoding_would_not_have_written_is_refused() {
    for (token, expected) in [
        ("*", NameError::Unescaped),
        (">", NameError::Unescaped),
        ("", NameError::Empty),
        (".", NameError::Unescaped),
        ("a.b", NameError::Unescaped),
        (" ", NameError::Unescaped),
        ("a b", NameError::Unescaped),
        ("a\t", NameError::Unescaped),
        ("a\r\nPUB", NameError::Unescaped),
        ("\0", NameError::Unescaped),
        ("é", NameError::Unescaped),
        ("a@b", NameError::Unescaped),
        ("%2a", NameError::Escape),
        ("%2e", NameError::Escape),
        ("%zz", NameError::Escape),
        ("%", NameError::Escape),
        ("%2", NameError::Escape),
        ("a%4", NameError::Escape),
        ("%%2A", NameError::Escape),
        ("%+2", NameError::Escape),
        ("%41", NameError::Escape),
        ("%5F", NameError::Escape),
        ("%2D", NameError::Escape),
        ("%30", NameError::Escape),
        ("%FF", NameError::NotUtf8),
        ("%C3", NameError::NotUtf8),
        ("%C0%AF", NameError::NotUtf8),
        ("%ED%A0%80", NameError::NotUtf8),
        ("$other", NameError::Unescaped),
    ] {
        assert_eq!(Tenant::from_token(token), Err(expected.clone()), "{token:?} as a tenant");
        assert_eq!(User::from_token(token), Err(expected.clone()), "{token:?} as a user");
        assert_eq!(App::from_token(token), Err(expected.clone()), "{token:?} as an app");
        let as_device = if token == "$other" { NameError::UnknownSystemName } else { expected };
        assert_eq!(Device::from_token(token), Err(as_device), "{token:?} as a device");
    }
}

#[test]
fn a_token_has_the_spelling_of_the_design() {
    for (name, token) in [
        ("alice@example.com", "alice%40example%2Ecom"),
        ("A-Z_a-z_0-9", "A-Z_a-z_0-9"),
        ("*", "%2A"),
        (">", "%3E"),
        ("%2A", "%252A"),
        ("a/b c", "a%2Fb%20c"),
        ("ß", "%C3%9F"),
        ("\0", "%00"),
        ("$expiry", "%24expiry"),
    ] {
        assert_eq!(User::parse(name).unwrap().token(), token);
        assert_eq!(User::from_token(token).unwrap().as_str(), name);
    }
}

#[test]
fn a_name_has_1_to_128_bytes_however_they_are_escaped() {
    for (name, expected) in [
        (String::new(), Err(NameError::Empty)),
        ("n".repeat(128), Ok(())),
        ("n".repeat(129), Err(NameError::TooLong { actual: 129 })),
        (".".repeat(128), Ok(())),
        (".".repeat(129), Err(NameError::TooLong { actual: 129 })),
        ("é".repeat(64), Ok(())),
        ("é".repeat(65), Err(NameError::TooLong { actual: 130 })),
        ("n".repeat(385), Err(NameError::TooLong { actual: 385 })),
    ] {
        assert_eq!(User::parse(name.as_str()).map(|_| ()), expected, "{name}");
        let token: String =
            name.bytes().map(|byte| if byte == b'n' { "n".to_owned() } else { format!("%{byte:02X}") }).collect();
        assert_eq!(User::from_token(&token).map(|_| ()), expected, "{token}");
        assert_eq!(Device::from_token(&token).map(|_| ()), expected, "{token}");
        assert_eq!(Device::from_token(&format!("$svc-{token}")).map(|_| ()), expected, "$svc-{token}");
    }
}

#[test]
fn a_key_has_1_to_512_bytes() {
    let code =
        |text: String| Key::parse(text).map(|_| ()).map_err(|problem| (problem.code, problem.limit, problem.actual));
    assert_eq!(code(String::new()), Err((Code::Invalid, None, None)));
    assert_eq!(code("k".repeat(512)), Ok(()));
    assert_eq!(code("k".repeat(513)), Err((Code::TooLarge, Some(512), Some(513))));
    assert_eq!(code("\0".to_owned()), Ok(()), "any character may stand in a key");
}

#[test]
fn a_users_device_is_never_taken_for_a_system_writer() {
    let service = |name: &str| Device::service(&ServiceName::parse(name).unwrap());
    let own = |name: &str| Device::parse(name).unwrap();
    let system = [Device::expiry(), service("mail"), service("$expiry"), service("expiry")];
    for name in ["$expiry", "$svc-mail", "$svc-", "$$expiry", "$", "$$", "expiry", "svc-mail", "$svc-$expiry"] {
        let device = own(name);
        assert!(!device.is_expiry(), "{name}");
        assert!(!device.token().starts_with('$'), "{name}");
        assert!(!system.contains(&device), "{name}");
        assert!(system.iter().all(|other| other.token() != device.token()), "{name}");
        assert!(system.iter().all(|other| other.as_str() != device.as_str()), "{name}");
    }
    assert_eq!(own("$expiry").token(), "%24expiry");
    assert_eq!(own("$expiry").as_str(), "$$expiry");
    assert_eq!((Device::expiry().token(), Device::expiry().as_str()), ("$expiry".to_owned(), "$expiry"));
    assert_eq!(service("mail 2").token(), "$svc-mail%202");
    assert_eq!(service("mail 2").as_str(), "$svc-mail 2");
}

#[test]
fn the_text_of_a_device_is_one_that_a_device_has() {
    for (text, expected) in [
        ("laptop".to_owned(), Ok(())),
        ("$expiry".to_owned(), Ok(())),
        ("$svc-mail".to_owned(), Ok(())),
        ("$$expiry".to_owned(), Ok(())),
        ("$$".to_owned(), Ok(())),
        (format!("$${}", "n".repeat(127)), Ok(())),
        (format!("$svc-{}", "n".repeat(128)), Ok(())),
        (String::new(), Err(NameError::Empty)),
        ("$".to_owned(), Err(NameError::UnknownSystemName)),
        ("$expiry2".to_owned(), Err(NameError::UnknownSystemName)),
        ("$expir".to_owned(), Err(NameError::UnknownSystemName)),
        ("$EXPIRY".to_owned(), Err(NameError::UnknownSystemName)),
        ("$svc".to_owned(), Err(NameError::UnknownSystemName)),
        ("$svc-".to_owned(), Err(NameError::Empty)),
        ("n".repeat(129), Err(NameError::TooLong { actual: 129 })),
        (format!("$${}", "n".repeat(128)), Err(NameError::TooLong { actual: 129 })),
        (format!("$svc-{}", "n".repeat(129)), Err(NameError::TooLong { actual: 129 })),
    ] {
        let read = Device::try_from(text.clone());
        assert_eq!(read.clone().map(|_| ()), expected, "{text}");
        if let Ok(device) = read {
            assert_eq!(Device::from_token(&device.token()), Ok(device), "{text}");
        }
    }
}

#[test]
fn a_profile_has_one_text() {
    let names =
        |profile: &Profile| [profile.tenant.as_str(), profile.user.as_str(), profile.app.as_str()].map(str::to_owned);
    for (text, expected) in [
        ("acme/alice/mail", ["acme", "alice", "mail"]),
        ("a%2Fb/c/d", ["a/b", "c", "d"]),
        ("a%252Fb/c/d", ["a%2Fb", "c", "d"]),
        ("%25/%2525/%2F%25", ["%", "%25", "/%"]),
        ("acme/alice@example.com/日本 語", ["acme", "alice@example.com", "日本 語"]),
        (" /\n/*", [" ", "\n", "*"]),
    ] {
        let profile: Profile = text.parse().unwrap();
        assert_eq!(names(&profile), expected, "{text}");
        assert_eq!(profile.to_string(), text);
    }
    for text in ["", "acme", "acme/alice", "acme/alice/mail/x", "acme/alice/mail/"] {
        assert!(matches!(text.parse::<Profile>(), Err(ProfileError::Parts(_))), "{text}");
    }
    for text in ["a%/b/c", "a/b%2/c", "a/b/%zz", "a%2fb/c/d", "a/%41/c", "50%/b/c", "a%252/b%2/c"] {
        assert!(matches!(text.parse::<Profile>(), Err(ProfileError::Escape(_))), "{text}");
    }
    for text in ["//", "/alice/mail", "acme//mail", "acme/alice/", &format!("{}/b/c", "n".repeat(129))] {
        assert!(matches!(text.parse::<Profile>(), Err(ProfileError::Name(..))), "{text}");
    }
}

#[test]
fn profiles_whose_names_run_into_each_other_have_fingerprints_of_their_own() {
    let profile = |tenant: &str, user: &str, app: &str| Profile {
        tenant: Tenant::parse(tenant).unwrap(),
        user: User::parse(user).unwrap(),
        app: App::parse(app).unwrap(),
    };
    let all = [
        profile("a", "b", "c"),
        profile("a\0b", "c", "d"),
        profile("a", "b\0c", "d"),
        profile("a", "b", "c\0d"),
        profile("ab", "c", "d"),
        profile("a", "bc", "d"),
        profile("A", "b", "c"),
        profile("c", "b", "a"),
    ];
    let distinct: std::collections::HashSet<u64> = all.iter().map(Profile::fingerprint).collect();
    assert_eq!(distinct.len(), all.len());
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_token_reads_back_as_its_name(name in strategies::name()) {
        let user = User::parse(name).unwrap();
        let token = user.token();
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-%".contains(&byte)), "{token}");
        assert!(token.len() <= 3 * limits::NAME_BYTES);
        assert_eq!(User::from_token(&token).unwrap(), user);
    }

    #[test]
    fn a_device_reads_back_from_its_token_and_from_its_text(device in strategies::device()) {
        assert_eq!(Device::from_token(&device.token()).as_ref(), Ok(&device));
        assert_eq!(Device::try_from(device.as_str().to_owned()), Ok(device));
    }

    #[test]
    fn a_token_that_is_accepted_is_the_token_of_what_it_names(
        token in "[a-zA-Z0-9_%$*>. -]{0,12}|(%[0-9A-Fa-f]{2}|[a-z]){0,8}|\\$(svc-|expiry)?[a-z%]{0,4}",
    ) {
        if let Ok(user) = User::from_token(&token) {
            assert_eq!(user.token(), token.clone());
        }
        if let Ok(device) = Device::from_token(&token) {
            assert_eq!(device.token(), token);
        }
    }

    #[test]
    fn any_text_is_refused_or_the_token_of_what_it_names(bytes in proptest::collection::vec(any::<char>(), 0..40)) {
        let token = String::from_iter(bytes);
        if let Ok(device) = Device::from_token(&token) {
            assert_eq!(device.token(), token);
        }
    }

    #[test]
    fn a_profile_reads_back_from_its_text(profile in strategies::profile()) {
        assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
    }

    #[test]
    fn a_text_that_is_accepted_is_the_text_of_its_profile(text in "[ab%25F/]{0,4}/[ab%25F]{0,5}/(%2F|%25|2F|a){0,4}") {
        if let Ok(profile) = text.parse::<Profile>() {
            assert_eq!(profile.to_string(), text);
        }
    }
}
