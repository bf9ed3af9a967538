//! From what a provider says of a user to what they are granted. Pure.

use roam_schemas::{App, Apps, Device, Grant, Tenant, User};
use serde_json::{Map, Value};

use super::ProviderSettings;

/// What somebody is granted; none unless the claims say all of it, in names of ours, and for a tenant that the provider may
/// speak for.
pub(crate) fn grant(claims: &Map<String, Value>, settings: &ProviderSettings) -> Option<Grant> {
    let names = &settings.claims;
    let text = |name: &str| claim(claims, name)?.as_str();
    let tenant = match &names.tenant {
        Some(name) => Tenant::parse(text(name)?).ok()?,
        None => settings.tenants.first()?.clone(),
    };
    if !settings.tenants.contains(&tenant) {
        return None;
    }
    let apps = match &names.apps {
        Some(name) => Apps::Only(apps(claim(claims, name)?)?),
        None => Apps::All,
    };
    let (user, device) = (User::parse(text(&names.user)?).ok()?, Device::parse(text(&names.device)?).ok()?);
    Grant::device(tenant, user, device, apps).ok()
}

fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let mut tokens = path.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&tokens.next()?)?;
    tokens.try_fold(first, |value, token| value.as_object()?.get(&token))
}

fn apps(value: &Value) -> Option<Vec<App>> {
    let names: Vec<&str> = match value {
        Value::String(text) => text.split_whitespace().collect(),
        Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    names.into_iter().map(|name| App::parse(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::ClaimNames;

    fn granted(names: Value, claims: Value) -> Option<String> {
        let claims_of: ClaimNames = serde_json::from_value(names).unwrap();
        let tenants = ["acme", "globex"].map(|name| Tenant::parse(name).unwrap()).into();
        let settings = ProviderSettings { tenants, claims: claims_of, ..ProviderSettings::default() };
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        grant(&claims, &settings).map(|grant| grant.to_string())
    }

    #[test]
    fn claims_become_a_grant_as_the_settings_say() {
        for (names, claims, expected) in [
            (json!({}), json!({"sub": "alice", "device": "laptop"}), "device laptop of acme/alice"),
            (
                json!({"user": "email", "device": "/ext/device/id", "tenant": "https://example.com/org"}),
                json!({"email": "alice@example.com", "ext": {"device": {"id": "phone"}}, "https://example.com/org": "globex"}),
                "device phone of globex/alice@example.com",
            ),
            (
                json!({"apps": "/roam/apps"}),
                json!({"sub": "alice", "device": "laptop", "roam": {"apps": ["mail", "a.b"]}}),
                "device laptop of acme/alice, for mail, a.b",
            ),
            (
                json!({"apps": "scope"}),
                json!({"sub": "alice", "device": "laptop", "scope": "mail editor"}),
                "device laptop of acme/alice, for mail, editor",
            ),
            (
                json!({"device": "/a~1b"}),
                json!({"sub": "*", "device": 1, "a/b": "$expiry"}),
                "device $$expiry of acme/*",
            ),
        ] {
            assert_eq!(granted(names, claims.clone()).as_deref(), Some(expected), "{claims}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_made_up() {
        let all = json!({"tenant": "org", "apps": "apps"});
        let good = json!({"sub": "alice", "device": "laptop", "org": "acme", "apps": ["mail"]});
        assert!(granted(all.clone(), good.clone()).is_some());
        for (name, value) in [
            ("sub", json!(null)),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!(["alice"])),
            ("device", json!(null)),
            ("device", json!("x".repeat(129))),
            ("org", json!(null)),
            ("org", json!("initech")),
            ("org", json!("*")),
            ("org", json!(["acme"])),
            ("apps", json!(null)),
            ("apps", json!([])),
            ("apps", json!("")),
            ("apps", json!([1])),
            ("apps", json!({"mail": true})),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            assert_eq!(granted(all.clone(), claims.clone()), None, "{claims}");
        }
    }
}
