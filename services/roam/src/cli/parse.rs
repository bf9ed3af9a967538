//! How single values are written on the command line. Pure.

#[cfg(feature = "embedded")]
use std::net::{Ipv4Addr, SocketAddr};

use roam_schemas::{
    App, ContentType, Cursor, Device, Expect, Key, NameError, Problem, ReplicaName, Revision, Shards, Tenant, User,
    limits,
};

use crate::past::At;

pub(super) fn device(text: &str) -> Result<Device, NameError> {
    Device::parse(text)
}

pub(super) fn tenant(text: &str) -> Result<Tenant, NameError> {
    Tenant::parse(text)
}

pub(super) fn user(text: &str) -> Result<User, NameError> {
    User::parse(text)
}

pub(super) fn app(text: &str) -> Result<App, NameError> {
    App::parse(text)
}

pub(super) fn replica(text: &str) -> Result<ReplicaName, NameError> {
    ReplicaName::parse(text)
}

pub(super) fn key(text: &str) -> Result<Key, Problem> {
    Key::parse(text)
}

pub(super) fn cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::from_text(text)
}

pub(super) fn content_type(text: &str) -> Result<ContentType, Problem> {
    ContentType::parse(text)
}

pub(super) fn stream_replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("streams are kept on 1 server or on 3".to_owned()),
    }
}

/// `any`, `absent` or `at:REVISION`.
pub(super) fn expect(text: &str) -> Result<Expect, String> {
    match text {
        "any" => return Ok(Expect::Any),
        "absent" => return Ok(Expect::Absent),
        _ => {}
    }
    let number = text.strip_prefix("at:").and_then(|number| number.parse().ok());
    match number {
        Some(0) => Err("there is no record at revision 0; write `absent`".to_owned()),
        Some(number) if number < limits::REVISION_END => Ok(Expect::At(Revision::new(number))),
        _ => Err("write any, absent or at:REVISION".to_owned()),
    }
}

pub(super) fn at(text: &str) -> Result<At, String> {
    At::parse(text)
}

/// How long something lasts, in seconds, or a number with the unit s, m, h or d.
pub(super) fn span(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 1,
    };
    let number: u32 = number.parse().map_err(|_| "write seconds, or a number with s, m, h or d".to_owned())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("it is at least one second".to_owned()),
        Some(span) if span <= limits::TTL_SECONDS => Ok(span),
        _ => Err(format!("it is at most {} days", limits::TTL_SECONDS / 86_400)),
    }
}

/// Where no other machine reaches it.
#[cfg(feature = "embedded")]
pub(super) fn on_this_machine(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip() == Ipv4Addr::LOCALHOST => Ok(address),
        _ => Err(format!("write {}:PORT: nobody else may reach it", Ipv4Addr::LOCALHOST)),
    }
}

/// How many shards.
pub(super) fn shards(text: &str) -> Result<Shards, String> {
    let shards: u16 = text.parse().map_err(|_| format!("must be a number from 1 to {}", Shards::MOST))?;
    Shards::new(shards).map_err(|error| error.requirement())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_read() {
        for (text, expected) in [
            ("any", Some(Expect::Any)),
            ("absent", Some(Expect::Absent)),
            ("at:7", Some(Expect::At(Revision::new(7)))),
            ("at:9007199254740991", Some(Expect::At(Revision::new(9_007_199_254_740_991)))),
            ("at:9007199254740992", None),
            ("at:0", None),
            ("at:", None),
            ("at:-1", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(expect(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_are_read() {
        for (text, expected) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("3650d", Some(limits::TTL_SECONDS)),
            ("3651d", None),
            ("4294967295d", None),
            ("0", None),
            ("0d", None),
            ("d", None),
            ("1w", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(span(text).ok(), expected, "{text:?}");
        }
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn what_only_this_machine_may_reach_is_at_its_loopback_address() {
        for (text, port) in [("127.0.0.1:8222", Some(8_222)), ("127.0.0.1:0", Some(0))] {
            assert_eq!(on_this_machine(text).ok().map(|address| address.port()), port, "{text:?}");
        }
        for text in ["0.0.0.0:8222", "127.0.0.2:8222", "[::1]:8222", "127.0.0.1", "localhost:8222", "8222", ""] {
            assert!(on_this_machine(text).is_err_and(|why| why.contains("127.0.0.1:PORT")), "{text:?}");
        }
    }

    #[test]
    fn streams_are_kept_on_one_server_or_on_three() {
        for (text, expected) in [("1", Some(1)), ("3", Some(3)), ("2", None), ("0", None), ("x", None)] {
            assert_eq!(stream_replicas(text).ok(), expected, "{text:?}");
        }
    }
}
