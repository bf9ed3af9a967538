//! `roam keys`: makes the keys, certificates and the configuration of NATS servers that let nobody in without.

use std::{fs, path::Path};

use roam_auth::Keyring;
use roam_nats::{PermissionTables, security_conf};
use roam_schemas::Shards;
use serde_json::json;

use crate::{certificates::Certificates, cli::Keys, failure::Failure, output::Output};

const WHAT: &str = "keys";
/// What the servers' configuration includes.
const CONF: &str = "security.conf";
/// What it includes within `cluster { }`.
const ROUTES: &str = "routes.conf";

pub(super) fn run(args: &Keys, out: Output) -> Result<(), Failure> {
    let directory = std::path::absolute(&args.directory).map_err(|error| Failure::because(WHAT, &error))?;
    let made = make(&directory, &args.hosts, args.mutual_tls, args.shards)?;
    let conf = directory.join(CONF);
    let routes = directory.join(ROUTES);
    for (file, text) in [(&conf, &made.conf.text), (&routes, &made.conf.routes)] {
        fs::write(file, text).map_err(|error| Failure::because(file.display().to_string(), &error))?;
    }
    out.object(&json!({
        "directory": directory, "conf": conf, "routes": routes, "signer": made.keys.signer(), "ca": made.certificates.ca(),
        "added": made.keys.added(),
    }))?;
    if let [_, ..] = made.keys.added() {
        out.note(format_args!(
            "added to the keys that were there: {}\n  give each to whoever it is for, then the new {CONF} to every server, and \
             restart the servers one after the other: they do not reload who gets in",
            made.keys.added().join(", "),
        ));
    }
    let shards = match args.shards.is_one() {
        true => String::new(),
        false => format!("\n  shards = {}", args.shards.get()),
    };
    out.say(format_args!(
        "keys, certificates, {CONF} and {ROUTES} are in {}\n\nBeside the configuration of each server, copies of the two; in it:\n  \
         include {CONF}\nand within cluster {{ }}:\n  include {ROUTES}\n\n\
         In the settings of the auth services:\n  signers = [\"{}\"]{shards}",
        directory.display(),
        made.keys.signer(),
    ))
}

/// What lets people in.
pub(super) struct Made {
    pub(super) keys: Keyring,
    pub(super) certificates: Certificates,
    pub(super) conf: roam_nats::SecurityConf,
}

/// Opens what is in a directory, and makes what is missing.
pub(super) fn make(directory: &Path, hosts: &[String], mutual_tls: bool, shards: Shards) -> Result<Made, Failure> {
    let keys = Keyring::open(directory).map_err(|error| Failure::because(WHAT, &error))?;
    let certificates = Certificates::open(directory, hosts).map_err(|error| Failure::because(WHAT, &error))?;
    let tables = PermissionTables::read(shards).map_err(|error| Failure::because(WHAT, &error))?;
    let conf = security_conf(&tables, &keys.security(Some(certificates.of_server(mutual_tls))));
    Ok(Made { keys, certificates, conf })
}
