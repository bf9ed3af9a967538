//! From the command line to a client of one profile, and from the client's errors to what a person is told.

use std::fs;

use roam_auth::Token;
use roam_client::{ChangeError, Client, ClientSettings, ConnectError, Identity, ProfileClient, ReadError, Silence};
use roam_nats::BusSettings;
use roam_schemas::{Apps, Bearer, Code, Device, Grant, Profile};

use crate::{
    cli::{Global, SignIn},
    failure::Failure,
    owner::UserName,
    show,
};

const START_ONE: &str = "is it running? start one with: roam up";

/// How to reach the bus.
pub(crate) fn bus_settings(global: &Global) -> BusSettings {
    let SignIn { creds, token_file, nkey, ca, certificate, certificate_key } = global.sign_in.clone();
    BusSettings {
        servers: global.server.clone(),
        credentials: creds,
        token_file,
        nkey_seed: nkey,
        // Whoever names whom to trust means to be encrypted.
        tls: ca.is_some() || certificate.is_some(),
        ca,
        certificate,
        key: certificate_key,
        ..BusSettings::default()
    }
}

/// What the token that is signed in with says; none if there is none, or one that another provider made.
pub(crate) fn token(global: &Global) -> Option<Token> {
    // Whatever is wrong with the file is said when it is signed in with.
    let text = fs::read_to_string(global.sign_in.token_file.as_ref()?).ok()?;
    roam_auth::peek(text.trim())
}

fn granted(global: &Global) -> Option<Grant> {
    token(global).map(|token| token.grant)
}

/// Does something with a profile, then closes the connection in good order. `what` is what is attempted, for people.
pub(crate) async fn with_profile<T>(
    global: &Global,
    profile: &Profile,
    what: &str,
    work: impl AsyncFnOnce(ProfileClient) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Profile { user, app, .. } = profile.clone();
    with_user(global, &UserName::of(profile), what, async |client| work(client.profile_of(user, app)).await).await
}

/// Does something with the profiles of a user, then closes the connection in good order.
pub(crate) async fn with_user<T>(
    global: &Global,
    user: &UserName,
    what: &str,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let UserName { tenant, user } = user.clone();
    let bearer = granted(global).map(|grant| grant.bearer);
    let identity = match bearer {
        Some(Bearer::Service { name, .. }) => Identity::Service { tenant, name },
        Some(Bearer::Device { device, .. }) if global.device.is_none() => Identity::Device { tenant, user, device },
        _ => Identity::Device { tenant, user, device: this_device(global)? },
    };
    let client = client(global, identity, what).await?;
    let done = work(&client).await;
    client.close().await;
    done
}

/// Connects.
pub(crate) async fn client(global: &Global, identity: Identity, what: &str) -> Result<Client, Failure> {
    let apps = match granted(global).map(|grant| grant.apps) {
        Some(Apps::Only(apps)) => apps,
        Some(Apps::All) | None => Vec::new(),
    };
    let (bus, encoding) = (bus_settings(global), global.encoding.into());
    let settings = ClientSettings { bus, apps, encoding, ..ClientSettings::default() };
    Client::connect(settings, identity).await.map_err(|error| not_connected(what, &error))
}

/// The name of this device: as given, else the host name.
pub(crate) fn this_device(global: &Global) -> Result<Device, Failure> {
    if let Some(device) = &global.device {
        return Ok(device.clone());
    }
    let refused =
        || Failure::usage("device", "the host name is no name for a device").hint("name it with --device NAME");
    let name = host_name().ok_or_else(refused)?;
    Device::parse(&name).map_err(|_| refused())
}

/// What this machine is called.
pub(crate) fn host_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

/// Why there is no connection.
pub(crate) fn not_connected(what: &str, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Settings(problems) => Failure::usage(what, problems.join("; ")),
        ConnectError::Bus(error) => not_on_the_bus(what, error),
        ConnectError::Receipts(_) => Failure { exit: crate::failure::Exit::TryLater, ..Failure::because(what, error) },
    }
}

/// Why there is no connection to the bus.
pub(crate) fn not_on_the_bus(what: &str, error: &roam_nats::ConnectError) -> Failure {
    use roam_nats::ConnectError as E;
    let failure = Failure::because(what, error);
    match error {
        E::Settings(problems) => Failure::usage(what, problems.join("; ")),
        E::Credentials(_) => failure,
        E::Denied(_) => failure.hint("name your token with --token-file FILE; is it expired or revoked?"),
        E::Unreachable { .. } | E::Lost => Failure::later(what, failure.why).hint(START_ONE),
    }
}

