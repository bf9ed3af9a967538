//! What operators ordered, read ahead of the fold: an entry that is to be passed over stands before the order to do so,
//! and so does all of a journal whose replicas have to be told which of them counts.

use roam_nats::{Bus, Entry, StateError, journal_stream, next_entry};
use roam_schemas::{Control, Resume, Shard, Skip, subjects};

use super::{
    entry::{Read, batch_id, read_entry},
    nanos,
};
use crate::store::Position;

/// The orders of one journal that have to be known before their turn.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The incarnation of the journal that they are in.
    incarnation: u64,
    /// Up to where they were read.
    read_to: u64,
    skips: Vec<Skip>,
    /// The one with the highest line.
    resume: Option<Ordered>,
}

/// An order to resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(super) resume: Resume,
    /// When the stream took it in, in nanoseconds since the Unix epoch.
    pub(super) published: u64,
}

impl Orders {
    /// Reads what came since the last time; all, if the journal is another one or ends before that.
    ///
    /// # Errors
    /// Those of asking for entries of the journal.
    pub(crate) async fn read(
        &mut self,
        bus: &Bus,
        shard: Shard,
        incarnation: u64,
        last: u64,
    ) -> Result<(), StateError> {
        if self.incarnation != incarnation || last < self.read_to {
            *self = Self { incarnation, ..Self::default() };
        }
        let (stream, subject) = (journal_stream(shard), subjects::journal_control(shard));
        while let Some(entry) = next_entry(bus, &stream, &subject, self.read_to + 1).await? {
            self.read_to = entry.sequence;
            self.heed(&entry);
        }
        Ok(())
    }

    /// The incarnation of the journal that was looked at last.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The order to begin a new line above that one.
    pub(super) fn resume_above(&self, line: u64) -> Option<&Ordered> {
        self.resume.as_ref().filter(|ordered| ordered.resume.line > line)
    }

    /// The highest line that was ordered; 0 if none was.
    pub(super) fn highest_line(&self) -> u64 {
        self.resume.as_ref().map_or(0, |ordered| ordered.resume.line)
    }

    /// Whether an entry is to be passed over.
    pub(super) fn skips(&self, entry: &Entry) -> bool {
        let named = |skip: &Skip| {
            skip.origin.incarnation == self.incarnation
                && skip.origin.sequence == entry.sequence
                && skip.batch == batch_id(entry)
        };
        self.skips.iter().any(named)
    }

    /// Whether the batch at a position is to be passed over.
    pub(super) fn skips_batch(&self, position: &Position) -> bool {
        let named = |skip: &Skip| {
            skip.origin.incarnation == position.incarnation
                && skip.origin.sequence == position.sequence
                && skip.batch == Some(position.batch)
        };
        self.skips.iter().any(named)
    }

    /// What does not read is for the fold to complain of, when its turn comes.
    fn heed(&mut self, entry: &Entry) {
        match read_entry(entry) {
            Ok(Read::Control(_, Control::Skip(skip))) => self.skips.push(skip),
            // The first one of a line counts: two operators may order at the same time.
            Ok(Read::Control(_, Control::Resume(resume))) if self.highest_line() < resume.line => {
                self.resume = Some(Ordered { resume, published: nanos(entry.published) });
            }
            _ => {}
        }
    }
}
