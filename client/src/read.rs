//! Reading: requests that are repeated until there is an answer, pages, and deltas. Reads decide nothing, so repeating one
//! does no harm.
//!
//! **Invariant:** no answer is older than what the client had seen when it asked. It asks for that, and a responder that
//! does not keep to it is asked again.

mod error;
mod pages;

use std::time::Duration;

use bytes::Bytes;
use roam_nats::{Headers, Message};
use roam_schemas::{
    ChangesReply, ChangesRequest, ChunkReply, Code, Cursor, HaveReply, HistoryReply, HistoryRequest, Kind, LatestReply,
    LatestRequest, Problem, Record, Revision, State, decode, encode,
    subjects::{self, Verb},
};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::client::Inner;
use crate::publish::Lane;
pub use error::{ReadError, Silence};
pub(crate) use pages::{Pages, records};

/// How long the first attempt waits for an answer, beyond the time that the responder is given to catch up. A request that
/// meets a responder on its way out is lost, so this is what that costs. Each further attempt waits twice as long, up to
/// the last.
const ATTEMPT_FIRST: Duration = Duration::from_secs(1);
const ATTEMPT_LAST: Duration = Duration::from_secs(5);
/// How long a responder is given to reach what this client has seen, in milliseconds, unless the asker set a time itself.
const CATCH_UP_MS: u32 = 1_000;

/// How long a chunk may take to come, beside others over a slow line, until it is asked for again; and how long it is
/// asked for.
const CHUNK_TAKES: Duration = Duration::from_secs(10);
const CHUNK_WITHIN: Duration = Duration::from_secs(60);

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It has a value.
    Found(Record),
    /// It was deleted.
    Deleted(Record),
    /// Its time to live ended.
    Expired(Record),
    /// The profile does not know it: it was never written, or deleted long ago.
    Unknown,
}

/// All that changed since a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The records that changed, deleted ones included, in order of their revisions; each once, in its newest state.
    pub records: Vec<Record>,
    /// Where to go on from.
    pub cursor: Cursor,
    /// The revision of the profile.
    pub head: Revision,
}

/// What became of the one key that was asked for.
pub(crate) fn lookup(mut reply: LatestReply) -> Result<Lookup, ReadError> {
    match reply.records.pop() {
        None if reply.unknown.is_empty() => Err(ReadError::malformed("it leaves out a key")),
        None => Ok(Lookup::Unknown),
        Some(record) => Ok(match record.state {
            State::Value(_) => Lookup::Found(record),
            State::Deleted => Lookup::Deleted(record),
            State::Expired => Lookup::Expired(record),
        }),
    }
}

/// An answer, which says how far the responder was.
pub(crate) trait Answer: roam_schemas::Message {
    fn head(&self) -> Revision;
}

impl Answer for LatestReply {
    fn head(&self) -> Revision {
        self.head
    }
}

impl Answer for ChangesReply {
    fn head(&self) -> Revision {
        self.head
    }
}

impl Answer for HistoryReply {
    fn head(&self) -> Revision {
        self.head
    }
}

impl Answer for HaveReply {
    /// Chunks have no revisions.
    fn head(&self) -> Revision {
        Revision::ZERO
    }
}

impl Answer for ChunkReply {
    /// Chunks have no revisions.
    fn head(&self) -> Revision {
        Revision::ZERO
    }
}

/// Asks about one profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) lane: &'a Lane,
}

