//! What an operator and a replica say to each other about a backup that is to be made: JSON, one message each. An order is
//! answered again and again, until the backup is made or is not.

use serde::{Deserialize, Serialize};

use super::{BackupId, Created, JournalPosition, Seen};

/// Where a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The directory that the settings of the replica name. An order names no path: whoever may order a backup may not
    /// choose what is written where.
    Directory,
    /// The bucket.
    Bucket,
}

/// Asks for a backup. An empty payload is one that says nothing of the place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Where it goes: if nothing is said, the directory, or without one the bucket.
    pub to: Option<Target>,
}

/// What a replica says of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Told {
    /// It is at work. Said twice a second or so; a replica that is silent for longer is gone.
    Working {
        /// How many files there are; 0 until that is known.
        files: u64,
        /// How many of them are done.
        files_done: u64,
        /// How many bytes they have together.
        bytes: u64,
        /// How many of them are done.
        bytes_done: u64,
    },
    /// It is made. The last word.
    Made {
        /// Its name.
        id: BackupId,
        /// The replica that made it.
        replica: String,
        /// Where it is: a directory of the replica's machine, or `bucket`.
        place: String,
        /// Where in the journal it stands.
        position: Option<JournalPosition>,
        /// How many files it has.
        files: u64,
        /// How many chunks of large values it has.
        #[serde(default)]
        chunks: u64,
        /// How many more it needs that were not there.
        #[serde(default)]
        missing_chunks: u64,
        /// How many bytes it has.
        bytes: u64,
        /// How many of them were new to the repository.
        new_bytes: u64,
        /// How many seconds it took.
        seconds: f64,
    },
    /// There is none. The last word.
    Failed {
        /// Why, in words.
        why: String,
        /// Whether the same may succeed later.
        retry: bool,
    },
}

impl Order {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(payload: &[u8]) -> Result<Self, serde_json::Error> {
        if payload.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(payload) }
    }
}

impl Told {
    pub(crate) fn working(seen: Seen) -> Self {
        let Seen { files, files_done, bytes, bytes_done } = seen;
        Self::Working { files, files_done, bytes, bytes_done }
    }

    pub(crate) fn made(created: &Created, place: String) -> Self {
        let Created { manifest, new_bytes, took } = created;
        Self::Made {
            id: manifest.id.clone(),
            replica: manifest.replica.clone(),
            place,
            position: manifest.position,
            files: manifest.files.len() as u64,
            chunks: manifest.chunks.map_or(0, |chunks| chunks.count),
            missing_chunks: manifest.chunks.map_or(0, |chunks| chunks.missing),
            bytes: manifest.bytes(),
            new_bytes: *new_bytes,
            seconds: took.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_order_may_say_nothing_and_names_no_path() {
        assert_eq!(Order::read(b"").unwrap().to, None);
        assert_eq!(Order::read(b"{}").unwrap().to, None);
        assert_eq!(Order::read(br#"{"to":"directory"}"#).unwrap().to, Some(Target::Directory));
        for refused in ["{\"to\":\"/etc\"}", "{\"path\":\"/etc\"}", "7", "x"] {
            assert!(Order::read(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn what_is_told_is_read_by_its_state() {
        let told = Told::Failed { why: "no".to_owned(), retry: true };
        assert_eq!(serde_json::to_string(&told).unwrap(), r#"{"state":"failed","why":"no","retry":true}"#);
        let working = r#"{"state":"working","files":3,"files_done":1,"bytes":10,"bytes_done":4}"#;
        let seen = Seen { files: 3, files_done: 1, bytes: 10, bytes_done: 4 };
        assert_eq!(serde_json::from_str::<Told>(working).unwrap(), Told::working(seen));
    }
}
