//! Answers to `latest` that were given lately, for whoever asks the same of the same state again: a fleet of devices that comes
//! back, a service that reads the same switch a thousand times a second. It never looks at the store, and never answers for a profile that has moved on.
//!
//! What a profile holds is a function of where it stands: each revision and each erasure is one more, and no two states of it have one
//! head. So an answer is right as long as the head is, which whoever asks here has just read; nobody has to tell of writes. What the clock alone
//! may change is not kept: records that expire, and tombstones, which are forgotten one day.

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use roam_schemas::{Encoding, Key, LatestReply, LatestRequest, Revision, Select, State, Stored, Timestamp, encode};
use serde::Serialize;

use super::Refusal;
use crate::store::{Head, ProfileKey, StoreError};

/// What an answer takes beside its bytes and those of its question: places in maps, and what the allocator rounds up.
const OVERHEAD: usize = 128;
/// What an answer usually takes: it tells of how many that were forgotten is remembered that they were asked for.
const USUAL_BYTES: usize = 512;

/// The answers. It takes no more than so many bytes, and forgets what nobody asked for again first.
pub(crate) struct Answers {
    /// None keeps nothing.
    kept: Option<Cache<Box<[u8]>, Answer, Bytewise>>,
}

#[derive(Clone)]
struct Answer {
    /// Where the profile stood.
    head: (Revision, Timestamp),
    payload: Bytes,
}

#[derive(Clone)]
struct Bytewise;

/// All that an answer depends on beside where the profile stands. Whom it is for and how long they would have waited is none of it.
#[derive(Serialize)]
struct Question<'a> {
    profile: &'a [u8],
    is_json: bool,
    select: &'a Select,
    limit: Option<u32>,
    after: Option<&'a Key>,
}

impl Answers {
    /// For at most so many MiB; in 0 none are kept.
    pub(crate) fn new(mib: usize) -> Self {
        let bytes = mib.saturating_mul(1024 * 1024);
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(bytes / USUAL_BYTES)
            .weight_capacity(bytes as u64)
            .build();
        let cache = |options| {
            Cache::with_options(options, Bytewise, DefaultHashBuilder::default(), DefaultLifecycle::default())
        };
        Self { kept: options.ok().filter(|_| bytes > 0).map(cache) }
    }

    /// The answer to that of a profile that stands there: the one that was given before, or what `find` finds. Says whether it
    /// was given before.
    pub(super) fn latest(
        &self,
        profile: &ProfileKey,
        head: Head,
        request: &LatestRequest,
        encoding: Encoding,
        find: impl FnOnce() -> Result<LatestReply, StoreError>,
    ) -> Result<(Bytes, bool), Refusal> {
        let question = self.kept.as_ref().and_then(|kept| Some((kept, question(profile, request, encoding)?)));
        let head = (head.revision, head.time);
        if let Some((kept, question)) = &question
            && let Some(answer) = kept.get(question.as_slice())
            && answer.head == head
        {
            return Ok((answer.payload, true));
        }
        let reply = find()?;
        // Without the room that it was written into, which nobody counts.
        let payload = Bytes::from(encode(&reply, encoding)?.into_boxed_slice());
        if let Some((kept, question)) = question
            && reply.records.iter().all(|record| lasts(&record.state))
        {
            kept.insert(question.into(), Answer { head, payload: payload.clone() });
        }
        Ok((payload, false))
    }
}

impl Weighter<Box<[u8]>, Answer> for Bytewise {
    fn weight(&self, question: &Box<[u8]>, answer: &Answer) -> u64 {
        (question.len() + answer.payload.len() + OVERHEAD) as u64
    }
}

/// Whether readers see the same in it however late they come.
fn lasts(state: &State) -> bool {
    matches!(state, State::Value(Stored { expires: None, .. }))
}

