//! Ends the connections of revoked tokens. The servers are asked for all connections and who they are, so it does not
//! matter which auth service let them in, or whether that still runs.

use std::{convert::Infallible, error::Error, time::Duration};

use roam_nats::{Bus, Headers};
use roam_schemas::TokenId;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Audit, AuditEvent},
    metrics::Metrics,
    revoked::Revoked,
};

/// How many connections a server names in one answer.
const PAGE: usize = 1_024;
/// How long to wait for the next server's answer: how many there are is not known.
const QUIET: Duration = Duration::from_millis(500);
/// How long a server may take to end a connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Who was let in by an auth service that had not heard of the revocation yet is found when we look once more.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends connections.
pub(crate) struct Kicker {
    /// In the system account.
    pub(crate) bus: Bus,
    pub(crate) revoked: Revoked,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
}

#[derive(Serialize)]
struct Ask {
    acc: &'static str,
    auth: bool,
    limit: usize,
    offset: usize,
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Connections,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Connections {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    cid: u64,
    /// The name in what the auth service answered: the id of the token.
    #[serde(default)]
    authorized_user: String,
}

#[derive(Serialize)]
struct Kick {
    cid: u64,
}

impl Kicker {
    /// Works until the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut learnt = self.revoked.learnt();
        let working = async {
            loop {
                // The first time too: tokens may have been revoked while no auth service ran.
                self.look().await;
                match timeout(AGAIN_AFTER, learnt.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return,
                    Err(_) => self.look().await,
                }
                if learnt.changed().await.is_err() {
                    return;
                }
            }
        };
        shutdown.run_until_cancelled(working).await;
        Ok(())
    }

    /// Ends every connection of a revoked token, however often that has to be tried.
    async fn look(&self) {
        while !self.revoked.is_empty()
            && let Err(error) = self.sweep().await
        {
            tracing::warn!(error = &*error as &dyn Error, "connections of revoked tokens are not ended yet");
            sleep(PAUSE).await;
        }
    }

    async fn sweep(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut offset = 0;
        loop {
            let answers = self.connections(offset).await?;
            if answers.is_empty() {
                return Err("no server says who is connected".into());
            }
            for Answer { server, data } in &answers {
                for connection in &data.connections {
                    self.end(&server.id, connection).await?;
                }
            }
            offset += PAGE;
            if answers.iter().all(|answer| answer.data.total <= offset) {
                return Ok(());
            }
        }
    }

    /// A page of the connections of every server.
    async fn connections(&self, offset: usize) -> Result<Vec<Answer>, Box<dyn Error + Send + Sync>> {
        let inbox = self.bus.new_inbox();
        let mut answers = self.bus.subscribe(inbox.clone()).await?;
        let ask = serde_json::to_vec(&Ask { acc: "ROAM", auth: true, limit: PAGE, offset })?;
        let subject = "$SYS.REQ.SERVER.PING.CONNZ".to_owned();
        self.bus.send_with_reply(subject, inbox, Headers::new(), ask.into()).await?;
        let mut read = Vec::new();
        while let Ok(Some(answer)) = timeout(QUIET, answers.next()).await {
            read.push(serde_json::from_slice(&answer.payload)?);
        }
        Ok(read)
    }

    async fn end(&self, server: &str, connection: &Connection) -> Result<(), Box<dyn Error + Send + Sync>> {
        let revoked = TokenId::parse(&connection.authorized_user).filter(|id| self.revoked.contains(id));
        let Some(id) = revoked else { return Ok(()) };
        let kick = serde_json::to_vec(&Kick { cid: connection.cid })?;
        // Without a reply subject the server does nothing.
        let subject = format!("$SYS.REQ.SERVER.{server}.KICK");
        self.bus.request(subject, Headers::new(), kick.into(), ANSWER_WITHIN).await?;
        self.metrics.ended();
        tracing::info!(token = %id, "a connection of a revoked token is ended");
        self.audit.tell(AuditEvent::Ended { token: id });
        Ok(())
    }
}
