//! What becomes of a backup that was brought back: whether the journal, as it is now, carries it forward. A look, no promise:
//! the replica decides when it starts.

use roam_nats::{Bus, BusSettings, STORAGE_REPLICAS_KEY, StreamState, journal_stream, stream_state};
use roam_schemas::{JournalPosition, Shard};
use serde::Serialize;

/// What the replica does that is started with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "next", rename_all = "snake_case")]
pub(super) enum Next {
    /// It reads the rest from the journal: nothing is lost, and nobody notices.
    GoesOn,
    /// It is the only one, and begins a new epoch: what came after the backup is gone, but for what devices hold.
    NewEpoch,
    /// It takes a newer backup if there is one that helps, or waits for an order.
    Waits {
        /// How many replicas there are to be.
        replicas: usize,
    },
    /// The journal cannot be looked at from here.
    Unknown,
}

impl Next {
    /// Looks at the journal of a shard.
    pub(super) async fn look(settings: &BusSettings, shard: Shard, position: Option<&JournalPosition>) -> Self {
        let Ok(bus) = Bus::connect(settings, "roam-backup").await else { return Self::Unknown };
        let state = stream_state(&bus, &journal_stream(shard)).await;
        bus.close().await;
        state.map_or(Self::Unknown, |state| Self::of(position, &state))
    }

    fn of(position: Option<&JournalPosition>, state: &StreamState) -> Self {
        let first = state.first_sequence.max(1);
        let carries = match position {
            Some(position) => {
                let created = u64::try_from(state.created.unix_timestamp_nanos()).unwrap_or_default();
                position.incarnation == created
                    && (first.saturating_sub(1)..=state.last_sequence).contains(&position.sequence)
            }
            None => first == 1,
        };
        let replicas = state.metadata.get(STORAGE_REPLICAS_KEY).and_then(|text| text.parse().ok()).unwrap_or(1);
        match (carries, replicas) {
            (true, _) => Self::GoesOn,
            (false, 1) => Self::NewEpoch,
            (false, replicas) => Self::Waits { replicas },
        }
    }

    /// The same in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::GoesOn => {
                "the journal carries it forward: start the replica, and it goes on from there; nothing is lost".to_owned()
            }
            Self::NewEpoch => "the journal does not reach back to it: started, the replica begins a new epoch; what was saved \
                               after the backup comes back from the devices that hold it"
                .to_owned(),
            Self::Waits { replicas } => format!(
                "the journal does not reach back to it, and there are {replicas} replicas: started, this one takes a newer \
                 backup if there is one that the journal carries forward, or waits for an order to resume"
            ),
            Self::Unknown => "the journal cannot be looked at from here: if it reaches back to the backup, the replica goes on \
                              from there; if not, a single replica begins a new epoch, and one of several takes a newer \
                              backup or waits for an order"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{BatchId, Timestamp};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn what_comes_next_follows_from_where_the_journal_begins_and_ends() {
        let state = |first_sequence, last_sequence, replicas: &str| StreamState {
            created: OffsetDateTime::from_unix_timestamp_nanos(7).unwrap(),
            first_sequence,
            first_time: None,
            last_sequence,
            messages: 0,
            bytes: 0,
            metadata: [(STORAGE_REPLICAS_KEY.to_owned(), replicas.to_owned())].into(),
        };
        let stands = |incarnation| JournalPosition {
            incarnation,
            sequence: 50,
            batch: BatchId::from_bytes([7; 16]),
            line: 1,
            published: Timestamp::default(),
        };
        for (incarnation, first, last, alone, of_three) in [
            (7, 1, 50, Next::GoesOn, Next::GoesOn),
            (7, 51, 90, Next::GoesOn, Next::GoesOn),
            (7, 52, 90, Next::NewEpoch, Next::Waits { replicas: 3 }),
            (7, 1, 49, Next::NewEpoch, Next::Waits { replicas: 3 }),
            (8, 1, 90, Next::NewEpoch, Next::Waits { replicas: 3 }),
        ] {
            let stands = stands(incarnation);
            assert_eq!(Next::of(Some(&stands), &state(first, last, "1")), alone, "{incarnation} {first} {last}");
            assert_eq!(Next::of(Some(&stands), &state(first, last, "3")), of_three, "{incarnation} {first} {last}");
        }
        assert_eq!(Next::of(None, &state(1, 9, "1")), Next::GoesOn);
    }
}
