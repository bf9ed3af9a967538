//! Answers to `latest` that were given lately, for whoever asks the same of the same state again: a fleet of devices that comes
//! back, a service that reads the same switch a thousand times a second. It never looks at the store, and never answers for a profile that has moved on.
//!
//! What a profile holds is a function of where it stands: each revision and each erasure is one more, and no two states of it have one
//! head. So an answer is right as long as the head is, which whoever asks here has just read; nobody has to tell of writes. What the clock alone
//! may change is not kept: records that expire, and tombstones, which are forgotten one day.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use roam_nats::Request;
use roam_schemas::{Encoding, LatestReply, Profile, Revision, State, Stored, Timestamp, subjects};

use super::admit;
use crate::store::{Head, ProfileKey};

/// What an answer takes beside its bytes, those of its question and its names: places in maps, and what the allocator rounds up.
const OVERHEAD: usize = 256;
/// What an answer usually takes: it tells of how many that were forgotten is remembered that they were asked for.
const USUAL_BYTES: usize = 768;

/// The answers. It takes no more than so many bytes, and forgets what nobody asked for again first.
pub(crate) struct Answers {
    /// None keeps nothing.
    kept: Option<Cache<KeptQuestion, Arc<Answer>, Bytewise>>,
}

/// A question in the words in which it came: where it was asked, and what it says of itself. So it is known again before it is
/// looked into. Whom it came from is none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question<'a> {
    subject: &'a str,
    encoding: Encoding,
    payload: &'a [u8],
}

/// The same, to keep. It hashes as what it is compared with.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KeptQuestion {
    subject: Box<str>,
    encoding: Encoding,
    payload: Box<[u8]>,
}

/// What was answered, and to what.
pub(super) struct Answer {
    profile: Profile,
    /// The profile's key, by which its head is found.
    pub(super) key: ProfileKey,
    /// Where the profile stood.
    head: (Revision, Timestamp),
    pub(super) encoding: Encoding,
    pub(super) payload: Bytes,
}

#[derive(Clone)]
struct Bytewise;

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

    /// What was answered to that question before, if it may be answered there. It counts only if it
    /// [is of](Answer::is_of) the head at which the profile stands now.
    pub(super) fn given(&self, question: &Question<'_>, reply: Option<&str>) -> Option<Arc<Answer>> {
        let answer = self.kept.as_ref()?.get(question)?;
        subjects::may_answer(reply?, &answer.profile).then_some(answer)
    }

    /// Keeps an answer of a profile that stands there, unless the clock alone may change it.
    pub(super) fn keep(
        &self,
        question: &Question<'_>,
        (profile, key, head): (&Profile, &ProfileKey, Head),
        reply: &LatestReply,
        payload: &Bytes,
    ) {
        let Some(kept) = self.kept.as_ref().filter(|_| reply.records.iter().all(|record| lasts(&record.state))) else {
            return;
        };
        let answer = Answer {
            profile: profile.clone(),
            key: key.clone(),
            head: (head.revision, head.time),
            encoding: question.encoding,
            payload: payload.clone(),
        };
        kept.insert(question.to_keep(), Arc::new(answer));
    }
}

impl<'a> Question<'a> {
    /// The question of a request. None if it is in no encoding of ours.
    pub(super) fn of(request: &'a Request) -> Option<Self> {
        let encoding = admit::encoding(request.headers.content_type())?;
        Some(Self { subject: request.subject(), encoding, payload: &request.payload })
    }

    fn to_keep(self) -> KeptQuestion {
        KeptQuestion { subject: self.subject.into(), encoding: self.encoding, payload: self.payload.into() }
    }
}

impl Equivalent<KeptQuestion> for Question<'_> {
    fn equivalent(&self, kept: &KeptQuestion) -> bool {
        let KeptQuestion { subject, encoding, payload } = kept;
        *self == Question { subject, encoding: *encoding, payload }
    }
}

impl Answer {
    /// Whether it is right of a profile that stands there.
    pub(super) fn is_of(&self, head: Head) -> bool {
        self.head == (head.revision, head.time)
    }
}

impl Weighter<KeptQuestion, Arc<Answer>> for Bytewise {
    fn weight(&self, question: &KeptQuestion, answer: &Arc<Answer>) -> u64 {
        let names = 2 * answer.key.as_bytes().len();
        (question.subject.len() + question.payload.len() + names + answer.payload.len() + OVERHEAD) as u64
    }
}

/// Whether readers see the same in it however late they come.
fn lasts(state: &State) -> bool {
    matches!(state, State::Value(Stored { expires: None, .. }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};
    use roam_schemas::{Control, Epoch, Erase, LatestRequest, Select, decode, encode, subjects::Verb};

    use super::{super::latest, *};
    use crate::fixture::{Fixture, delete, key, put, seconds, with_ttl};

    const INBOX: Option<&str> = Some("_INBOX.acme.alice.laptop.1");

    /// Asks at that many seconds, and says whether the answer had been given before. It is what the store says.
    fn ask(answers: &Answers, fixture: &Fixture, request: &LatestRequest, encoding: Encoding, now: u64) -> bool {
        let (key, snapshot) = (fixture.key(), fixture.reader.snapshot());
        let head = snapshot.standing(&key).unwrap();
        let found = latest::latest(&snapshot, &key, head, request, encoding, seconds(now)).unwrap();
        let (subject, payload) =
            (subjects::request(Verb::Latest, &fixture.profile), encode(request, encoding).unwrap());
        let question = Question { subject: &subject, encoding, payload: &payload };
        if let Some(given) = answers.given(&question, INBOX).filter(|given| given.is_of(head)) {
            assert_eq!((&given.key, given.encoding), (&key, encoding));
            assert_eq!(decode::<LatestReply>(&given.payload, encoding).unwrap(), found);
            return true;
        }
        let reply = encode(&found, encoding).unwrap().into();
        answers.keep(&question, (&fixture.profile, &key, head), &found, &reply);
        false
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
        fixture.write(vec![put("b", "2")]);
        assert!(!ask(&answers, &fixture, &one, Encoding::Json, 9), "it says where the profile stands");
        assert!(ask(&answers, &fixture, &one, Encoding::Json, 9));
    }

    #[test]
    fn it_is_given_only_to_whom_it_may_be_given() {
        let (answers, mut fixture) = (Answers::new(1), Fixture::new());
        fixture.write(vec![put("a", "1")]);
        ask(&answers, &fixture, &of(&["a"]), Encoding::Json, 9);
        let (subject, payload) =
            (subjects::request(Verb::Latest, &fixture.profile), encode(&of(&["a"]), Encoding::Json).unwrap());
        let question = Question { subject: &subject, encoding: Encoding::Json, payload: &payload };
        for reply in [None, Some("_INBOX.acme.bob.laptop.1"), Some("roam.v1.receipt.acme.alice.mail.laptop")] {
            assert!(answers.given(&question, reply).is_none(), "{reply:?}");
        }
        assert!(answers.given(&question, INBOX).is_some());
        let other = Question { encoding: Encoding::Postcard, ..question };
        assert!(answers.given(&other, INBOX).is_none(), "the same bytes in another encoding are another question");
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
