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
    deployment.overrides = overrides_of(args);
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
    Overrides {
        changes_max_messages: room.changes_max_messages,
        changes_max_bytes: room.changes_max_bytes,
        journal_max_bytes: room.journal_max_bytes,
        journal_days: room.journal_days,
        rejected_max_bytes: room.rejected_max_bytes,
        chunks_max_bytes: room.chunks_max_bytes,
        chunk_grace_seconds: room.chunk_grace.map(u64::from),
        ..Overrides::default()
    }
}

fn overrides_of(args: &Provision) -> Overrides {
    Overrides {
        backups_max_bytes: args.backups_max_bytes,
        audit_max_bytes: args.audit_max_bytes,
        tokens_max_bytes: args.tokens_max_bytes,
        ..overrides(args.room)
    }
}

/// Why a deployment was not provisioned.
pub(super) fn not_provisioned(what: &str, error: &ProvisionError) -> Failure {
    let failure = Failure::because(what, error);
    match error {
        ProvisionError::Replicas { .. } => Failure { exit: Exit::Usage, ..failure },
        ProvisionError::Drift(_) => failure.hint(
            "nothing was changed; give the options of the first time, or mend what differs with the tools of NATS, \
             on purpose",
        ),
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
    #![allow(clippy::unwrap_used)]
    use clap::error::ErrorKind;

    use super::*;
    use crate::cli::{Cli, Command};

    fn asked(line: &str) -> Overrides {
        match Cli::read(line.split(' ')).unwrap().command {
            Command::Provision(args) => overrides_of(&args),
            other => panic!("not provision: {other:?}"),
        }
    }

    #[test]
    fn every_setting_of_the_streams_has_an_option() {
        assert_eq!(asked("roam provision"), Overrides::default());
        let line = "roam provision --changes-max-messages 1 --changes-max-bytes 2000000 --journal-days 3 \
                    --journal-max-bytes 4000000 --rejected-max-bytes 5000000 --backups-max-bytes 6 \
                    --chunks-max-bytes 9000000 --chunk-grace 12h";
        let of_auth = "roam provision --auth --audit-max-bytes 7000000 --tokens-max-bytes 8000000";
        let expected = Overrides {
            changes_max_messages: Some(1),
            changes_max_bytes: Some(2_000_000),
            journal_days: Some(3),
            journal_max_bytes: Some(4_000_000),
            rejected_max_bytes: Some(5_000_000),
            backups_max_bytes: Some(6),
            audit_max_bytes: None,
            tokens_max_bytes: None,
            chunks_max_bytes: Some(9_000_000),
            chunk_grace_seconds: Some(43_200),
        };
        assert_eq!(asked(line), expected);
        let expected =
            Overrides { audit_max_bytes: Some(7_000_000), tokens_max_bytes: Some(8_000_000), ..Overrides::default() };
        assert_eq!(asked(of_auth), expected);
        // What is about other streams than those of the auth services is refused beside --auth.
        for option in line.split(" --").skip(1) {
            let both = format!("{of_auth} --{option}");
            assert_eq!(Cli::read(both.split(' ')).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{both}");
        }
    }

    #[test]
    fn what_differs_may_be_what_was_not_said_again() {
        let [object, setting] = ["stream ROAM_JOURNAL", "max_age"].map(str::to_owned);
        let (expected, found) = ("604800000000000".to_owned(), "2592000000000000".to_owned());
        let drift = ProvisionError::Drift(vec![roam_nats::Difference { object, setting, expected, found }]);
        assert!(not_provisioned("up", &drift).hint.unwrap().contains("give the options of the first time, or mend"));
    }

    #[test]
    fn a_disk_that_is_too_small_says_which_option_helps() {
        for (stream, option) in [
            ("ROAM_JOURNAL", "--journal-max-bytes BYTES"),
            ("ROAM_CHUNKS_3", "--chunks-max-bytes BYTES"),
            ("OBJ_ROAM_BACKUPS", "--backups-max-bytes BYTES"),
            ("ROAM_AUDIT", "--audit-max-bytes BYTES"),
            ("ROAM_TOKENS", "--tokens-max-bytes BYTES"),
        ] {
            let source = roam_nats::Refusal { err_code: 10_047, description: "insufficient storage".to_owned() };
            let error = ProvisionError::NoRoom { stream: stream.to_owned(), wanted: 8 << 30, source };
            let hint = not_provisioned("up", &error).hint.unwrap_or_default();
            assert!(hint.contains("8.00 GiB") && hint.contains(option), "{stream}: {hint}");
        }
    }
}
