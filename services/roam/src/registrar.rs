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
    let mut settings = bus_settings(global);
    if settings.nkey_seed.is_none() {
        settings.nkey_seed = Some(directory(keys, what)?.join("registrar.nk"));
    }
    // A token is no way to make tokens, and what the environment says for other commands is none either.
    settings.token_file = None;
    settings.credentials = settings.credentials.filter(|_| global.said.has("creds"));
    if settings.ca.is_none() {
        settings.ca = keys.keys.as_ref().map(|keys| keys.join("ca.pem")).filter(|ca| ca.exists());
        settings.tls |= settings.ca.is_some();
    }
    Ok(settings.signed_in_as(Role::Registrar))
}
