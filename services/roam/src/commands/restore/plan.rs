//! What a restore is going to do: which keys were written since the point, what they were then, and the operations that
//! bring them back. Reads only.

use std::{collections::HashMap, pin::pin};

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use roam_client::{ProfileClient, ReadError};
use roam_schemas::{Action, Key, Operation, Record, Revision, Timestamp};

use crate::{
    commands::HISTORIES_AT_ONCE,
    difference::{Difference, Glance},
    output::Output,
    past::{Ahead, Memory, Point, Standing, Step, Stood, Then, standing, step, stood_at},
};

/// What is to be brought back.
#[derive(Debug)]
pub(super) struct Question {
    /// To what place.
    pub(super) point: Point,
    /// The keys that begin with this.
    pub(super) prefix: String,
    /// The instant at which this is asked.
    pub(super) now: Timestamp,
}

/// Why it is not known what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPlanned {
    /// A question was not answered.
    #[error(transparent)]
    Unanswered(#[from] ReadError),
    /// There is no such revision yet.
    #[error(transparent)]
    Ahead(#[from] Ahead),
}

/// What a restore is going to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The revision of the profile when it was looked at. What is newer is not touched.
    pub(super) head: Revision,
    /// What brings the keys back, in their order.
    pub(super) ops: Vec<Operation>,
    /// The revision that each of these keys was seen at.
    pub(super) seen: HashMap<Key, Revision>,
    /// The same operations for people.
    pub(super) differences: Vec<Difference>,
    /// How many keys were written since, and are as they were all the same.
    pub(super) unchanged: u64,
    /// Keys that stay as they are: what they were is not kept.
    pub(super) not_kept: Vec<Key>,
    /// Keys that stay as they are: somebody wrote them while this was found out.
    pub(super) changed_meanwhile: Vec<Key>,
}

/// A key that was written since the point.
#[derive(Debug)]
struct Candidate {
    key: Key,
    seen: Revision,
    standing: Option<Standing>,
    stood: Stood,
}

impl Plan {
    /// Looks at the profile.
    pub(super) async fn make(profile: &ProfileClient, question: &Question, out: Output) -> Result<Self, NotPlanned> {
        let delta = profile.changes(None).await?;
        let head = delta.head;
        question.point.within(head)?;
        let mut memory = Memory::of(question.point);
        // The clock of the system may be ahead of ours.
        let mut now = question.now;
        for record in &delta.records {
            memory.saw(record.revision, record.time);
            now = now.max(record.time);
        }
        let candidates = look(profile, question, written_since(delta.records, question), &mut memory, out).await?;
        let mut plan = Self { head, ..Self::default() };
        for candidate in candidates {
            plan.add(candidate, now, memory);
        }
        Ok(plan)
    }

    fn add(&mut self, candidate: Candidate, now: Timestamp, memory: Memory) {
        let Candidate { key, seen, standing, stood } = candidate;
        let Some(standing) = standing.filter(|standing| standing.revision == seen) else {
            self.changed_meanwhile.push(key);
            return;
        };
        match step(&key, now, &standing, Then::of(stood, memory)) {
            Step::Nothing => self.unchanged += 1,
            Step::NotKept => self.not_kept.push(key),
            Step::Do(op) => {
                let from = standing.value.map(|stored| Glance::at(&stored.value, &stored.content_type));
                let to = match &op.action {
                    Action::Put(put) => Some(Glance::at(&put.value, &put.content_type)),
                    Action::Delete => None,
                };
                self.differences.push(Difference { key: key.clone(), from, to });
                self.ops.push(op);
                self.seen.insert(key, seen);
            }
        }
    }
}

/// The keys that were written since the point, in order, and the revisions that they are seen at.
fn written_since(records: Vec<Record>, question: &Question) -> Vec<(Key, Revision)> {
    let since = records.into_iter().filter(|record| !question.point.reaches(record.revision, record.time));
    let chosen = since.filter(|record| record.key.as_str().starts_with(&question.prefix));
    let mut keys: Vec<_> = chosen.map(|record| (record.key, record.revision)).collect();
    keys.sort_unstable();
    keys
}

