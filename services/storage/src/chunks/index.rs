//! What ROAM_CHUNKS holds, as one replica has read it so far: which user has which chunk, where, and since when it is
//! kept. Pure: the same on every replica that has read as far.
//!
//! **Invariant:** the order of the stream settles what a chunk is. A chunk that one replica promised (a note `keep`) and
//! another one gave up (a note `drop`) stays if the promise stands before the end of what the other had read.

use std::collections::{BTreeSet, HashMap, VecDeque};

use roam_nats::Headers;
use roam_schemas::{ContentHash, Shard, Tenant, Timestamp, User, headers, limits::CHUNK_BYTES, subjects};

/// How many messages are remembered that are to be deleted. More are found when the stream is read anew.
const MOST_LEAVING: usize = 200_000;
/// The note by which chunks stay, and the one by which they go.
pub(super) const KEEP: &str = "keep";
pub(super) const DROP: &str = "drop";

/// Whose chunks.
pub(super) type Owner = (Tenant, User);

/// A chunk that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The sequence of its message.
    pub(super) sequence: u64,
    /// The sequence of the newest entry that wants it kept: its own, or that of a note.
    kept_at: u64,
    /// The time of that entry.
    pub(super) kept: Timestamp,
}

/// A message of the stream, without its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) subject: &'a str,
    /// None if they are such that no reader survives them.
    pub(super) headers: Option<&'a Headers>,
    /// The size of the payload, where it is known.
    pub(super) length: Option<usize>,
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
}

/// What the stream holds.
#[derive(Debug, Default)]
pub(super) struct Index {
    shard: Shard,
    owners: HashMap<Owner, HashMap<ContentHash, Held>>,
    /// The sequence up to which the stream was read.
    position: u64,
    /// Messages that are of no use: what is no chunk, and chunks that were replaced or given up.
    leaving: BTreeSet<u64>,
    /// Notes, oldest first.
    notes: VecDeque<(u64, Timestamp)>,
    chunks: usize,
}

