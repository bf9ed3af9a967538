//! Which requests are answered, and with what in mind: subject, reply subject, encoding, payload, limits, cursor. Pure:
//! nothing here looks at the store.

use roam_nats::Request;
use roam_schemas::{
    ChangesRequest, ChunkRequest, Encoding, HaveRequest, HistoryRequest, LatestRequest, Message, Problem, Profile,
    Revision, Shard, Timestamp, decode,
    subjects::{self, Verb},
};

use crate::planted::planted;

/// A request that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) profile: Profile,
    pub(super) encoding: Encoding,
    pub(super) ask: Ask,
}

/// What it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Latest(LatestRequest),
    Changes {
        request: ChangesRequest,
        /// Where its cursor stands: a revision, and as of when.
        since: Option<(Revision, Timestamp)>,
    },
    History(HistoryRequest),
    Have(HaveRequest),
    Chunk(ChunkRequest),
}

/// A request that is not answered with what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dropped {
    /// There is nobody whom an answer may be sent to.
    Unanswerable,
    /// The asker is told why.
    Refused(Problem, Encoding),
}

/// Looks at a request to a responder of a shard.
pub(super) fn admit(shard: Shard, request: &Request) -> Result<Asked, Dropped> {
    look(shard, request.subject(), request.reply(), request.headers.content_type(), &request.payload)
}

/// How a request is encoded; none if that is no encoding of ours. Whoever says nothing of it reads JSON: it is what people
/// send by hand.
pub(super) fn encoding(content_type: Option<&str>) -> Option<Encoding> {
    content_type.map_or(Some(Encoding::Json), Encoding::from_content_type)
}

fn look(
    shard: Shard,
    subject: &str,
    reply: Option<&str>,
    content_type: Option<&str>,
    payload: &[u8],
) -> Result<Asked, Dropped> {
    let (verb, profile) = subjects::parse_request(shard, subject).map_err(|_| Dropped::Unanswerable)?;
    if !reply.is_some_and(|reply| subjects::may_answer(reply, &profile)) {
        return Err(Dropped::Unanswerable);
    }
    let encoding = encoding(content_type)
        .ok_or_else(|| Dropped::Refused(Problem::invalid("the Content-Type is not one of Roam's"), Encoding::Json))?;
    if !shard.holds_profile(&profile) {
        return Err(Dropped::Refused(Problem::of_another_shard(), encoding));
    }
    let ask = read(verb, &profile, encoding, payload).map_err(|problem| Dropped::Refused(problem, encoding))?;
    Ok(Asked { profile, encoding, ask })
}

fn read(verb: Verb, profile: &Profile, encoding: Encoding, payload: &[u8]) -> Result<Ask, Problem> {
    match verb {
        Verb::Latest => {
            let request: LatestRequest = decode_or_default(payload, encoding)?;
            request.validate()?;
            Ok(Ask::Latest(request))
        }
        Verb::Changes => {
            let request: ChangesRequest = decode_or_default(payload, encoding)?;
            request.validate()?;
            let place = request.cursor.map(|cursor| cursor.open(profile)).transpose()?;
            Ok(Ask::Changes { request, since: place })
        }
        Verb::History => {
            let request: HistoryRequest = decode(payload, encoding)?;
            request.validate()?;
            Ok(Ask::History(request))
        }
        Verb::Have => {
            let request: HaveRequest = decode(payload, encoding)?;
            request.validate()?;
            Ok(Ask::Have(request))
        }
        Verb::Chunk => Ok(Ask::Chunk(decode(payload, encoding)?)),
    }
}

fn decode_or_default<M: Message + Default>(payload: &[u8], encoding: Encoding) -> Result<M, Problem> {
    if payload.is_empty() { Ok(M::default()) } else { Ok(decode(payload, encoding)?) }
}

impl Asked {
    /// The revision that the profile must have reached: what was asked for, and where the cursor stands.
    pub(super) fn awaited(&self) -> Option<Revision> {
        match &self.ask {
            Ask::Latest(_) if planted("min-revision-ignored") => None,
            Ask::Latest(request) => request.min_revision,
            Ask::Changes { request, since } => {
                request.min_revision.max(Some(since.map_or(Revision::ZERO, |(revision, _)| revision)))
            }
            Ask::History(_) | Ask::Have(_) | Ask::Chunk(_) => None,
        }
    }

    /// How long to wait for it, in milliseconds; none for not at all.
    pub(super) fn wait(&self) -> Option<u32> {
        match &self.ask {
            Ask::Latest(request) => request.wait_ms,
            Ask::Changes { request, .. } => request.wait_ms,
            Ask::History(_) | Ask::Have(_) | Ask::Chunk(_) => None,
        }
        .filter(|wait| *wait > 0)
    }
}

impl Ask {
    pub(super) fn verb(&self) -> Verb {
        match self {
            Self::Latest(_) => Verb::Latest,
            Self::Changes { .. } => Verb::Changes,
            Self::History(_) => Verb::History,
            Self::Have(_) => Verb::Have,
            Self::Chunk(_) => Verb::Chunk,
        }
    }

    /// Whether the stream of chunks answers it, which takes a while.
    pub(super) fn is_of_chunks(&self) -> bool {
        matches!(self, Self::Have(_) | Self::Chunk(_))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Code, Cursor, Timestamp, encode, limits};