/// Why a change was not saved.
pub(crate) fn not_saved(what: &str, error: &ChangeError) -> Failure {
    match error {
        ChangeError::Invalid(problem) | ChangeError::Rejected(problem) | ChangeError::Full(problem) => {
            Failure::problem(what, problem)
        }
        ChangeError::Chunks(error) => not_answered(what, error),
        ChangeError::Busy => Failure { code: Some(Code::Busy), ..Failure::later(what, error.to_string()) },
        ChangeError::Unknown { .. } => Failure::later(what, error.to_string())
            .hint("it may have been saved, or may still be: look before you repeat it"),
        _ => Failure { code: error.code(), ..Failure::because(what, error) },
    }
}

/// Why there is no answer.
pub(crate) fn not_answered(what: &str, error: &ReadError) -> Failure {
    match error {
        ReadError::Invalid(problem)
        | ReadError::Denied(problem)
        | ReadError::Behind(problem)
        | ReadError::Busy(problem)
        | ReadError::Missing(problem) => Failure::problem(what, problem),
        ReadError::Sink(kind) => Failure::output(&(*kind).into()),
        ReadError::Unanswered(silence) => {
            let failure = Failure::later(what, error.to_string());
            match silence {
                Silence::NoResponders => failure.hint("is a storage replica running, and has it caught up?"),
                _ => failure,
            }
        }
        ReadError::Reset => Failure { code: Some(Code::Reset), ..Failure::new(what, error.to_string()) }
            .hint("run it again without --cursor, and forget what is not in the answer"),
        _ => Failure { code: error.code(), ..Failure::because(what, error) },
    }
}

/// A profile and a key in the words of a message.
pub(crate) fn named(verb: &str, profile: &Profile, rest: &str) -> String {
    let text = format!("{verb} {profile} {rest}");
    show::text(text.trim_end())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ChangeId, Problem};

    use super::*;
    use crate::failure::Exit;

    #[test]
    fn every_failure_to_save_says_whether_to_try_again() {
        let id = ChangeId::random();
        for (error, exit, code) in [
            (ChangeError::Busy, Exit::TryLater, Some(Code::Busy)),
            (ChangeError::Unknown { id }, Exit::TryLater, None),
            (ChangeError::Denied, Exit::Failed, Some(Code::Denied)),
            (ChangeError::Closed, Exit::Failed, None),
            (ChangeError::Rejected(Problem::new(Code::Conflict, "no")), Exit::Failed, Some(Code::Conflict)),
            (ChangeError::Invalid(Problem::invalid("no")), Exit::Failed, Some(Code::Invalid)),
            (ChangeError::Full(Problem::new(Code::StorageFull, "no")), Exit::TryLater, Some(Code::StorageFull)),
            (ChangeError::Chunks(ReadError::Unanswered(Silence::TimedOut)), Exit::TryLater, None),
        ] {
            let failure = not_saved("put", &error);
            assert_eq!((failure.exit, failure.code), (exit, code), "{error}");
        }
    }

    #[test]
    fn every_failure_to_read_says_whether_to_try_again() {
        for (error, exit, code) in [
            (ReadError::Reset, Exit::Failed, Some(Code::Reset)),
            (ReadError::Unanswered(Silence::NoResponders), Exit::TryLater, None),
            (ReadError::Unanswered(Silence::TimedOut), Exit::TryLater, None),
            (ReadError::Behind(Problem::new(Code::Behind, "no")), Exit::TryLater, Some(Code::Behind)),
            (ReadError::Denied(Problem::new(Code::Denied, "no")), Exit::Failed, Some(Code::Denied)),
            (ReadError::Closed, Exit::Failed, None),
            (ReadError::Missing(Problem::new(Code::Missing, "no")), Exit::Failed, Some(Code::Missing)),
            (ReadError::Sink(std::io::ErrorKind::BrokenPipe), Exit::ReaderGone, None),
        ] {
            let failure = not_answered("get", &error);
            assert_eq!((failure.exit, failure.code), (exit, code), "{error}");
        }
    }

    #[test]
    fn the_host_name_stands_in_for_a_device() {
        use clap::Parser;
        let line = ["roam", "ls", "t/u/a", "--device", "pc"];
        let mut global = crate::cli::Cli::try_parse_from(line).unwrap().global;
        assert_eq!(this_device(&global).unwrap().as_str(), "pc");
        global.device = None;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(this_device(&global).unwrap().as_str(), host.trim());
    }
}
