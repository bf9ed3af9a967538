//! Mends durables that stand ahead of their stream, as they do when a stream loses its end while the server runs: they
//! receive nothing of what is newly accepted, and report no backlog. Such a durable is deleted and made again, and begins
//! at the first message of its stream. Never touches one that stands within its stream, and never a stream.

use serde_json::json;

use super::{
    ANSWER_WITHIN, Deployment, Object, ProvisionError, check_server,
    definition::{DurableDefinition, definitions},
    patiently,
};
use crate::{
    Bus, ConsumerStanding, REJECTED_STREAM, StateError, consumer_standing, provisioned_shards,
    streams::api::{self, ApiError, code},
};

/// A durable that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedConsumer {
    /// `STREAM/NAME`.
    pub consumer: String,
    /// How it was. Unless it stood within its stream, it was made again.
    pub found: FoundConsumer,
}

/// How a durable was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundConsumer {
    /// It stood within its stream: nothing was done.
    Within(ConsumerStanding),
    /// It stood ahead of its stream.
    Ahead(ConsumerStanding),
    /// There was none: deleted by someone, or by a repair that did not come to its end.
    Missing,
}

/// Looks at the durables of all streams, and makes those again that stand ahead of their stream or are missing. Whatever
/// reads them notices by itself. What they announce or append again has no further effect.
pub async fn repair_consumers(bus: &Bus) -> Result<Vec<CheckedConsumer>, ProvisionError> {
    check_server(bus)?;
    let mut checked = Vec::new();
    // Durables are the same in every deployment, and in every shard.
    let shards = provisioned_shards(bus).await.map_err(|error| untold(REJECTED_STREAM, error))?;
    for stream in definitions(&Deployment { shards, ..Deployment::new(1, 1) })? {
        for durable in &stream.durables {
            checked.push(repair(bus, &stream.name, durable).await?);
        }
    }
    Ok(checked)
}

async fn repair(bus: &Bus, stream: &str, durable: &DurableDefinition) -> Result<CheckedConsumer, ProvisionError> {
    let object = Object::durable(stream, durable);
    let found = match consumer_standing(bus, stream, &durable.name).await {
        Ok(standing) if standing.is_ahead() => FoundConsumer::Ahead(standing),
        Ok(standing) => FoundConsumer::Within(standing),
        // Without its stream it cannot be made, which then is the answer.
        Err(StateError::NotFound { .. }) => FoundConsumer::Missing,
        Err(error) => return Err(untold(&object.name, error)),
    };
    if let FoundConsumer::Ahead(_) = found {
        patiently(&object, || delete(bus, stream, &durable.name)).await?;
    }
    if !matches!(found, FoundConsumer::Within(_)) {
        patiently(&object, || object.create(bus)).await?;
    }
    Ok(CheckedConsumer { consumer: format!("{stream}/{}", durable.name), found })
}

fn untold(object: &str, error: StateError) -> ProvisionError {
    match error {
        StateError::Denied { object } => ProvisionError::Denied { object },
        error => ProvisionError::Unavailable { object: object.to_owned(), source: error.into() },
    }
}

async fn delete(bus: &Bus, stream: &str, name: &str) -> Result<(), ApiError> {
    let subject = format!("CONSUMER.DELETE.{stream}.{name}");
    let deleted: Result<serde_json::Value, _> = api::call(bus, &subject, &json!({}), ANSWER_WITHIN).await;
    match deleted {
        Ok(_) => Ok(()),
        Err(ApiError::Refused(refusal)) if refusal.err_code == code::CONSUMER_NOT_FOUND => Ok(()),
        Err(error) => Err(error),
    }
}