    use super::*;

    const LATEST: &str = "roam.v1.latest.acme.alice.mail";
    const INBOX: &str = "_INBOX.acme.alice.laptop.1";

    fn ask(subject: &str, payload: &[u8]) -> Result<Asked, Dropped> {
        look(Shard::ONLY, subject, Some(INBOX), Some(Encoding::Json.content_type()), payload)
    }

    fn code(asked: Result<Asked, Dropped>) -> Code {
        match asked {
            Err(Dropped::Refused(problem, _)) => problem.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn only_an_inbox_of_the_profile_is_answered() {
        let answered = ["_INBOX.acme.alice.laptop.1", "_INBOX.acme.alice.x", "_INBOX.acme.$svc.mailer.7"];
        let dropped = [
            "_INBOX.acme.bob.laptop.1",
            "_INBOX.acme.alice",
            "_INBOX.acme.alicia.x",
            "_INBOX.other.$svc.mailer.7",
            "roam.v1.receipt.acme.alice.mail.laptop",
            "roam.v1.change.acme.alice.mail.laptop",
            "_INBOX.acme.alice.>",
        ];
        for reply in answered {
            assert!(look(Shard::ONLY, LATEST, Some(reply), None, b"").is_ok(), "{reply}");
        }
        for reply in dropped {
            assert_eq!(look(Shard::ONLY, LATEST, Some(reply), None, b""), Err(Dropped::Unanswerable), "{reply}");
        }
        assert_eq!(look(Shard::ONLY, LATEST, None, None, b""), Err(Dropped::Unanswerable));
    }

    #[test]
    fn hostile_subjects_are_dropped() {
        for token in ["*", ">", "%2a", "%zz", "%FF", "", "a b", "$svc", "%41"] {
            let subject = format!("roam.v1.latest.acme.alice.{token}");
            assert_eq!(ask(&subject, b""), Err(Dropped::Unanswerable), "{token}");
        }
        assert_eq!(ask("roam.v1.latest.acme.alice", b""), Err(Dropped::Unanswerable));
        assert_eq!(ask("roam.v1.erase.acme.alice.mail", b""), Err(Dropped::Unanswerable));
    }

    #[test]
    fn whoever_asks_in_another_shard_is_denied() {
        let shards = roam_schemas::Shards::new(4).unwrap();
        let profile: Profile = "acme/alice/mail".parse().unwrap();
        for shard in shards.each() {
            let asked = look(shard, &subjects::in_shard(shard, LATEST), Some(INBOX), None, b"");
            match shards.of_profile(&profile) == shard {
                true => assert_eq!(asked.unwrap().profile, profile),
                false => assert_eq!(code(asked), Code::Denied),
            }
            assert_eq!(look(shard, LATEST, Some(INBOX), None, b""), Err(Dropped::Unanswerable));
        }
    }

    #[test]
    fn an_empty_payload_asks_for_everything() {
        assert_eq!(ask(LATEST, b"").unwrap().ask, Ask::Latest(LatestRequest::default()));
        let changes = ask("roam.v1.changes.acme.alice.mail", b"").unwrap();
        assert_eq!(changes.awaited(), Some(Revision::ZERO));
        assert_eq!(code(ask("roam.v1.history.acme.alice.mail", b"")), Code::Invalid);
    }

    #[test]
    fn bad_requests_are_refused_with_their_code() {
        assert_eq!(code(ask(LATEST, b"rubbish")), Code::Invalid);
        assert_eq!(code(ask(LATEST, br#"{"latest_request_v2":{}}"#)), Code::UnsupportedVersion);
        assert_eq!(code(ask(LATEST, br#"{"latest_request_v1":{"limit":0}}"#)), Code::Invalid);
        assert_eq!(code(ask(LATEST, br#"{"latest_request_v1":{"limit":1001}}"#)), Code::TooLarge);
        assert_eq!(code(ask(LATEST, br#"{"latest_request_v1":{"wait_ms":5001}}"#)), Code::TooLarge);
        let both = br#"{"latest_request_v1":{"select":{"keys":["a"]},"after":"b"}}"#;
        assert_eq!(code(ask(LATEST, both)), Code::Invalid);
        assert_eq!(code(look(Shard::ONLY, LATEST, Some(INBOX), Some("text/html"), b"")), Code::Invalid);
        let keys = vec!["k"; limits::REQUEST_KEYS + 1];
        let many = format!(r#"{{"latest_request_v1":{{"select":{{"keys":{keys:?}}}}}}}"#);
        assert_eq!(code(ask(LATEST, many.as_bytes())), Code::TooLarge);
    }

    #[test]
    fn a_cursor_of_another_profile_is_invalid() {
        let other: Profile = "acme/bob/mail".parse().unwrap();
        let cursor = Some(Cursor::new(&other, Revision::new(3), Timestamp::from_nanos(5)));
        let request = ChangesRequest { cursor, ..ChangesRequest::default() };
        let payload = encode(&request, Encoding::Json).unwrap();
        assert_eq!(code(ask("roam.v1.changes.acme.alice.mail", &payload)), Code::Invalid);
        assert_eq!(ask("roam.v1.changes.acme.bob.mail", &payload), Err(Dropped::Unanswerable));
    }
}
