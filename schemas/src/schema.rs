//! The JSON Schema (draft 2020-12) of every message, generated from the Rust types. The files in `schemas/json/` are
//! these; a test holds them equal.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    Bulk, BulkReceipts, ChangesReply, ChangesRequest, ChunkReply, ChunkRequest, ControlEntry, Draft, HaveReply,
    HaveRequest, HistoryReply, HistoryRequest, HoldingsReply, HoldingsRequest, JournalBatch, LatestReply,
    LatestRequest, Manifest, Message, Notice, Problem, ProfilesReply, ProfilesRequest, Receipt, StatusReply,
    TermsEntry,
};

/// The name (the message's top-level key) and the schema of every message.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        of::<Draft>(),
        of::<Bulk>(),
        of::<JournalBatch>(),
        of::<ControlEntry>(),
        of::<Receipt>(),
        of::<BulkReceipts>(),
        of::<Notice>(),
        of::<LatestRequest>(),
        of::<LatestReply>(),
        of::<ChangesRequest>(),
        of::<ChangesReply>(),
        of::<HistoryRequest>(),
        of::<HistoryReply>(),
        of::<Problem>(),
        of::<StatusReply>(),
        of::<ProfilesRequest>(),
        of::<ProfilesReply>(),
        of::<HoldingsRequest>(),
        of::<HoldingsReply>(),
        of::<Manifest>(),
        of::<HaveRequest>(),
        of::<HaveReply>(),
        of::<ChunkRequest>(),
        of::<ChunkReply>(),
        of::<TermsEntry>(),
    ]
}

fn of<M: Message + JsonSchema>() -> (&'static str, Schema) {
    let key = M::KIND.key();
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let body = generator.subschema_for::<M>();
    let definitions = generator.take_definitions(true);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": key,
        "type": "object",
        "properties": { key: body },
        "required": [key],
        "additionalProperties": false,
        "$defs": definitions,
    });
    unlink(&mut schema);
    (key, Schema::try_from(schema).unwrap_or_default())
}

/// Makes plain names of the links in descriptions, which lead nowhere outside the documentation of this crate.
fn unlink(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`");
            }
            object.values_mut().for_each(unlink);
        }
        Value::Array(items) => items.iter_mut().for_each(unlink),
        _ => {}
    }
}
