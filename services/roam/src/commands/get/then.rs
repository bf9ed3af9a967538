//! What a key was at a place in the past. That it was absent is said only if the system remembers so far back.

use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt, stream};
use roam_client::{Lookup, ProfileClient, ReadError};
use roam_schemas::{HistoryReply, Key, Record, State, Timestamp, Version};

use crate::{
    commands::HISTORIES_AT_ONCE,
    past::{Ahead, Memory, Point, Stood, stood_at},
};

/// Why it is not known what a key was.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKnown {
    /// A question was not answered.
    #[error(transparent)]
    Unanswered(#[from] ReadError),
    /// There is no such revision yet.
    #[error(transparent)]
    Ahead(#[from] Ahead),
    /// Nobody can tell any more.
    #[error("what it was at {0} is not kept")]
    NotKept(Point),
}

/// What a key was. It is unknown if it is sure that there was no such key.
pub(super) async fn lookup_at(profile: &ProfileClient, key: Key, point: Point) -> Result<Lookup, NotKnown> {
    let history = profile.history_page(key.clone(), None).await?;
    point.within(history.head)?;
    match stood_at(&history, point) {
        Stood::Version(version) => Ok(lookup(key, version)),
        Stood::Nothing { whole_since } if remembers(profile, &history, point, whole_since).await? => {
            Ok(Lookup::Unknown)
        }
        Stood::Nothing { .. } | Stood::Lost => Err(NotKnown::NotKept(point)),
    }
}

fn lookup(key: Key, version: Version) -> Lookup {
    let Version { revision, time, device, conflict, state, .. } = version;
    let record = Record { key, revision, time, device, conflict, state };
    match record.state {
        State::Value(_) => Lookup::Found(record),
        State::Deleted => Lookup::Deleted(record),
        State::Expired => Lookup::Expired(record),
    }
}

/// Whether the place is where a history that is whole since then holds whatever stood there. Of what tells it, the key itself comes
/// first, then what all keys are now, and then what they were.
async fn remembers(
    profile: &ProfileClient,
    history: &HistoryReply,
    point: Point,
    whole_since: Timestamp,
) -> Result<bool, ReadError> {
    let mut memory = Memory::of(point);
    memory.saw_all(history);
    if memory.holds(whole_since) {
        return Ok(true);
    }
    let records = profile.changes(None).await?.records;
    records.iter().for_each(|record| memory.saw(record.revision, record.time));
    let histories = stream::iter(records).map(|record| async move { profile.history_page(record.key, None).await });
    let mut histories = pin!(histories.buffered(HISTORIES_AT_ONCE));
    while !memory.holds(whole_since) {
        let Some(history) = histories.try_next().await? else { return Ok(false) };
        memory.saw_all(&history);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ChangeId, ContentType, Device, Revision, Stored, Value};

    use super::*;

    #[test]
    fn a_version_is_looked_up_as_a_record_is() {
        let key = Key::parse("theme").unwrap();
        let version = |state| Version {
            revision: Revision::new(7),
            rank: 0,
            time: Timestamp::from_nanos(7),
            device: Device::parse("laptop").unwrap(),
            change: ChangeId::from_bytes([0; 16]),
            base: None,
            conflict: true,
            state,
        };
        let record = |state| Record {
            key: key.clone(),
            revision: Revision::new(7),
            time: Timestamp::from_nanos(7),
            device: Device::parse("laptop").unwrap(),
            conflict: true,
            state,
        };
        let value = State::Value(Stored { value: Value::new("v"), content_type: ContentType::text(), expires: None });
        let found = |state| lookup(key.clone(), version(state));
        assert_eq!(found(value.clone()), Lookup::Found(record(value)));
        assert_eq!(found(State::Deleted), Lookup::Deleted(record(State::Deleted)));
        assert_eq!(found(State::Expired), Lookup::Expired(record(State::Expired)));
    }
}
