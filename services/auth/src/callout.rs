//! Takes the questions of the servers and sends the answers. All auth services share the questions; a server that gets no
//! answer in time lets nobody in.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use roam_nats::{Bus, Headers, Message, SubscribeError};
use roam_process::{Condition, clock};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answerer, Question},
    audit::{Audit, AuditEvent},
    metrics::Metrics,
    token::{Token, TokenError},
};

/// Where servers ask (ADR-26 of NATS).
const SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// Among those of one group, one answers.
const GROUP: &str = "roam-auth";

/// How long the server may take to say that it knows.
const LISTENING_WITHIN: Duration = Duration::from_secs(5);

/// Answers questions as they come.
pub(crate) struct Callout {
    pub(crate) bus: Bus,
    pub(crate) answerer: Answerer,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    /// Holds once the server knows that we listen.
    pub(crate) condition: Condition,
}

impl Callout {
    /// Works until the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), SubscribeError> {
        let mut questions = self.bus.subscribe_shared(SUBJECT.to_owned(), GROUP).await?;
        // Without an answer the connection is down, which the health says elsewhere.
        let _ = self.bus.round_trip(LISTENING_WITHIN).await;
        self.condition.set_ready();
        while let Some(Some(message)) = shutdown.run_until_cancelled(questions.next()).await {
            self.answer(message).await;
        }
        Ok(())
    }

    async fn answer(&self, message: Message) {
        let began = Instant::now();
        let now = clock::now_ns() / 1_000_000_000;
        let (Some(question), Some(reply)) = (Question::read(&message.payload), message.reply) else {
            self.metrics.ignored();
            return;
        };
        let decided = self.answerer.decide(&question, now);
        match self.answerer.write(&question, &decided, now) {
            Ok(answer) => {
                if let Err(error) = self.bus.send(reply, Headers::new(), answer.into()).await {
                    tracing::warn!(error = &error as &dyn Error, "an answer was not sent");
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn Error, "an answer cannot be written"),
        }
        self.metrics
            .answered(decided.as_ref().map_or_else(|refused| refused.as_str(), |_| "admitted"), began.elapsed());
        self.audit.tell(event(question, decided));
    }
}

fn event(question: Question, decided: Result<Token, TokenError>) -> AuditEvent {
    let client = question.client.into();
    match decided {
        Ok(token) => AuditEvent::SignedIn { token: token.id, grant: token.grant, client },
        Err(refused) => AuditEvent::Refused { reason: refused.as_str().to_owned(), client },
    }
}
