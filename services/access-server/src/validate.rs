//! Validate: tells a valid change from an invalid one, and both from what is not ours. Identity comes from the subject
//! alone; of a bulk the user alone stands beside each change, and only a service publishes those. It looks at one message and at nothing else: no state, no clock, no bus.
//!
//! [`Validated`] can only be made here, and only what is validated can be stamped.

use roam_nats::{Delivery, Message};
use roam_schemas::{
    App, Bulk, BulkChange, Change, ChangeId, Device, Draft, Encoding, Problem, Profile, Shard, Tenant, User, decode,
    limits::CHANGE_BYTES, subjects,
};

/// What a delivery turned out to be.
pub(crate) enum Verdict {
    /// A change that can be stamped.
    Valid(Validated),
    /// Changes that can be stamped, and whose users nobody has looked at yet.
    Bulk(Validated),
    /// What must be refused, for good.
    Invalid(Invalid),
    /// No change at all: without our content type, such as a PubAck that was steered here. Nobody is answered.
    Foreign(Delivery),
}

/// A delivery with the valid changes that it holds: one, or those of a bulk in their order.
pub(crate) struct Validated {
    delivery: Delivery,
    device: Device,
    encoding: Encoding,
    changes: Vec<(Profile, Change)>,
}

/// A delivery with the reason why what it holds is refused.
pub(crate) struct Invalid {
    /// What was delivered.
    pub(crate) delivery: Delivery,
    /// Why it is refused, and who is told.
    pub(crate) refusal: Refusal,
}

/// Why a change is refused, or a bulk as a whole, and who is told.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A device, or a service, that changes this profile.
    Of(Profile, Device),
    /// A service that changes profiles of this tenant and app.
    OfBulk(Tenant, App, Device),
}

/// Examines a delivery of a shard.
pub(crate) fn validate(shard: Shard, delivery: Delivery) -> Verdict {
    match examine(shard, &delivery.message) {
        Finding::Valid { profile, device, encoding, change } => {
            Verdict::Valid(Validated { delivery, device, encoding, changes: vec![(profile, change)] })
        }
        Finding::Bulk { device, encoding, changes } => Verdict::Bulk(Validated { delivery, device, encoding, changes }),
        Finding::Refused(refusal) => Verdict::Invalid(Invalid { delivery, refusal }),
        Finding::Foreign => Verdict::Foreign(delivery),
    }
}

impl Validated {
    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Who wrote them, and in which encoding.
    pub(crate) fn written(&self) -> (&Device, Encoding) {
        (&self.device, self.encoding)
    }

    /// The profile and the id of each.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Profile, ChangeId)> {
        self.changes.iter().map(|(profile, change)| (profile, change.id()))
    }

    /// What was delivered.
    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The delivery, who wrote it, in which encoding, and the changes.
    pub(crate) fn into_parts(self) -> (Delivery, Device, Encoding, Vec<(Profile, Change)>) {
        (self.delivery, self.device, self.encoding, self.changes)
    }
}

impl Sender {
    /// Where it hears what became of what it published.
    pub(crate) fn receipt_subject(&self) -> String {
        match self {
            Self::Of(profile, device) => subjects::receipt(profile, device),
            Self::OfBulk(tenant, app, device) => subjects::receipt_of_bulk(tenant, app, device),
        }
    }
}

enum Finding {
    Valid { profile: Profile, device: Device, encoding: Encoding, change: Change },
    Bulk { device: Device, encoding: Encoding, changes: Vec<(Profile, Change)> },
    Refused(Refusal),
    Foreign,
}

fn examine(shard: Shard, message: &Message) -> Finding {
    let Some(encoding) = message.headers.encoding() else {
        return Finding::Foreign;
    };
    let sender = match sender(shard, &message.subject) {
        Ok(sender) => sender,
        Err(problem) => return Finding::Refused(Refusal { sender: None, encoding, id: None, problem }),
    };
    let mut id = None;
    let found = match &sender {
        Sender::Of(profile, device) => read(&message.payload, encoding, &mut id)
            .and_then(|change| of_this_shard(shard, profile.clone(), change))
            .map(|(profile, change)| Finding::Valid { profile, device: device.clone(), encoding, change }),
        Sender::OfBulk(tenant, app, device) => read_bulk(shard, tenant, app, &message.payload, encoding)
            .map(|changes| Finding::Bulk { device: device.clone(), encoding, changes }),
    };
    found.unwrap_or_else(|problem| Finding::Refused(Refusal { sender: Some(sender), encoding, id, problem }))
}

fn sender(shard: Shard, subject: &str) -> Result<Sender, Problem> {
    match subjects::parse_change(shard, subject) {
        Ok((profile, device)) => Ok(Sender::Of(profile, device)),
        Err(error) => match subjects::parse_bulk(shard, subject) {
            Ok((tenant, app, device)) => Ok(Sender::OfBulk(tenant, app, device)),
            Err(_) => Err(Problem::invalid(error.to_string())),
        },
    }
}

/// NATS puts all that is published on the subject of a client into the right shard. Whoever may name a shard can be wrong.
fn of_this_shard(shard: Shard, profile: Profile, change: Change) -> Result<(Profile, Change), Problem> {
    match shard.holds_profile(&profile) {
        true => Ok((profile, change)),
        false => Err(Problem::of_another_shard()),
    }
}

/// The id is told as soon as it is known, so that a refusal can name it.
fn read(payload: &[u8], encoding: Encoding, id: &mut Option<ChangeId>) -> Result<Change, Problem> {
    check_size("a change is too large, in bytes", payload)?;
    let draft: Draft = decode(payload, encoding)?;
    *id = Some(draft.id);
    draft.validate(payload.len())
}

/// All of it or nothing: which of its changes is at fault is said, in words.
fn read_bulk(
    shard: Shard,
    tenant: &Tenant,
    app: &App,
    payload: &[u8],
    encoding: Encoding,
) -> Result<Vec<(Profile, Change)>, Problem> {
    check_size("a bulk is too large, in bytes", payload)?;
    let bulk: Bulk = decode(payload, encoding)?;
    bulk.check()?;
    let part = |BulkChange { user, change }: BulkChange| {
        let user = User::parse(user).map_err(|error| Problem::invalid(error.to_string()))?;
        let profile = Profile { tenant: tenant.clone(), user, app: app.clone() };
        of_this_shard(shard, profile, change.validate(payload.len())?)
    };
    let numbered = |(number, change): (usize, BulkChange)| {
        part(change).map_err(|problem| Problem {
            message: format!("change {number} of a bulk: {}", problem.message),
            ..problem
        })
    };
    (1..).zip(bulk.changes).map(numbered).collect()
}

/// Looked at before decoding, so that no more memory is spent on a payload than a valid one could need.
fn check_size(message: &str, payload: &[u8]) -> Result<(), Problem> {
    match payload.len() > CHANGE_BYTES {
        true => Err(Problem::too_large(message, CHANGE_BYTES, payload.len())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
