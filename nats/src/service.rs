//! Answering requests through the NATS services API (ADR-32), so that `nats micro` shows who answers, and how fast. What
//! is asked and answered is not known here, nor whether the asker may be answered where they say.

mod describe;
mod requests;

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, SubscribeError};
pub use requests::{Request, Requests};

/// What a service is called and which requests it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// Its version, as in semantic versioning.
    pub version: String,
    /// What it does.
    pub description: String,
    /// What it answers.
    pub endpoints: Vec<EndpointSpec>,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// The subject of the requests, wildcards allowed.
    pub subject: String,
    /// Among those of one group, one answers a request.
    pub queue_group: String,
}

/// A service cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The name of the service or of an endpoint has other signs than letters, digits, `-` and `_`.
    #[error("{0:?} cannot be the name of a service or of an endpoint")]
    Name(String),
    /// A subject cannot be listened on.
    #[error("cannot listen on {subject}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// Why.
        source: SubscribeError,
    },
}

/// A running service. Dropping it stops it, as [`Self::stop`] does.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    leaving: CancellationToken,
    /// What answers questions about the service. Aborted with it.
    _describer: JoinSet<()>,
}

/// What the service, its requests and its descriptions know in common.
#[derive(Debug)]
struct Shared {
    bus: Bus,
    id: String,
    spec: ServiceSpec,
    started: OffsetDateTime,
    /// One for each endpoint, in their order.
    tallies: Vec<describe::Tally>,
}

impl Service {
    /// Begins to listen. The requests must be read without pause: beyond 65,536 of an endpoint they are dropped.
    #[expect(clippy::disallowed_methods, reason = "when it started is only shown")]
    pub async fn start(bus: &Bus, spec: ServiceSpec) -> Result<(Self, Requests), ServiceError> {
        let mut names = std::iter::once(&spec.name).chain(spec.endpoints.iter().map(|endpoint| &endpoint.name));
        if let Some(name) = names.find(|name| !is_name(name)) {
            return Err(ServiceError::Name(name.clone()));
        }
        let inbox = bus.new_inbox();
        let shared = Arc::new(Shared {
            bus: bus.clone(),
            id: inbox.rsplit('.').next().unwrap_or_default().to_owned(),
            started: OffsetDateTime::now_utc(),
            tallies: spec.endpoints.iter().map(|_| describe::Tally::default()).collect(),
            spec,
        });
        let questions = describe::Questions::listen(&shared).await?;
        let leaving = CancellationToken::new();
        let requests = Requests::listen(&shared, leaving.clone()).await?;
        let mut describer = JoinSet::new();
        describer.spawn(questions.answer(Arc::clone(&shared)));
        Ok((Self { shared, leaving, _describer: describer }, requests))
    }

    /// The id that tells this instance from others of the same name.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Takes no further requests. Those that have come are still in [`Requests`], which ends after them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.leaving.cancel();
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
