//! What is good and what is not, with keys that are made here, and with those that the standards print.
#![allow(clippy::unwrap_used)]
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use roam_schemas::Tenant;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example.com";
const NOW: u64 = 1_000_000;

/// The key of appendix A.2 of RFC 7515.
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

/// How a test signs.
type Sign<'a> = &'a dyn Fn(&str) -> Vec<u8>;

/// A provider with one key of each kind.
struct Signer {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
        }
    }

    fn published(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": RSA_N, "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": B64.encode(self.ed25519.public_key())},
        ]})
    }

    fn providers(&self) -> Providers {
        let settings = ProviderSettings {
            issuer: ISSUER.to_owned(),
            audience: "roam".to_owned(),
            tenants: vec![Tenant::parse("acme").unwrap()],
            ..ProviderSettings::default()
        };
        let providers = Providers::new(&[settings]);
        providers.all[0].learn(KeySet::read(self.published().to_string().as_bytes()).unwrap());
        providers
    }

    fn by_ed25519(&self, text: &str) -> Vec<u8> {
        self.ed25519.sign(text.as_bytes()).as_ref().to_vec()
    }

    fn by_p256(&self, text: &str) -> Vec<u8> {
        self.p256.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
    }
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
    let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    format!("{text}.{}", B64.encode(sign(&text)))
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "roam", "sub": "alice", "device": "laptop", "iat": NOW, "exp": NOW + 600})
}

fn ed() -> Value {
    json!({"alg": "EdDSA", "kid": "ed"})
}