/// Reads the histories of the keys, several at once.
async fn look(
    profile: &ProfileClient,
    question: &Question,
    keys: Vec<(Key, Revision)>,
    memory: &mut Memory,
    out: Output,
) -> Result<Vec<Candidate>, ReadError> {
    let bar = out.bar(keys.len() as u64, "reading");
    let looked = look_with(profile, question, keys, memory, &bar).await;
    bar.finish_and_clear();
    looked
}

/// Reads them, and moves the bar with each.
async fn look_with(
    profile: &ProfileClient,
    question: &Question,
    keys: Vec<(Key, Revision)>,
    memory: &mut Memory,
    bar: &ProgressBar,
) -> Result<Vec<Candidate>, ReadError> {
    let histories = stream::iter(keys).map(|(key, seen)| async move {
        let history = profile.history_page(key.clone(), None).await;
        history.map(|history| (key, seen, history))
    });
    let mut histories = pin!(histories.buffered(HISTORIES_AT_ONCE));
    let mut candidates = Vec::new();
    while let Some((key, seen, history)) = histories.try_next().await? {
        bar.inc(1);
        memory.saw_all(&history);
        let stood = stood_at(&history, question.point);
        candidates.push(Candidate { key, seen, standing: standing(&history), stood });
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ChangeId, ContentType, Device, Expect, State, Stored, Value, Version};

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn value(text: &str) -> Stored {
        Stored { value: Value::new(text), content_type: ContentType::text(), expires: None }
    }

    fn candidate(name: &str, standing_at: u64, stood: Stood) -> Candidate {
        let standing = Standing { revision: Revision::new(standing_at), value: Some(value("new")) };
        Candidate { key: key(name), seen: Revision::new(9), standing: Some(standing), stood }
    }

    fn version(text: &str) -> Stood {
        Stood::Version(Version {
            revision: Revision::new(1),
            rank: 0,
            time: Timestamp::from_nanos(1),
            device: Device::parse("d").unwrap(),
            change: ChangeId::from_bytes([0; 16]),
            base: None,
            conflict: false,
            state: State::Value(value(text)),
        })
    }

    #[test]
    fn what_was_written_since_and_begins_with_the_prefix_is_looked_at() {
        let record = |name, revision| Record {
            key: key(name),
            revision: Revision::new(revision),
            time: Timestamp::from_nanos(revision),
            device: Device::parse("d").unwrap(),
            conflict: false,
            state: State::Deleted,
        };
        let question = Question {
            point: Point::Revision(Revision::new(5)),
            prefix: "k/".to_owned(),
            now: Timestamp::from_nanos(0),
        };
        let records = vec![record("k/b", 6), record("k/old", 5), record("other", 7), record("k/a", 8)];
        let expected = [(key("k/a"), Revision::new(8)), (key("k/b"), Revision::new(6))];
        assert_eq!(written_since(records, &question), expected);
    }

    #[test]
    fn a_plan_says_of_every_key_what_becomes_of_it() {
        let mut plan = Plan::default();
        let nothing_since = |nanos| Stood::Nothing { whole_since: Timestamp::from_nanos(nanos) };
        for candidate in [
            candidate("back", 9, version("old")),
            candidate("born", 9, nothing_since(5)),
            candidate("forgotten", 9, nothing_since(6)),
            candidate("lost", 9, Stood::Lost),
            candidate("moved", 10, version("old")),
            candidate("same", 9, version("new")),
            Candidate { standing: None, ..candidate("erased", 9, nothing_since(5)) },
        ] {
            plan.add(candidate, Timestamp::from_nanos(0), Memory::of(Point::Time(Timestamp::from_nanos(5))));
        }
        let at = Expect::At(Revision::new(9));
        let back = Operation::put(key("back"), "old", ContentType::text()).expecting(at);
        assert_eq!(plan.ops, [back, Operation::delete(key("born")).expecting(at)]);
        let lines: Vec<_> = plan.differences.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["~ back  3 B -> 3 B  \"new\" -> \"old\"", "- born  3 B  \"new\""]);
        assert_eq!((plan.not_kept, plan.unchanged), (vec![key("forgotten"), key("lost")], 1));
        assert_eq!(plan.changed_meanwhile, [key("moved"), key("erased")]);
        assert_eq!(plan.seen.len(), 2);
    }
}