impl Index {
    /// Nothing was read yet of the stream of a shard.
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard, ..Self::default() }
    }

    /// Takes the next message in.
    pub(super) fn take(&mut self, seen: &Seen<'_>) {
        if seen.sequence <= self.position {
            return;
        }
        self.position = seen.sequence;
        if self.take_chunk(seen).or_else(|| self.take_note(seen)).is_none() {
            self.leave(seen.sequence);
        }
    }

    /// The sequence up to which the stream was read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Where a chunk is.
    pub(super) fn find(&self, owner: &Owner, hash: &ContentHash) -> Option<Held> {
        self.owners.get(owner)?.get(hash).copied()
    }

    /// The chunk of that sequence turned out to be gone.
    pub(super) fn forget(&mut self, owner: &Owner, hash: &ContentHash, sequence: u64) {
        if self.find(owner, hash).is_some_and(|held| held.sequence == sequence) {
            self.remove(owner, hash);
        }
    }

    /// Chunks that nobody asked for since `before`, by their users.
    pub(super) fn kept_before(&self, before: Timestamp) -> Vec<(Owner, Vec<ContentHash>)> {
        let old = |chunks: &HashMap<ContentHash, Held>| {
            chunks.iter().filter(|(_, held)| held.kept < before).map(|(hash, _)| *hash).collect::<Vec<_>>()
        };
        let owners = self.owners.iter().map(|(owner, chunks)| (owner.clone(), old(chunks)));
        owners.filter(|(_, hashes)| !hashes.is_empty()).collect()
    }

    /// The chunks of a user that nobody asked for since `until`.
    pub(super) fn kept_until(&self, owner: &Owner, until: Timestamp) -> Vec<ContentHash> {
        let chunks = self.owners.get(owner).into_iter().flatten();
        chunks.filter(|(_, held)| held.kept <= until).map(|(hash, _)| *hash).collect()
    }

    /// How many chunks a user has.
    pub(super) fn chunks_of(&self, owner: &Owner) -> usize {
        self.owners.get(owner).map_or(0, HashMap::len)
    }

    /// Up to `most` messages that are to be deleted.
    pub(super) fn leaving(&self, most: usize) -> Vec<u64> {
        self.leaving.iter().take(most).copied().collect()
    }

    /// The message is deleted.
    pub(super) fn left(&mut self, sequence: u64) {
        self.leaving.remove(&sequence);
    }

    /// Notes from before that instant become useless: what they kept was to be kept since.
    pub(super) fn let_notes_go(&mut self, before: Timestamp) {
        while let Some((sequence, _)) = self.notes.front().copied().filter(|(_, time)| *time < before) {
            self.notes.pop_front();
            self.leave(sequence);
        }
    }

    /// How many chunks there are: at least so many messages are in the stream.
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    fn take_chunk(&mut self, seen: &Seen<'_>) -> Option<()> {
        let owner = subjects::parse_upload(self.shard, seen.subject)
            .ok()
            .filter(|(tenant, user)| self.shard.holds(tenant, user))?;
        let hash = ContentHash::parse(seen.headers?.get(headers::CHUNK)?)?;
        if !(1..=CHUNK_BYTES).contains(&seen.length?) {
            return None;
        }
        let held = Held { sequence: seen.sequence, kept_at: seen.sequence, kept: seen.time };
        match self.owners.entry(owner).or_default().insert(hash, held) {
            Some(replaced) => self.leave(replaced.sequence),
            None => self.chunks += 1,
        }
        Some(())
    }

    fn take_note(&mut self, seen: &Seen<'_>) -> Option<()> {
        let owner = subjects::parse_kept(self.shard, seen.subject).ok()?;
        let headers = seen.headers?;
        let hashes = headers.get(headers::CHUNKS)?.split(',').map(ContentHash::parse).collect::<Option<Vec<_>>>()?;
        match headers.get(headers::CONTROL)? {
            KEEP => self.keep(&owner, &hashes, seen),
            DROP => self.give_up(&owner, &hashes, headers.get(headers::SEEN)?.parse().ok()?),
            _ => return None,
        }
        self.notes.push_back((seen.sequence, seen.time));
        Some(())
    }

    fn keep(&mut self, owner: &Owner, hashes: &[ContentHash], seen: &Seen<'_>) {
        let Some(chunks) = self.owners.get_mut(owner) else { return };
        for hash in hashes {
            if let Some(held) = chunks.get_mut(hash) {
                (held.kept_at, held.kept) = (seen.sequence, seen.time);
            }
        }
    }

    /// Whoever wrote the note had read up to `read`: what was kept or uploaded since then stays.
    fn give_up(&mut self, owner: &Owner, hashes: &[ContentHash], read: u64) {
        for hash in hashes {
            if self.find(owner, hash).is_some_and(|held| held.kept_at <= read)
                && let Some(held) = self.remove(owner, hash)
            {
                self.leave(held.sequence);
            }
        }
    }

    fn remove(&mut self, owner: &Owner, hash: &ContentHash) -> Option<Held> {
        let chunks = self.owners.get_mut(owner)?;
        let held = chunks.remove(hash)?;
        self.chunks -= 1;
        if chunks.is_empty() {
            self.owners.remove(owner);
        }
        Some(held)
    }

    fn leave(&mut self, sequence: u64) {
        if self.leaving.len() < MOST_LEAVING {
            self.leaving.insert(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALICE: &str = "roam.v1.upload.acme.alice";

    fn alice() -> Owner {
        (Tenant::parse("acme").unwrap(), User::parse("alice").unwrap())
    }

    fn hash(name: &str) -> ContentHash {
        ContentHash::of(name.as_bytes())
    }

    fn uploaded(index: &mut Index, sequence: u64, name: &str) {
        let headers = Headers::new().with(headers::CHUNK, hash(name).to_string());
        take(index, ALICE, Some(&headers), Some(7), sequence);
    }

    fn noted(index: &mut Index, sequence: u64, what: &'static str, name: &str, read: u64) {
        let headers = Headers::new()
            .with(headers::CONTROL, what)
            .with(headers::CHUNKS, hash(name).to_string())
            .with(headers::SEEN, read.to_string());
        take(index, "roam.v1.kept.acme.alice", Some(&headers), Some(0), sequence);
    }

    fn take(index: &mut Index, subject: &str, headers: Option<&Headers>, length: Option<usize>, sequence: u64) {
        let time = Timestamp::from_nanos(sequence);
        index.take(&Seen { subject, headers, length, sequence, time });
    }

    fn at(index: &Index, name: &str) -> Option<u64> {
        index.find(&alice(), &hash(name)).map(|held| held.sequence)
    }

    #[test]
    fn a_chunk_is_its_users_and_the_newest_copy_counts() {
        let mut index = Index::default();
        uploaded(&mut index, 1, "a");
        uploaded(&mut index, 2, "b");
        uploaded(&mut index, 3, "a");
        assert_eq!((at(&index, "a"), at(&index, "b"), at(&index, "c")), (Some(3), Some(2), None));
        let bob = (Tenant::parse("acme").unwrap(), User::parse("bob").unwrap());
        assert_eq!(index.find(&bob, &hash("a")), None);
        assert_eq!((index.leaving(9), index.chunks(), index.position()), (vec![1], 2, 3));
    }

    #[test]
    fn what_is_no_chunk_and_no_note_leaves_and_replaces_nothing() {
        let mut index = Index::default();
        uploaded(&mut index, 1, "a");
        let ours = Headers::new().with(headers::CHUNK, hash("a").to_string());
        let upper = Headers::new().with(headers::CHUNK, hash("a").to_string().to_uppercase());
        let none = Headers::new();
        take(&mut index, ALICE, Some(&none), Some(50), 2);
        take(&mut index, ALICE, None, Some(50), 3);
        take(&mut index, ALICE, Some(&upper), Some(50), 4);
        take(&mut index, ALICE, Some(&ours), Some(0), 5);
        take(&mut index, ALICE, Some(&ours), Some(CHUNK_BYTES + 1), 6);
        take(&mut index, ALICE, Some(&ours), None, 7);
        take(&mut index, "roam.v1.upload.acme.*", Some(&ours), Some(7), 8);
        take(&mut index, "roam.v1.kept.acme.alice", Some(&ours), Some(7), 9);
        take(&mut index, "roam.v1.kept.acme.alice", Some(&none), Some(7), 10);
        assert_eq!(at(&index, "a"), Some(1));
        assert_eq!(index.leaving(99), (2..=10).collect::<Vec<_>>());
        index.left(2);
        assert_eq!(index.leaving(1), [3]);
    }

    #[test]
    fn a_promise_before_the_end_of_what_was_read_wins_over_giving_up() {
        let mut index = Index::default();
        for (sequence, name) in [(1, "gone"), (2, "kept"), (3, "again")] {
            uploaded(&mut index, sequence, name);
        }
        noted(&mut index, 4, KEEP, "kept", 0);
        uploaded(&mut index, 5, "again");
        for (sequence, name) in [(6, "gone"), (7, "kept"), (8, "again")] {
            noted(&mut index, sequence, DROP, name, 3);
        }
        assert_eq!((at(&index, "gone"), at(&index, "kept"), at(&index, "again")), (None, Some(2), Some(5)));
        uploaded(&mut index, 9, "gone");
        assert_eq!(at(&index, "gone"), Some(9), "what is uploaded again is there again");
        assert_eq!(index.leaving(9), [1, 3]);
        noted(&mut index, 10, DROP, "kept", 9);
        assert_eq!(at(&index, "kept"), None);
        noted(&mut index, 11, DROP, "kept", 10);
        assert_eq!(index.chunks(), 2);
    }

    #[test]
    fn only_what_nobody_asked_for_since_is_old() {
        let mut index = Index::default();
        uploaded(&mut index, 1, "a");
        uploaded(&mut index, 2, "b");
        noted(&mut index, 5, KEEP, "a", 0);
        assert_eq!(index.kept_before(Timestamp::from_nanos(2)), []);
        assert_eq!(index.kept_before(Timestamp::from_nanos(5)), [(alice(), vec![hash("b")])]);
        assert_eq!(index.kept_until(&alice(), Timestamp::from_nanos(2)), [hash("b")]);
        assert_eq!(index.kept_until(&alice(), Timestamp::from_nanos(1)), []);
        assert_eq!(index.chunks_of(&alice()), 2);
        index.let_notes_go(Timestamp::from_nanos(5));
        assert!(index.leaving(9).is_empty());
        index.let_notes_go(Timestamp::from_nanos(6));
        assert_eq!((index.chunks(), index.leaving(9)), (2, vec![5]));
    }
}
