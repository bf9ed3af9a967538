//! How much fits into one page of a reply.

use roam_schemas::{Encoding, Key, limits};

use crate::store::{RowState, VersionRow};

/// Counts what a page holds, in records and in estimated bytes on the wire.
pub(super) struct Page {
    encoding: Encoding,
    limit: usize,
    records: usize,
    bytes: usize,
}

/// What a record costs beside its key and value: revision, time, device and names of fields.
const OVERHEAD_POSTCARD: usize = 48;
const OVERHEAD_JSON: usize = 224;

impl Page {
    pub(super) fn new(encoding: Encoding, limit: Option<u32>) -> Self {
        let limit = limit.unwrap_or(limits::PAGE_RECORDS) as usize;
        Self { encoding, limit, records: 0, bytes: 0 }
    }

    /// Takes a record in.
    pub(super) fn add(&mut self, key: &Key, row: &VersionRow<'_>) {
        self.records += 1;
        self.bytes += self.cost(key, row);
    }

    /// Whether the page takes no further record.
    pub(super) fn is_full(&self) -> bool {
        self.records >= self.limit || self.bytes >= limits::PAGE_BYTES
    }

    /// Whether a page that holds something would pass its bytes with this record.
    pub(super) fn would_pass(&self, key: &Key, row: &VersionRow<'_>) -> bool {
        self.records > 0 && self.bytes + self.cost(key, row) > limits::PAGE_BYTES
    }

    /// In JSON a byte of a key takes at most six (a control character), one of a value at most two.
    fn cost(&self, key: &Key, row: &VersionRow<'_>) -> usize {
        let value = match &row.state {
            RowState::Value { value, .. } => value.len(),
            RowState::Deleted => 0,
        };
        match self.encoding {
            Encoding::Postcard => OVERHEAD_POSTCARD + key.as_str().len() + value,
            Encoding::Json => OVERHEAD_JSON + json_key(key) + 2 * value,
        }
    }
}

fn json_key(key: &Key) -> usize {
    let control = key.as_str().bytes().filter(|byte| *byte < b' ').count();
    2 * key.as_str().len() + 4 * control
}
