//! Watches: every revision comes in order and once, or a state that includes it; also when a watch goes on where another one
//! ended. At the end each device holds what the profile holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Findings, Kind, Timeline, register};
use crate::history::{Event, Heard, History, Seen, Text};

/// What a device holds.
#[derive(Debug, Default)]
struct Held {
    profile: usize,
    revision: u64,
    live: HashMap<Text, u64>,
}

pub(super) fn check(history: &History, timelines: &[Timeline<'_>], findings: &mut Findings) {
    let mut devices: BTreeMap<usize, Held> = BTreeMap::new();
    for heard in &history.heard {
        let Some(timeline) = timelines.get(heard.profile) else { continue };
        let held = devices.entry(heard.client).or_default();
        held.profile = heard.profile;
        hear(held, heard, timeline, findings);
    }
    for (profile, answer) in &history.finals {
        let whole: HashMap<&str, u64> = answer
            .records
            .iter()
            .filter(|record| record.value.is_some())
            .map(|record| (&*record.key, record.revision))
            .collect();
        for (client, held) in devices.iter().filter(|(_, held)| held.profile == *profile) {
            // One that did not arrive is a finding already.
            let same = held.live.len() == whole.len()
                && held.live.iter().all(|(key, revision)| whole.get(&**key) == Some(revision));
            if held.revision == answer.head && !same {
                let text = format!("at the end client {client} holds something else than profile {profile}");
                findings.object(Kind::Lost, text);
            }
        }
    }
}

fn hear(held: &mut Held, heard: &Heard, timeline: &Timeline<'_>, findings: &mut Findings) {
    let who = format!("the watch of client {}", heard.client);
    match &heard.event {
        Event::Begun | Event::Reset => *held = Held { profile: heard.profile, ..Held::default() },
        Event::Resumed(revision) => {
            if *revision != held.revision {
                findings.object(Kind::Disordered, format!("{who} goes on at {revision} and was at {}", held.revision));
            }
        }
        Event::Revision { revision, change, records, .. } => {
            if *revision != held.revision + 1 {
                let kind = if *revision <= held.revision { Kind::Duplicated } else { Kind::Lost };
                findings.object(kind, format!("{who} was at {} and gives {revision} next", held.revision));
            }
            whole_change(&who, *revision, *change, records, timeline, findings);
            held.take(*revision, records);
        }
        Event::State { head, records } => {
            if *head < held.revision {
                findings.object(Kind::Disordered, format!("{who} goes back from {} to {head}", held.revision));
            }
            whole_state(&who, held.revision, *head, records, timeline, findings);
            held.take(*head, records);
        }
    }
}

/// The records of a revision are those of its change: all or nothing.
fn whole_change(
    who: &str,
    revision: u64,
    change: Option<roam_client::ChangeId>,
    records: &[Seen],
    timeline: &Timeline<'_>,
    findings: &mut Findings,
) {
    let Some((write, saved)) = timeline.at(revision) else { return };
    if change.is_some_and(|change| change != write.id) {
        findings.object(Kind::Disordered, format!("{who} gives {revision} as {change:?}, which is {}", write.id));
    }
    let wrote = write.ops.iter().filter(|op| !saved.superseded.contains(&op.key)).count();
    if records.len() != wrote {
        let text = format!("{who} gives {} records of {revision}, which wrote {wrote}", records.len());
        findings.object(Kind::Lost, text);
    }
    for record in records {
        register::record_at(who, record, revision, timeline, findings);
    }
}

/// The records of a state are those that changed since, each as of its head.
fn whole_state(who: &str, since: u64, head: u64, records: &[Seen], timeline: &Timeline<'_>, findings: &mut Findings) {
    for record in records {
        register::record_at(who, record, head, timeline, findings);
    }
    if timeline.is_open {
        return;
    }
    let given: HashSet<&str> = records.iter().map(|record| &*record.key).collect();
    let changed: HashSet<&str> = timeline
        .between(since, head)
        .flat_map(|(write, saved)| write.ops.iter().filter(|op| !saved.superseded.contains(&op.key)))
        .map(|op| &*op.key)
        .collect();
    for key in changed {
        // Who knows nothing yet need not be told what is deleted.
        let deleted = timeline.version(key, head).is_some_and(|version| version.value.is_none());
        let told = given.contains(key) || (since == 0 && deleted);
        if !told {
            let text = format!("{who} gives the state at {head} since {since} without {key}");
            findings.object(Kind::Lost, text);
        }
    }
}

impl Held {
    fn take(&mut self, revision: u64, records: &[Seen]) {
        self.revision = revision;
        for record in records {
            match record.value {
                Some(_) => self.live.insert(record.key.clone(), record.revision),
                None => self.live.remove(&record.key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;

    #[test]
    fn the_good_history_is_watched_well() {
        Forge::watched().finds(&[]);
    }

    #[test]
    fn a_revision_left_out_is_lost_and_one_given_again_is_twice() {
        let mut forge = Forge::watched();
        forge.history.heard.remove(2);
        assert!(forge.kinds().contains(&Kind::Lost));
        let mut forge = Forge::watched();
        let again = forge.history.heard[2].clone();
        forge.history.heard.insert(3, again);
        assert!(forge.kinds().contains(&Kind::Duplicated));
    }

    #[test]
    fn revisions_out_of_order_are_objected_to() {
        let mut forge = Forge::watched();
        forge.history.heard.swap(1, 2);
        assert!(!forge.kinds().is_empty());
    }

    #[test]
    fn a_part_of_a_change_and_a_state_that_leaves_something_out_are_lost() {
        let mut forge = Forge::watched();
        if let Event::Revision { records, .. } = &mut forge.history.heard[1].event {
            records.clear();
        }
        assert!(forge.kinds().contains(&Kind::Lost));
        let mut forge = Forge::watched();
        forge.history.heard.truncate(1);
        let state = Event::State { head: 4, records: Vec::new() };
        forge.history.heard.push(Heard { client: 0, profile: 0, at: 500, event: state });
        assert!(forge.kinds().contains(&Kind::Lost));
    }
}
