//! Positions for what lies in a folder, in the order of the file. Whatever stands where it stood keeps its position, so
//! that moving one bookmark changes one entry.

use roam_schemas::Key;

use super::{Entries, entry::Entry};
use crate::format::position;

/// The positions of these bookmarks in their folder, in the order given. `base` has those that were given out before.
pub(super) fn positions(guids: &[&str], parent: &str, base: &Entries) -> Vec<String> {
    let known = guids.iter().map(|guid| {
        let entry = Entry::parse(base.get(&Key::parse(*guid).ok()?)?).ok()?;
        (entry.parent == parent).then_some(entry.position)
    });
    let mut kept = increasing(guids, &known.collect::<Vec<_>>());
    let mut at = 0;
    while at < guids.len() {
        if kept[at].is_some() {
            at += 1;
            continue;
        }
        let mut end = (at..guids.len()).find(|index| kept[*index].is_some()).unwrap_or(guids.len());
        let low = if at == 0 { String::new() } else { kept[at - 1].clone().unwrap_or_default() };
        // Two devices may have given out the same position. There is no room between the two; the second one makes some.
        while kept.get(end).is_some_and(|high| high.as_ref() == Some(&low)) {
            kept[end] = None;
            end = (end..guids.len()).find(|index| kept[*index].is_some()).unwrap_or(guids.len());
        }
        let high = kept.get(end).cloned().flatten();
        for (place, position) in kept[at..end].iter_mut().zip(position::between(&low, high.as_deref(), end - at)) {
            *place = Some(position);
        }
        at = end;
    }
    kept.into_iter().flatten().collect()
}

/// Of the known positions a longest run that rises; the others are given anew. Ties are in the order of their GUIDs, which
/// is the order in which they are written.
fn increasing(guids: &[&str], known: &[Option<String>]) -> Vec<Option<String>> {
    let place = |index: usize| known[index].as_deref().map(|position| (position, guids[index]));
    // The last of the best run of each length, and what comes before each.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; guids.len()];
    for index in (0..guids.len()).filter(|index| known[*index].is_some()) {
        let length = ends.partition_point(|end| place(*end) < place(index));
        before[index] = length.checked_sub(1).map(|shorter| ends[shorter]);
        ends.truncate(ends.len().max(length));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut kept = vec![None; guids.len()];
    let mut at = ends.last().copied();
    while let Some(index) = at {
        kept[index].clone_from(&known[index]);
        at = before[index];
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn guid(number: u32) -> String {
        format!("{number:08x}-0000-4000-8000-000000000000")
    }

    fn base(order: &[u32], positions: &[String]) -> Entries {
        let entry = |number: &u32, position: &String| {
            let value = serde_json::json!({"type": "folder", "name": "", "parent": "other", "position": position});
            (Key::parse(guid(*number)).unwrap(), value.to_string().into_bytes())
        };
        order.iter().zip(positions).map(|(number, position)| entry(number, position)).collect()
    }

    fn placed(order: &[u32], base: &Entries) -> Vec<String> {
        let guids: Vec<String> = order.iter().copied().map(guid).collect();
        positions(&guids.iter().map(String::as_str).collect::<Vec<_>>(), "other", base)
    }

    #[test]
    fn moving_one_bookmark_changes_one_position() {
        let order = [1, 2, 3, 4, 5];
        let first = placed(&order, &Entries::new());
        let held = base(&order, &first);
        assert_eq!(placed(&order, &held), first);
        let moved = placed(&[1, 5, 2, 3, 4], &held);
        assert_eq!([&moved[0], &moved[2], &moved[3], &moved[4]], [&first[0], &first[1], &first[2], &first[3]]);
        assert!(moved.is_sorted());
    }

    #[test]
    fn what_comes_between_two_of_one_position_makes_room() {
        let held = base(&[1, 2], &["i".to_owned(), "i".to_owned()]);
        assert_eq!(placed(&[1, 2], &held), ["i", "i"]);
        let made = placed(&[1, 3, 2], &held);
        assert!(made[0] < made[1] && made[1] < made[2], "{made:?}");
    }

    proptest! {
        #[test]
        fn positions_are_in_the_order_of_the_file(
            before in Just((0..12_u32).collect::<Vec<_>>()).prop_shuffle(),
            after in Just((4..16_u32).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let held = base(&before, &placed(&before, &Entries::new()));
            let made = placed(&after, &held);
            prop_assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(placed(&after, &base(&after, &made)), made);
        }
    }
}
