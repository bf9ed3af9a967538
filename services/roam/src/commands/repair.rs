//! `roam repair`: mends durables that stand ahead of their stream.

use roam_nats::{Bus, CheckedConsumer, FoundConsumer, Role, repair_consumers};
use serde_json::json;

use super::provision::not_provisioned;
use crate::{
    cli::{Global, Mendable, Repair},
    connect::{bus_settings, not_on_the_bus},
    failure::Failure,
    output::Output,
};

const WHAT: &str = "repair consumers";

pub(super) async fn run(args: &Repair, global: &Global, out: Output) -> Result<(), Failure> {
    let Mendable::Consumers = args.what;
    let bus = Bus::connect(&bus_settings(global).signed_in_as(Role::Operator), "roam-repair").await;
    let bus = bus.map_err(|error| not_on_the_bus(WHAT, &error))?;
    let checked = repair_consumers(&bus).await;
    bus.close().await;
    say(&checked.map_err(|error| not_provisioned(WHAT, &error))?, out)
}

fn say(checked: &[CheckedConsumer], out: Output) -> Result<(), Failure> {
    for CheckedConsumer { consumer, found } in checked {
        let (state, standing) = match found {
            FoundConsumer::Within(standing) => ("within", Some(standing)),
            FoundConsumer::Ahead(standing) => ("ahead", Some(standing)),
            FoundConsumer::Missing => ("missing", None),
        };
        let (delivered, last) = (standing.map(|standing| standing.delivered), standing.map(|standing| standing.last));
        let repaired = state != "within";
        let line = json!({
            "consumer": consumer, "found": state, "repaired": repaired, "delivered": delivered, "last": last,
        });
        out.object(&line)?;
        match found {
            FoundConsumer::Within(_) => out.say(format_args!("unchanged  {consumer}"))?,
            FoundConsumer::Ahead(standing) => out.say(format_args!(
                "made again {consumer}: it had delivered up to {} of a stream that ends at {}",
                standing.delivered, standing.last
            ))?,
            FoundConsumer::Missing => out.say(format_args!("made again {consumer}: it was missing"))?,
        }
    }
    Ok(())
}
