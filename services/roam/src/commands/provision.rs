//! `roam provision`: makes the streams and durables of a deployment, or checks them.

use roam_nats::{Bus, Deployment, ProvisionError, Report, Role, provision, provision_auth};
use serde_json::json;

use crate::{
    cli::{Global, Provision},
    connect::{bus_settings, not_on_the_bus},
    failure::{Exit, Failure},
    output::Output,
};

const WHAT: &str = "provision";

pub(super) async fn run(args: &Provision, global: &Global, out: Output) -> Result<(), Failure> {
    let role = if args.auth { Role::Registrar } else { Role::Operator };
    let bus = Bus::connect(&bus_settings(global).signed_in_as(role), "roam-provision").await;
    let bus = bus.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let mut deployment = Deployment::new(args.replicas, args.storage_replicas.into());
    deployment.overrides.chunks_max_bytes = args.chunks_max_bytes;
    let report = match args.auth {
        true => provision_auth(&bus, &deployment).await,
        false => provision(&bus, &deployment).await,
    };
    bus.close().await;
    say(&report.map_err(|error| not_provisioned(WHAT, &error))?, out)
}

fn say(report: &Report, out: Output) -> Result<(), Failure> {
    out.object(&json!({ "created": report.created, "unchanged": report.unchanged }))?;
    for object in &report.created {
        out.say(format_args!("created    {object}"))?;
    }
    for object in &report.unchanged {
        out.say(format_args!("unchanged  {object}"))?;
    }
    Ok(())
}

/// Why a deployment was not provisioned.
pub(super) fn not_provisioned(what: &str, error: &ProvisionError) -> Failure {
    let failure = Failure::because(what, error);
    match error {
        ProvisionError::Replicas { .. } => Failure { exit: Exit::Usage, ..failure },
        ProvisionError::Drift(_) => {
            failure.hint("nothing was changed; mend what differs with the tools of NATS, on purpose")
        }
        ProvisionError::Unavailable { .. } => Failure { exit: Exit::TryLater, ..failure },
        _ => failure,
    }
}
