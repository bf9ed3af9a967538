//! Nothing crosses profiles: every value says whose it is, and every receipt goes to the device that made the change.

use std::collections::HashMap;

use roam_client::ChangeId;

use super::{Findings, Kind};
use crate::{
    history::{Event, History, Seen, Wired},
    workload,
};

/// Who sends a change again to find out what became of it, as a device.
const SETTLER: &str = "$svc-settler";

pub(super) fn check(history: &History, findings: &mut Findings) {
    for read in &history.reads {
        let records = read.answer.iter().flat_map(|answer| &answer.records);
        own(read.profile, records, findings);
    }
    for heard in &history.heard {
        if let Event::Revision { records, .. } | Event::State { records, .. } = &heard.event {
            own(heard.profile, records, findings);
        }
    }
    for (profile, answer) in &history.finals {
        own(*profile, &answer.records, findings);
    }
    let makers: HashMap<ChangeId, (usize, usize)> =
        history.writes.iter().map(|write| (write.id, (write.client, write.profile))).collect();
    for wired in &history.wired {
        let (profile, change, device) = match wired {
            Wired::Receipt { profile, change, device, .. } => (profile, change, Some(device)),
            Wired::Notice { profile, change, .. } => (profile, change, None),
        };
        let Some((client, own_profile)) = makers.get(change) else { continue };
        let to_another = device.is_some_and(|device| {
            let own = workload::writer(*client).is_ok_and(|own| own.as_str() == device);
            // Whoever finds out what became of a change is told too.
            !own && device != SETTLER
        });
        if profile != own_profile || to_another {
            findings.object(Kind::Crossed, format!("what is told of change {change} goes to {profile}, {device:?}"));
        }
    }
}

fn own<'a>(profile: usize, records: impl IntoIterator<Item = &'a Seen>, findings: &mut Findings) {
    let mark = format!("p{profile}.");
    for record in records {
        if record.value.as_ref().is_some_and(|value| !value.starts_with(&mark)) {
            findings.object(Kind::Crossed, format!("profile {profile} holds {:?} at {}", record.value, record.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;

    #[test]
    fn a_value_of_another_profile_crossed() {
        let mut forge = Forge::good();
        let mut read = forge.read(2);
        if let Some(answer) = &mut read.answer {
            answer.records[0].value = Some("p7.c0.1".into());
        }
        forge.history.reads.push(read);
        assert!(forge.kinds().contains(&Kind::Crossed));
    }

    #[test]
    fn a_receipt_that_goes_to_another_device_crossed() {
        let mut forge = Forge::good();
        let change = forge.history.writes[0].id;
        for (device, found) in [("device-0", 0), ("$svc-settler", 0), ("device-7", 1), ("$svc-writer-0", 1)] {
            forge.history.wired.clear();
            let receipt = Wired::Receipt { profile: 0, device: device.to_owned(), change, outcome: Ok((1, 10)) };
            forge.history.wired.push(receipt);
            forge.finds(&vec![Kind::Crossed; found]);
        }
    }
}
