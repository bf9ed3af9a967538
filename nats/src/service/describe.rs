//! What a service says of itself: PING, INFO and STATS of the services API (ADR-32), on the three subjects of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use serde::Serialize;
use time::OffsetDateTime;

use super::{ServiceError, Shared};
use crate::message::Message;

/// What an endpoint did so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    last_error: Mutex<String>,
}

/// The questions that are asked of the service.
pub(super) struct Questions {
    asked: SelectAll<BoxStream<'static, (Verb, Message)>>,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
}

#[derive(Serialize)]
struct Identity<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    id: &'a str,
    version: &'a str,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    description: &'a str,
    endpoints: Vec<EndpointInfo<'a>>,
}

#[derive(Serialize)]
struct EndpointInfo<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'a str,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Stats<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    endpoints: Vec<EndpointStats<'a>>,
}

#[derive(Serialize)]
struct EndpointStats<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'a str,
    num_requests: u64,
    num_errors: u64,
    last_error: String,
    /// In nanoseconds, as the average.
    processing_time: u64,
    average_processing_time: u64,
}

impl Questions {
    pub(super) async fn listen(shared: &Shared) -> Result<Self, ServiceError> {
        let mut asked = SelectAll::new();
        for verb in [Verb::Ping, Verb::Info, Verb::Stats] {
            let all = format!("$SRV.{}", verb.name());
            let ours = format!("{all}.{}", shared.spec.name);
            let mine = format!("{ours}.{}", shared.id);
            for subject in [all, ours, mine] {
                let subscription = shared.bus.subscribe(subject.clone()).await;
                let subscription = subscription.map_err(|source| ServiceError::Subscribe { subject, source })?;
                asked.push(subscription.map(move |message| (verb, message)).boxed());
            }
        }
        Ok(Self { asked })
    }

    /// Answers for as long as the connection lasts.
    pub(super) async fn answer(mut self, shared: Arc<Shared>) {
        while let Some((verb, question)) = self.asked.next().await {
            let Some(reply) = question.reply else { continue };
            // Strings and numbers always serialise.
            let answer = Bytes::from(verb.describe(&shared).unwrap_or_default());
            // Whoever asks may name an impossible reply subject; that must not silence us for the others.
            let _ = shared.bus.publish(Subject::from(reply), None, None, answer).await;
        }
    }
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        }
    }

    fn describe(self, shared: &Shared) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Ping => serde_json::to_vec(&Identity::of(shared, "io.nats.micro.v1.ping_response")),
            Self::Info => serde_json::to_vec(&Info::of(shared)),
            Self::Stats => serde_json::to_vec(&Stats::of(shared)),
        }
    }
}

impl<'a> Identity<'a> {
    fn of(shared: &'a Shared, kind: &'static str) -> Self {
        let spec = &shared.spec;
        Self { kind, name: &spec.name, id: &shared.id, version: &spec.version, metadata: BTreeMap::new() }
    }
}

impl<'a> Info<'a> {
    fn of(shared: &'a Shared) -> Self {
        let endpoints = shared.spec.endpoints.iter().map(|endpoint| EndpointInfo {
            name: &endpoint.name,
            subject: &endpoint.subject,
            queue_group: &endpoint.queue_group,
            metadata: BTreeMap::new(),
        });
        Self {
            identity: Identity::of(shared, "io.nats.micro.v1.info_response"),
            description: &shared.spec.description,
            endpoints: endpoints.collect(),
        }
    }
}

impl<'a> Stats<'a> {
    fn of(shared: &'a Shared) -> Self {
        let endpoints = shared.spec.endpoints.iter().zip(&shared.tallies).map(|(endpoint, tally)| {
            let num_requests = tally.requests.load(Ordering::Relaxed);
            let processing_time = tally.nanoseconds.load(Ordering::Relaxed);
            EndpointStats {
                name: &endpoint.name,
                subject: &endpoint.subject,
                queue_group: &endpoint.queue_group,
                num_requests,
                num_errors: tally.errors.load(Ordering::Relaxed),
                last_error: tally.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                processing_time,
                average_processing_time: processing_time.checked_div(num_requests).unwrap_or_default(),
            }
        });
        Self {
            identity: Identity::of(shared, "io.nats.micro.v1.stats_response"),
            started: shared.started,
            endpoints: endpoints.collect(),
        }
    }
}

impl Tally {
    /// One request was answered, after so long; with an error, if there was one.
    pub(super) fn count(&self, took: Duration, error: Option<String>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(error) = error {
            self.errors.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        }
    }
}
