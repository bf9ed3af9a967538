//! Answers that come in several pages: deltas, and all records of a selection. What to ask for next is decided by pure
//! functions.

use std::collections::HashSet;

use futures_util::{Stream, TryStreamExt, stream};
use roam_schemas::{ChangesReply, Cursor, Key, LatestReply, LatestRequest, Record, Revision, Select, limits};

use super::{Delta, ReadError, Reader};
use crate::ProfileClient;

/// A delta that is being fetched. It keeps the pages that it has, so that it may be gone on with after a failure, or after
/// whoever fetched it was cancelled.
#[derive(Debug)]
pub(crate) struct Pages {
    cursor: Option<Cursor>,
    records: Vec<Record>,
    fetched: usize,
}

impl Pages {
    pub(crate) fn since(cursor: Option<Cursor>) -> Self {
        Self { cursor, records: Vec::new(), fetched: 0 }
    }

    /// Whether it began at a cursor, or has come to one.
    pub(crate) fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// Fetches the next page, at least as new as `min`; gives the whole once that was the last one.
    pub(crate) async fn fetch(&mut self, reader: &Reader<'_>, min: Revision) -> Result<Option<Delta>, ReadError> {
        let page = reader.delta_page(self.cursor, min).await?;
        self.add(page)
    }

    fn add(&mut self, page: ChangesReply) -> Result<Option<Delta>, ReadError> {
        if page.more && self.cursor == Some(page.cursor) {
            return Err(ReadError::malformed("it goes on for ever"));
        }
        self.cursor = Some(page.cursor);
        self.records.extend(page.records);
        self.fetched += 1;
        if page.more {
            return Ok(None);
        }
        let records = std::mem::take(&mut self.records);
        let records = if self.fetched > 1 { newest_only(records) } else { records };
        Ok(Some(Delta { records, cursor: page.cursor, head: page.head }))
    }
}

/// A record that changes while pages are fetched comes again on a later one: the later one counts.
fn newest_only(mut records: Vec<Record>) -> Vec<Record> {
    let mut keys = HashSet::with_capacity(records.len());
    records.reverse();
    records.retain(|record| keys.insert(record.key.clone()));
    records.reverse();
    records
}

/// All records of a selection.
pub(crate) fn records(
    profile: ProfileClient,
    select: Select,
) -> impl Stream<Item = Result<Record, ReadError>> + Send + use<> {
    let pages = stream::try_unfold(Rest::of(select), move |rest| {
        let profile = profile.clone();
        async move { page(&profile, rest).await }
    });
    pages.map_ok(|records| stream::iter(records.into_iter().map(Ok))).try_flatten()
}

/// The records of the next page, and what remains after it.
async fn page(profile: &ProfileClient, rest: Rest) -> Result<Option<(Vec<Record>, Rest)>, ReadError> {
    let Some((request, rest)) = rest.next() else { return Ok(None) };
    let reply = profile.latest(request).await?;
    let rest = rest.after(&reply)?;
    Ok(Some((reply.records, rest)))
}

/// What remains to be asked for of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    /// A range of keys, after this one.
    Range(Select, Option<Key>),
    Keys(Vec<Key>),
    Nothing,
}

impl Rest {
    fn of(select: Select) -> Self {
        match select {
            Select::Keys(keys) => Self::Keys(keys),
            range => Self::Range(range, None),
        }
    }

    /// The next request, if there is one, and what it is a part of.
    fn next(self) -> Option<(LatestRequest, Self)> {
        let (select, after) = match &self {
            Self::Nothing => return None,
            Self::Keys(keys) if keys.is_empty() => return None,
            Self::Keys(keys) => (Select::Keys(keys.iter().take(limits::REQUEST_KEYS).cloned().collect()), None),
            Self::Range(select, after) => (select.clone(), after.clone()),
        };
        Some((LatestRequest { select, after, ..LatestRequest::default() }, self))
    }

