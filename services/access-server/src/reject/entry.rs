//! What is kept of a refused change in ROAM_REJECTED, and what its publisher is told. Nothing is sent here.

use bytes::Bytes;
use roam_nats::{Headers, Message};
use roam_schemas::{EncodeError, Outcome, Receipt, RejectedEntry, encode};

use crate::validate::{Refusal, Sender};

/// A message to send.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

/// The entry of ROAM_REJECTED: the original, cut, with what is known of it in the headers. `sequence` is what it had in
/// ROAM_CHANGES.
pub(super) fn entry(original: &Message, sequence: u64, refusal: &Refusal) -> Letter {
    let entry = RejectedEntry {
        profile: match &refusal.sender {
            Some(Sender::Of(profile, _)) => Some(profile),
            // It is of several users, or of none.
            Some(Sender::OfBulk(..)) | None => None,
        },
        subject: &original.subject,
        sequence,
        encoding: refusal.encoding,
        payload: &original.payload,
        problem: &refusal.problem,
    };
    let headers = entry.headers().into_iter().fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
    // A copy, because a part of the original would keep all of it in memory.
    Letter { subject: entry.filed_on(), headers, payload: Bytes::copy_from_slice(entry.kept()) }
}

/// The receipt, in the encoding of the change; none if its subject names nobody to send it to.
pub(super) fn receipt(sequence: u64, refusal: &Refusal) -> Result<Option<Letter>, EncodeError> {
    let Some(sender) = &refusal.sender else { return Ok(None) };
    let outcome = Outcome::Rejected(refusal.problem.clone());
    let receipt = Receipt { sequence, id: refusal.id, again: false, outcome };
    let payload = encode(&receipt, refusal.encoding)?.into();
    let headers = Headers::new().with_content_type(refusal.encoding);
    Ok(Some(Letter { subject: sender.receipt_subject(), headers, payload }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{
        App, ChangeId, Device, Encoding, Problem, Profile, Tenant, User, decode, headers, limits::REJECTED_BYTES,
        payload_hash, subjects,
    };

    use super::*;

    fn original(payload: Vec<u8>) -> Message {
        let headers = Headers::new().with_content_type(Encoding::Json);
        Message { subject: "roam.v1.change.a.b.c.d".to_owned(), reply: None, headers, payload: payload.into() }
    }

    fn refusal(sender: Option<Sender>) -> Refusal {
        let id = Some(ChangeId::from_bytes([7; 16]));
        Refusal { sender, encoding: Encoding::Json, id, problem: Problem::too_large("it is too large", 3, 4) }
    }

    fn sender() -> Sender {
        let (tenant, user) = (Tenant::parse("a").unwrap(), User::parse("b@c").unwrap());
        let profile = Profile { tenant, user, app: App::parse("mail").unwrap() };
        Sender::Of(profile, Device::parse("laptop").unwrap())
    }

    #[test]
    fn an_entry_says_what_was_refused_and_why() {
        let entry = entry(&original(b"abc".to_vec()), 42, &refusal(Some(sender())));
        assert_eq!(entry.subject, "roam.v1.rejected.a.b%40c");
        assert_eq!(&entry.payload[..], b"abc");
        let expected = [
            (headers::CONTENT_TYPE, "application/json"),
            (headers::CODE, "too_large"),
            (headers::REASON, "too_large: it is too large (limit 3, actual 4)"),
            (headers::SUBJECT, "roam.v1.change.a.b.c.d"),
            (headers::SEQUENCE, "42"),
            (headers::HASH, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
            (headers::SIZE, "3"),
        ];
        for (name, value) in expected {
            assert_eq!(entry.headers.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_large_original_is_cut_but_hashed_and_measured_whole() {
        let payload = vec![b'x'; REJECTED_BYTES + 1];
        let entry = entry(&original(payload.clone()), 1, &refusal(Some(sender())));
        assert_eq!(entry.payload.len(), REJECTED_BYTES);
        assert_eq!(entry.headers.get(headers::SIZE), Some((REJECTED_BYTES + 1).to_string().as_str()));
        assert_eq!(entry.headers.get(headers::HASH), Some(payload_hash(&payload).as_str()));
    }

    #[test]
    fn the_publisher_is_told_in_the_encoding_of_the_change() {
        let refusal = refusal(Some(sender()));
        let letter = receipt(42, &refusal).unwrap().unwrap();
        assert_eq!(letter.subject, "roam.v1.receipt.a.b%40c.mail.laptop");
        assert_eq!(letter.headers.encoding(), Some(Encoding::Json));
        let receipt: Receipt = decode(&letter.payload, Encoding::Json).unwrap();
        let outcome = Outcome::Rejected(refusal.problem);
        assert_eq!(receipt, Receipt { sequence: 42, id: refusal.id, again: false, outcome });
    }

    #[test]
    fn a_bulk_is_filed_under_nobody_and_its_service_told() {
        let (tenant, app) = (Tenant::parse("a").unwrap(), App::parse("mail").unwrap());
        let refusal =
            Refusal { id: None, ..refusal(Some(Sender::OfBulk(tenant, app, Device::from_token("$svc-hr").unwrap()))) };
        assert_eq!(entry(&original(Vec::new()), 1, &refusal).subject, subjects::rejected_of_nobody());
        let letter = receipt(42, &refusal).unwrap().unwrap();
        assert_eq!(letter.subject, "roam.v1.receipt.a.$bulk.mail.$svc-hr");
        let receipt: Receipt = decode(&letter.payload, Encoding::Json).unwrap();
        assert_eq!((receipt.sequence, receipt.id), (42, None));
    }

    #[test]
    fn a_subject_that_names_nobody_is_filed_and_nobody_is_told() {
        let refusal = refusal(None);
        assert_eq!(entry(&original(Vec::new()), 1, &refusal).subject, subjects::rejected_of_nobody());
        assert!(receipt(1, &refusal).unwrap().is_none());
    }
}
