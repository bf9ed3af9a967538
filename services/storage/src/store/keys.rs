//! How names and keys are written in the keys of rows: escaped and terminated, never length-prefixed, so that byte
//! order is the order of the parts and a prefix of parts is a prefix of bytes.
//!
//! A zero byte is written `00 02`, the end of a part `00 01`. Persisted: never change.

use roam_schemas::{App, Key, Profile, Tenant, User};

const END: [u8; 2] = [0, 1];
const ZERO: [u8; 2] = [0, 2];

/// A profile as the beginning of the key of every row that belongs to it: tenant, user, app.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileKey(Box<[u8]>);

/// A user as the beginning of the key of every row that belongs to them: tenant, user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserKey(Box<[u8]>);

/// A key of a profile, as it stands in the keys of rows: tenant, user, app, key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    bytes: Box<[u8]>,
    /// How many of the bytes are the profile.
    profile: usize,
}

/// The beginning of the keys of all rows of a tenant, of a user of it, or of one profile.
pub fn scope(tenant: Option<&Tenant>, user: Option<&User>, app: Option<&App>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(48);
    let names = [tenant.map(Tenant::as_str), user.map(User::as_str), app.map(App::as_str)];
    names.into_iter().map_while(|name| name).for_each(|name| push_part(&mut bytes, name));
    bytes
}

impl UserKey {
    /// The beginning of all keys of this user.
    pub fn new(tenant: &Tenant, user: &User) -> Self {
        let mut bytes = Vec::with_capacity(48);
        push_part(&mut bytes, tenant.as_str());
        push_part(&mut bytes, user.as_str());
        Self(bytes.into())
    }

    /// The user of a row of `erased`.
    pub(super) fn of_row(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first key that can belong to the user, and the first one beyond.
    pub(super) fn range(&self) -> (&[u8], Vec<u8>) {
        // It ends with the end of a part, so there is one beyond.
        (&self.0, beyond(&self.0).unwrap_or_default())
    }
}

impl ProfileKey {
    /// The beginning of all keys of this profile.
    pub fn new(profile: &Profile) -> Self {
        let parts = [profile.tenant.as_str(), profile.user.as_str(), profile.app.as_str()];
        // Just as many as there are mostly: what is shared out is not copied again.
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + END.len()).sum());
        parts.iter().for_each(|part| push_part(&mut bytes, part));
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The part that is the user: the bytes of a [`UserKey`].
    pub(crate) fn user(&self) -> &[u8] {
        let end = parts_len(&self.0, 2).unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// The beginning of the keys of all rows that belong to a key of this profile.
    pub fn record(&self, key: &Key) -> RecordKey {
        let mut bytes = self.begin(key.as_str().len() + END.len());
        push_part(&mut bytes, key.as_str());
        RecordKey { bytes: bytes.into(), profile: self.0.len() }
    }

    /// A new key that begins with this profile, with room for `more` bytes.
    pub(super) fn begin(&self, more: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + more);
        bytes.extend_from_slice(&self.0);
        bytes
    }

    /// Splits a profile off the front of a row's key.
    pub fn split(bytes: &[u8]) -> Option<(Profile, &[u8])> {
        let (tenant, rest) = take_part(bytes)?;
        let (user, rest) = take_part(rest)?;
        let (app, rest) = take_part(rest)?;
        let profile =
            Profile { tenant: Tenant::parse(tenant).ok()?, user: User::parse(user).ok()?, app: App::parse(app).ok()? };
        Some((profile, rest))
    }
}

impl RecordKey {
    /// The record that a row of `version` without its place belongs to.
    pub(super) fn of_row(bytes: &[u8]) -> Option<Self> {
        let profile = parts_len(bytes, 3)?;
        Some(Self { bytes: bytes.into(), profile })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The part that is the profile, and the part that is the key in it.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.profile)
    }
}

/// Appends a part and its end.
fn push_part(bytes: &mut Vec<u8>, part: &str) {
    push_escaped(bytes, part);
    bytes.extend_from_slice(&END);
}

/// Appends a part without its end: the beginning of all parts that begin with it.
pub(super) fn push_escaped(bytes: &mut Vec<u8>, part: &str) {
    let mut pieces = part.as_bytes().split(|byte| *byte == 0);
    if let Some(first) = pieces.next() {
        bytes.extend_from_slice(first);
    }
    for piece in pieces {
        bytes.extend_from_slice(&ZERO);
        bytes.extend_from_slice(piece);
    }
}

/// Takes one part off the front.
pub(super) fn take_part(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut part = Vec::with_capacity(32);
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|byte| *byte == 0)?;
        part.extend_from_slice(&rest[..zero]);
        let after = rest.get(zero + 2..)?;
        match rest[zero + 1] {
            1 => return Some((String::from_utf8(part).ok()?, after)),
            2 => part.push(0),
            _ => return None,
        }
        rest = after;
    }
}

/// Takes a key off the front.
pub(super) fn take_key(bytes: &[u8]) -> Option<(Key, &[u8])> {
    let (part, rest) = take_part(bytes)?;
    Some((Key::parse(part).ok()?, rest))
}

/// Takes a big-endian number off the front.
pub(super) fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// How many bytes the first `parts` parts take up, ends included; `None` if there are fewer.
pub(super) fn parts_len(bytes: &[u8], parts: usize) -> Option<usize> {
    // RocksDB asks this of each row that is written or looked for.
    let mut ends = memchr::memchr_iter(END[0], bytes).filter(|at| bytes.get(at + 1) == Some(&END[1]));
    ends.nth(parts - 1).map(|at| at + END.len())
}

/// The smallest key beyond all that begin with `prefix`; `None` if there is no such key.
pub(super) fn beyond(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_round_trip_and_keep_their_order(left in "[\\x00-\\x03ab]{0,6}", right in "[\\x00-\\x03ab]{0,6}", tail in any::<[u8; 3]>()) {
            let written = |part: &str| { let mut bytes = Vec::new(); push_part(&mut bytes, part); bytes };
            prop_assert_eq!(left.cmp(&right), written(&left).cmp(&written(&right)));
            let mut bytes = written(&left);
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(take_part(&bytes), Some((left, &tail[..])));
            prop_assert_eq!(parts_len(&bytes, 1), Some(bytes.len() - 3));
        }

        #[test]
        fn a_text_prefix_is_a_byte_prefix(prefix in "[\\x00-\\x02a]{0,4}", text in "[\\x00-\\x02a]{0,6}") {
            let mut beginning = Vec::new();
            push_escaped(&mut beginning, &prefix);
            let mut whole = Vec::new();
            push_part(&mut whole, &text);
            prop_assert_eq!(text.starts_with(&prefix), whole.starts_with(&beginning));
        }

        #[test]
        fn reading_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ProfileKey::split(&bytes);
            let _ = parts_len(&bytes, 4);
            if let Some(end) = beyond(&bytes) {
                prop_assert!(end > bytes);
            }
        }
    }
}
