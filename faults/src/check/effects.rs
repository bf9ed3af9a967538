//! Effects: every revision is that of one change, every change has one, and revision and time rise together and are the same
//! for everybody who is told of them. What was refused has no effect.

use std::collections::HashMap;

use roam_client::ChangeId;

use super::{Findings, Kind, Timeline};
use crate::history::{Event, History, Saved, Told, Wired, Write};

pub(super) fn check(history: &History, timelines: &[Timeline<'_>], findings: &mut Findings) {
    for (profile, timeline) in timelines.iter().enumerate() {
        in_order(profile, timeline, findings);
    }
    let writes: HashMap<ChangeId, &Write> = history.writes.iter().map(|write| (write.id, write)).collect();
    for wired in &history.wired {
        match wired {
            Wired::Notice { profile, revision, time, change, .. } => {
                agree(&writes, (*profile, *change), (*revision, *time), "a notice", findings);
            }
            Wired::Receipt { profile, change, outcome: Ok((revision, time)), .. } => {
                agree(&writes, (*profile, *change), (*revision, *time), "a receipt", findings);
            }
            Wired::Receipt { change, outcome: Err(code), .. } => {
                if let Some(Told::Saved(saved)) = writes.get(change).map(|write| &write.told) {
                    let text = format!("change {change} is saved at {} and also refused: {code}", saved.revision);
                    findings.object(Kind::Duplicated, text);
                }
            }
        }
    }
    for heard in &history.heard {
        if let Event::Revision { revision, time, change: Some(change), .. } = &heard.event {
            agree(&writes, (heard.profile, *change), (*revision, *time), "a watch", findings);
        }
    }
}

/// Every revision up to the head is taken by one change, and times rise with them.
fn in_order(profile: usize, timeline: &Timeline<'_>, findings: &mut Findings) {
    let (mut last, mut last_time) = (0, 0);
    for (revision, write, saved) in timeline.changes() {
        if revision != last + 1 && !timeline.is_open {
            let text = format!("profile {profile}: nobody's change took what lies between {last} and {revision}");
            findings.object(Kind::Disordered, text);
        }
        if saved.time <= last_time {
            let text = format!("profile {profile}: the time of revision {revision} ({}) is not after {last}", write.id);
            findings.object(Kind::Disordered, text);
        }
        (last, last_time) = (revision, saved.time);
    }
}

/// What is told of a change is what its receipt says.
fn agree(
    writes: &HashMap<ChangeId, &Write>,
    (profile, change): (usize, ChangeId),
    (revision, time): (u64, u64),
    who: &str,
    findings: &mut Findings,
) {
    let Some(write) = writes.get(&change) else {
        // The copy of a change whose client had no time to record it is settled before this; all else is nobody's.
        let text = format!("profile {profile}: {who} tells of change {change} at {revision}, which nobody made");
        return findings.object(Kind::Disordered, text);
    };
    match &write.told {
        Told::Saved(Saved { revision: own, time: own_time, .. }) => {
            if *own != revision {
                let text = format!("{who} tells of change {change} at revision {revision}; its receipt says {own}");
                findings.object(Kind::Duplicated, text);
            } else if *own_time != time {
                findings.object(Kind::Disordered, format!("{who} gives revision {revision} of {change} another time"));
            }
        }
        Told::Refused(code) => {
            let text = format!("{who} tells of change {change} at {revision}, which was refused: {code}");
            findings.object(Kind::Disordered, text);
        }
        Told::Unknown { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::{self, Forge};
    use super::*;

    #[test]
    fn a_change_that_is_told_of_at_two_revisions_was_applied_twice() {
        let mut forge = Forge::good();
        forge.notice(1, 5);
        forge.finds(&[Kind::Duplicated]);
    }

    #[test]
    fn a_refused_change_that_is_told_of_had_an_effect() {
        let mut forge = Forge::good();
        forge.refuse(1, "conflict");
        forge.notice(1, 2);
        assert!(forge.kinds().contains(&Kind::Disordered));
    }

    #[test]
    fn a_change_that_nobody_made_is_unexpected() {
        let mut forge = Forge::good();
        let change = ChangeId::from_bytes([9; 16]);
        let notice = Wired::Notice { profile: 0, revision: 2, time: 20, change, device: forge::DEVICE.to_owned() };
        forge.history.wired.push(notice);
        forge.finds(&[Kind::Disordered]);
    }

    #[test]
    fn two_changes_cannot_take_one_revision_nor_times_fall() {
        let mut forge = Forge::good();
        forge.save_at(1, 1, 10);
        assert!(forge.kinds().contains(&Kind::Disordered));
        let mut forge = Forge::good();
        forge.save_at(1, 2, 5);
        assert!(forge.kinds().contains(&Kind::Disordered));
    }

    #[test]
    fn a_revision_that_no_change_took_is_unexpected() {
        let mut forge = Forge::good();
        forge.save_at(3, 9, 90);
        assert!(forge.kinds().contains(&Kind::Disordered));
    }
}
