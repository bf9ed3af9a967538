//! Expectations: a change that expects something took effect only if the record was as expected, and was not refused where
//! the record was as expected all the time.

use super::{Findings, Given, Kind, Timeline};
use crate::history::{History, Told, Wanted, Write};

pub(super) fn check(history: &History, timelines: &[Timeline<'_>], given: Given, findings: &mut Findings) {
    for timeline in timelines {
        for (revision, write, _) in timeline.changes() {
            for op in &write.ops {
                let before = timeline.version(&op.key, revision.saturating_sub(1));
                let met = match op.wanted {
                    Wanted::Any => true,
                    Wanted::Absent => before.is_none_or(|before| before.value.is_none()),
                    Wanted::At(wanted) => {
                        before.is_some_and(|before| before.revision == wanted && before.value.is_some())
                    }
                };
                if !met {
                    let text =
                        format!("change {} at {revision} expected {:?} of {}: {before:?}", write.id, op.wanted, op.key);
                    findings.object(Kind::Disordered, text);
                }
            }
        }
    }
    // Where the bus was rolled back, an older change may come as a newer one.
    if !given.bus_lost {
        for write in &history.writes {
            if let Some(timeline) = timelines.get(write.profile).filter(|timeline| !timeline.is_open) {
                refused_for_a_reason(write, timeline, findings);
            }
        }
    }
}

/// Objects if the record was as expected from before the change was sent until after it was refused.
fn refused_for_a_reason(write: &Write, timeline: &Timeline<'_>, findings: &mut Findings) {
    let ([op], Told::Refused(code)) = (write.ops.as_slice(), &write.told) else { return };
    let Wanted::At(wanted) = op.wanted else { return };
    if code != "conflict" {
        return;
    }
    let versions = timeline.versions(&op.key);
    let place = versions.partition_point(|version| version.revision < wanted);
    let Some((first, later)) = versions[place..].split_first() else { return };
    let certain = |revision: u64| timeline.at(revision).map(|(write, _)| write.span);
    let stood = first.revision == wanted
        && first.value.is_some()
        && certain(wanted).is_some_and(|span| span.completed < write.span.invoked);
    let untouched =
        later.iter().all(|version| certain(version.revision).is_some_and(|span| span.invoked > write.span.completed));
    if stood && untouched {
        let text = format!("change {} was refused although {} stood at {wanted} all the time", write.id, op.key);
        findings.object(Kind::Disordered, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;

    #[test]
    fn an_expectation_that_did_not_hold_is_objected_to() {
        for wanted in [Wanted::Absent, Wanted::At(9)] {
            let mut forge = Forge::good();
            forge.history.writes[1].ops[0].wanted = wanted;
            forge.finds(&[Kind::Disordered]);
        }
        let mut forge = Forge::good();
        forge.history.writes[1].ops[0].wanted = Wanted::At(1);
        forge.finds(&[]);
    }

    #[test]
    fn a_refusal_without_reason_is_objected_to() {
        let mut forge = Forge::good();
        let mut refused = forge.history.writes[1].clone();
        refused.id = roam_client::ChangeId::from_bytes([8; 16]);
        refused.told = Told::Refused("conflict".to_owned());
        refused.ops[0].wanted = Wanted::At(2);
        (refused.span.invoked, refused.span.completed) = (1_000, 1_001);
        forge.history.writes.push(refused.clone());
        forge.finds(&[Kind::Disordered]);
        // One that stood at another revision is refused for a reason.
        let last = forge.history.writes.len() - 1;
        forge.history.writes[last].ops[0].wanted = Wanted::At(1);
        forge.finds(&[]);
    }
}