impl Reader<'_> {
    pub(crate) async fn latest(&self, mut request: LatestRequest) -> Result<LatestReply, ReadError> {
        if request.min_revision.is_none() {
            (request.min_revision, request.wait_ms) = newest(self.lane.seen(), request.wait_ms);
        }
        request.validate().map_err(ReadError::Invalid)?;
        let bounds = Bounds::new(request.min_revision, request.wait_ms);
        self.ask(Verb::Latest, &request, bounds).await
    }

    pub(crate) async fn changes(&self, cursor: Option<Cursor>) -> Result<Delta, ReadError> {
        let mut pages = Pages::since(cursor);
        loop {
            if let Some(delta) = pages.fetch(self, self.lane.seen()).await? {
                return Ok(delta);
            }
        }
    }

    /// One page of a delta, at least as new as `min`.
    pub(crate) async fn delta_page(&self, cursor: Option<Cursor>, min: Revision) -> Result<ChangesReply, ReadError> {
        let cursor = match cursor {
            Some(cursor) => self.meaningful(cursor)?,
            None => None,
        };
        let (min_revision, wait_ms) = newest(min, None);
        let request = ChangesRequest { cursor, limit: None, min_revision, wait_ms };
        self.ask(Verb::Changes, &request, Bounds::new(min_revision, wait_ms)).await
    }

    pub(crate) async fn history(&self, request: HistoryRequest) -> Result<HistoryReply, ReadError> {
        request.validate().map_err(ReadError::Invalid)?;
        let bounds = Bounds { min: self.lane.seen(), wait: Duration::ZERO };
        self.ask(Verb::History, &request, bounds).await
    }

    /// What is asked about chunks of large values.
    pub(crate) async fn of_chunks<Q: roam_schemas::Message, A: Answer>(
        &self,
        verb: Verb,
        request: &Q,
    ) -> Result<A, ReadError> {
        let bounds = Bounds { min: Revision::ZERO, wait: CHUNK_TAKES };
        let within = self.inner.settings.request_timeout.max(CHUNK_WITHIN);
        self.ask_within(verb, request, bounds, within).await
    }

    /// Whoever stands at revision 0 holds nothing, and asks from the beginning, which is never too old.
    fn meaningful(&self, cursor: Cursor) -> Result<Option<Cursor>, ReadError> {
        let (revision, _) = cursor.open(&self.lane.profile).map_err(ReadError::Invalid)?;
        Ok((revision > Revision::ZERO).then_some(cursor))
    }

    /// Asks until there is an answer, the time is over, or asking again is of no use.
    async fn ask<Q: roam_schemas::Message, A: Answer>(
        &self,
        verb: Verb,
        request: &Q,
        bounds: Bounds,
    ) -> Result<A, ReadError> {
        self.ask_within(verb, request, bounds, self.inner.settings.request_timeout).await
    }

    async fn ask_within<Q: roam_schemas::Message, A: Answer>(
        &self,
        verb: Verb,
        request: &Q,
        bounds: Bounds,
        within: Duration,
    ) -> Result<A, ReadError> {
        let payload = encode(request, self.inner.settings.encoding)
            .map_err(|error| ReadError::Invalid(Problem::invalid(error.to_string())))?;
        let payload = Bytes::from(payload);
        let subject = subjects::request(verb, &self.lane.profile);
        let deadline = Instant::now() + within;
        let mut backoff = Backoff::default();
        let mut patience = ATTEMPT_FIRST;
        loop {
            let within = deadline.saturating_duration_since(Instant::now()).min(bounds.wait + patience);
            patience = (patience * 2).min(ATTEMPT_LAST);
            let message = self.attempt(subject.clone(), payload.clone(), within).await;
            let error = match message.and_then(|message| interpret(&message, bounds.min)) {
                Ok(answer) => return Ok(self.seen_in(answer)),
                Err(error) => error,
            };
            let pause = backoff.pause();
            if !error.retry() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, verb = verb.as_str(), "asking again");
            sleep(pause).await;
        }
    }

    fn seen_in<A: Answer>(&self, answer: A) -> A {
        self.lane.saw(answer.head());
        answer
    }

    /// Asks once. An answer that was under way when the connection broke will not come, so that is not waited for.
    async fn attempt(&self, subject: String, payload: Bytes, within: Duration) -> Result<Message, ReadError> {
        let bus = &self.inner.bus;
        let mut state = bus.watch_state();
        let generation = state.borrow_and_update().generation;
        let headers = Headers::new().with_content_type(self.inner.settings.encoding);
        tokio::select! {
            answer = bus.request(subject, headers, payload, within) => Ok(answer?),
            _ = state.wait_for(|state| state.generation != generation) => {
                Err(ReadError::Unanswered(Silence::ConnectionLost))
            }
        }
    }
}

/// What an answer must reach, and how long the responder may wait for that.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    min: Revision,
    wait: Duration,
}

impl Bounds {
    fn new(min: Option<Revision>, wait_ms: Option<u32>) -> Self {
        Self { min: min.unwrap_or(Revision::ZERO), wait: Duration::from_millis(wait_ms.unwrap_or(0).into()) }
    }
}

/// Asks for at least this revision and, unless the asker set a time itself, gives a replica some time to reach it.
fn newest(seen: Revision, wait_ms: Option<u32>) -> (Option<Revision>, Option<u32>) {
    match seen {
        Revision::ZERO => (None, wait_ms),
        seen => (Some(seen), wait_ms.or(Some(CATCH_UP_MS))),
    }
}

