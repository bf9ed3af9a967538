//! Packing operations into changes: as few as the limits of a change allow. Pure.

use roam_schemas::{Action, Operation, limits::CHANGE_OPERATIONS};

/// A change takes no further operation that would take it past this many bytes. Well below the limit of the protocol,
/// because it is reckoned, not measured.
const CHANGE_BYTES: usize = 768 * 1024;
/// More than what an operation takes beside key and value.
const OVERHEAD: usize = 384;
/// The most that a byte of a key counts: see [`roam_schemas::Change::new`].
const KEY: usize = 6;

/// The changes to send, the first one last.
pub(super) fn changes(ops: Vec<Operation>) -> Vec<Vec<Operation>> {
    let mut changes: Vec<Vec<Operation>> = Vec::new();
    let mut bytes = 0;
    for op in ops {
        let more = OVERHEAD + KEY * op.key.as_str().len() + value(&op);
        match changes.last_mut() {
            Some(change) if change.len() < CHANGE_OPERATIONS && bytes + more <= CHANGE_BYTES => {
                change.push(op);
                bytes += more;
            }
            _ => {
                changes.push(vec![op]);
                bytes = more;
            }
        }
    }
    changes.reverse();
    changes
}

fn value(op: &Operation) -> usize {
    match &op.action {
        Action::Put(put) => put.value.len(),
        Action::Delete => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Change, ChangeId, ContentType, Encoding, Key, encode, limits};

    use super::*;

    #[test]
    fn every_change_is_valid_and_they_are_few_and_in_order() {
        for (count, size, expected) in [(0, 0, 0), (2_500, 0, 3), (9, limits::VALUE_BYTES, 5), (3, 1, 1)] {
            let key = |number: usize| Key::parse(format!("{number:04}{}", "k".repeat(8))).unwrap();
            let ops = (0..count).map(|number| Operation::put(key(number), vec![7; size], ContentType::octets()));
            let mut packed = changes(ops.collect());
            assert_eq!(packed.len(), expected);
            packed.reverse();
            let keys: Vec<String> = packed.iter().flatten().map(|op| op.key.to_string()).collect();
            assert!(keys.is_sorted() && keys.len() == count);
            for ops in packed {
                let change = Change::new(ChangeId::random(), None, ops).unwrap();
                assert!(encode(&change, Encoding::Postcard).unwrap().len() <= limits::CHANGE_BYTES);
            }
        }
    }
}
