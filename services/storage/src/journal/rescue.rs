//! What a replica that stands still does about it by itself: it takes the newest backup that the journal carries forward;
//! and one that was restored, and is the only replica, goes on with what it has, in a new line and a new epoch. All else
//! is for a person to decide.
//!
//! **Invariant:** what is held counts only by an order in the journal, which says the same to every replica there is or
//! will be; and an order that was given before this directory was restored, or made, means the one before it.

use std::error::Error;

use roam_nats::{Headers, PublishSettings, Publisher, StreamState, journal_stream, stream_state};
use roam_schemas::{BatchId, Control, ControlEntry, Encoding, Resume, encode, limits::EPOCHS, subjects};
use tokio::time::{Duration, Instant};

use super::{Follower, Halt, nanos, orders::Ordered, start::Start};
use crate::{
    backup::{Manifest, Restored, forget_restored, place_to_adopt},
    keeper::Keeper,
    store::{FORMAT_VERSION, Position},
};

/// How often it is looked for a backup that helps.
const LOOK_FOR_BACKUP_EVERY: Duration = Duration::from_secs(5);

/// What a replica needs to help itself.
pub(crate) struct Rescue {
    keeper: Keeper,
    /// What it was restored from, until the journal carries that forward.
    restored: Option<Restored>,
    /// Since when its directory is what it is, in nanoseconds since the Unix epoch; 0 where that is not known.
    since: u64,
    /// The line that it ordered itself.
    ordered: Option<u64>,
    /// The line that it began in a new epoch, and that.
    epoch: Option<(u64, u16)>,
    look_for_backup_at: Instant,
    /// Told that a backup waits to take the place of the store.
    adopted: tokio::sync::watch::Sender<bool>,
}

/// Which backups carry a replica forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The incarnation of the journal.
    pub(super) incarnation: u64,
    /// They stand at this sequence or behind it,
    pub(super) from: u64,
    /// and not behind this one,
    pub(super) to: u64,
    /// and belong to this line or a later one.
    pub(super) line: u64,
}

impl Wanted {
    /// Whether this one does.
    pub(crate) fn is(&self, manifest: &Manifest) -> bool {
        let stands = manifest.position.as_ref().is_some_and(|position| {
            position.incarnation == self.incarnation
                && (self.from..=self.to).contains(&position.sequence)
                && position.line >= self.line
        });
        stands && manifest.store_format == FORMAT_VERSION
    }
}

impl Rescue {
    pub(crate) fn new(
        keeper: Keeper,
        restored: Option<Restored>,
        since: u64,
        adopted: tokio::sync::watch::Sender<bool>,
    ) -> Self {
        let look_for_backup_at = Instant::now();
        Self { keeper, restored, since, ordered: None, epoch: None, look_for_backup_at, adopted }
    }

    /// Whether what is held was restored, and it is not known yet whether the journal carries it forward.
    pub(super) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether an order that names this replica means it as it is, not one of the same name whose disk was lost.
    pub(super) fn is_meant(&self, ordered: &Ordered) -> bool {
        self.ordered == Some(ordered.resume.line) || ordered.published > self.since
    }

    /// A line begins with what is held, because an order says so. Says in which epoch, if in a new one. A backup is made
    /// as soon as it is of that line: others need one.
    pub(super) fn begins(&mut self, start: &Start, epoch: u16) -> Option<u16> {
        self.keeper.want(start.line);
        if !start.new_epoch {
            return None;
        }
        if let Some((_, begun)) = self.epoch.filter(|(line, _)| *line == start.line) {
            return Some(begun);
        }
        // Not above its own: it may have begun that one before it was stopped.
        let before = self.restored.as_ref().map_or(u64::from(epoch), |restored| restored.highest_epoch);
        let next = u16::try_from(before + 1).unwrap_or(EPOCHS).min(EPOCHS);
        self.epoch = Some((start.line, next));
        Some(next)
    }
}

