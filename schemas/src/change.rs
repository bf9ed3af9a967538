//! A change: one atomic set of operations on one profile. [`Draft`] is what a payload decodes to; [`Change`] is what
//! [`Draft::validate`] lets through, and there is no other way to make one.

use std::{collections::HashSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ContentType, Kind, Manifest, Message, Problem, Revision, Value, bounded,
    key::Key,
    limits::{CHANGE_BYTES, CHANGE_OPERATIONS, TTL_SECONDS, VALUE_BYTES},
};

/// The id of a change: a UUIDv7 (RFC 9562, section 5.7), chosen by its publisher, the same each time it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ChangeId(#[schemars(with = "String", extend("format" = "uuid"))] Uuid);

impl ChangeId {
    /// A new id, from the clock and randomness of this process.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes, which sort by the time of making.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must hold for an operation to be applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Nothing: the last writer wins.
    #[default]
    Any,
    /// The record is unknown, deleted or expired.
    Absent,
    /// The record exists and has exactly this revision.
    At(Revision),
}

/// The new state of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The value.
    pub value: Value,
    /// What the value is.
    pub content_type: ContentType,
    /// After how many whole seconds from its time the record expires; none for never.
    #[serde(default)]
    pub ttl: Option<u32>,
}

/// What an operation does with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Writes the record.
    Put(Put),
    /// Deletes the record, leaving a tombstone.
    Delete,
}

/// One operation of a valid change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The record.
    pub key: Key,
    /// What to do with it.
    pub action: Action,
    /// Under which condition.
    #[serde(default)]
    pub expect: Expect,
}

impl Operation {
    /// An unconditional put.
    pub fn put(key: Key, value: impl Into<Vec<u8>>, content_type: ContentType) -> Self {
        let put = Put { value: Value::new(value), content_type, ttl: None };
        Self { key, action: Action::Put(put), expect: Expect::Any }
    }

    /// An unconditional delete.
    pub fn delete(key: Key) -> Self {
        Self { key, action: Action::Delete, expect: Expect::Any }
    }

    /// The same, only if the record is as expected.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }
}

/// An operation as it was decoded, with nothing checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Operation", description = "One operation of a change.")]
pub struct DraftOperation {
    /// The record.
    #[schemars(with = "Key")]
    pub key: String,
    /// What to do with it.
    pub action: Action,
    /// Under which condition.
    #[serde(default)]
    pub expect: Expect,
}

/// A change as it was decoded, with nothing checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Change", description = "One atomic set of operations on one profile.")]
pub struct Draft {
    /// Chosen by the publisher, the same each time the change is sent again.
    pub id: ChangeId,
    /// The profile revision that the publisher had seen; none if it does not care for conflicts.
    #[serde(default)]
    pub base: Option<Revision>,
    /// 1 to 1,000 operations, no key twice.
    // Of a longer list one more than that is decoded, for `validate` to refuse.
    #[serde(deserialize_with = "bounded::list::<_, _, CHANGE_OPERATIONS>")]
    #[schemars(length(min = 1, max = CHANGE_OPERATIONS))]
    pub ops: Vec<DraftOperation>,
}

impl Message for Draft {
    const KIND: Kind = Kind::Change;

    fn is_cut(&self) -> bool {
        self.ops.len() > CHANGE_OPERATIONS
    }
}

impl Draft {
    /// Checks everything that can be checked without the state of the profile. `encoded` is the size of the payload
    /// that this was decoded from, in bytes.
    ///
    /// # Errors
    /// `invalid` or `too_large`, with the limit and the actual value.
    pub fn validate(self, encoded: usize) -> Result<Change, Problem> {
        if encoded > CHANGE_BYTES {
            return Err(Problem::too_large("a change is too large, in bytes", CHANGE_BYTES, encoded));
        }
        let ops = self.ops.into_iter().map(validate_operation).collect::<Result<Vec<_>, _>>()?;
        Change::new(self.id, self.base, ops)
    }
}

impl From<Change> for Draft {
    fn from(change: Change) -> Self {
        let op = |op: Operation| DraftOperation { key: op.key.into(), action: op.action, expect: op.expect };
        Self { id: change.id, base: change.base, ops: change.ops.into_iter().map(op).collect() }
    }
}

fn validate_operation(draft: DraftOperation) -> Result<Operation, Problem> {
    Ok(Operation { key: Key::parse(draft.key)?, action: draft.action, expect: draft.expect })
}

