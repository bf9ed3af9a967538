//! Sessions: changes of one client to one key take effect in the order in which it made them, as long as they expect nothing;
//! one that comes late is superseded.

use std::collections::HashMap;

use super::{Findings, Given, Kind};
use crate::history::{History, Told, Wanted, Write};

pub(super) fn check(history: &History, given: Given, findings: &mut Findings) {
    // A bus that was rolled back takes in again what it had forgotten, and numbers it anew.
    if given.bus_lost {
        return;
    }
    let mut writes: Vec<&Write> = history.writes.iter().filter(|write| write.in_turn).collect();
    writes.sort_unstable_by_key(|write| write.span.invoked);
    let mut last: HashMap<(usize, usize, &str), u64> = HashMap::new();
    for write in writes {
        let Told::Saved(saved) = &write.told else { continue };
        let effective = write.ops.iter().filter(|op| op.wanted == Wanted::Any && !saved.superseded.contains(&op.key));
        for op in effective {
            let before = last.entry((write.profile, write.client, &op.key)).or_default();
            if saved.revision < *before {
                let text = format!(
                    "change {} of client {} to {} took effect at {}, before an earlier one at {before}",
                    write.id, write.client, op.key, saved.revision
                );
                findings.object(Kind::Disordered, text);
            }
            *before = saved.revision.max(*before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;
    use crate::history::Saved;

    #[test]
    fn an_earlier_change_that_takes_effect_after_a_later_one_is_objected_to() {
        let mut forge = Forge::good();
        // The second write of the key was made first, and took effect last.
        forge.history.writes[1].span.invoked = 50;
        forge.finds(&[Kind::Disordered]);
        forge.history.writes[1].in_turn = false;
        forge.finds(&[]);
    }

    #[test]
    fn a_client_of_two_profiles_has_a_session_with_each() {
        let mut forge = Forge::good();
        let mut other = forge.history.writes[1].clone();
        (other.profile, other.id) = (1, roam_client::ChangeId::from_bytes([7; 16]));
        other.ops[0].value = Some("p1.c0.1".into());
        other.told = Told::Saved(Saved { revision: 1, time: 10, superseded: Vec::new(), again: false });
        forge.history.writes.push(other);
        forge.finds(&[]);
    }
}
