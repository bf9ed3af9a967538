//! How much fits into one page of a reply.

use roam_schemas::{Encoding, Key, json_text_len, limits};

use crate::store::{RowState, VersionRow};

/// Counts what a page holds, in records and in bytes on the wire.
pub(super) struct Page {
    encoding: Encoding,
    limit: usize,
    records: usize,
    bytes: usize,
}

/// What a record or version costs at most beside its texts and its value: numbers, times and names of fields.
const OVERHEAD_POSTCARD: usize = 80;
const OVERHEAD_JSON: usize = 320;

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

    /// At least what it takes on the wire. In JSON a byte of a value takes at most two.
    pub(super) fn cost(&self, key: &Key, row: &VersionRow<'_>) -> usize {
        let (content_type, value) = match &row.state {
            RowState::Value { content_type, value, .. } => (*content_type, value.len()),
            RowState::Deleted => ("", 0),
        };
        let texts = [key.as_str(), row.device, content_type];
        match self.encoding {
            Encoding::Postcard => OVERHEAD_POSTCARD + texts.map(str::len).iter().sum::<usize>() + value,
            Encoding::Json => OVERHEAD_JSON + texts.map(json_text_len).iter().sum::<usize>() + 2 * value,
        }
    }
}
