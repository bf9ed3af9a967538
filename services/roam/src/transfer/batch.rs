//! Packing operations into changes: as few as the limits of a change allow. Pure.

use roam_schemas::{Action, Encoding, Operation, limits::CHANGE_OPERATIONS};

/// A change takes no further operation that would take it past this many bytes. Well below the limit of the protocol,
/// because it is reckoned, not measured.
const CHANGE_BYTES: usize = 768 * 1024;
/// More than what an operation takes beside key, value and content type, in either encoding.
const OVERHEAD: usize = 128;
/// The most that a byte of a key can become in JSON: `\u0000`.
const JSON_KEY: usize = 6;
/// The most that a byte of a value can become in JSON: see [`roam_schemas::Value`].
const JSON_VALUE: usize = 2;

/// Collects operations until they make a change.
#[derive(Debug)]
pub(crate) struct Batcher {
    encoding: Encoding,
    ops: Vec<Operation>,
    bytes: usize,
}

impl Batcher {
    /// An empty one, for changes that are sent in this encoding.
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, ops: Vec::new(), bytes: 0 }
    }

    /// Adds an operation. If there is no room for it, it begins the next change, and those collected before come back.
    pub(crate) fn add(&mut self, op: Operation) -> Option<Vec<Operation>> {
        let bytes = reckon(&op, self.encoding);
        let full = self.ops.len() >= CHANGE_OPERATIONS || self.bytes + bytes > CHANGE_BYTES;
        let ready = if full { self.take() } else { None };
        self.bytes += bytes;
        self.ops.push(op);
        ready
    }

    /// Whatever is collected, if anything is.
    pub(crate) fn take(&mut self) -> Option<Vec<Operation>> {
        self.bytes = 0;
        let ops = std::mem::take(&mut self.ops);
        (!ops.is_empty()).then_some(ops)
    }
}

/// At least as many bytes as the operation will take.
fn reckon(op: &Operation, encoding: Encoding) -> usize {
    let (value, content_type) = match &op.action {
        Action::Put(put) => (put.value.len(), put.content_type.as_str().len()),
        Action::Delete => (0, 0),
    };
    let value = match encoding {
        Encoding::Postcard => value,
        Encoding::Json => JSON_VALUE * value,
    };
    // A key counts as in JSON whatever a change is sent in: see `Change::new`.
    OVERHEAD + 2 * content_type + JSON_KEY * op.key.as_str().len() + value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Change, ChangeId, ContentType, Key, encode, limits};

    use super::*;

    fn batches(ops: impl Iterator<Item = Operation>, encoding: Encoding) -> Vec<Vec<Operation>> {
        let mut batcher = Batcher::new(encoding);
        let mut batches: Vec<_> = ops.filter_map(|op| batcher.add(op)).collect();
        batches.extend(batcher.take());
        batches
    }

    fn put(number: usize, value: Vec<u8>, key_filler: &str) -> Operation {
        let key = Key::parse(format!("{number:04}{}", key_filler.repeat(500 / key_filler.len()))).unwrap();
        Operation::put(key, value, ContentType::text())
    }

    #[test]
    fn nothing_makes_no_change() {
        assert!(batches(std::iter::empty(), Encoding::Postcard).is_empty());
    }

    #[test]
    fn every_change_is_valid_however_awkward_the_values() {
        let awkward: [(&[u8], usize); 5] =
            [(b"\n", limits::VALUE_BYTES), (b"\0", limits::VALUE_BYTES), (b"\"", 5_000), (b"a", 1), (b"\xff", 0)];
        for encoding in [Encoding::Postcard, Encoding::Json] {
            for filler in ["k", "\u{1}", "ж"] {
                for (byte, len) in awkward {
                    let ops = (0..1_100).map(|number| put(number, byte.repeat(len), filler));
                    let ops: Vec<_> = ops.take(if len > 100_000 { 20 } else { 1_100 }).collect();
                    let expected = ops.len();
                    let mut found = 0;
                    for ops in batches(ops.into_iter(), encoding) {
                        found += ops.len();
                        let change = Change::new(ChangeId::random(), None, ops).unwrap();
                        let bytes = encode(&change, encoding).unwrap().len();
                        assert!(bytes <= limits::CHANGE_BYTES, "{bytes} bytes of {byte:?} in {encoding:?}");
                    }
                    assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn small_operations_share_a_change() {
        let ops = (0..2_500).map(|number| Operation::delete(Key::parse(format!("k{number}")).unwrap()));
        let sizes: Vec<_> = batches(ops, Encoding::Postcard).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
    }
}