fn interpret<A: Answer>(message: &Message, min: Revision) -> Result<A, ReadError> {
    // Without our header it is none of ours, whoever sent it.
    let encoding = message.headers.encoding().ok_or(ReadError::Unanswered(Silence::Foreign))?;
    if Kind::peek(&message.payload, encoding) == Some(Kind::Problem) {
        return Err(ReadError::from(decode::<Problem>(&message.payload, encoding)?));
    }
    let answer: A = decode(&message.payload, encoding)?;
    if answer.head() < min {
        let problem = Problem::new(Code::Behind, "the replica is behind what this client has seen");
        return Err(ReadError::Behind(problem.with_limit(min.get(), answer.head().get())));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use roam_schemas::{ContentType, Device, Encoding, Key, Stored, Timestamp, Value};

    use super::*;

    fn message(payload: Vec<u8>, encoding: Option<Encoding>) -> Message {
        let headers = encoding.map_or_else(Headers::new, |encoding| Headers::new().with_content_type(encoding));
        Message { subject: String::new(), reply: None, headers, payload: payload.into() }
    }

    fn reply(head: u64) -> LatestReply {
        LatestReply { head: Revision::new(head), ..LatestReply::default() }
    }

    #[test]
    fn an_answer_is_read_in_either_encoding_and_never_older_than_asked() {
        for encoding in [Encoding::Postcard, Encoding::Json] {
            let answer = message(encode(&reply(7), encoding).unwrap(), Some(encoding));
            assert_eq!(interpret::<LatestReply>(&answer, Revision::new(7)).unwrap(), reply(7));
            let error = interpret::<LatestReply>(&answer, Revision::new(8)).unwrap_err();
            assert_eq!((error.code(), error.retry()), (Some(Code::Behind), true));
        }
    }

    #[test]
    fn an_answer_without_our_header_is_none() {
        let answer = message(encode(&reply(7), Encoding::Json).unwrap(), None);
        let error = interpret::<LatestReply>(&answer, Revision::ZERO).unwrap_err();
        assert_eq!(error, ReadError::Unanswered(Silence::Foreign));
    }

    #[test]
    fn an_answer_of_another_kind_is_malformed() {
        let other = encode(&HistoryReply::default(), Encoding::Json).unwrap();
        let answer = message(other, Some(Encoding::Json));
        let error = interpret::<LatestReply>(&answer, Revision::ZERO).unwrap_err();
        assert!(matches!(error, ReadError::Malformed(_)) && !error.retry(), "{error:?}");
    }

    #[test]
    fn a_problem_is_told_by_what_the_asker_must_do() {
        let cases = [
            (Code::Invalid, false),
            (Code::TooLarge, false),
            (Code::Denied, false),
            (Code::Behind, true),
            (Code::Reset, false),
            (Code::Busy, true),
            (Code::StorageFull, true),
            (Code::UnsupportedVersion, false),
        ];
        for (code, retry) in cases {
            let answer =
                message(encode(&Problem::new(code, "no"), Encoding::Postcard).unwrap(), Some(Encoding::Postcard));
            let error = interpret::<LatestReply>(&answer, Revision::ZERO).unwrap_err();
            assert_eq!((error.code(), error.retry()), (Some(code), retry), "{error:?}");
        }
    }

    #[test]
    fn what_was_seen_is_asked_for_and_waited_for() {
        assert_eq!(newest(Revision::ZERO, None), (None, None));
        assert_eq!(newest(Revision::new(3), None), (Some(Revision::new(3)), Some(CATCH_UP_MS)));
        assert_eq!(newest(Revision::new(3), Some(10)), (Some(Revision::new(3)), Some(10)));
    }

    #[test]
    fn a_lookup_tells_the_four_states_of_a_key_apart() {
        let record = |state| Record {
            key: Key::parse("k").unwrap(),
            revision: Revision::new(1),
            time: Timestamp::default(),
            device: Device::parse("d").unwrap(),
            conflict: false,
            state,
        };
        let found =
            |record: &Record| lookup(LatestReply { records: vec![record.clone()], ..LatestReply::default() }).unwrap();
        let value = Stored { value: Value::new("v"), content_type: ContentType::text(), expires: None };
        let (live, deleted, expired) = (record(State::Value(value)), record(State::Deleted), record(State::Expired));
        assert_eq!(found(&live), Lookup::Found(live));
        assert_eq!(found(&deleted), Lookup::Deleted(deleted));
        assert_eq!(found(&expired), Lookup::Expired(expired));
        let unknown = LatestReply { unknown: vec![Key::parse("k").unwrap()], ..LatestReply::default() };
        assert_eq!(lookup(unknown).unwrap(), Lookup::Unknown);
        assert!(matches!(lookup(LatestReply::default()), Err(ReadError::Malformed(_))));
    }
}
