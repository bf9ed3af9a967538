//! Takes the questions of the servers and sends the answers. All auth services share the questions; a server that gets no
//! answer in time lets nobody in. A question that waits for the keys of a provider keeps no other waiting.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_nats::{Bus, Headers, Message, SubscribeError};
use roam_process::{Condition, clock};
use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};
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
/// How long a question waits for the keys of a provider: less than a server waits for the answer.
const HOLD: Duration = Duration::from_secs(3);
/// How many questions wait so at most.
const MOST_HELD: usize = 256;
/// Where nothing was asked for so long, nothing is on its way: longer than a machine that is busy takes to bring the first of
/// many questions.
const QUIET: Duration = Duration::from_millis(300);
/// How long a stop waits for that at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Answers questions as they come.
pub(crate) struct Callout {
    /// The connection that questions come on and their answers leave by, which is what the server allows, and nothing else.
    pub(crate) bus: Bus,
    pub(crate) answerer: Answerer,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    /// Holds once the server knows that we listen.
    pub(crate) condition: Condition,
}

/// A question, and where its answer goes.
struct Asked {
    question: Question,
    reply: String,
    began: Instant,
}

impl Callout {
    /// Works until the shutdown, and then until whatever had come is answered.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), SubscribeError> {
        // Until then it would turn everybody away, whom another instance lets in.
        if shutdown.run_until_cancelled(self.answerer.revoked.known()).await.is_none() {
            return Ok(());
        }
        let mut questions = self.bus.subscribe_shared(SUBJECT.to_owned(), GROUP).await?;
        // Without an answer the connection is down, which the health says elsewhere.
        let _ = self.bus.round_trip(LISTENING_WITHIN).await;
        self.condition.set_ready();
        let mut held = FuturesUnordered::new();
        let mut leave_by = None;
        while leave_by.is_none_or(|by| Instant::now() < by) {
            select! {
                biased;
                () = shutdown.cancelled(), if leave_by.is_none() => leave_by = Some(Instant::now() + LEAVE_WITHIN),
                Some(asked) = held.next() => self.settle(asked).await,
                message = questions.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let provided = self.answerer.providers.asked();
                    let Some(asked) = self.read(message) else { continue };
                    match self.decide(&asked) {
                        Err(refused) if refused.may_pass() && held.len() < MOST_HELD => {
                            held.push(self.hold(asked, provided));
                        }
                        decided => self.answer(asked, decided).await,
                    }
                }
                () = sleep(QUIET), if leave_by.is_some() => break,
            }
        }
        // The library takes whatever happens next on a connection for the end of a drain (async-nats 0.51). Were that an answer
        // that leaves, or the first of several questions, and not the server's word that all has come, whoever asks the next
        // one would be turned away after ten seconds. So it begins when all is quiet, and nothing is sent before its end.
        questions.drain().await;
        let mut last = Vec::new();
        while let Some(message) = questions.next().await {
            last.push(message);
        }
        for asked in last.into_iter().filter_map(|message| self.read(message)) {
            let decided = self.decide(&asked);
            self.answer(asked, decided).await;
        }
        // Whoever asked waits for an answer, whatever it is.
        while let Some(asked) = held.next().await {
            self.settle(asked).await;
        }
        Ok(())
    }

    fn read(&self, message: Message) -> Option<Asked> {
        let began = Instant::now();
        let (Some(question), Some(reply)) = (Question::read(&message.payload), message.reply) else {
            self.metrics.ignored();
            return None;
        };
        Some(Asked { question, reply, began })
    }

    fn decide(&self, asked: &Asked) -> Result<Token, TokenError> {
        self.answerer.decide(&asked.question, now())
    }

    /// Gives a question back once it can be decided, or is due.
    async fn hold(&self, asked: Asked, mut provided: watch::Receiver<u64>) -> Asked {
        let deciding = async {
            while provided.changed().await.is_ok() {
                if !self.decide(&asked).is_err_and(TokenError::may_pass) {
                    return;
                }
            }
        };
        let _ = timeout(HOLD, deciding).await;
        asked
    }

    async fn settle(&self, asked: Asked) {
        let decided = self.decide(&asked);
        self.answer(asked, decided).await;
    }

    async fn answer(&self, asked: Asked, decided: Result<Token, TokenError>) {
        let Asked { question, reply, began } = asked;
        match self.answerer.write(&question, &decided, now()) {
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

/// In seconds since 1970.
fn now() -> u64 {
    clock::now_ns() / 1_000_000_000
}

fn event(question: Question, decided: Result<Token, TokenError>) -> AuditEvent {
    let client = question.client.into();
    match decided {
        Ok(Token { id, grant, expires, .. }) => {
            AuditEvent::SignedIn { token: id, grant, expires: Some(expires), client }
        }
        Err(refused) => AuditEvent::Refused { reason: refused.as_str().to_owned(), client },
    }
}
