//! One profile roams: hears what others changed, looks at the files whenever something may have happened, and publishes.
//! This is the shell around `desk.rs`, which decides.

mod batch;
mod large;

use std::{collections::BTreeMap, time::Duration};

use roam_client::{ChangeError, Client, Code, Event, ProfileClient, ReadError, Watch, WatchError, WatchFrom};
use roam_schemas::{App, Cursor, Key, Operation, Revision, Timestamp};
use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    control::Order,
    desk::{Desk, DeskError, Round},
    format::LeftOut,
    hook::{self, Hook, Names},
    status::Board,
    store::StoreError,
    watcher::{Changed, Watcher},
};

/// A burst of changes is over once there was none for this long. An editor that saves writes a few times.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that goes on for longer than this is looked at all the same.
const BURST: Duration = Duration::from_millis(500);
/// How often the files are looked at although nothing seems to have happened.
const CHECK: Duration = Duration::from_secs(300);
/// The same while something waits for another program to end.
const CHECK_WAITING: Duration = Duration::from_secs(5);
/// The same where the system cannot tell of changes.
const CHECK_UNWATCHED: Duration = Duration::from_secs(10);
/// The first pause after something went wrong; each further one is twice as long, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(30);
/// How often a round is repeated at once while files are edited under it.
const REPEATS: usize = 20;

/// A profile cannot roam any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoamError {
    /// The agent's own database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work on the files ended before its time.
    #[error("the work on the files ended before its time")]
    Lost(#[from] JoinError),
    /// The connection was closed under it.
    #[error("the client is closed")]
    Closed,
}

/// A profile that roams.
#[derive(Debug)]
pub(crate) struct Roamer {
    app: String,
    profile: ProfileClient,
    /// Away while it works on a thread of its own.
    desk: Option<Desk>,
    board: Board,
    hook: Hook,
    orders: mpsc::Receiver<Order>,
    watcher: Option<Watcher>,
    /// Large values that could not be had, until when they are not tried again, and why.
    unfetched: BTreeMap<Key, (Instant, String)>,
    /// Whether the next look is at everything.
    all: bool,
    pauses: u32,
}

/// How publishing went.
enum Published {
    All,
    /// What was to be published was edited meanwhile: look again.
    Edited,
    /// The profile is not as this device has heard: it will hear.
    Behind,
    /// Not now.
    Later(String),
}

impl Published {
    /// Both, one after the other.
    fn and(self, then: Self) -> Self {
        if matches!(then, Self::All) { self } else { then }
    }
}

impl Roamer {
    pub(crate) fn new(
        client: &Client,
        app: App,
        desk: Desk,
        board: Board,
        hook: Hook,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let name = app.as_str().to_owned();
        let profile = client.profile(app);
        Self {
            app: name,
            profile,
            desk: Some(desk),
            board,
            hook,
            orders,
            watcher: None,
            unfetched: BTreeMap::new(),
            all: true,
            pauses: 0,
        }
    }

