//! `latest` as a register with versions: an answer is exactly the state at the revision that it names; that revision is at
//! least what was asked for and what the client had seen, and at most what had been sent by then.

use super::{Findings, Given, Kind, Timeline};
use crate::history::{Answer, History, Read, Seen};

pub(super) fn check(history: &History, timelines: &[Timeline<'_>], given: Given, findings: &mut Findings) {
    for read in &history.reads {
        let (Some(answer), Some(timeline)) = (&read.answer, timelines.get(read.profile)) else { continue };
        in_bounds(read, answer, timeline, given, findings);
        let who = format!("client {} of profile {}", read.client, read.profile);
        exact(&who, answer, timeline, findings);
    }
}

fn in_bounds(read: &Read, answer: &Answer, timeline: &Timeline<'_>, given: Given, findings: &mut Findings) {
    let saved = if given.replicas == 1 { timeline.saved_before(read.span.invoked) } else { 0 };
    let least = read.least.max(saved);
    if answer.head < least {
        let text =
            format!("client {} of profile {} got {} and had to get {least}", read.client, read.profile, answer.head);
        findings.object(Kind::Stale, text);
    }
    if timeline.at(answer.head).is_some_and(|(write, _)| write.span.invoked > read.span.completed) {
        findings.object(Kind::Disordered, format!("revision {} was read before it was sent", answer.head));
    }
}

/// Every record of an answer is that of its head.
pub(super) fn exact(who: &str, answer: &Answer, timeline: &Timeline<'_>, findings: &mut Findings) {
    for record in &answer.records {
        record_at(who, record, answer.head, timeline, findings);
    }
    for key in &answer.unknown {
        if let Some(version) = timeline.version(key, answer.head) {
            let text = format!("{who} does not find {key}, which was written at {}", version.revision);
            findings.object(Kind::Stale, text);
        }
    }
}

/// A record is that of a revision of the profile.
pub(super) fn record_at(who: &str, record: &Seen, head: u64, timeline: &Timeline<'_>, findings: &mut Findings) {
    // What is unknown may be what is missing here; that it is unknown is a finding by itself.
    if timeline.is_open {
        return;
    }
    let key = &record.key;
    match timeline.version(key, head) {
        Some(version) if version.revision == record.revision => {
            if version.value != record.value {
                let text = format!("{who} finds {:?} at {key}, and {:?} was written", record.value, version.value);
                findings.object(Kind::Disordered, text);
            }
        }
        Some(version) if version.revision > record.revision => {
            let text = format!("{who} finds {key} of {} at {head}; it is of {}", record.revision, version.revision);
            findings.object(Kind::Stale, text);
        }
        version => {
            let text = format!("{who} finds {key} of {} at {head}; known is {version:?}", record.revision);
            findings.object(Kind::Disordered, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;

    fn with_read(change: impl FnOnce(&mut Read)) -> Forge {
        let mut forge = Forge::good();
        let mut read = forge.read(2);
        change(&mut read);
        forge.history.reads.push(read);
        forge
    }

    #[test]
    fn a_good_read_is_good() {
        with_read(|_| ()).finds(&[]);
    }

    #[test]
    fn an_answer_below_what_was_asked_for_or_saved_is_stale() {
        with_read(|read| read.least = 3).finds(&[Kind::Stale]);
        // Saved by another client before: only one replica has to know of it unasked.
        let mut forge = with_read(|read| (read.span.invoked, read.span.completed) = (900, 910));
        forge.given.replicas = 1;
        forge.finds(&[Kind::Stale]);
        forge.given.replicas = 2;
        forge.finds(&[]);
    }

    #[test]
    fn an_old_value_at_a_new_revision_is_stale() {
        with_read(|read| {
            let Some(answer) = &mut read.answer else { return };
            answer.records[0].revision = 1;
            answer.records[0].value = Some("p0.c0.1".into());
        })
        .finds(&[Kind::Stale]);
    }

    #[test]
    fn a_value_that_nobody_wrote_and_one_of_the_future_are_objected_to() {
        with_read(|read| {
            if let Some(answer) = &mut read.answer {
                answer.records[0].value = Some("p0.nobody".into());
            }
        })
        .finds(&[Kind::Disordered]);
        with_read(|read| (read.span.invoked, read.span.completed) = (0, 1)).finds(&[Kind::Disordered]);
    }
}
