//! How the values of rows are written: one byte with the version of the layout, then postcard.

use serde::{Deserialize, Serialize};

use super::StoreError;

/// The version of every layout so far. Persisted: a new layout gets a new number, the old one stays readable.
const LAYOUT: u8 = 1;

/// Writes the value of a row.
pub(super) fn write<R: Serialize>(table: &'static str, row: &R) -> Result<Vec<u8>, StoreError> {
    // Room for a small record with all that is kept of its change.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(LAYOUT);
    postcard::to_extend(row, bytes).map_err(|error| damaged(table, &error))
}

/// Reads the value of a row; what it borrows lives as long as the bytes.
pub(super) fn read<'a, R: Deserialize<'a>>(table: &'static str, bytes: &'a [u8]) -> Result<R, StoreError> {
    match bytes.split_first() {
        Some((&LAYOUT, body)) => postcard::from_bytes(body).map_err(|error| damaged(table, &error)),
        Some((layout, _)) => Err(StoreError::Layout { table, layout: *layout }),
        None => Err(StoreError::Damaged { table, what: "an empty row".to_owned() }),
    }
}

fn damaged(table: &'static str, error: &postcard::Error) -> StoreError {
    StoreError::Damaged { table, what: error.to_string() }
}
