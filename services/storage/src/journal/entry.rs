//! What an entry of the journal is.

use roam_nats::Entry;
use roam_schemas::{BatchId, Control, ControlEntry, Encoding, JournalBatch, Message, decode};

use super::Halt;

/// An entry that was read.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    /// From an access server.
    Batch(JournalBatch),
    /// From an operator.
    Control(BatchId, Control),
    /// None of ours: a PubAck that somebody steered here carries no header of ours.
    Foreign,
}

/// Reads an entry.
///
/// # Errors
/// See [`Halt`]: what a replica does not understand it never skips.
pub(crate) fn read_entry(entry: &Entry) -> Result<Read, Halt> {
    let Some(id) = entry.headers.batch() else {
        return Ok(Read::Foreign);
    };
    if entry.subject.ends_with(".control") {
        let control: ControlEntry = read(entry, id)?;
        check_id(entry, id, control.id)?;
        return Ok(Read::Control(control.id, control.control));
    }
    let batch: JournalBatch = read(entry, id)?;
    check_id(entry, id, batch.id)?;
    Ok(Read::Batch(batch))
}

/// The id in the header of an entry; none if that is none.
pub(crate) fn batch_id(entry: &Entry) -> Option<BatchId> {
    entry.headers.batch().and_then(BatchId::parse)
}

fn read<M: Message>(entry: &Entry, id: &str) -> Result<M, Halt> {
    decode(&entry.payload, Encoding::Postcard).map_err(|error| undecodable(entry, id, error.to_string()))
}

fn check_id(entry: &Entry, header: &str, payload: BatchId) -> Result<(), Halt> {
    match BatchId::parse(header) == Some(payload) {
        true => Ok(()),
        false => Err(undecodable(entry, header, format!("its payload says batch {payload}"))),
    }
}

fn undecodable(entry: &Entry, id: &str, reason: String) -> Halt {
    Halt::Undecodable { sequence: entry.sequence, batch: id.to_owned(), reason }
}
