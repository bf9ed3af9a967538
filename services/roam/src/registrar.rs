//! The bus as a registrar sees it, in the account where tokens and audit are.

use std::path::PathBuf;

use roam_nats::{Bus, BusSettings, Role};

use crate::{
    cli::{Global, KeyDir},
    connect::{bus_settings, not_on_the_bus},
    failure::Failure,
};

/// Connects as the registrar. `what` is what is attempted, for people.
pub(crate) async fn connect(keys: &KeyDir, global: &Global, what: &str) -> Result<Bus, Failure> {
    let bus = Bus::connect(&settings(keys, global, what)?, "roam-registrar").await;
    bus.map_err(|error| not_on_the_bus(what, &error))
}

/// The directory of the keys.
pub(crate) fn directory<'a>(keys: &'a KeyDir, what: &str) -> Result<&'a PathBuf, Failure> {
    let missing =
        || Failure::usage(what, "where the keys are is not known").hint("name their directory with --keys DIR");
    keys.keys.as_ref().ok_or_else(missing)
}

fn settings(keys: &KeyDir, global: &Global, what: &str) -> Result<BusSettings, Failure> {
    // A token is no way to make tokens, and what the environment says for other commands is none either.
    if global.said.has("token-file") {
        let refused = Failure::usage(what, "--token-file: of no use here");
        return Err(refused.hint("the registrar's key is: it is looked for in --keys DIR, or named with --nkey FILE"));
    }
    let mut settings = bus_settings(global);
    settings.token_file = None;
    settings.credentials = settings.credentials.filter(|_| global.said.has("creds"));
    settings.nkey_seed = settings.nkey_seed.filter(|_| global.said.has("nkey"));
    if settings.credentials.is_none() && settings.nkey_seed.is_none() {
        settings.nkey_seed = Some(directory(keys, what)?.join("registrar.nk"));
    }
    if settings.ca.is_none() {
        settings.ca = keys.keys.as_ref().map(|keys| keys.join("ca.pem")).filter(|ca| ca.exists());
        settings.tls |= settings.ca.is_some();
    }
    Ok(settings.signed_in_as(Role::Registrar))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        cli::{Cli, Command},
        failure::Exit,
    };

    /// How `roam audit` signs in where every way of other commands is exported.
    fn signing_in(options: &str) -> Result<BusSettings, Failure> {
        let Cli { mut global, command } = Cli::read(format!("roam audit {options}").split_whitespace()).unwrap();
        let sign_in = &mut global.sign_in;
        for way in [&mut sign_in.creds, &mut sign_in.token_file, &mut sign_in.nkey] {
            way.get_or_insert_with(|| "exported".into());
        }
        match command {
            Command::Audit(args) => settings(&args.keys, &global, "audit"),
            other => panic!("not audit: {other:?}"),
        }
    }

    #[test]
    fn a_registrar_signs_in_by_its_own_key_or_by_what_stands_on_the_command_line() {
        for (options, seed, credentials) in [
            ("--keys k", Some("k/registrar.nk"), None),
            ("--keys k --nkey n", Some("n"), None),
            ("--keys k --creds c", None, Some("c")),
            ("--creds c", None, Some("c")),
        ] {
            let settings = signing_in(options).unwrap();
            let [seed, credentials] = [seed, credentials].map(|file| file.map(PathBuf::from));
            assert_eq!((settings.nkey_seed, settings.credentials), (seed, credentials), "{options}");
            assert_eq!(settings.token_file, None, "{options}");
        }
        let refused = signing_in("--keys k --token-file t").unwrap_err();
        assert_eq!((refused.exit, refused.why.as_str()), (Exit::Usage, "--token-file: of no use here"));
    }
}
