//! `roam doctor`: looks at a deployment and says what is not as it should be, each with what to do about it.

use roam_nats::{Bus, Finding, Role, Soundness, examine};
use roam_process::clock;

use crate::{
    cli::{Doctor, Global},
    connect::{bus_settings, not_on_the_bus},
    failure::Failure,
    output::Output,
    show,
};

const WHAT: &str = "doctor";

pub(super) async fn run(args: &Doctor, global: &Global, out: Output) -> Result<(), Failure> {
    let settings = bus_settings(global).signed_in_as(Role::Operator);
    let bus = Bus::connect(&settings, "roam-doctor").await.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let findings = examine(&bus, &settings, args.monitor.as_deref(), clock::now_ns).await;
    bus.close().await;
    for finding in &findings {
        say(finding, out)?;
    }
    let problems = findings.iter().filter(|finding| finding.state == Soundness::Problem).count();
    match problems {
        0 => Ok(()),
        problems => Err(Failure::new(WHAT, format!("{} to mend", show::of(problems as u64, "problem")))),
    }
}

fn say(finding: &Finding, out: Output) -> Result<(), Failure> {
    out.object(finding)?;
    row(finding, out)
}

/// A finding, for people.
pub(super) fn row(finding: &Finding, out: Output) -> Result<(), Failure> {
    let Finding { check, state, found, remedy } = finding;
    let state = match state {
        Soundness::Sound => "ok",
        Soundness::Unknown => "unknown",
        Soundness::Warning => "warning",
        Soundness::Problem => "PROBLEM",
    };
    out.row(format_args!("{state:8} {check:14} {}", show::text(found)))?;
    match remedy {
        Some(remedy) => out.row(format_args!("{:23} -> {remedy}", "")),
        None => Ok(()),
    }
}
