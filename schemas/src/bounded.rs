//! Reading lists that strangers send: no more is kept of one than its limit, and one item to show that it was passed.
//! What a list may hold is checked elsewhere.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

/// Reads a list, and keeps at most `MAX + 1` items of it: in memory an empty item is thirty times as large as on the
/// wire, so a payload of a few megabytes could otherwise fill hundreds. The rest is read all the same, and must be
/// well-formed.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::with_capacity(items.size_hint().unwrap_or(0).min(MAX + 1));
        while let Some(item) = items.next_element()? {
            if kept.len() <= MAX {
                kept.push(item);
            }
        }
        Ok(kept)
    }
}
