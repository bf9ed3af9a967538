//! Faults of processes: killed, stopped for a while, stopped and started again; one, one after the other, and all at once.

use anyhow::Result;
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use super::{Doing, Fault, Stage};
use crate::site::Member;

/// Which kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    AccessServer,
    Replica,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Kill,
    Pause,
    Restart,
}

/// One process of a kind.
struct OneProcess {
    name: &'static str,
    who: Who,
    how: How,
    index: usize,
}

/// All processes, killed at once.
struct KillAll;

/// All processes, stopped and started again one after the other.
struct RollingRestart;

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    let kinds = [
        ("kill-access-server", Who::AccessServer, How::Kill),
        ("kill-replica", Who::Replica, How::Kill),
        ("kill-nats", Who::Server, How::Kill),
        ("pause-access-server", Who::AccessServer, How::Pause),
        ("pause-replica", Who::Replica, How::Pause),
        ("pause-nats", Who::Server, How::Pause),
        ("restart-access-server", Who::AccessServer, How::Restart),
        ("restart-replica", Who::Replica, How::Restart),
        ("restart-nats", Who::Server, How::Restart),
    ];
    for (name, who, how) in kinds {
        all.push(Box::new(OneProcess { name, who, how, index: 0 }));
    }
    all.push(Box::new(KillAll));
    all.push(Box::new(RollingRestart));
}

impl Stage {
    /// A service of a kind.
    fn member(&mut self, who: Who, index: usize) -> Option<&mut Member> {
        match who {
            Who::AccessServer => self.site.access_servers.get_mut(index),
            Who::Replica => self.site.replicas.get_mut(index),
            Who::Server => None,
        }
    }

    /// How many there are of a kind.
    pub(super) fn count(&mut self, who: Who) -> usize {
        match who {
            Who::AccessServer => self.site.access_servers.len(),
            Who::Replica => self.site.replicas.len(),
            Who::Server => self.site.servers.all().len(),
        }
    }

    /// One of a kind.
    pub(super) fn any(&mut self, who: Who) -> usize {
        let count = self.count(who);
        self.dice.random_range(0..count)
    }

    pub(super) fn pid(&mut self, who: Who, index: usize) -> Option<Pid> {
        match self.member(who, index) {
            Some(member) => member.part.pid(),
            None => {
                let pid = self.site.servers.all().get(index)?.pid()?;
                Pid::from_raw(i32::try_from(pid).ok()?)
            }
        }
    }

    fn signal(&mut self, who: Who, index: usize, signal: Signal) {
        if let Some(pid) = self.pid(who, index) {
            // One that is gone meanwhile needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    pub(super) async fn kill(&mut self, who: Who, index: usize) -> Result<()> {
        match self.member(who, index) {
            Some(member) => member.kill().await,
            None => self.site.servers.all()[index].kill().await?,
        }
        Ok(())
    }

    async fn stop(&mut self, who: Who, index: usize) -> Result<()> {
        match self.member(who, index) {
            Some(member) => drop(member.stop().await),
            None => self.site.servers.all()[index].stop().await?,
        }
        Ok(())
    }

    /// Starts it if it does not run.
    pub(super) async fn start(&mut self, who: Who, index: usize) -> Result<()> {
        if let Some(member) = self.member(who, index) {
            return member.start().await;
        }
        if self.pid(who, index).is_none() {
            self.site.servers.all()[index].restart().await?;
        }
        Ok(())
    }

    /// Starts what does not run of these kinds, each whatever becomes of the others: one whose disk another fault still has
    /// ends at once, and is started again by the supervisor (a service) or by who heals that fault (a server). Those after it have
    /// to run all the same. Says the first error.
    pub(super) async fn start_all(&mut self, kinds: impl IntoIterator<Item = Who>) -> Result<()> {
        let mut outcome = Ok(());
        for who in kinds {
            for index in 0..self.count(who) {
                let started = self.start(who, index).await;
                outcome = outcome.and(started);
            }
        }
        outcome
    }
}

impl Fault for OneProcess {
    fn name(&self) -> &'static str {
        self.name
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.index = stage.any(self.who);
            match self.how {
                How::Kill => stage.kill(self.who, self.index).await,
                How::Restart => stage.stop(self.who, self.index).await,
                How::Pause => {
                    stage.signal(self.who, self.index, Signal::STOP);
                    Ok(())
                }
            }
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            match self.how {
                How::Kill | How::Restart => stage.start(self.who, self.index).await,
                How::Pause => {
                    stage.signal(self.who, self.index, Signal::CONT);
                    Ok(())
                }
            }
        })
    }
}

const KINDS: [Who; 3] = [Who::Server, Who::Replica, Who::AccessServer];

impl Fault for KillAll {
    fn name(&self) -> &'static str {
        "kill-all"
    }

    fn lasts(&self) -> (u64, u64) {
        (10, 500)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            for who in KINDS {
                for index in 0..stage.count(who) {
                    stage.kill(who, index).await?;
                }
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(stage.start_all(KINDS))
    }
}

impl Fault for RollingRestart {
    fn name(&self) -> &'static str {
        "rolling-restart"
    }

    fn lasts(&self) -> (u64, u64) {
        (0, 100)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            for who in KINDS {
                for index in 0..stage.count(who) {
                    stage.stop(who, index).await?;
                    stage.start(who, index).await?;
                }
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, _stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async { Ok(()) })
    }
}