/// A valid change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Unchecked")]
pub struct Change {
    id: ChangeId,
    base: Option<Revision>,
    ops: Vec<Operation>,
}

/// The fields of a [`Change`] on their way through its constructor.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Change")]
struct Unchecked {
    id: ChangeId,
    base: Option<Revision>,
    #[serde(deserialize_with = "bounded::list::<_, _, CHANGE_OPERATIONS>")]
    ops: Vec<Operation>,
}

impl Message for Change {
    const KIND: Kind = Kind::Change;
}

impl Change {
    /// Makes a change of operations.
    ///
    /// # Errors
    /// `invalid` for no operation, a key twice, or a time to live of zero; `too_large` for more than 1,000 operations,
    /// a value over 256 KiB, or a change whose keys and values alone pass 1 MiB. Keys count as JSON writes them: so the
    /// records of any one change fit into one reply, in either encoding.
    pub fn new(id: ChangeId, base: Option<Revision>, ops: Vec<Operation>) -> Result<Self, Problem> {
        if ops.is_empty() {
            return Err(Problem::invalid("a change has no operation"));
        }
        if ops.len() > CHANGE_OPERATIONS {
            let message = "a change has too many operations";
            return Err(Problem::too_large(message, CHANGE_OPERATIONS, ops.len()));
        }
        ops.iter().try_for_each(check_action)?;
        check_distinct(&ops)?;
        let bytes = ops.iter().map(|op| op.key.json_len() + value_len(op)).sum();
        if bytes > CHANGE_BYTES {
            return Err(Problem::too_large("a change is too large, in bytes", CHANGE_BYTES, bytes));
        }
        Ok(Self { id, base, ops })
    }

    /// A change of one operation that puts nothing, which is always valid.
    pub fn of_delete(id: ChangeId, key: Key, expect: Expect) -> Self {
        Self { id, base: None, ops: vec![Operation { key, action: Action::Delete, expect }] }
    }

    /// Its id.
    pub fn id(&self) -> ChangeId {
        self.id
    }

    /// The profile revision that its publisher had seen.
    pub fn base(&self) -> Option<Revision> {
        self.base
    }

    /// Its operations, 1 to 1,000, no key twice.
    pub fn ops(&self) -> &[Operation] {
        &self.ops
    }

    /// The operations, by value.
    pub fn into_ops(self) -> Vec<Operation> {
        self.ops
    }

    /// BLAKE3 over the canonical postcard form of base and operations, cut to 16 bytes: two changes of one id are the
    /// same exactly if their digests are. The encoding that either was sent in does not matter.
    pub fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        // Writing into a hasher cannot fail, and every type in here serialises.
        let _ = postcard::to_io(&(&self.base, &self.ops), &mut hasher);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    }
}

impl TryFrom<Unchecked> for Change {
    type Error = Problem;
    fn try_from(fields: Unchecked) -> Result<Self, Problem> {
        Self::new(fields.id, fields.base, fields.ops)
    }
}

fn value_len(op: &Operation) -> usize {
    match &op.action {
        Action::Put(put) => put.value.len(),
        Action::Delete => 0,
    }
}

fn check_action(op: &Operation) -> Result<(), Problem> {
    let Action::Put(put) = &op.action else {
        return Ok(());
    };
    if put.value.len() > VALUE_BYTES {
        return Err(Problem::too_large("a value is too large, in bytes", VALUE_BYTES, put.value.len()));
    }
    if put.content_type.is_manifest() {
        Manifest::parse(put.value.as_bytes())?;
    }
    match put.ttl {
        Some(0) => Err(Problem::invalid("a time to live is at least one second")),
        Some(ttl) if ttl > TTL_SECONDS => {
            let message = "a time to live is too long, in seconds";
            Err(Problem::new(crate::Code::TooLarge, message).with_limit(TTL_SECONDS.into(), ttl.into()))
        }
        _ => Ok(()),
    }
}

fn check_distinct(ops: &[Operation]) -> Result<(), Problem> {
    if let [_] = ops {
        return Ok(());
    }
    let mut keys = HashSet::with_capacity(ops.len());
    if ops.iter().all(|op| keys.insert(&op.key)) {
        return Ok(());
    }
    Err(Problem::invalid("a change names a key twice"))
}
