//! What a profile holds: read page by page, and remembered as digests, so that it can be compared with something else
//! without keeping every value in memory.

use std::collections::BTreeMap;

use roam_client::{ProfileClient, ReadError};
use roam_schemas::{ContentHash, Key, LatestReply, LatestRequest, Revision, State};

/// Reads all live records of a profile, in order of their keys, page by page. What changes meanwhile may or may not be
/// among them; the first page's revision is what is surely contained.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    profile: &'a ProfileClient,
    after: Option<Key>,
    done: bool,
}

impl<'a> Pages<'a> {
    /// From the first page on.
    pub(crate) fn of(profile: &'a ProfileClient) -> Self {
        Self { profile, after: None, done: false }
    }

    /// The next page, `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<LatestReply>, ReadError> {
        if self.done {
            return Ok(None);
        }
        let request = LatestRequest { after: self.after.take(), ..LatestRequest::default() };
        let page = self.profile.latest(request).await?;
        self.after = page.next.clone();
        self.done = page.next.is_none();
        Ok(Some(page))
    }
}

/// The live records of a profile, without their values.
#[derive(Debug, Default)]
pub(crate) struct Held {
    digests: BTreeMap<Key, ContentHash>,
    head: Revision,
}

impl Held {
    /// Reads a profile.
    pub(crate) async fn by(profile: &ProfileClient) -> Result<Self, ReadError> {
        let mut held = Self::default();
        let mut pages = Pages::of(profile);
        let mut first = true;
        while let Some(page) = pages.next().await? {
            if first {
                held.head = page.head;
                first = false;
            }
            held.add(page);
        }
        Ok(held)
    }

    fn add(&mut self, page: LatestReply) {
        for record in page.records {
            if let State::Value(stored) = record.state {
                // A manifest says what the value would come to.
                let large = stored.manifest().ok().flatten().map(|manifest| manifest.hash);
                self.digests.insert(record.key, large.unwrap_or_else(|| ContentHash::of(stored.value.as_bytes())));
            }
        }
    }

    /// The revision that all of it is at least as new as.
    pub(crate) fn head(&self) -> Revision {
        self.head
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.digests.keys()
    }

    /// Whether the value of a key has this hash.
    pub(crate) fn has(&self, key: &Key, hash: ContentHash) -> bool {
        self.digests.get(key) == Some(&hash)
    }
}
