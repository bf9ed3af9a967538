//! `roam provision`: makes the streams and durables of a deployment, or checks them.

use roam_nats::{Bus, Deployment, Overrides, ProvisionError, Report, Role, provision, provision_auth};
use serde_json::json;

use crate::{
    cli::{Global, Provision, Room, option_of},
    connect::{bus_settings, not_on_the_bus},
    failure::{Exit, Failure},
    output::Output,
    show,
};

const WHAT: &str = "provision";

pub(super) async fn run(args: &Provision, global: &Global, out: Output) -> Result<(), Failure> {
    let role = if args.auth { Role::Registrar } else { Role::Operator };
    let bus = Bus::connect(&bus_settings(global).signed_in_as(role), "roam-provision").await;
    let bus = bus.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let mut deployment = Deployment::new(args.replicas, args.storage_replicas.into());
    deployment.shards = args.shards;
    deployment.overrides = Overrides { backups_max_bytes: args.backups_max_bytes, ..overrides(args.room) };
    let report = match args.auth {
        true => provision_auth(&bus, &deployment).await,
        false => provision(&bus, &deployment).await,
    };
    bus.close().await;
    say(&report.map_err(|error| not_provisioned(WHAT, &error))?, out)
}

fn say(report: &Report, out: Output) -> Result<(), Failure> {
    out.object(&json!({ "created": report.created, "updated": report.updated, "unchanged": report.unchanged }))?;
    for object in &report.created {
        out.say(format_args!("created    {object}"))?;
    }
    for object in &report.updated {
        out.say(format_args!("updated    {object}: an earlier version had made it otherwise"))?;
    }
    for object in &report.unchanged {
        out.say(format_args!("unchanged  {object}"))?;
    }
    Ok(())
}

/// What is asked for instead of what the definitions say.
pub(super) fn overrides(room: Room) -> Overrides {
    let Room { changes_max_bytes, journal_max_bytes, rejected_max_bytes, chunks_max_bytes } = room;
    Overrides { changes_max_bytes, journal_max_bytes, rejected_max_bytes, chunks_max_bytes, ..Overrides::default() }
}

/// Why a deployment was not provisioned.
pub(super) fn not_provisioned(what: &str, error: &ProvisionError) -> Failure {
    let failure = Failure::because(what, error);
    match error {
        ProvisionError::Replicas { .. } => Failure { exit: Exit::Usage, ..failure },
        ProvisionError::Drift(_) => {
            failure.hint("nothing was changed; mend what differs with the tools of NATS, on purpose")
        }
        ProvisionError::NoRoom { stream, wanted, .. } => {
            let make_room = "give the NATS server more of its disk (max_file_store)";
            failure.hint(match option_of(stream) {
                Some(option) => format!(
                    "{} are set aside for it: take less with {option} BYTES, or {make_room}",
                    show::bytes(*wanted)
                ),
                None => make_room.to_owned(),
            })
        }
        ProvisionError::Unavailable { .. } => Failure { exit: Exit::TryLater, ..failure },
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_says_which_option_helps() {
        let source = roam_nats::Refusal { err_code: 10_047, description: "insufficient storage".to_owned() };
        let error = ProvisionError::NoRoom { stream: "ROAM_JOURNAL".to_owned(), wanted: 8 << 30, source };
        let failure = not_provisioned("up", &error);
        let hint = failure.hint.unwrap_or_default();
        assert!(hint.contains("8.00 GiB") && hint.contains("--journal-max-bytes"), "{hint}");
    }
}
