//! What an operator does after the journal of several replicas was rolled back or lost: looks how they stand, and has the one
//! that applied most resume, by the command line. The others then take a backup of it by themselves.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Result, bail, ensure};
use roam_nats::Headers;
use roam_schemas::{
    Encoding, Remedy, StatusReply, decode,
    subjects::{self, OperatorVerb},
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::Site;

/// How long all that may take.
const WITHIN: Duration = Duration::from_secs(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// A replica that stands still stands still for good after this: others may find out later.
const SETTLED: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(300);

impl Site {
    /// Returns once no replica stands still for want of a decision.
    pub(super) async fn resume(&mut self) -> Result<()> {
        let until = Instant::now() + WITHIN;
        let mut since = Instant::now();
        let mut before = BTreeSet::new();
        let mut refused = None;
        while Instant::now() < until {
            self.supervise().await;
            let standing = self.standing().await.unwrap_or_default();
            let undecided: Vec<_> = standing.iter().filter(|standing| is_undecided(standing)).collect();
            // In whatever order they answer.
            let names: BTreeSet<_> = undecided.iter().map(|standing| standing.name.clone()).collect();
            if names != before || standing.len() < self.replicas.len() {
                (since, before) = (Instant::now(), names);
            } else if since.elapsed() > SETTLED {
                let furthest = undecided.into_iter().max_by_key(|standing| standing.position.map(|at| at.published));
                match furthest {
                    // While the bus has no leader an order fails: whoever gives it tries again.
                    Some(furthest) => match self.order_resume(furthest.name.as_str()).await {
                        Ok(()) => self.resumed += 1,
                        Err(error) => refused = Some(error),
                    },
                    // Nobody waits for a decision: they went on, or take the backup that was made for them.
                    None => return Ok(()),
                }
            }
            sleep(PAUSE).await;
        }
        bail!("after {WITHIN:?} replicas wait to be told which of them counts; the last order: {refused:?}")
    }

    /// How the replicas that answer stand.
    async fn standing(&self) -> Result<Vec<StatusReply>> {
        let bus = self.servers.operator().await?;
        let headers = Headers::new().with_content_type(Encoding::Postcard);
        let subject = subjects::operate(None, OperatorVerb::Status);
        let answers = bus.ask_all(subject, headers, Default::default(), (self.replicas.len(), ANSWER_WITHIN)).await?;
        bus.close().await;
        Ok(answers.iter().filter_map(|answer| decode(&answer.payload, Encoding::Postcard).ok()).collect())
    }

    async fn order_resume(&self, name: &str) -> Result<()> {
        let mut command = Command::new(self.plan.programs.join("roam"));
        command.args(["storage", "resume", name, "--yes", "--server", &self.servers.bus_settings().servers.join(",")]);
        let ran = timeout(WITHIN, command.stdin(Stdio::null()).kill_on_drop(true).output()).await??;
        ensure!(ran.status.success(), "roam storage resume {name}: {}", String::from_utf8_lossy(&ran.stderr).trim());
        Ok(())
    }
}

fn is_undecided(standing: &StatusReply) -> bool {
    let remedy = standing.halted.as_ref().map(|halted| &halted.remedy);
    matches!(remedy, Some(Remedy::Resume | Remedy::BackupOrResume))
}