    /// What remains after this reply.
    fn after(self, reply: &LatestReply) -> Result<Self, ReadError> {
        match self {
            Self::Range(select, before) => match &reply.next {
                None => Ok(Self::Nothing),
                next if *next <= before => Err(ReadError::malformed("it goes on for ever")),
                next => Ok(Self::Range(select, next.clone())),
            },
            Self::Keys(mut keys) => {
                // A page that was full before all its keys were answered leaves the others out.
                let answered: HashSet<&Key> =
                    reply.records.iter().map(|record| &record.key).chain(&reply.unknown).collect();
                let before = keys.len();
                keys.retain(|key| !answered.contains(key));
                if keys.len() == before {
                    return Err(ReadError::malformed("it answers none of the keys"));
                }
                Ok(Self::Keys(keys))
            }
            Self::Nothing => Ok(Self::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use roam_schemas::{App, Device, Profile, State, Tenant, Timestamp, User};

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn record(text: &str, revision: u64) -> Record {
        Record {
            key: key(text),
            revision: Revision::new(revision),
            time: Timestamp::from_nanos(revision),
            device: Device::parse("d").unwrap(),
            conflict: false,
            state: State::Deleted,
        }
    }

    fn page(records: &[(&str, u64)], revision: u64, more: bool) -> ChangesReply {
        let profile = Profile {
            tenant: Tenant::parse("t").unwrap(),
            user: User::parse("u").unwrap(),
            app: App::parse("a").unwrap(),
        };
        ChangesReply {
            head: Revision::new(9),
            records: records.iter().map(|(key, revision)| record(key, *revision)).collect(),
            cursor: Cursor::new(&profile, Revision::new(revision), Timestamp::from_nanos(revision)),
            more,
        }
    }

    #[test]
    fn a_delta_of_several_pages_has_each_record_once_in_its_newest_state() {
        let mut pages = Pages::since(None);
        assert_eq!(pages.add(page(&[("a", 1), ("b", 2)], 2, true)).unwrap(), None);
        let delta = pages.add(page(&[("c", 3), ("a", 4)], 4, false)).unwrap().unwrap();
        assert_eq!(delta.records, [record("b", 2), record("c", 3), record("a", 4)]);
        assert_eq!(delta.cursor, page(&[], 4, false).cursor);
    }

    #[test]
    fn pages_that_do_not_go_on_are_refused() {
        let mut pages = Pages::since(None);
        assert_eq!(pages.add(page(&[], 2, true)).unwrap(), None);
        assert!(pages.add(page(&[], 2, true)).is_err());
        let range = Rest::Range(Select::All, Some(key("b")));
        let reply = LatestReply { next: Some(key("b")), ..LatestReply::default() };
        assert!(range.after(&reply).is_err());
        assert!(Rest::Keys(vec![key("a")]).after(&LatestReply::default()).is_err());
    }

    #[test]
    fn a_range_is_asked_for_page_after_page() {
        let (request, rest) = Rest::of(Select::Prefix("p".to_owned())).next().unwrap();
        assert_eq!((request.select, request.after), (Select::Prefix("p".to_owned()), None));
        let rest = rest.after(&LatestReply { next: Some(key("p5")), ..LatestReply::default() }).unwrap();
        let (request, rest) = rest.next().unwrap();
        assert_eq!((request.select, request.after), (Select::Prefix("p".to_owned()), Some(key("p5"))));
        assert_eq!(rest.after(&LatestReply::default()).unwrap().next(), None);
    }

    #[test]
    fn keys_that_a_page_left_out_are_asked_for_again() {
        let all: Vec<Key> = (0..=limits::REQUEST_KEYS).map(|number| key(&number.to_string())).collect();
        let (request, rest) = Rest::of(Select::Keys(all.clone())).next().unwrap();
        assert_eq!(request.select, Select::Keys(all[..limits::REQUEST_KEYS].to_vec()));
        let reply = LatestReply { records: vec![record("0", 1)], unknown: vec![key("2")], ..LatestReply::default() };
        let rest = rest.after(&reply).unwrap();
        let remaining: Vec<Key> = all.into_iter().filter(|key| !matches!(key.as_str(), "0" | "2")).collect();
        assert_eq!(rest, Rest::Keys(remaining));
        assert_eq!(Rest::of(Select::Keys(Vec::new())).next(), None);
    }
}