#[test]
fn a_token_of_a_provider_says_who_somebody_is() {
    let signer = Signer::new();
    let providers = signer.providers();
    for (header, sign) in [
        (ed(), &(|text: &str| signer.by_ed25519(text)) as Sign<'_>),
        (json!({"alg": "ES256", "kid": "ec", "typ": "at+jwt"}), &|text| signer.by_p256(text)),
    ] {
        let text = token(&header, &claims(), sign);
        let good = providers.verify(&text, NOW).unwrap().unwrap();
        assert_eq!(good.grant.to_string(), "device laptop of acme/alice");
        assert_eq!((good.issued, good.expires), (NOW, NOW + 600));
        assert_eq!(providers.verify(&text, NOW).unwrap().unwrap().id, good.id, "the same token has the same id");
        let mut other = claims();
        other["jti"] = json!("another");
        assert_ne!(providers.verify(&token(&header, &other, sign), NOW).unwrap().unwrap().id, good.id);
    }
}

#[test]
fn what_a_token_says_is_checked_before_it_is_believed() {
    let signer = Signer::new();
    let providers = signer.providers();
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    for (claims, expected) in [
        (with("aud", json!(["other", "roam"])), None),
        (with("nbf", json!(NOW + 59)), None),
        (with("aud", json!("roam2")), Some(TokenError::Audience)),
        (with("aud", json!([])), Some(TokenError::Audience)),
        (with("aud", json!(null)), Some(TokenError::Malformed)),
        (with("exp", json!(NOW)), Some(TokenError::Expired)),
        (with("exp", json!("9999999999")), Some(TokenError::Malformed)),
        (with("exp", json!(null)), Some(TokenError::Malformed)),
        (with("nbf", json!(NOW + 61)), Some(TokenError::Future)),
        (with("nbf", json!("soon")), Some(TokenError::Malformed)),
        (with("iat", json!(NOW + 61)), Some(TokenError::Future)),
        (with("sub", json!(null)), Some(TokenError::Claims)),
        (with("device", json!(null)), Some(TokenError::Claims)),
    ] {
        let text = token(&ed(), &claims, |text| signer.by_ed25519(text));
        assert_eq!(providers.verify(&text, NOW).unwrap().err(), expected, "{claims}");
    }
    for issuer in ["roam", "https://login.example.com/", "https://evil.example.com", ""] {
        let text = token(&ed(), &with("iss", json!(issuer)), |text| signer.by_ed25519(text));
        assert!(providers.verify(&text, NOW).is_none(), "{issuer} is nobody whom we trust");
    }
}

#[test]
fn no_algorithm_is_taken_from_the_token() {
    let signer = Signer::new();
    let providers = signer.providers();
    let public = B64.decode(RSA_N).unwrap();
    let secret =
        |text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), text.as_bytes()).as_ref().to_vec();
    let own = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": B64.encode(Signer::new().ed25519.public_key())});
    let stranger = Signer::new();
    let nothing = |_: &str| Vec::new();
    let cases: [(Value, Sign<'_>, TokenError); 14] = [
        (json!({"alg": "none", "kid": "ed"}), &nothing, TokenError::Malformed),
        (json!({"alg": "None", "kid": "ed"}), &nothing, TokenError::Malformed),
        (json!({"alg": "", "kid": "ed"}), &nothing, TokenError::Malformed),
        (json!({"kid": "ed"}), &nothing, TokenError::Malformed),
        (json!({"alg": "HS256", "kid": "rsa"}), &secret, TokenError::Malformed),
        (json!({"alg": "RS256", "kid": "rsa"}), &secret, TokenError::Signature),
        (json!({"alg": "RS256", "kid": "ed"}), &|text| signer.by_ed25519(text), TokenError::Signature),
        (json!({"alg": "EdDSA", "kid": "ec"}), &|text| signer.by_ed25519(text), TokenError::Signature),
        (json!({"alg": "ES256", "kid": "ed"}), &|text| signer.by_p256(text), TokenError::Signature),
        (json!({"alg": "EdDSA"}), &|text| signer.by_ed25519(text), TokenError::Malformed),
        (json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"]}), &|text| signer.by_ed25519(text), TokenError::Malformed),
        (json!({"alg": "EdDSA", "kid": "ed", "jwk": own}), &|text| stranger.by_ed25519(text), TokenError::Signature),
        (
            json!({"alg": "EdDSA", "kid": "new", "jku": "https://evil"}),
            &|text| signer.by_ed25519(text),
            TokenError::Key,
        ),
        (ed(), &nothing, TokenError::Signature),
    ];
    for (header, sign, expected) in cases {
        let text = token(&header, &claims(), sign);
        assert_eq!(providers.verify(&text, NOW).unwrap(), Err(expected), "{header}");
    }
}

#[test]
fn what_the_standards_print_is_verified() {
    let jwk = |key: Value| {
        let Value::Object(mut key) = key else { panic!("a key is an object") };
        key.insert("kid".to_owned(), json!("k"));
        KeySet::read(json!({"keys": [key]}).to_string().as_bytes()).unwrap()
    };
    // RFC 7515, A.2 and A.3; RFC 8037, A.4.
    for (key, text) in [
        (
            json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"}),
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = jwk(key);
        let verified = |text: &str| keys.get("k").unwrap().has_signed(&Parts::of(text).unwrap());
        assert!(verified(text), "{text}");
        let (head, tail) = text.split_at(text.len() - 8);
        let last = if tail.starts_with('A') { "B" } else { "A" };
        assert!(!verified(&format!("{head}{last}{}", &tail[1..])), "one character is another");
    }
}

#[test]
fn keys_that_verify_nothing_here_are_passed_over() {
    let good = json!({"kty": "OKP", "kid": "good", "crv": "Ed25519", "x": B64.encode([7; 32])});
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key["kid"] = json!("other");
        key[name] = value;
        key
    };
    let short_rsa = json!({"kty": "RSA", "kid": "short", "n": B64.encode([255; 128]), "e": "AQAB"});
    let secret = json!({"kty": "oct", "kid": "secret", "k": B64.encode([7; 32])});
    let others = [
        with("use", json!("enc")),
        with("alg", json!("ES256")),
        with("crv", json!("X25519")),
        with("x", json!(B64.encode([7; 31]))),
        with("x", json!("=")),
        with("kid", json!(null)),
        short_rsa,
        secret,
        json!("no key"),
    ];
    let all: Vec<_> = others.iter().chain([&good]).collect();
    let keys = KeySet::read(json!({"keys": all}).to_string().as_bytes()).unwrap();
    assert!(keys.len() == 1 && keys.get("good").is_some(), "{keys:?}");
    assert!(matches!(KeySet::read(json!({"keys": others}).to_string().as_bytes()), Err(KeySetError::Useless)));
    let many = vec![good; 65];
    assert!(matches!(KeySet::read(json!({"keys": many}).to_string().as_bytes()), Err(KeySetError::TooMany(65))));
    for rubbish in ["", "[]", "{}", r#"{"keys": 1}"#] {
        assert!(matches!(KeySet::read(rubbish.as_bytes()), Err(KeySetError::Json(_))), "{rubbish}");
    }
}

#[test]
fn without_keys_nobody_gets_in_and_old_ones_are_let_go_of() {
    let signer = Signer::new();
    let text = token(&ed(), &claims(), |text| signer.by_ed25519(text));
    let known = signer.providers();
    let settings = ProviderSettings { keep_seconds: 0, ..known.all[0].settings.clone() };
    let forgetful = Providers::new(&[settings]);
    assert_eq!(forgetful.verify(&text, NOW), Some(Err(TokenError::Provider)));
    forgetful.all[0].learn(KeySet::read(signer.published().to_string().as_bytes()).unwrap());
    assert_eq!(forgetful.verify(&text, NOW), Some(Err(TokenError::Provider)), "they are too old at once");
    assert!(known.verify(&text, NOW).unwrap().is_ok());
}

#[test]
fn fuzz_provider_token() {
    let providers = Signer::new().providers();
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        assert!(!matches!(providers.verify(text, NOW), Some(Ok(_))), "nobody signed it");
    });
}

#[test]
fn fuzz_key_set() {
    bolero::check!().for_each(|json: &[u8]| {
        if let Ok(keys) = KeySet::read(json) {
            assert!(keys.len() <= 64);
        }
    });
}

#[test]
fn fuzz_claims() {
    let provider = &Signer::new().providers().all[0].settings.clone();
    bolero::check!().for_each(|json: &[u8]| {
        if let Ok(claims) = serde_json::from_slice(json)
            && let Some(granted) = claims::grant(&claims, provider)
        {
            assert_eq!(granted.tenant.as_str(), "acme");
        }
    });
}