impl Follower {
    /// Does about a halt what can be done by itself. Says whether it is worth looking again at once.
    pub(super) async fn help(&mut self, halt: &Halt) -> bool {
        let alone = self.state.as_ref().is_some_and(|state| super::start::replicas_of(state) == 1);
        match halt {
            Halt::Gap { .. } | Halt::Forked { .. } | Halt::Outdated { .. } if alone && self.rescue.is_restored() => {
                match self.order_to_resume().await {
                    Ok(()) => return true,
                    Err(error) => tracing::warn!(error = &*error, "an order to resume cannot be given"),
                }
            }
            Halt::Gap { .. } | Halt::Outdated { .. } => self.adopt(halt).await,
            Halt::Forked { .. } | Halt::Undecodable { .. } | Halt::Inapplicable { .. } => {}
        }
        false
    }

    /// Says in the journal that this replica, the only one, counts with what was restored.
    async fn order_to_resume(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let line = self.position.as_ref().map_or(0, |position| position.line).max(self.orders.highest_line()) + 1;
        let id = BatchId::random();
        let control = Control::Resume(Resume { line, from: self.name.clone() });
        let payload = encode(&ControlEntry { id, control }, Encoding::Postcard)?;
        let headers = Headers::new().with_batch(id.to_string());
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        self.rescue.ordered = Some(line);
        publisher.publish(subjects::journal_control(self.shard), headers, payload.into()).await.await?;
        tracing::warn!(line, "what was restored counts from here on: a new line begins, in a new epoch");
        Ok(())
    }

    /// Takes the newest backup that helps, if there is one: it waits beside the store, and the replica ends to begin anew
    /// with it.
    async fn adopt(&mut self, halt: &Halt) {
        if Instant::now() < self.rescue.look_for_backup_at {
            return;
        }
        let Ok(state) = stream_state(&self.bus, &journal_stream(self.shard)).await else { return };
        let wanted = self.wanted(halt, &state);
        let place = place_to_adopt(self.reader.directory());
        let taken = self.context.shutdown.run_until_cancelled(self.rescue.keeper.take(&wanted, &place)).await;
        self.rescue.look_for_backup_at = Instant::now() + LOOK_FOR_BACKUP_EVERY;
        match taken {
            Some(Ok(Some(restored))) => {
                let sequence = restored.position.as_ref().map(|position| position.sequence);
                tracing::warn!(backup = %restored.backup, from = restored.replica, sequence, "this replica takes a backup");
                self.rescue.adopted.send_replace(true);
                self.context.shutdown.cancel();
            }
            Some(Ok(None)) => tracing::debug!("no backup is there that the journal carries forward"),
            Some(Err(error)) => tracing::warn!(error = &error as &dyn Error, "no backup can be taken"),
            None => {}
        }
    }

    fn wanted(&self, halt: &Halt, state: &StreamState) -> Wanted {
        let line = self.position.as_ref().map_or(0, |position| position.line).max(self.orders.highest_line());
        let (first, line) = match halt {
            Halt::Gap { first, .. } => (*first, line),
            Halt::Outdated { line: ordered, .. } => (state.first_sequence, line.max(*ordered)),
            _ => (state.first_sequence, line),
        };
        let incarnation = nanos(state.created);
        Wanted { incarnation, from: first.saturating_sub(1), to: state.last_sequence, line }
    }

    /// The journal goes on where this replica stands on disk: what it was restored from is of no more interest, unless
    /// an order stands further on that makes it so.
    pub(super) fn note_restored(&mut self, start: &Start) {
        let is_of_it = |stored: Position| stored.incarnation == start.incarnation && stored.line == start.line;
        if !self.rescue.is_restored() || self.orders.resume_above(start.line).is_some() {
            return;
        }
        // A store that cannot be read ends the process elsewhere.
        if !self.reader.snapshot().position().ok().flatten().is_some_and(is_of_it) {
            return;
        }
        match forget_restored(self.reader.directory()) {
            Ok(()) => self.rescue.restored = None,
            Err(error) => tracing::warn!(error = &error as &dyn Error, "the note of a restored backup is not removed"),
        }
    }
}