fn question(profile: &ProfileKey, request: &LatestRequest, encoding: Encoding) -> Option<Vec<u8>> {
    let LatestRequest { select, limit, after, min_revision: _, wait_ms: _ } = request;
    let question = Question {
        profile: profile.as_bytes(),
        is_json: encoding == Encoding::Json,
        select,
        limit: *limit,
        after: after.as_ref(),
    };
    postcard::to_stdvec(&question).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};
    use roam_schemas::{Control, Epoch, Erase, decode};

    use super::{super::latest, *};
    use crate::fixture::{Fixture, delete, key, put, seconds, with_ttl};

    /// Asks at that many seconds, and says whether the answer had been given before. It is what the store says.
    fn ask(answers: &Answers, fixture: &Fixture, request: &LatestRequest, encoding: Encoding, now: u64) -> bool {
        let (profile, snapshot) = (fixture.key(), fixture.reader.snapshot());
        let head = snapshot.standing(&profile).unwrap();
        let find = || latest::latest(&snapshot, &profile, head, request, encoding, seconds(now));
        let found = find().unwrap();
        let Ok((payload, again)) = answers.latest(&profile, head, request, encoding, find) else {
            panic!("no answer");
        };
        assert_eq!(decode::<LatestReply>(&payload, encoding).unwrap(), found);
        again
    }

    fn of(names: &[&str]) -> LatestRequest {
        let keys = names.iter().map(|name| key(name)).collect();
        LatestRequest { select: Select::Keys(keys), ..LatestRequest::default() }
    }

    #[test]
    fn the_same_is_answered_again_until_the_profile_moves_on() {
        let (answers, mut fixture) = (Answers::new(1), Fixture::new());
        fixture.write(vec![put("a", "1"), put("b", "1")]);
        let (one, all) = (of(&["a"]), LatestRequest::default());
        for request in [&one, &all, &of(&["unknown"])] {
            for encoding in [Encoding::Postcard, Encoding::Json] {
                assert_eq!([0; 2].map(|_| ask(&answers, &fixture, request, encoding, 9)), [false, true], "{request:?}");
            }
        }
        let later = LatestRequest { min_revision: Some(Revision::new(1)), wait_ms: Some(5), ..one.clone() };
        assert!(
            ask(&answers, &fixture, &later, Encoding::Json, 9),
            "how long one would have waited is nothing to an answer"
        );
        fixture.write(vec![put("b", "2")]);
        assert!(!ask(&answers, &fixture, &one, Encoding::Json, 9), "it says where the profile stands");
        assert!(ask(&answers, &fixture, &one, Encoding::Json, 9));
    }

    #[test]
    fn what_time_alone_changes_is_not_kept() {
        let (answers, mut fixture) = (Answers::new(1), Fixture::new());
        fixture.write(vec![with_ttl(put("expires", "1"), 50), put("deleted", "1"), put("stays", "1")]);
        fixture.write(vec![delete("deleted")]);
        for request in [of(&["expires"]), of(&["stays", "deleted"]), LatestRequest::default()] {
            assert_eq!(
                [9, 10].map(|now| ask(&answers, &fixture, &request, Encoding::Json, now)),
                [false; 2],
                "{request:?}"
            );
        }
        // What is gone stays gone.
        assert_eq!(
            [60, 61].map(|now| ask(&answers, &fixture, &LatestRequest::default(), Encoding::Json, now)),
            [false, true]
        );
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let (none, some) = (Answers::new(0), Answers::new(1));
        let mut fixture = Fixture::new();
        fixture.write_each((0..40).map(|number| put(&format!("{number}"), vec![b'x'; 100_000])));
        for _ in 0..2 {
            for number in 0..40 {
                assert!(!ask(&none, &fixture, &of(&[&number.to_string()]), Encoding::Postcard, 9));
                ask(&some, &fixture, &of(&[&number.to_string()]), Encoding::Postcard, 9);
            }
        }
        let kept = some.kept.as_ref().unwrap();
        assert!((1..=1024 * 1024).contains(&kept.weight()), "{}", kept.weight());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_happens_to_a_profile_answers_are_what_the_store_says(steps in vec((0..9u8, 0..3usize, 0..4usize), 1..60)) {
            let (answers, mut fixture) = (Answers::new(1), Fixture::new());
            let (tenant, user) = (fixture.profile.tenant.clone(), fixture.profile.user.clone());
            let requests = [
                of(&["a", "b"]),
                of(&["c"]),
                LatestRequest::default(),
                LatestRequest { select: Select::Prefix("b".to_owned()), limit: Some(1), ..LatestRequest::default() },
            ];
            for (now, (step, name, request)) in (1..).zip(steps) {
                let name = ["a", "b", "c"][name];
                match step {
                    0 => drop(fixture.write(vec![put(name, format!("{now}"))])),
                    1 => drop(fixture.write(vec![delete(name)])),
                    2 => drop(fixture.write(vec![with_ttl(put(name, format!("{now}")), 3)])),
                    3 => drop(fixture.control(&Control::Erase(Erase { tenant: tenant.clone(), user: user.clone() }))),
                    4 => drop(fixture.control(&Control::Epoch(Epoch { epoch: u16::try_from(now).unwrap() }))),
                    _ => {
                        ask(&answers, &fixture, &requests[request], Encoding::Postcard, now);
                    }
                }
            }
        }
    }
}