    /// Roams until it is dropped. It may be dropped at any time.
    pub(crate) async fn run(mut self) -> Result<(), RoamError> {
        let mut watch = self.meet().await?;
        let mut look_at = Instant::now();
        let mut burst_ends = None;
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => {
                        self.hear(event, &mut watch).await?;
                        self.all = false;
                        look_at = Instant::now();
                    }
                    Err(WatchError::Closed) => return Err(RoamError::Closed),
                    Err(WatchError::Read(error)) => {
                        self.trouble(&error);
                        sleep(self.pause()).await;
                        watch = self.meet().await?;
                    }
                },
                () = changed(self.watcher.as_ref()) => {
                    let now = Instant::now();
                    self.all = false;
                    look_at = (now + QUIET).min(*burst_ends.get_or_insert(now + BURST));
                }
                Some(order) = self.orders.recv() => {
                    self.work(move |desk| match order {
                        Order::Confirm => { desk.confirm(); Ok(()) }
                        Order::Retry => desk.retry(),
                        Order::Drop(key) => desk.let_go(key.as_ref()),
                    }).await??;
                    look_at = Instant::now();
                }
                () = sleep_until(look_at) => {
                    burst_ends = None;
                    self.keep_watching().await?;
                    look_at = Instant::now() + self.look().await?;
                }
            }
        }
    }

    /// Hears of the profile for the first time, or goes on where it was left. However long that takes.
    async fn meet(&mut self) -> Result<Watch, RoamError> {
        loop {
            let cursor = self.work(|desk| desk.cursor()).await?;
            let met = match cursor {
                Some(cursor) => self.profile.watch(WatchFrom::Cursor(cursor)).await.map(Some),
                None => self.pull().await?.map(|()| None),
            };
            match met {
                Ok(Some(watch)) => return Ok(watch),
                Ok(None) => {}
                Err(ReadError::Closed) => return Err(RoamError::Closed),
                Err(error) => {
                    self.trouble(&error);
                    sleep(self.pause()).await;
                }
            }
        }
    }

    /// All that the profile holds.
    async fn pull(&mut self) -> Result<Result<(), ReadError>, RoamError> {
        match self.profile.changes(None).await {
            Ok(delta) => {
                self.work(move |desk| desk.hear(&delta.records, delta.cursor, true)).await??;
                self.contact();
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn hear(&mut self, event: Event, watch: &mut Watch) -> Result<(), RoamError> {
        let (records, cursor, whole) = match event {
            Event::Revision { records, cursor, .. } | Event::State { records, cursor, .. } => (records, cursor, false),
            Event::Reset => match watch.next().await {
                Ok(Event::Revision { records, cursor, .. } | Event::State { records, cursor, .. }) => {
                    (records, cursor, true)
                }
                // The next one says why.
                Ok(Event::Reset) | Err(_) => return Ok(()),
            },
        };
        let epoch = if whole { self.new_epoch(cursor) } else { None };
        let heard = self.work(move |desk| {
            if let Some(epoch) = epoch {
                desk.restored(&records, epoch)?;
            }
            desk.hear(&records, cursor, whole)
        });
        heard.await??;
        self.contact();
        Ok(())
    }

    /// The first revision of the epoch that a cursor is of, if what was heard before is of an earlier one.
    fn new_epoch(&self, cursor: Cursor) -> Option<Revision> {
        let before = self.profile.revision_of(self.desk.as_ref()?.cursor()?)?.epoch();
        let now = self.profile.revision_of(cursor)?.epoch();
        let first = Revision::of_epoch(u16::try_from(now).ok()?);
        (before < now).then_some(first)
    }

    /// Looks at the files and does what there is to do. Says after how long to look again, whatever happens until then.
    async fn look(&mut self) -> Result<Duration, RoamError> {
        for _ in 0..REPEATS {
            let now = Timestamp::from_nanos(roam_process::clock::now_ns());
            let told = self.watcher.as_ref().map_or(Changed::All, Watcher::take);
            // What is not known to have changed is looked at with the next look that nothing gave rise to.
            let changed = if std::mem::replace(&mut self.all, false) { Changed::All } else { told };
            let round = self.work(move |desk| desk.round(now, &changed)).await?;
            let mut round = match round {
                Ok(round) => round,
                Err(DeskError::Store(error)) => return Err(error.into()),
                Err(DeskError::Files(error)) => {
                    self.trouble(&error);
                    return Ok(self.pause_and_look_at_all());
                }
            };
            let (ops, uploads) = (std::mem::take(&mut round.publish), std::mem::take(&mut round.upload));
            let (fetches, again) = (std::mem::take(&mut round.fetch), round.again);
            let waits = round.waits_for.is_some();
            self.report(round, ops.len() + uploads.len()).await?;
            let mut done = self.publish(ops).await?;
            if matches!(done, Published::All | Published::Edited) {
                done = done.and(self.upload(uploads).await?);
            }
            if matches!(done, Published::All | Published::Edited) {
                done = done.and(self.fetch(fetches).await?);
            }
            match done {
                Published::All if !again => {
                    self.pauses = 0;
                    self.report_waiting(0).await?;
                    self.all = true;
                    return Ok(match (waits, &self.watcher) {
                        (true, _) => CHECK_WAITING,
                        (false, Some(_)) => CHECK,
                        (false, None) => CHECK_UNWATCHED,
                    });
                }
                Published::All | Published::Edited => {}
                Published::Behind => return Ok(self.pause_and_look_at_all()),
                Published::Later(why) => {
                    self.note(why);
                    return Ok(self.pause_and_look_at_all());
                }
            }
        }
        Ok(self.pause_and_look_at_all())
    }

    /// Publishes in as few changes as may be. A change that is refused for good is divided, until what is parked is what
    /// the refusal is about.
    async fn publish(&mut self, ops: Vec<Operation>) -> Result<Published, RoamError> {
        let mut changes = batch::changes(ops);
        while let Some(mut ops) = changes.pop() {
            match self.profile.change_with(Some(self.profile.seen()), ops.clone()).await {
                Ok(saved) => {
                    self.work(move |desk| desk.published(ops, saved.revision)).await??;
                    self.contact();
                }
                Err(ChangeError::Closed) => return Err(RoamError::Closed),
                Err(ChangeError::Rejected(problem)) if matches!(problem.code, Code::Conflict | Code::Exists) => {
                    return Ok(Published::Behind);
                }
                Err(ChangeError::Rejected(_) | ChangeError::Invalid(_)) if ops.len() > 1 => {
                    let second = ops.split_off(ops.len() / 2);
                    changes.extend([second, ops]);
                }
                Err(ChangeError::Rejected(problem) | ChangeError::Invalid(problem)) => {
                    tracing::warn!(app = %self.app, code = ?problem.code, "an edit was refused, and is parked");
                    let reason = problem.to_string();
                    if let Some(op) = ops.pop() {
                        let event = hook::Event::Parked { key: op.key.to_string(), why: reason.clone() };
                        self.hook.tell(&self.app, event);
                        self.work(move |desk| desk.park(op, reason)).await??;
                    }
                }
                Err(error) => return Ok(Published::Later(error.to_string())),
            }
        }
        Ok(Published::All)
    }

    /// Watches the directory as soon as there is one, and the next one if it was removed.
    async fn keep_watching(&mut self) -> Result<(), RoamError> {
        let watcher = self.watcher.take();
        let watching = self.work(|desk| {
            let (directory, below) = desk.watched();
            match watcher.filter(|watcher| watcher.watches(directory)) {
                None if !directory.is_dir() => Ok((None, false)),
                None => Watcher::start(directory, below).map(|watcher| (Some(watcher), true)),
                watcher => Ok((watcher, false)),
            }
        });
        match watching.await? {
            Ok((watcher, is_new)) => {
                self.watcher = watcher;
                // What happened before it was watched was told by nobody.
                self.all |= is_new;
            }
            Err(error) => tracing::warn!(app = %self.app, %error, "changes of files are not told of"),
        }
        Ok(())
    }

    /// Works on the files and the database, on a thread where waiting for a disk holds up nobody.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, RoamError> {
        let Some(mut desk) = self.desk.take() else { return Err(RoamError::Closed) };
        let (done, desk) = spawn_blocking(move || (work(&mut desk), desk)).await?;
        self.desk = Some(desk);
        Ok(done)
    }

    async fn report(&mut self, round: Round, waiting: usize) -> Result<(), RoamError> {
        for name in &round.set_aside {
            tracing::warn!(app = %self.app, file = ?name, "two edits of one file: the local one was set aside");
        }
        let before = self.board.read_one(&self.app);
        let refused = self.work(|desk| left_out(desk.refused())).await?;
        for LeftOut { key, why } in refused.iter().filter(|entry| !before.refused.contains(entry)) {
            tracing::warn!(app = %self.app, key = ?key, why, "a key of the profile has no place here");
            self.hook.tell(&self.app, hook::Event::Refused { key: key.clone(), why: why.clone() });
        }
        if let Some(held_back) = round.held_back.filter(|held_back| before.held_back != Some(*held_back)) {
            let app = &self.app;
            tracing::warn!(%app, publish = held_back.publish, take = held_back.take, "deletions wait to be confirmed");
            self.hook.tell(app, hook::Event::HeldBack { held_back });
        }
        if let Some(why) = round.waits_for.as_ref().filter(|_| before.waits_for.is_none()) {
            tracing::info!(app = %self.app, why, "what others changed waits");
            self.hook.tell(&self.app, hook::Event::Waits { why: why.clone() });
        }
        if !round.set_aside.is_empty() {
            self.hook.tell(&self.app, hook::Event::Conflict { files: Names::of(round.set_aside.iter().cloned()) });
        }
        if !round.taken.is_empty() {
            let keys = Names::of(round.taken.iter().map(ToString::to_string));
            self.hook.tell(&self.app, hook::Event::Applied { keys });
        }
        self.board.update(&self.app, |status| {
            status.held_back = round.held_back;
            status.waits_for = round.waits_for;
            status.left_out = round.left_out;
            status.refused = refused;
            status.set_aside.extend(round.set_aside);
            status.trouble = None;
        });
        self.report_waiting(waiting).await
    }

    async fn report_waiting(&mut self, waiting: usize) -> Result<(), RoamError> {
        let seen = self.profile.seen();
        let known = self.work(|desk| desk.known_status()).await?;
        self.board.update(&self.app, |status| {
            status.set_known(known);
            (status.waiting, status.revision_seen) = (waiting, seen);
        });
        Ok(())
    }

    fn contact(&self) {
        let now = Timestamp::from_nanos(roam_process::clock::now_ns());
        self.board.update(&self.app, |status| status.last_contact = Some(now));
    }

    fn trouble(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::warn!(app = %self.app, error, "the profile does not roam now");
        self.note(error.to_string());
    }

    /// Says why nothing goes on; the hook is told when that begins.
    fn note(&self, why: String) {
        if self.board.read_one(&self.app).trouble.is_none() {
            self.hook.tell(&self.app, hook::Event::Trouble { why: why.clone() });
        }
        self.board.update(&self.app, |status| status.trouble = Some(why));
    }

    fn pause_and_look_at_all(&mut self) -> Duration {
        self.all = true;
        self.pause()
    }

    fn pause(&mut self) -> Duration {
        let mean = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_LAST);
        self.pauses = self.pauses.saturating_add(1);
        mean.mul_f64(rand::random_range(0.5..1.5))
    }
}

fn left_out(entries: &BTreeMap<Key, String>) -> Vec<LeftOut> {
    entries.iter().map(|(key, why)| LeftOut { key: key.to_string(), why: why.clone() }).collect()
}

async fn changed(watcher: Option<&Watcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}
