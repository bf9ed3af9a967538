//! Places in an order that can always take another one between two of them, so that what two devices insert in one folder
//! needs no agreement. A position is a fraction between 0 and 1, written as its digits in base 36; the order of the texts
//! is the order of the fractions, because none ends with a zero.

/// The digits in the order of their values.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// The longest position that is taken from another device.
const LONGEST: usize = 1_024;

/// Whether this is a position as they are written here.
pub(super) fn is_valid(position: &str) -> bool {
    let digits = position.bytes().all(|byte| DIGITS.contains(&byte));
    digits && (1..=LONGEST).contains(&position.len()) && !position.ends_with('0')
}

/// So many positions in their order, after `low` (empty: from the beginning) and before `high` (`None`: to the end).
/// `low` comes before `high`.
pub(super) fn between(low: &str, high: Option<&str>, count: usize) -> Vec<String> {
    let mut positions = Vec::with_capacity(count);
    match (count, high) {
        // What is added one by one at the end, as people do, makes positions grow least when it is put close.
        (1, None) => positions.push(middle(low, None, 1)),
        _ => halve(low, high, count, &mut positions),
    }
    positions
}

fn halve(low: &str, high: Option<&str>, count: usize, positions: &mut Vec<String>) {
    if count == 0 {
        return;
    }
    let middle = middle(low, high, usize::MAX);
    let before = (count - 1) / 2;
    halve(low, Some(&middle), before, positions);
    positions.push(middle.clone());
    halve(&middle, high, count - 1 - before, positions);
}

/// A position between the two, at most `step` above `low` in the digit where they part.
fn middle(low: &str, high: Option<&str>, step: usize) -> String {
    let digit = |text: &str, at: usize| text.as_bytes().get(at).and_then(|byte| DIGITS.iter().position(|d| d == byte));
    let mut high = high;
    let mut middle = String::new();
    for at in 0.. {
        let from = digit(low, at).unwrap_or(0);
        let to = high.map_or(DIGITS.len(), |high| digit(high, at).unwrap_or(0));
        if to > from + 1 {
            middle.push(char::from(DIGITS[from + ((to - from) / 2).min(step)]));
            break;
        }
        middle.push(char::from(DIGITS[from]));
        if to > from {
            // It is below `high` already, whatever follows.
            high = None;
        }
        if to < from || at > 2 * LONGEST {
            break;
        }
    }
    middle
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn are_in_order(low: &str, positions: &[String], high: Option<&str>) -> bool {
        let all: Vec<&str> = std::iter::once(low).chain(positions.iter().map(String::as_str)).chain(high).collect();
        all.windows(2).all(|pair| pair[0] < pair[1]) && positions.iter().all(|position| is_valid(position))
    }

    #[test]
    fn thousands_of_positions_at_once_are_short() {
        let positions = between("", None, 5_000);
        assert!(are_in_order("", &positions, None));
        assert!(positions.iter().all(|position| position.len() <= 4));
    }

    #[test]
    fn a_thousand_one_by_one_at_the_end_stay_short() {
        let mut last = String::new();
        for _ in 0..1_000 {
            let next = between(&last, None, 1).remove(0);
            assert!(are_in_order(&last, std::slice::from_ref(&next), None));
            last = next;
        }
        assert!(last.len() <= 40, "{last}");
    }

    #[test]
    fn what_is_no_position_is_told_apart() {
        for (text, valid) in [("", false), ("a0", false), ("0", false), ("A", false), ("i", true), ("0i", true)] {
            assert_eq!(is_valid(text), valid, "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_is_room_between_any_two(mut pair in prop::collection::btree_set("[0-9a-z]{0,6}[1-9a-z]", 2), count in 1_usize..20) {
            let (low, high) = (pair.pop_first().unwrap_or_default(), pair.pop_first().unwrap_or_default());
            prop_assert!(are_in_order(&low, &between(&low, Some(&high), count), Some(&high)));
            prop_assert!(are_in_order(&low, &between(&low, None, count), None));
            prop_assert!(are_in_order("", &between("", Some(&low), count), Some(&low)));
        }
    }
}
