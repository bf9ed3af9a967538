//! Validate: tells a valid change from an invalid one, and both from what is not ours. Identity comes from the subject
//! alone. It looks at one message and at nothing else: no state, no clock, no bus.
//!
//! [`Validated`] can only be made here, and only what is validated can be stamped.

use roam_nats::{Delivery, Message};
use roam_schemas::{
    Change, ChangeId, Device, Draft, Encoding, Problem, Profile, Shard, decode, limits::CHANGE_BYTES, subjects,
};

/// What a delivery turned out to be.
pub(crate) enum Verdict {
    /// A change that can be stamped.
    Valid(Validated),
    /// A change that must be refused, for good.
    Invalid(Invalid),
    /// No change at all: without our content type, such as a PubAck that was steered here. Nobody is answered.
    Foreign(Delivery),
}

/// A delivery with the valid change that it holds.
pub(crate) struct Validated {
    delivery: Delivery,
    sender: Sender,
    encoding: Encoding,
    change: Change,
}

/// A delivery with the reason why its change is refused.
pub(crate) struct Invalid {
    /// What was delivered.
    pub(crate) delivery: Delivery,
    /// Why it is refused, and who is told.
    pub(crate) refusal: Refusal,
}

/// Why a change is refused, and who is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Who published it; nobody if the subject names nobody.
    pub(crate) sender: Option<Sender>,
    /// The encoding that its content type names, decodable or not.
    pub(crate) encoding: Encoding,
    /// Its id, if that much could be decoded.
    pub(crate) id: Option<ChangeId>,
    /// What is wrong.
    pub(crate) problem: Problem,
}

/// Whom a subject names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The profile to change.
    pub(crate) profile: Profile,
    /// The device that publishes.
    pub(crate) device: Device,
}

/// Examines a delivery of a shard.
pub(crate) fn validate(shard: Shard, delivery: Delivery) -> Verdict {
    match examine(shard, &delivery.message) {
        Finding::Valid { sender, encoding, change } => Verdict::Valid(Validated { delivery, sender, encoding, change }),
        Finding::Refused(refusal) => Verdict::Invalid(Invalid { delivery, refusal }),
        Finding::Foreign => Verdict::Foreign(delivery),
    }
}

impl Validated {
    /// The delivery, who sent it, in which encoding, and the change.
    pub(crate) fn into_parts(self) -> (Delivery, Sender, Encoding, Change) {
        (self.delivery, self.sender, self.encoding, self.change)
    }
}

enum Finding {
    Valid { sender: Sender, encoding: Encoding, change: Change },
    Refused(Refusal),
    Foreign,
}

fn examine(shard: Shard, message: &Message) -> Finding {
    let Some(encoding) = message.headers.encoding() else {
        return Finding::Foreign;
    };
    let sender = match subjects::parse_change(shard, &message.subject) {
        Ok((profile, device)) => Sender { profile, device },
        Err(error) => {
            let problem = Problem::invalid(error.to_string());
            return Finding::Refused(Refusal { sender: None, encoding, id: None, problem });
        }
    };
    let mut id = None;
    let change = read(&message.payload, encoding, &mut id);
    // NATS puts all that is published on the subject of a client into the right shard. Whoever may name a shard can be wrong.
    let change = if shard.holds_profile(&sender.profile) { change } else { Err(Problem::of_another_shard()) };
    match change {
        Ok(change) => Finding::Valid { sender, encoding, change },
        Err(problem) => Finding::Refused(Refusal { sender: Some(sender), encoding, id, problem }),
    }
}

/// The id is told as soon as it is known, so that a refusal can name it.
fn read(payload: &[u8], encoding: Encoding, id: &mut Option<ChangeId>) -> Result<Change, Problem> {
    // Looked at before decoding, so that no more memory is spent on a payload than a valid one could need.
    if payload.len() > CHANGE_BYTES {
        return Err(Problem::too_large("a change is too large, in bytes", CHANGE_BYTES, payload.len()));
    }
    let draft: Draft = decode(payload, encoding)?;
    *id = Some(draft.id);
    draft.validate(payload.len())
}

#[cfg(test)]
mod tests;
