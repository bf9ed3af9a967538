//! What must not be shown, and the hiding of it: fields with telling names, and what stands before
//! the `@` in a URL. It errs on the side of hiding.

use toml::Value;

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// Whether a field of this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "token"].iter().any(|ending| name.ends_with(ending))
}

/// Hides all secrets in a value.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_credentials(text),
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                if is_secret(name) {
                    *value = Value::String(HIDDEN.to_owned());
                } else {
                    redact(value);
                }
            }
        }
        _ => {}
    }
}

/// The text with the user and password of every URL in it hidden.
pub(super) fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("://").map(|at| at + 3) {
        let (scheme, after) = rest.split_at(begin);
        shown.push_str(scheme);
        let end = after.find(|c: char| c == '/' || c == '"' || c == ',' || c.is_whitespace()).unwrap_or(after.len());
        let (authority, after) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => shown.extend([HIDDEN, "@", host]),
            None => shown.push_str(authority),
        }
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_hidden_and_nothing_else() {
        let check = |text: &str, shown: &str| assert_eq!(without_credentials(text), shown);
        check("nats://host:4222", "nats://host:4222");
        check("nats://me:pw@host:4222", "nats://***@host:4222");
        check("tls://token@a, tls://u:p@b/x@y", "tls://***@a, tls://***@b/x@y");
        check("a@b without a scheme", "a@b without a scheme");
        check("ends with ://", "ends with ://");
    }

    #[test]
    fn passwords_with_an_at_sign_are_hidden_whole() {
        let shown = without_credentials("nats://me:p@ss@host");
        assert_eq!(shown, "nats://***@host");
    }
}
